"""The config of a model that is an encoder and a head."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from segplus.models.dilation import OUTPUT_STRIDES, can_dilate, list_dilatable
from segplus.models.encoders import list_encoders
from segplus.models.heads import check_head_values, check_part_values, name_nearest
from segplus.models.heads.detail_branch import DetailBranch
from segplus.models.heads.fusion_neck import FusionNeck
from segplus.models.heads.point_refinement import PointRefinement

_STAGE_KEYS = ("out_features", "out_indices")


class EncoderHeadConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Any encoder of the library under any head.

    Args:
        backbone_config: The encoder's config, or its values with `model_type`. Beside `backbone` they are values over
            that checkpoint's, and need no `model_type`. Without both, a ResNet-50.
        backbone: Hub id or folder that the encoder's config is read from, and its weights where a training begins.
        head: Name of the head.
        head_config: The head's own values; what is left out is the head's default.
        neck: "bifpn" fuses the encoder's maps before the head; None is no neck.
        neck_config: The neck's own values.
        detail_branch: Correct the head's logits by a shallow branch on the image, at stride 4.
        detail_config: The branch's own values.
        refinement: "point" classifies uncertain cells of the logits again; None refines nothing.
        refinement_config: The point head's own values.
        use_auxiliary_head: Train an FCN head on the encoder's map before the last.
        output_stride: 8 or 16 dilates the last stages of a convolutional encoder; None is the encoder's own.
        num_channels: Channels of the images; None is the encoder's own.

    Raises:
        ValueError: If a value, the head or the encoder is unknown, or the encoder cannot have the output stride.
    """

    model_type = "segplus-encoder-head"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        backbone_config: PreTrainedConfig | dict[str, Any] | None = None,
        backbone: str | None = None,
        head: str = "deeplabv3plus",
        head_config: dict[str, Any] | None = None,
        neck: str | None = None,
        neck_config: dict[str, Any] | None = None,
        detail_branch: bool = False,
        detail_config: dict[str, Any] | None = None,
        refinement: str | None = None,
        refinement_config: dict[str, Any] | None = None,
        use_auxiliary_head: bool = False,
        output_stride: int | None = None,
        num_channels: int | None = None,
        **values: Any,
    ) -> None:
        self.backbone = backbone
        self.backbone_config = _resolve_encoder(backbone_config, backbone)
        self.head = head
        self.head_config = dict(head_config or {})
        check_head_values(head, self.head_config)
        self.neck, self.neck_config = neck, dict(neck_config or {})
        self.detail_branch, self.detail_config = detail_branch, dict(detail_config or {})
        self.refinement, self.refinement_config = refinement, dict(refinement_config or {})
        _check_option("neck", neck, "bifpn", FusionNeck, self.neck_config)
        if not isinstance(detail_branch, bool):
            raise ValueError(f"detail_branch: found {detail_branch!r}, allowed: true, false")
        _check_option("detail", "branch" if detail_branch else None, "branch", DetailBranch, self.detail_config)
        _check_option("refinement", refinement, "point", PointRefinement, self.refinement_config)
        self.use_auxiliary_head = use_auxiliary_head
        self.output_stride = _resolve_stride(output_stride, self.backbone_config)
        self.num_channels = num_channels
        if self.backbone_config is not None:
            self._share_channels(self.backbone_config)
        super().__init__(**values)

    def _share_channels(self, encoder: PreTrainedConfig) -> None:
        """Keep the number of channels the same here and in the encoder's config."""
        own = vars(encoder).get("num_channels")
        if self.num_channels is None:
            self.num_channels = 3 if own is None else own
        elif own is not None:
            encoder.num_channels = self.num_channels

    def complete(self) -> PreTrainedConfig:
        """Return the encoder's config; the default one is written down here, so that the saved file says all."""
        if self.backbone_config is None:
            self.backbone_config = CONFIG_MAPPING["resnet"]()
            self.output_stride = _resolve_stride(self.output_stride, self.backbone_config)
            self._share_channels(self.backbone_config)
        return self.backbone_config


def _check_option(key: str, given: str | None, name: str, part: type[nn.Module], values: dict[str, Any]) -> None:
    """Refuse an option of another name than it has, and values that it does not have or that are not for it."""
    if given not in (None, name):
        raise ValueError(f"{key}: found {given!r}, allowed: {name}, null")
    if given is None and values:
        raise ValueError(f"{key}_config: there is no {key} that it could be for")
    check_part_values(part, name, values, f"{key}_config")


def find_encoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of the encoder inside a checkpoint: its backbone's, or its own.

    Raises:
        ValueError: If it is no encoder that is known.
    """
    inner = vars(config).get("backbone_config")
    found = inner if isinstance(inner, PreTrainedConfig) else config
    if found.model_type not in list_encoders():
        names = list_encoders()
        raise ValueError(f"backbone: '{found.model_type}' is no encoder; {name_nearest(found.model_type, names)}")
    return found


def _resolve_encoder(given: PreTrainedConfig | dict[str, Any] | None, source: str | None) -> PreTrainedConfig | None:
    if isinstance(given, PreTrainedConfig):
        return find_encoder_config(given)
    values = dict(given or {})
    model_type = values.pop("model_type", None)
    if model_type is not None:
        if model_type not in list_encoders():
            near = name_nearest(str(model_type), list_encoders())
            raise ValueError(f"backbone_config.model_type: unknown encoder '{model_type}'; {near}")
        return _apply_values(CONFIG_MAPPING[model_type](), values)
    if source is None:
        if values:
            raise ValueError("backbone_config: it names no model_type, and there is no backbone to take it from")
        return None
    return _apply_values(_forget_origin(find_encoder_config(AutoConfig.from_pretrained(source))), values)


def _forget_origin(config: PreTrainedConfig) -> PreTrainedConfig:
    """Drop what an encoder's config says of the model that it was part of: its classes, its path."""
    config.id2label, config.label2id = {0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    config.architectures, config.name_or_path, config.dtype = None, "", None
    return config


def _apply_values(config: PreTrainedConfig, values: dict[str, Any]) -> PreTrainedConfig:
    """Return the encoder's config with these values over it; the library would keep unknown keys in silence."""
    if not values:
        return config
    known = {*config.to_dict(), *_STAGE_KEYS}
    is_saved = "transformers_version" in values  # by another version of the library, perhaps, with other keys
    for key in values:
        if key not in known and not is_saved:
            raise ValueError(f"backbone_config: {config.model_type} has no '{key}'; {name_nearest(str(key), [*known])}")
    # Names of stages and sums over them follow from the fields, and must follow from the new ones.
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.init}
    fields = {key: value for key, value in fields.items() if not key.startswith("_") and key not in _STAGE_KEYS}
    return type(config)(**{**fields, **values})


def _resolve_stride(asked: int | None, encoder: PreTrainedConfig | None) -> int | None:
    if asked is None:
        return None if encoder is None else vars(encoder).get("output_stride")
    if asked not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride: found {asked}, allowed: {', '.join(map(str, OUTPUT_STRIDES))}")
    if encoder is not None and not can_dilate(encoder.model_type):
        raise ValueError(
            f"output_stride: the stages of {encoder.model_type} cannot be dilated; leave it out, or choose one of "
            f"{', '.join(list_dilatable())}"
        )
    return asked

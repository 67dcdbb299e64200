"""Any encoder of the library as a list of maps: what backbones give, and what base models keep in their states."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoBackbone, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from segplus.models.dilation import dilate_encoder, set_own_stride
from segplus.models.heads.blocks import Stage

# Base models without a backbone class, and the parts behind the last map, which no segmentation head reads.
ADAPTED_ENCODERS: dict[str, tuple[str, ...]] = {
    "deit": (),
    "efficientnet": ("encoder.top_conv", "encoder.top_bn"),
    "mobilenet_v2": ("conv_1x1",),
    "mobilevit": ("conv_1x1_exp",),
    "segformer": (),
    "vit": (),
}
# Where the map of stride 2 is made, in encoders that keep it to themselves.
_STEMS = {"mobilenet_v2": "conv_stem", "resnet": "embedder.embedder", "rt_detr_resnet": "embedder.embedder"}
_PROBED_SIDE_PX = 256
_PLAIN_LAYERS = 4
# What was found out about an encoder: a pass through a large one takes a second, and loading builds a model twice.
_KNOWN_STAGES: dict[tuple[object, ...], tuple[list[int], list[Stage]]] = {}


@dataclass(frozen=True)
class EncoderPlan:
    """Which of an encoder's maps are read.

    Args:
        stages: Channels and strides of the maps, finest first.
        indices: Their positions among the backbone's stages, or among the base model's hidden states.
        stem: Name of the module whose output is the first map; None where the encoder gives every map itself.
        multiple: What the sides of an image are resampled to a multiple of; 1 takes any side.
    """

    stages: tuple[Stage, ...]
    indices: tuple[int, ...]
    stem: str | None = None
    multiple: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether all maps have one stride, as those of a plain vision transformer."""
        return self.multiple > 1


def has_backbone_class(config: PreTrainedConfig) -> bool:
    """Tell whether AutoBackbone builds this encoder; the others are read through their base model."""
    return config.model_type in MODEL_FOR_BACKBONE_MAPPING_NAMES


def list_encoders() -> list[str]:
    """List the model types that can be encoders."""
    return sorted({*MODEL_FOR_BACKBONE_MAPPING_NAMES, *ADAPTED_ENCODERS})


def build_encoder(config: PreTrainedConfig, plan: EncoderPlan, output_stride: int | None = None) -> PreTrainedModel:
    """Return the encoder with random weights, without what no map needs, dilated to the output stride.

    Raises:
        ValueError: If the encoder has nothing to dilate.
    """
    encoder = _build(config, plan.indices, output_stride)
    if output_stride is not None and not set_own_stride(config, output_stride):
        dilate_encoder(encoder, output_stride)
    return encoder


def plan_encoder(
    config: PreTrainedConfig, takes: str, *, with_auxiliary: bool = False, output_stride: int | None = None
) -> EncoderPlan:
    """Return which maps a head of this type reads, found out by one pass on tensors without values.

    Args:
        config: The encoder's config; its `out_indices` are kept where they name several stages.
        takes: The head's `takes`.
        with_auxiliary: Whether an auxiliary head reads the map before the last.
        output_stride: Stride that dilation keeps the maps at; None is the encoder's own.

    Raises:
        ValueError: If the encoder cannot be read as maps.
    """
    asked = _list_asked_stages(config)
    indices, maps = _probe(config, asked)
    patch = _find_patch(config)
    if len({stage.stride for stage in maps}) == 1 and patch > 1:
        plan = EncoderPlan(tuple(maps), tuple(indices), multiple=patch)
        return _choose_layers(plan, takes, with_auxiliary, keep=asked is not None)
    if asked is None:
        indices, maps = _keep_last_of_stride(indices, maps, finest=2 if takes == "stem_pyramid" else 4)
    plan = EncoderPlan(tuple(maps), tuple(indices))
    if takes == "last":
        start = -2 if with_auxiliary else -1
        plan = replace(plan, stages=plan.stages[start:], indices=plan.indices[start:])
    elif takes == "stem_pyramid" and maps[0].stride > 2 and config.model_type in _STEMS:
        plan = _add_stem(config, plan, _STEMS[config.model_type])
    if output_stride is None:
        return plan
    stages = tuple(replace(stage, stride=min(stage.stride, output_stride)) for stage in plan.stages)
    return replace(plan, stages=stages)


def read_maps(encoder: PreTrainedModel, plan: EncoderPlan, pixel_values: torch.Tensor) -> list[torch.Tensor]:
    """Return the plan's maps of normalised images (N, C, H, W), finest first, each (N, C_i, h_i, w_i)."""
    pixel_values = _fit_to_patches(pixel_values, plan.multiple)
    if plan.stem is None:
        return _run(encoder, plan.indices, pixel_values)
    caught: list[torch.Tensor] = []
    hook = encoder.get_submodule(plan.stem).register_forward_hook(lambda _, __, output: caught.append(output))
    try:
        maps = _run(encoder, plan.indices, pixel_values)
    finally:
        hook.remove()
    return [caught[0], *maps]


def _build(config: PreTrainedConfig, indices: Sequence[int], output_stride: int | None) -> PreTrainedModel:
    config = _copy_config(config)
    if output_stride is not None:
        set_own_stride(config, output_stride)
    if has_backbone_class(config):
        config.out_indices = list(indices)
        return AutoBackbone.from_config(config)  # type: ignore[no-any-return, no-untyped-call]
    pooling = {"add_pooling_layer": False} if config.model_type in ("vit", "deit") else {}
    encoder = AutoModel.from_config(config, **pooling)  # type: ignore[no-untyped-call]
    for name in ADAPTED_ENCODERS[config.model_type]:
        encoder.set_submodule(name, nn.Identity())
    return encoder  # type: ignore[no-any-return]


def _copy_config(config: PreTrainedConfig) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    for name in ("hidden_sizes", "depths"):  # ConvNeXt and FocalNet add a list to their default, which is a tuple
        if isinstance(vars(config).get(name), tuple):
            setattr(config, name, list(vars(config)[name]))
    return config


def _list_asked_stages(config: PreTrainedConfig) -> list[int] | None:
    """Return the stages that the config names, or None where it names the last alone, which is the default."""
    if not has_backbone_class(config):
        return None
    asked = list(getattr(config, "out_indices", None) or [])
    names = getattr(config, "stage_names", None)  # timm's are known once the model is built
    return [index % len(names) if names else index for index in asked] if len(asked) > 1 else None


def _probe(config: PreTrainedConfig, asked: Sequence[int] | None) -> tuple[list[int], list[Stage]]:
    """Return the encoder's stages, or those that are asked for, undilated."""
    if asked is not None or not has_backbone_class(config):
        return _probe_stages(config, list(asked or []))
    every = list(range(_count_stages(config)))
    try:
        return _probe_stages(config, every)
    except ValueError:  # MaskFormer's Swin has a stem that it does not give
        return _probe_stages(config, every[1:])


def _count_stages(config: PreTrainedConfig) -> int:
    names = getattr(config, "stage_names", None)
    if names is None:
        with torch.device("meta"), _explain_probe(config):
            names = cast("list[str]", _build(config, [-1], 32).stage_names)
    return len(names)


@contextmanager
def _explain_probe(config: PreTrainedConfig) -> Iterator[None]:
    try:
        yield
    except (AssertionError, AttributeError, ImportError, IndexError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"backbone_config: {config.model_type} cannot be read as maps: {reason}") from error


def _probe_stages(config: PreTrainedConfig, indices: list[int]) -> tuple[list[int], list[Stage]]:
    key = (config.to_json_string(use_diff=False), *indices)
    if key in _KNOWN_STAGES:
        return _KNOWN_STAGES[key]
    with torch.device("meta"), torch.no_grad(), _explain_probe(config):
        encoder = _build(config, indices, 32).eval()  # type: ignore[no-untyped-call]
        height, width = _find_size(config)
        maps = _run(encoder, None, torch.zeros(1, _count_inputs(config), height, width))
    stages = []
    for features in maps:
        if features.ndim != 4:
            raise ValueError(
                f"backbone_config: {config.model_type} gives tokens of shape {tuple(features.shape)}, no map"
            )
        strides = round(height / features.shape[2]), round(width / features.shape[3])
        if strides[0] != strides[1]:
            raise ValueError(
                f"backbone_config: {config.model_type} reduces height and width by different factors {strides}"
            )
        stages.append(Stage(features.shape[1], strides[0]))
    _KNOWN_STAGES[key] = indices or list(range(len(stages))), stages
    return _KNOWN_STAGES[key]


def _find_size(config: PreTrainedConfig) -> tuple[int, int]:
    side = vars(config).get("image_size") or _PROBED_SIDE_PX
    if isinstance(side, int) and side % 32 and _find_patch(config) == 1:
        side = _PROBED_SIDE_PX  # a convolutional encoder takes any size; this one has whole strides
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))


def _count_inputs(config: PreTrainedConfig) -> int:
    return int(vars(config).get("num_channels") or 3)


def _find_patch(config: PreTrainedConfig) -> int:
    patch = vars(config).get("patch_size") or 1
    return patch if isinstance(patch, int) else int(patch[0])


def _choose_layers(plan: EncoderPlan, takes: str, with_auxiliary: bool, *, keep: bool) -> EncoderPlan:
    """Choose layers of a plain transformer: the last, or four at equal distances where several are read."""
    total = len(plan.indices)
    if takes == "layers" or with_auxiliary:
        depth = total - 1  # the first are the embeddings
        chosen = sorted({max(depth * part // _PLAIN_LAYERS, 1) for part in range(1, _PLAIN_LAYERS + 1)})
        if keep or depth < 1:
            chosen = list(range(total))
    else:
        chosen = [total - 1]
    return replace(plan, stages=tuple(plan.stages[i] for i in chosen), indices=tuple(plan.indices[i] for i in chosen))


def _keep_last_of_stride(indices: list[int], maps: list[Stage], finest: int) -> tuple[list[int], list[Stage]]:
    last = {stage.stride: position for position, stage in enumerate(maps) if stage.stride >= finest}
    return [indices[position] for position in last.values()], [maps[position] for position in last.values()]


def _add_stem(config: PreTrainedConfig, plan: EncoderPlan, stem: str) -> EncoderPlan:
    with torch.device("meta"), torch.no_grad():
        encoder = _build(config, plan.indices, 32).eval()  # type: ignore[no-untyped-call]
        with_stem = replace(plan, stem=stem)
        channels = read_maps(encoder, with_stem, torch.zeros(1, _count_inputs(config), 64, 64))[0].shape[1]
    return replace(with_stem, stages=(Stage(channels, 2), *plan.stages))


def _fit_to_patches(pixel_values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Resample images to whole patches: cutting or padding would shift the logits against the image."""
    if multiple == 1:
        return pixel_values
    size = [max(round(side / multiple), 1) * multiple for side in pixel_values.shape[2:]]
    if size == list(pixel_values.shape[2:]):
        return pixel_values
    return F.interpolate(pixel_values, size=size, mode="bilinear", align_corners=False)


def _run(encoder: PreTrainedModel, indices: Sequence[int] | None, pixel_values: torch.Tensor) -> list[torch.Tensor]:
    options: dict[str, Any] = {}
    if "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters:
        options["interpolate_pos_encoding"] = True
    if has_backbone_class(encoder.config):
        return list(encoder(pixel_values, **options).feature_maps)
    output = encoder(pixel_values, output_hidden_states=True, **options)
    states = list(output.hidden_states)
    if states[-1].ndim == 3:
        states[-1] = output.last_hidden_state  # the only one that the final LayerNorm has seen
        states = [_unflatten(state, pixel_values, _find_patch(encoder.config)) for state in states]
    return states if indices is None else [states[index] for index in indices]


def _unflatten(tokens: torch.Tensor, pixel_values: torch.Tensor, patch: int) -> torch.Tensor:
    """Return the patches among tokens (N, T, D) as a map (N, D, h, w); class and other tokens come first."""
    height, width = pixel_values.shape[2] // patch, pixel_values.shape[3] // patch
    return tokens[:, tokens.shape[1] - height * width :].transpose(1, 2).reshape(len(tokens), -1, height, width)

"""An encoder's weights from a checkpoint of any task: a classifier, a segmentation model, a self-supervised model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    PreTrainedModel,
)

from segplus.errors import InputError
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.encoder_head_config import find_encoder_config
from segplus.models.encoders import has_backbone_class

_NORMALIZATION = ("image_mean", "image_std", "do_normalize", "do_rescale", "rescale_factor")
_SHOWN = 3


@dataclass(frozen=True)
class Transfer:
    """Which weights of an encoder a checkpoint gave.

    Args:
        source: The checkpoint's id or folder.
        loaded: Names of the tensors that were loaded.
        new: Names of the encoder's tensors that the checkpoint does not have.
        left_over: Names of the checkpoint's tensors that the encoder does not have.
    """

    source: str
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    left_over: tuple[str, ...]

    def describe(self) -> str:
        """Return one line: what was loaded, what is new, what was left over."""
        line = f"encoder: {len(self.loaded)} tensors from {self.source}"
        line += f", new: {name_modules(self.new)}" if self.new else ""
        return line + (f", left over: {name_modules(self.left_over)}" if self.left_over else ", nothing left over")


def load_encoder_weights(model: EncoderHeadForSemanticSegmentation, source: str) -> Transfer:
    """Load the encoder's weights from a checkpoint, in place.

    Args:
        model: On the CPU, with as many input channels as the checkpoint has.
        source: Hub id or folder; any task's, of the encoder's own architecture.

    Raises:
        InputError: If no tensor of the checkpoint fits the encoder.
    """
    weights, missing, unexpected = _read_weights(model, source)
    own = model.backbone.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and name not in missing and own[name].shape == value.shape
    }
    learned = [name for name in fitting if name in dict(model.backbone.named_parameters())]
    if not learned:
        raise InputError(
            f"model.config.backbone {source}: no weight of it fits the encoder",
            found=f"{len(weights)} tensors without a counterpart",
            fix="check that backbone and backbone_config name the same architecture and sizes",
        )
    model.backbone.load_state_dict(fitting, strict=False)
    left = [*unexpected, *(name for name in weights if name not in fitting and name not in missing)]
    return Transfer(source, tuple(fitting), tuple(name for name in own if name not in fitting), tuple(left))


def load_encoder_processor(source: str) -> BaseImageProcessor | None:
    """Return the image processor of the encoder's checkpoint, or None where it has none that can be loaded."""
    try:
        return AutoImageProcessor.from_pretrained(source)  # type: ignore[no-any-return, no-untyped-call]
    except (OSError, ValueError, ImportError):
        return None


def copy_normalization(processor: BaseImageProcessor, given: BaseImageProcessor) -> BaseImageProcessor:
    """Return the processor with the normalisation that the encoder learned with.

    One that reads label maps itself is taken as it is: it may do what others cannot, such as exchange red and blue.
    """
    if hasattr(given, "post_process_semantic_segmentation"):
        return given
    values = given.to_dict()
    stated = {key: values[key] for key in _NORMALIZATION if values.get(key) is not None}
    return type(processor).from_dict({**processor.to_dict(), **stated})  # type: ignore[no-any-return]


def _read_weights(
    model: EncoderHeadForSemanticSegmentation, source: str
) -> tuple[dict[str, torch.Tensor], set[str], list[str]]:
    """Return the tensors of the checkpoint's encoder, which of them it did not have, and what it had beside."""
    config = AutoConfig.from_pretrained(source)
    loading: dict[str, Any] = {"output_loading_info": True, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    found: PreTrainedModel
    if find_encoder_config(config) is not config:  # an encoder inside another model
        found, info = AutoModelForSemanticSegmentation.from_pretrained(source, **loading)
        prefix = "backbone."
        weights = {name: value for name, value in found.state_dict().items() if name.startswith(prefix)}
        others = [name for name in found.state_dict() if not name.startswith(prefix)]
        encoder = {name.removeprefix(prefix): value for name, value in weights.items()}
        return encoder, {name.removeprefix(prefix) for name in info["missing_keys"]}, others
    own = model.backbone.config
    if has_backbone_class(own):
        found, info = cast("Any", type(model.backbone)).from_pretrained(source, config=own, **loading)
    else:
        found, info = AutoModel.from_pretrained(source, config=own, **loading)
    mismatched = {entry[0] for entry in info["mismatched_keys"]}
    return found.state_dict(), set(info["missing_keys"]) | mismatched, sorted(info["unexpected_keys"])


def name_modules(names: Iterable[str]) -> str:
    """Return the modules of some tensors, the first three by name."""
    parts = sorted({name.rsplit(".", 1)[0] for name in names})
    more = f" and {len(parts) - _SHOWN} more modules" if len(parts) > _SHOWN else ""
    return ", ".join(parts[:_SHOWN]) + more

"""The families of mask transformers that are known, and what sets each apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig

_LIBRARY_ENCODER = ("model.pixel_level_module.encoder.",)
# A ViT whose last blocks see the queries too: the blocks, and what is before them.
_VIT_ENCODER = ("embeddings.", "layers.", "layernorm.")


@dataclass(frozen=True)
class Family:
    """What one model type does its own way.

    Args:
        encoder: What the names of the encoder's parameters begin with; all others are the head's.
        mask_grid_px: Side of the grid to which the library resizes mask logits before it scores classes; None keeps
            the masks' own grid.
        splits_images: Whether the model takes squares of one size only, so that an image is cut into overlapping ones.
        class_weight: The config's name of the class loss's weight.
        matching_weight: The class term's weight in the matching; None is that of the loss.
        samples_points: Whether masks are compared at sampled points, not at every pixel.
        fixed_config: Values of the config with which alone the library's forward pass, or its pipeline, works without
            texts and without labels.
    """

    encoder: tuple[str, ...] = _LIBRARY_ENCODER
    mask_grid_px: int | None = None
    splits_images: bool = False
    class_weight: str = "class_weight"
    matching_weight: float | None = None
    samples_points: bool = True
    fixed_config: Mapping[str, bool] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "eomt": Family(encoder=_VIT_ENCODER, splits_images=True),
    "eomt_dinov3": Family(encoder=_VIT_ENCODER, splits_images=True),
    "mask2former": Family(mask_grid_px=384, fixed_config={"use_auxiliary_loss": True}),
    "maskformer": Family(
        class_weight="cross_entropy_weight",
        matching_weight=1.0,
        samples_points=False,
        fixed_config={"use_auxiliary_loss": False},
    ),
    "oneformer": Family(fixed_config={"is_training": False, "use_auxiliary_loss": True}),
}


def is_mask_transformer(model_or_config: Any) -> bool:
    """Tell whether a model, or the model of a config, answers with masks and classes of queries."""
    config = model_or_config if isinstance(model_or_config, PreTrainedConfig) else vars(model_or_config).get("config")
    return isinstance(config, PreTrainedConfig) and config.model_type in FAMILIES


def find_family(config: PreTrainedConfig) -> Family:
    """Return the family of a mask transformer."""
    return FAMILIES[config.model_type]


def count_queries(config: PreTrainedConfig) -> int:
    """Return how many queries a mask transformer has: the most classes that it can find in an image."""
    values = config.to_dict()
    return int(values["num_queries"] if "num_queries" in values else values["decoder_config"]["num_queries"])

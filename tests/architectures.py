"""Every architecture of segplus' own: a config small enough to train in a test, and what its parameters count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSemanticSegmentation

from segplus.models.architecture import SegmentationNetwork

CITYSCAPES, CAMVID = 19, 11


@dataclass(frozen=True)
class Architecture:
    """One row.

    Args:
        model_type: Of the config.
        tiny: Values of the config, for tests.
        stride: Of the logits.
        counts: Published counts in millions, each with the values of the config it holds for.
        auxiliary_heads: How many there are.
        overfits_with: Values of the config that learn four images by heart.
        overfits_at: Height and width of these images, as a multiple of their labels'.
    """

    model_type: str
    tiny: dict[str, Any]
    stride: int
    counts: tuple[tuple[dict[str, Any], float], ...] = ()
    auxiliary_heads: int = 0
    overfits_with: dict[str, Any] = field(default_factory=dict)
    overfits_at: int = 1

    def build(self, num_labels: int = 3, **values: Any) -> SegmentationNetwork:
        """Return a small model, always with the same weights."""
        torch.manual_seed(0)
        config = AutoConfig.for_model(self.model_type, **{**self.tiny, "num_labels": num_labels, **values})
        return AutoModelForSemanticSegmentation.from_config(config)


def _count_both(serving: float, training: float, **values: Any) -> tuple[tuple[dict[str, Any], float], ...]:
    return tuple(
        ({**values, "num_labels": CITYSCAPES, "use_auxiliary_head": head}, millions)
        for head, millions in ((False, serving), (True, training))
    )


ARCHITECTURES = (
    Architecture(
        "segplus-unet",
        {"width": 4, "depth": 3},
        stride=1,
        counts=(({"num_channels": 1, "num_labels": 2, "norm": "none"}, 31.03),),
        overfits_with={"width": 16},
    ),
    Architecture(
        "segplus-segnet",
        {"hidden_sizes": [4, 8, 8], "depths": [1, 1, 2]},
        stride=1,
        counts=(({"num_labels": CAMVID}, 29.45),),
        overfits_with={"hidden_sizes": [32, 64, 64], "depths": [2, 2, 2]},
    ),
    Architecture(
        "segplus-enet",
        {"hidden_sizes": [8, 16, 32], "first_depth": 1, "sections": 1, "dropout": 0.0},
        stride=1,
        counts=(({"num_labels": CAMVID}, 0.351),),
        overfits_with={"hidden_sizes": [16, 64, 128], "first_depth": 2},
        overfits_at=3,
    ),
    Architecture(
        "segplus-bisenet",
        {
            "hidden_sizes": [4, 4, 8, 8],
            "depths": [1, 1, 1, 1],
            "spatial_channels": 4,
            "context_channels": 8,
            "auxiliary_channels": 4,
        },
        stride=8,
        counts=_count_both(13.28, 13.43),
        auxiliary_heads=2,
        overfits_with={"hidden_sizes": [16, 16, 32, 32], "spatial_channels": 32, "context_channels": 32},
        overfits_at=4,
    ),
    Architecture(
        "segplus-bisenetv2",
        {
            "detail_channels": [4, 4, 8],
            "semantic_channels": [4, 4, 8, 8],
            "expansion": 2,
            "head_channels": 8,
            "auxiliary_channels": 4,
        },
        stride=8,
        counts=_count_both(3.36, 5.23),
        auxiliary_heads=4,
        overfits_with={
            "detail_channels": [16, 16, 32],
            "semantic_channels": [8, 16, 32, 32],
            "head_channels": 64,
        },
        overfits_at=4,
    ),
    Architecture(
        "segplus-ddrnet",
        {"width": 4, "depths": [1, 1, 1, 1], "pyramid_channels": 4, "head_channels": 4},
        stride=8,
        counts=(*_count_both(5.70, 5.73), *_count_both(20.15, 20.30, width=64, head_channels=128)),
        auxiliary_heads=1,
        overfits_with={"width": 12, "head_channels": 48},
        overfits_at=4,
    ),
    Architecture(
        "segplus-pidnet",
        {"width": 4, "depths": [1, 1, 1, 1], "detail_depth": 1, "pyramid_channels": 4, "head_channels": 4},
        stride=8,
        counts=_count_both(7.63, 7.72),
        auxiliary_heads=1,
        overfits_with={"width": 12, "head_channels": 48},
        overfits_at=4,
    ),
    Architecture(
        "segplus-espnetv2",
        {"stem_channels": 16, "hidden_sizes": [32, 48, 64], "depths": [1, 1], "pyramid_channels": 2},
        stride=2,
        counts=(({"num_labels": 20}, 0.789), ({"num_labels": 20, "hidden_sizes": [64, 128, 256]}, 0.234)),
        overfits_with={"pyramid_channels": 8},
        overfits_at=2,
    ),
)

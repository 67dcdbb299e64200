"""SegFormer's all-MLP head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from segplus.models.heads.blocks import ConvBlock, SegmentationHead, Stage, refuse_single_map, resize


class AllMLPHead(SegmentationHead):
    """Every map projected to one width, brought to the finest map's size, joined and mixed.

    What mixes the joined maps is linear and so is upsampling, so each map is projected and mixed at its own
    resolution, and the results are added: the same numbers for a fraction of the work.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: The common width.
        dropout: Share of values dropped before the classifier.

    Reference:
        Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, 2021,
        section 3.2. https://arxiv.org/abs/2105.15203
    """

    takes = "pyramid"

    def __init__(self, stages: Sequence[Stage], num_labels: int, *, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        refuse_single_map(stages, "mlp")
        self.projections = nn.ModuleList(nn.Conv2d(stage.channels, channels, 1) for stage in stages)
        self.fusion = ConvBlock(channels * len(stages), channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the finest map's stride."""
        mixing, norm, activation = self.fusion
        chunks = cast("torch.Tensor", mixing.weight).chunk(len(maps), dim=1)  # D x D x 1 x 1 each
        mixed: Any = None
        for features, projection, chunk in zip(maps, self.projections, chunks, strict=True):
            level = resize(nn.functional.conv2d(projection(features), chunk), maps[0])
            mixed = level if mixed is None else mixed + level
        return self.classifier(self.dropout(activation(norm(mixed))))  # type: ignore[no-any-return]

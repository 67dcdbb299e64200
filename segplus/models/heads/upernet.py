"""UPerNet's head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segplus.models.heads.blocks import (
    ConvBlock,
    PyramidPooling,
    SegmentationHead,
    Stage,
    refuse_single_map,
    resize,
)


class UPerHead(SegmentationHead):
    """Pyramid pooling on the last map, a feature pyramid below it, all levels joined at the finest.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of every level.
        bins: Sides of the pooling grids.

    Reference:
        Xiao, Liu, Zhou, Jiang, Sun, Unified Perceptual Parsing for Scene Understanding, 2018.
        https://arxiv.org/abs/1807.10221
    """

    takes = "pyramid"

    def __init__(
        self,
        stages: Sequence[Stage],
        num_labels: int,
        *,
        channels: int = 512,
        bins: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        refuse_single_map(stages, "upernet")
        *lower, last = stages
        self.pooling = PyramidPooling(last.channels, channels, bins)
        self.bottleneck = ConvBlock(self.pooling.channels, channels, 3)
        self.laterals = nn.ModuleList(ConvBlock(stage.channels, channels) for stage in lower)
        self.smoothing = nn.ModuleList(ConvBlock(channels, channels, 3) for _ in lower)
        self.fusion = ConvBlock(channels * len(stages), channels, 3)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the finest map's stride."""
        levels = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=False)]
        levels.append(self.bottleneck(self.pooling(maps[-1])))
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + resize(levels[index + 1], levels[index])
        levels[:-1] = [smooth(level) for smooth, level in zip(self.smoothing, levels, strict=False)]
        joined = torch.cat([resize(level, levels[0]) for level in levels], dim=1)
        return self.classifier(self.fusion(joined))  # type: ignore[no-any-return]

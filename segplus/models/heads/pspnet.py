"""PSPNet's head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segplus.models.heads.blocks import ConvBlock, PyramidPooling, SegmentationHead, Stage


class PSPHead(SegmentationHead):
    """The last map beside its means over grids of bins, one 3x3 convolution, a classifier.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of each pooled branch and of the convolution; None is a quarter of the map's.
        bins: Sides of the grids.
        dropout: Share of values dropped before the classifier.

    Reference:
        Zhao, Shi, Qi, Wang, Jia, Pyramid Scene Parsing Network, 2017. https://arxiv.org/abs/1612.01105
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        num_labels: int,
        *,
        channels: int | None = None,
        bins: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        inputs = stages[-1].channels
        channels = channels or max(inputs // 4, 1)
        self.pyramid = PyramidPooling(inputs, channels, bins)
        self.convolution = ConvBlock(self.pyramid.channels, channels, 3)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        features = self.convolution(self.pyramid(maps[-1]))
        return self.classifier(self.dropout(features))  # type: ignore[no-any-return]

"""DeepLabV3's head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segplus.models.heads.blocks import AtrousPyramid, ConvBlock, SegmentationHead, Stage, choose_rates


class DeepLabV3Head(SegmentationHead):
    """Atrous spatial pyramid pooling on the last map, a 3x3 convolution, a classifier.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of each branch.
        rates: Dilations; None is 12, 24, 36 at stride 8 and 6, 12, 18 at a larger one.
        dropout: Share of values dropped after the pyramid.

    Reference:
        Chen, Papandreou, Schroff, Adam, Rethinking Atrous Convolution for Semantic Image Segmentation, 2017.
        https://arxiv.org/abs/1706.05587
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        num_labels: int,
        *,
        channels: int = 256,
        rates: Sequence[int] | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        last = stages[-1]
        self.pyramid = AtrousPyramid(last.channels, channels, choose_rates(rates, last.stride), dropout=dropout)
        self.convolution = ConvBlock(channels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        return self.classifier(self.convolution(self.pyramid(maps[-1])))  # type: ignore[no-any-return]

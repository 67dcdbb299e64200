"""DeepLabV3+'s head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segplus.models.heads.blocks import (
    AtrousPyramid,
    ConvBlock,
    SegmentationHead,
    SeparableConvBlock,
    Stage,
    choose_rates,
    find_stage,
    resize,
)


class DeepLabV3PlusHead(SegmentationHead):
    """Atrous spatial pyramid pooling on the last map, joined at stride 4 with a narrow copy of the stride-4 map.

    One 3x3 convolution refines the joined maps, as in the common ports; the paper tried one to three.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of each branch and of the refinement.
        low_channels: Channels that the stride-4 map is projected to.
        rates: Dilations; None is 12, 24, 36 at stride 8 and 6, 12, 18 at a larger one.
        separable: Depthwise separable 3x3 convolutions, which the paper ends with.
        dropout: Share of values dropped after the pyramid.

    Reference:
        Chen, Zhu, Papandreou, Schroff, Adam, Encoder-Decoder with Atrous Separable Convolution for Semantic Image
        Segmentation, 2018. https://arxiv.org/abs/1802.02611
    """

    takes = "pyramid"

    def __init__(
        self,
        stages: Sequence[Stage],
        num_labels: int,
        *,
        channels: int = 256,
        low_channels: int = 48,
        rates: Sequence[int] | None = None,
        separable: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        last = stages[-1]
        self.low = find_stage(stages, 4, "deeplabv3plus")
        self.pyramid = AtrousPyramid(
            last.channels, channels, choose_rates(rates, last.stride), separable=separable, dropout=dropout
        )
        self.projection = ConvBlock(stages[self.low].channels, low_channels)
        joined = channels + low_channels
        self.refinement = SeparableConvBlock(joined, channels) if separable else ConvBlock(joined, channels, 3)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at stride 4."""
        low = self.projection(maps[self.low])
        high = resize(self.pyramid(maps[-1]), low)
        return self.classifier(self.refinement(torch.cat([high, low], dim=1)))  # type: ignore[no-any-return]

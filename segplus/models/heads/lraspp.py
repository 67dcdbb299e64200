"""LR-ASPP, the light head of MobileNetV3: the example of CONTRIBUTING."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from segplus.models.heads.blocks import ConvBlock, SegmentationHead, Stage, find_stage, resize


class LRASPPHead(SegmentationHead):
    """The last map, gated by its own mean, classified at stride 8 beside the stride-8 map.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of both branches.

    Reference:
        Howard et al., Searching for MobileNetV3, 2019, section 6.4. https://arxiv.org/abs/1905.02244
    """

    takes = "pyramid"

    def __init__(self, stages: Sequence[Stage], num_labels: int, *, channels: int = 128) -> None:
        super().__init__()
        inputs = stages[-1].channels
        self.low = find_stage(stages, 8, "lraspp")
        self.convolution = ConvBlock(inputs, channels)
        self.gate = nn.Conv2d(inputs, channels, 1, bias=False)
        self.classifier = nn.Conv2d(channels, num_labels, 1)
        self.low_classifier = nn.Conv2d(stages[self.low].channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at stride 8."""
        low, high = maps[self.low], maps[-1]
        gated = self.convolution(high) * self.gate(F.adaptive_avg_pool2d(high, 1)).sigmoid()
        return self.classifier(resize(gated, low)) + self.low_classifier(low)  # type: ignore[no-any-return]

"""The linear probe: what a frozen encoder knows already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segplus.models.heads.blocks import PooledBatchNorm, SegmentationHead, Stage


class LinearProbeHead(SegmentationHead):
    """BatchNorm and a linear classifier of every position of the last map; freeze the encoder with it.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.

    Reference:
        Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023, section 7.4.
        https://arxiv.org/abs/2304.07193
    """

    def __init__(self, stages: Sequence[Stage], num_labels: int) -> None:
        super().__init__()
        self.norm = PooledBatchNorm(stages[-1].channels)
        self.classifier = nn.Conv2d(stages[-1].channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        return self.classifier(self.norm(maps[-1]))  # type: ignore[no-any-return]

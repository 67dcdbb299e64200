"""The semantic branch of Panoptic FPN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from segplus.models.heads.blocks import SegmentationHead, Stage, refuse_single_map, resize


class GroupNormConvBlock(nn.Sequential):
    """3x3 convolution, GroupNorm, ReLU; the size stays."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(groups, outputs), nn.ReLU(inplace=True)
        )


class FPNHead(SegmentationHead):
    """A top-down pyramid; every level is brought to the finest map by convolutions and upsampling, and all are added.

    GroupNorm makes it independent of the batch: it learns from one image a step as well.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        pyramid_channels: Channels of the pyramid.
        channels: Channels of the levels that are added.
        groups: Groups of GroupNorm.
        dropout: Share of channels dropped before the classifier.

    Reference:
        Kirillov, Girshick, He, Dollar, Panoptic Feature Pyramid Networks, 2019, figure 3.
        https://arxiv.org/abs/1901.02446
    """

    takes = "pyramid"

    def __init__(
        self,
        stages: Sequence[Stage],
        num_labels: int,
        *,
        pyramid_channels: int = 256,
        channels: int = 128,
        groups: int = 32,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        refuse_single_map(stages, "fpn")
        self.laterals = nn.ModuleList(nn.Conv2d(stage.channels, pyramid_channels, 1) for stage in stages)
        self.steps = [_list_finer(stages, index) for index in range(len(stages))]
        self.levels = nn.ModuleList(
            nn.ModuleList(
                GroupNormConvBlock(channels if position else pyramid_channels, channels, groups)
                for position in range(max(len(steps), 1))
            )
            for steps in self.steps
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the finest map's stride."""
        pyramid = [lateral(features) for lateral, features in zip(self.laterals, maps, strict=True)]
        for index in range(len(pyramid) - 2, -1, -1):
            coarse = F.interpolate(pyramid[index + 1], size=pyramid[index].shape[2:], mode="nearest")
            pyramid[index] = pyramid[index] + coarse
        levels = []
        for features, blocks, steps in zip(pyramid, self.levels, self.steps, strict=True):
            targets = [maps[step] for step in steps] or [features]
            for block, target in zip(cast("nn.ModuleList", blocks), targets, strict=True):
                features = resize(block(features), target)
            levels.append(features)
        return self.classifier(self.dropout(torch.stack(levels).sum(0)))  # type: ignore[no-any-return]


def _list_finer(stages: Sequence[Stage], index: int) -> list[int]:
    """List the maps that a level passes on its way to the finest, one for each finer stride."""
    return [finer for finer in range(index - 1, -1, -1) if stages[finer].stride < stages[finer + 1].stride]

"""Fully convolutional heads: the two-layer one of today's libraries, and the paper's fusion of three scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from transformers import initialization as init

from segplus.models.heads.blocks import ConvBlock, SegmentationHead, Stage, resize


class FCNHead(SegmentationHead):
    """A 3x3 convolution and a classifier on the last map; every model's auxiliary head is one.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of the convolution; None is a quarter of the map's.
        dropout: Share of values dropped before the classifier.

    Reference:
        Long, Shelhamer, Darrell, Fully Convolutional Networks for Semantic Segmentation, 2015, in the form of the
        auxiliary head of Zhao et al., Pyramid Scene Parsing Network, 2017. https://arxiv.org/abs/1411.4038
    """

    def __init__(
        self, stages: Sequence[Stage], num_labels: int, *, channels: int | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        inputs = stages[-1].channels
        channels = channels or max(inputs // 4, 1)
        self.convolution = ConvBlock(inputs, channels, 3)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        return self.classifier(self.dropout(self.convolution(maps[-1])))  # type: ignore[no-any-return]


class FCNFusionHead(SegmentationHead):
    """Scores of the last maps, each upsampled twice as large and added to the next finer: FCN-32s, 16s and 8s.

    The upsampling is learned and begins as bilinear, the finer maps' scores begin at 0, as in the paper.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        fused_maps: How many maps are scored: 1 is FCN-32s, 2 is FCN-16s, 3 is FCN-8s.

    Raises:
        ValueError: If the encoder has fewer maps.

    Reference:
        Long, Shelhamer, Darrell, Fully Convolutional Networks for Semantic Segmentation, 2015, section 4.2.
        https://arxiv.org/abs/1411.4038
    """

    takes = "pyramid"

    def __init__(self, stages: Sequence[Stage], num_labels: int, *, fused_maps: int = 3) -> None:
        super().__init__()
        if not 1 <= fused_maps <= len(stages):
            raise ValueError(f"head fcn_fusion: fused_maps is {fused_maps}, the encoder has {len(stages)} maps")
        used = list(stages)[::-1][:fused_maps]
        self.scores = nn.ModuleList(nn.Conv2d(stage.channels, num_labels, 1) for stage in used)
        self.upsampling = nn.ModuleList(
            nn.ConvTranspose2d(num_labels, num_labels, 4, stride=2, padding=1, bias=False)
            if coarse.stride != fine.stride
            else nn.Identity()
            for coarse, fine in pairwise(used)
        )

    def initialize_weights(self) -> None:
        """Begin as bilinear upsampling of the coarsest scores."""
        side = torch.tensor([0.25, 0.75, 0.75, 0.25])
        for module in self.upsampling:
            if isinstance(module, nn.ConvTranspose2d):
                every = torch.eye(module.in_channels)[:, :, None, None]  # a class goes to itself alone
                init.copy_(module.weight, every * torch.outer(side, side))
        for index, score in enumerate(self.scores):
            if index and isinstance(score, nn.Conv2d):
                init.zeros_(score.weight)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the stride of the finest scored map."""
        logits = self.scores[0](maps[-1])
        for index, upsample in enumerate(self.upsampling):
            fine = maps[-2 - index]
            # An odd map's half is rounded: up, and what lies beyond it is cut; down, and the rest is stretched over it.
            larger = upsample(logits)[..., : fine.shape[2], : fine.shape[3]]
            logits = resize(larger, fine) + self.scores[index + 1](fine)
        return logits  # type: ignore[no-any-return]

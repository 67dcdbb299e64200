"""A neck between encoder and head, in which every map learns from finer and coarser ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from segplus.models.heads.blocks import ConvBlock, SeparableConvBlock, Stage, refuse_single_map, resize

_EPSILON = 1e-4


class WeightedFusion(nn.Module):
    """Maps of one size, added with weights that are learned and sum to one, and a separable convolution.

    Args:
        inputs: How many maps.
        channels: Of each.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.convolution = SeparableConvBlock(channels, channels)

    def initialize_weights(self) -> None:
        """Begin with equal weights."""
        init.ones_(self.weights)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return (N, channels, h, w)."""
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + _EPSILON)
        fused = sum((weight * features for weight, features in zip(weights, maps, strict=True)), torch.zeros(()))
        return self.convolution(fused.to(maps[0].dtype))  # type: ignore[no-any-return]


class FusionLayer(nn.Module):
    """One way down from the coarsest map to the finest, and one way up again.

    Args:
        maps: How many maps.
        channels: Of each.
    """

    def __init__(self, maps: int, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(WeightedFusion(2, channels) for _ in range(maps - 1))
        self.up = nn.ModuleList(WeightedFusion(3 if index < maps - 2 else 2, channels) for index in range(maps - 1))

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return as many maps of the same sizes, finest first."""
        middle = [maps[-1]]
        for features, fusion in zip(reversed(maps[:-1]), self.down, strict=True):
            middle.insert(0, fusion([features, resize(middle[0], features)]))
        fused = [middle[0]]
        for index, fusion in enumerate(self.up, start=1):
            features = maps[index]
            finer = F.adaptive_max_pool2d(fused[-1], features.shape[2:])
            is_last = index == len(maps) - 1
            fused.append(fusion([features, finer] if is_last else [features, middle[index], finer]))
        return fused


class FusionNeck(nn.Module):
    """EfficientDet's bidirectional pyramid on an encoder's maps: the head that follows sees all scales in each map.

    Args:
        stages: The encoder's maps.
        channels: Channels that every map gets.
        layers: How often the maps are fused down and up.

    Raises:
        ValueError: If the encoder gives a single map.
    Reference:
        Tan, Pang, Le, EfficientDet: Scalable and Efficient Object Detection, 2020, section 3.
        https://arxiv.org/abs/1911.09070
    """

    def __init__(self, stages: Sequence[Stage], *, channels: int = 128, layers: int = 2) -> None:
        super().__init__()
        refuse_single_map(stages, "neck bifpn")
        self.projections = nn.ModuleList(ConvBlock(stage.channels, channels) for stage in stages)
        self.layers = nn.ModuleList(FusionLayer(len(stages), channels) for _ in range(layers))
        self.stages = [Stage(channels, stage.stride) for stage in stages]

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return as many maps, finest first, each (N, channels, h_i, w_i)."""
        fused = [projection(features) for projection, features in zip(self.projections, maps, strict=True)]
        for layer in self.layers:
            fused = layer(fused)
        return fused

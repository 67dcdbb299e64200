"""The blocks that several heads are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Stage:
    """A map that an encoder gives.

    Args:
        channels: Its number of channels.
        stride: Pixels of the image a step of the map.
    """

    channels: int
    stride: int


class SegmentationHead(nn.Module):
    """A head: maps of an encoder to logits. A subclass's keyword-only arguments are its values in `head_config`.

    Class attributes:
        takes: "last" is the last map alone, "pyramid" one map for each stride from 4 on, "layers" four maps of one
            stride, "stem_pyramid" a pyramid that begins at stride 2 where the encoder has such a map.
    """

    takes: Literal["last", "pyramid", "layers", "stem_pyramid"] = "last"

    def initialize_weights(self) -> None:
        """Set what differs from He's initialisation; called after every module of the head has been set."""


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, ReLU; the size stays."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1, *, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel_size, padding=padding, dilation=dilation, bias=False),
            PooledBatchNorm(outputs),
            nn.ReLU(inplace=True),
        )


class SeparableConvBlock(nn.Sequential):
    """Depthwise 3x3 and pointwise convolution, BatchNorm, ReLU; the size stays."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            PooledBatchNorm(outputs),
            nn.ReLU(inplace=True),
        )


class PooledBatchNorm(nn.BatchNorm2d):
    """BatchNorm that takes one value a channel: a globally pooled map of one image has no deviation of its own.

    It is then normalised with the running statistics, which stay as they are; torch would raise.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise a map (N, C, h, w)."""
        if self.training and values.numel() == values.shape[1]:
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values)


class PyramidPooling(nn.Module):
    """The map beside its means over 1x1, 2x2, ... bins.

    Args:
        inputs: Channels of the map.
        channels: Channels of each pooled branch.
        bins: Sides of the grids of bins.

    Reference:
        Zhao, Shi, Qi, Wang, Jia, Pyramid Scene Parsing Network, 2017, section 3.2. https://arxiv.org/abs/1612.01105
    """

    def __init__(self, inputs: int, channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.branches = nn.ModuleList(ConvBlock(inputs, channels) for _ in self.bins)
        self.channels = inputs + channels * len(self.bins)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, inputs + channels * bins, h, w)."""
        pooled = [
            resize(branch(F.adaptive_avg_pool2d(features, side)), features)
            for side, branch in zip(self.bins, self.branches, strict=True)
        ]
        return torch.cat([features, *pooled], dim=1)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 branch, three dilated 3x3 branches and the image's mean, projected.

    Args:
        inputs: Channels of the map.
        channels: Channels of each branch and of the result.
        rates: Dilations of the 3x3 branches.
        separable: Depthwise separable 3x3 convolutions.
        dropout: Share of values dropped after the projection.

    Reference:
        Chen, Papandreou, Schroff, Adam, Rethinking Atrous Convolution for Semantic Image Segmentation, 2017,
        section 3.3. https://arxiv.org/abs/1706.05587
    """

    def __init__(
        self, inputs: int, channels: int, rates: Sequence[int], *, separable: bool = False, dropout: float = 0.5
    ) -> None:
        super().__init__()
        dilated: list[nn.Module] = [
            SeparableConvBlock(inputs, channels, dilation=rate)
            if separable
            else ConvBlock(inputs, channels, 3, dilation=rate)
            for rate in rates
        ]
        self.branches = nn.ModuleList([ConvBlock(inputs, channels), *dilated])
        self.pooling = ConvBlock(inputs, channels)
        self.projection = ConvBlock(channels * (len(rates) + 2), channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (N, channels, h, w)."""
        pooled = [branch(features) for branch in self.branches]
        mean = self.pooling(F.adaptive_avg_pool2d(features, 1))
        pooled.append(mean.expand(-1, -1, *features.shape[2:]))
        return self.dropout(self.projection(torch.cat(pooled, dim=1)))  # type: ignore[no-any-return]


def resize(features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the map, bilinearly resized to the height and width of another."""
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)


def choose_rates(rates: Sequence[int] | None, stride: int) -> tuple[int, ...]:
    """Return the asked dilations, or the paper's for the map's stride: 12, 24, 36 at stride 8, else half of them."""
    if rates is not None:
        return tuple(rates)
    return (12, 24, 36) if stride <= 8 else (6, 12, 18)


def find_stage(stages: Sequence[Stage], stride: int, head: str) -> int:
    """Return the index of the first map of a stride.

    Raises:
        ValueError: If no map but the last has it.
    """
    for index, stage in enumerate(stages[:-1]):
        if stage.stride == stride:
            return index
    strides = ", ".join(str(stage.stride) for stage in stages)
    raise ValueError(
        f"head {head} needs a map of stride {stride} before the last one; the encoder's strides: {strides}"
    )


def refuse_single_map(stages: Sequence[Stage], head: str) -> None:
    """Raise a ValueError where a head that fuses maps is given one."""
    if len(stages) < 2:
        raise ValueError(
            f"head {head} fuses maps of several strides; the encoder gives one, of stride {stages[0].stride}"
        )

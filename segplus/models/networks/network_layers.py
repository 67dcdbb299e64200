"""Layers that several networks share."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


class ConvNormAct(nn.Sequential):
    """A convolution without bias that keeps the size (but for its stride), BatchNorm, and an activation or none."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: nn.Module | None = None,
    ) -> None:
        sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = (dilation * (sides[0] - 1) // 2, dilation * (sides[1] - 1) // 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(
            in_channels, out_channels, sides, stride, padding, dilation=dilation, groups=groups, bias=bias
        )
        layers["norm"] = nn.BatchNorm2d(out_channels)
        if activation is not None:
            layers["act"] = activation
        super().__init__(layers)


class PooledNorm(nn.BatchNorm2d):
    """BatchNorm of pooled features, which takes its running statistics where a batch has one value a channel."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Return the normalised features, shape (N, C, h, w)."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] > 1:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class Stage(GradientCheckpointingLayer, nn.Sequential):
    """Layers in a row, whose activations gradient checkpointing computes again instead of keeping them."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015, figure 5. https://arxiv.org/abs/1512.03385
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, out_channels, 3, stride, activation=nn.ReLU())
        self.conv2 = ConvNormAct(out_channels, out_channels, 3)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = ConvNormAct(in_channels, out_channels, 1, stride) if changes else nn.Identity()
        self.act = nn.ReLU() if activate else nn.Identity()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features, shape (N, out_channels, h / stride, w / stride)."""
        return self.act(self.conv2(self.conv1(hidden)) + self.shortcut(hidden))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a widening 1x1 convolution and a shortcut; twice as many channels come out as are inside.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015, figure 5. https://arxiv.org/abs/1512.03385
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        out_channels = 2 * channels
        self.conv1 = ConvNormAct(in_channels, channels, 1, activation=nn.ReLU())
        self.conv2 = ConvNormAct(channels, channels, 3, stride, activation=nn.ReLU())
        self.conv3 = ConvNormAct(channels, out_channels, 1)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = ConvNormAct(in_channels, out_channels, 1, stride) if changes else nn.Identity()
        self.act = nn.ReLU() if activate else nn.Identity()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features, shape (N, 2 channels, h / stride, w / stride)."""
        return self.act(self.conv3(self.conv2(self.conv1(hidden))) + self.shortcut(hidden))


class NormActConv(nn.Sequential):
    """BatchNorm, ReLU and a convolution without bias, in this order."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, groups: int = 1, pooled: bool = False
    ) -> None:
        norm = PooledNorm(in_channels) if pooled else nn.BatchNorm2d(in_channels)
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(norm=norm, act=nn.ReLU(), conv=conv))


class PreActivatedHead(nn.Sequential):
    """The head of DDRNet and PIDNet: BatchNorm, ReLU, 3x3 convolution, BatchNorm, ReLU, 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__(
            OrderedDict(
                conv=NormActConv(in_channels, channels, 3),
                norm=nn.BatchNorm2d(channels),
                act=nn.ReLU(),
                classifier=nn.Conv2d(channels, out_channels, 1),
            )
        )


def build_residual_stage(in_channels: int, out_channels: int, blocks: int, stride: int = 1) -> Stage:
    """Return basic blocks in a row, the first with the stride, the last without its ReLU."""
    return Stage(
        *(
            BasicBlock(in_channels if i == 0 else out_channels, out_channels, stride if i == 0 else 1, i < blocks - 1)
            for i in range(blocks)
        )
    )


def build_pyramid_pools(in_channels: int, channels: int) -> nn.ModuleList:
    """Return the pooled branches of DDRNet's and PIDNet's pyramids: windows of 5, 9 and 17, and the whole map."""
    windows = [
        nn.Sequential(nn.AvgPool2d(2 * stride + 1, stride, stride), NormActConv(in_channels, channels, pooled=True))
        for stride in (2, 4, 8)
    ]
    whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), NormActConv(in_channels, channels, pooled=True))
    return nn.ModuleList([*windows, whole])


def resize_like(maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the maps at the height and width of others, bilinearly."""
    size = target.shape[-2:]
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def pad_to_multiple(pixel_values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Return the images with zeros below and to the right, so that both sides are multiples."""
    height, width = pixel_values.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(pixel_values, (0, right, 0, below)) if below or right else pixel_values


def crop_to_image(logits: torch.Tensor, size: Sequence[int], stride: int) -> torch.Tensor:
    """Return the logits cropped to an image of this height and width, before it was padded."""
    return logits[..., : math.ceil(size[0] / stride), : math.ceil(size[1] / stride)]


def require_positive(model_type: str, **values: object) -> None:
    """Refuse values of a config that are not whole numbers from 1, or lists of them.

    Raises:
        ValueError: With the name of the value.
    """
    for name, value in values.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
            raise ValueError(f"{model_type}: {name} must be whole numbers from 1, found {value!r}")


def require_choice(model_type: str, name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse a value of a config that is not one of a few.

    Raises:
        ValueError: With the name of the value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{model_type}: {name} is one of {', '.join(map(repr, allowed))}, found {value!r}")

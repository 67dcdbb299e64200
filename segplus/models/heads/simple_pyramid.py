"""A pyramid of maps from the one map of a plain vision transformer."""

from __future__ import annotations

import torch
from torch import nn

from segplus.models.heads.blocks import Stage


class ChannelLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (N, C, h, w)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise each position by itself."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """Maps of four times, twice, once and half the resolution of the last map, each refined to one width.

    Patches of 14 pixels give strides 3.5 to 28; the heads know them by the names of a pyramid: 4, 8, 16 and 32.

    Args:
        channels: Channels of the transformer's map.
        width: Channels of every level.

    Reference:
        Li, Mao, Girshick, He, Exploring Plain Vision Transformer Backbones for Object Detection, 2022, section 3.
        https://arxiv.org/abs/2203.16527
    """

    def __init__(self, channels: int, width: int = 256) -> None:
        super().__init__()
        half, quarter = max(channels // 2, 1), max(channels // 4, 1)
        resizing = (
            nn.Sequential(
                nn.ConvTranspose2d(channels, half, 2, stride=2),
                ChannelLayerNorm(half, eps=1e-6),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ),
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            nn.Identity(),
            # A map of one row or column has nothing to halve.
            nn.MaxPool2d(2, stride=2, ceil_mode=True),
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                resized,
                nn.Conv2d(inputs, width, 1, bias=False),
                ChannelLayerNorm(width, eps=1e-6),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                ChannelLayerNorm(width, eps=1e-6),
            )
            for resized, inputs in zip(resizing, (quarter, half, channels, channels), strict=True)
        )
        self.stages = [Stage(width, stride) for stride in (4, 8, 16, 32)]

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Return four maps, finest first."""
        return [level(features) for level in self.levels]

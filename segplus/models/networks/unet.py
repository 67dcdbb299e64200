"""U-Net as it was published, with the width, depth and normalisation that a recipe asks for."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.layers import Stage, crop_to_image, pad_to_multiple, require_choice, require_positive


class UNetConfig(PreTrainedConfig):
    """Values of a U-Net.

    Args:
        num_channels: Channels of an image.
        width: Channels at full resolution; each level below has twice as many.
        depth: Levels, the first at full resolution; 5 as published.
        norm: "batch" puts BatchNorm after each convolution; "none" is the paper's.
    """

    model_type = "segplus-unet"

    def __init__(
        self, *, num_channels: int = 3, width: int = 64, depth: int = 5, norm: str = "batch", **options: Any
    ) -> None:
        super().__init__(**options)
        require_positive(self.model_type, num_channels=num_channels, width=width, depth=depth)
        require_choice(self.model_type, "norm", norm, ("batch", "none"))
        self.num_channels, self.width, self.depth, self.norm = num_channels, width, depth, norm


class UNetForSemanticSegmentation(SegmentationNetwork):
    """A contracting and an expanding path with a skip at each level; logits at full resolution.

    Convolutions keep the size, where the paper's lose a border; images are padded to what the depth divides.

    Reference:
        Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, figure 1.
        https://arxiv.org/abs/1505.04597
    """

    config_class = UNetConfig
    _no_split_modules: ClassVar[list[str]] = ["Stage", "UpStage"]

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.backbone = UNetFeatures(config)
        self.classifier = nn.Conv2d(config.width, config.num_labels, 1)
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits of the images' size."""
        padded = pad_to_multiple(pixel_values, 2 ** (self.config.depth - 1))
        logits = self.classifier(self.backbone(padded))
        return SegmentationOutput(logits=crop_to_image(logits, pixel_values.shape[-2:], 1))


class UNetFeatures(nn.Module):
    """Both paths, without the last 1x1 convolution."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(config.depth)]
        self.down = nn.ModuleList(
            Stage(*_build_convolutions(narrow, wide, config.norm))
            for narrow, wide in zip([config.num_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(UpStage(width, config.norm) for width in reversed(widths[:-1]))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features at full resolution, shape (N, width, H, W)."""
        hidden = self.down[0](pixel_values)
        skips = []
        for stage in self.down[1:]:
            skips.append(hidden)
            hidden = stage(self.pool(hidden))
        for stage in self.up:
            hidden = stage(hidden, skips.pop())
        return hidden


class UpStage(GradientCheckpointingLayer):
    """Upsampling by a transposed convolution, the skip beside it, and two convolutions."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.convolutions = nn.Sequential(*_build_convolutions(2 * width, width, norm))

    def forward(self, hidden: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return features of the skip's size, shape (N, width, h, w)."""
        return self.convolutions(torch.cat([skip, self.upsample(hidden)], dim=1))


def _build_convolutions(in_channels: int, out_channels: int, norm: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU())
    return layers

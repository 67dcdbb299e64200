"""U-Net's decoder on any encoder; on a ResNet it is the ResNet-U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from segplus.models.heads.blocks import ConvBlock, SegmentationHead, Stage


class UNetDecoderBlock(nn.Module):
    """A map upsampled to its finer neighbour, joined with it, and two 3x3 convolutions."""

    def __init__(self, inputs: int, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            ConvBlock(inputs + skip_channels, channels, 3), ConvBlock(channels, channels, 3)
        )

    def forward(self, features: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """Return the map at the skip's size, or at twice its own where there is none."""
        if skip is None:
            features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        else:
            features = torch.cat([F.interpolate(features, size=skip.shape[2:], mode="nearest"), skip], dim=1)
        return self.convolutions(features)  # type: ignore[no-any-return]


class UNetDecoderHead(SegmentationHead):
    """One block for each finer map, then blocks without a skip as long as there are channels for them.

    With the five widths of the default and an encoder that begins at stride 2 (ResNet, MobileNetV2, EfficientNet) the
    logits have the image's own size.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Widths of the blocks, from coarse to fine; at least one for each finer map.

    Raises:
        ValueError: If the encoder gives one map, or more than the blocks can take.

    Reference:
        Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015.
        https://arxiv.org/abs/1505.04597
    """

    takes = "stem_pyramid"

    def __init__(
        self, stages: Sequence[Stage], num_labels: int, *, channels: Sequence[int] = (256, 128, 64, 32, 16)
    ) -> None:
        super().__init__()
        skips = [stage.channels for stage in stages[-2::-1]]
        if not skips or len(channels) < len(skips):
            raise ValueError(
                f"head unet: channels names {len(channels)} blocks, the encoder gives {len(stages)} maps: "
                "one block less than maps is the least, and two maps are"
            )
        skips += [0] * (len(channels) - len(skips))
        inputs = [stages[-1].channels, *channels[:-1]]
        self.blocks = nn.ModuleList(
            UNetDecoderBlock(given, skip, width) for given, skip, width in zip(inputs, skips, channels, strict=True)
        )
        self.classifier = nn.Conv2d(channels[-1], num_labels, 3, padding=1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the stride that the last block reaches."""
        features, skips = maps[-1], list(maps[-2::-1])
        for index, block in enumerate(self.blocks):
            features = block(features, skips[index] if index < len(skips) else None)
        return self.classifier(features)  # type: ignore[no-any-return]

"""The three decoders of SETR."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from segplus.models.heads.blocks import ConvBlock, SegmentationHead, Stage


class SETRNaiveHead(SegmentationHead):
    """Two 1x1 convolutions on the last map.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels between the two.

    Reference:
        Zheng et al., Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers, 2021,
        section 3.3. https://arxiv.org/abs/2012.15840
    """

    def __init__(self, stages: Sequence[Stage], num_labels: int, *, channels: int = 256) -> None:
        super().__init__()
        self.convolution = ConvBlock(stages[-1].channels, channels)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        return self.classifier(self.convolution(maps[-1]))  # type: ignore[no-any-return]


class SETRPUPHead(SegmentationHead):
    """Progressive upsampling: four 3x3 convolutions, the map twice as large after each but the last.

    The paper doubles the logits once more; that belongs to whoever upsamples them to the image.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of the convolutions.

    Reference:
        Zheng et al., Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers, 2021,
        section 3.3. https://arxiv.org/abs/2012.15840
    """

    def __init__(self, stages: Sequence[Stage], num_labels: int, *, channels: int = 256) -> None:
        super().__init__()
        widths = [stages[-1].channels, channels, channels, channels]
        self.convolutions = nn.ModuleList(ConvBlock(width, channels, 3) for width in widths)
        self.classifier = nn.Conv2d(channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at an eighth of the last map's stride."""
        features = self.convolutions[0](maps[-1])
        for convolution in self.convolutions[1:]:
            features = convolution(_enlarge(features, 2.0))
        return self.classifier(features)  # type: ignore[no-any-return]


class SETRMLAHead(SegmentationHead):
    """Multi-level aggregation: four layers' maps, added from the deepest on, each refined and upsampled, all joined.

    Args:
        stages: Four maps of one stride, as a plain vision transformer gives.
        num_labels: Number of classes.
        channels: Channels of each level; the refined ones have half as many.

    Raises:
        ValueError: If the encoder does not give several maps of one stride.

    Reference:
        Zheng et al., Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers, 2021,
        section 3.3. https://arxiv.org/abs/2012.15840
    """

    takes = "layers"

    def __init__(self, stages: Sequence[Stage], num_labels: int, *, channels: int = 256) -> None:
        super().__init__()
        strides = [stage.stride for stage in stages]
        if len(strides) < 2 or len(set(strides)) > 1:
            raise ValueError(
                "head setr_mla takes maps of one stride from several layers, as a plain vision transformer gives; "
                f"the encoder's strides: {', '.join(map(str, strides))}"
            )
        self.laterals = nn.ModuleList(ConvBlock(stage.channels, channels) for stage in stages)
        self.smoothing = nn.ModuleList(ConvBlock(channels, channels, 3) for _ in stages)
        self.refinement = nn.ModuleList(
            nn.Sequential(ConvBlock(channels, channels // 2, 3), ConvBlock(channels // 2, channels // 2, 3))
            for _ in stages
        )
        self.classifier = nn.Conv2d(channels // 2 * len(stages), num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at a quarter of the maps' stride."""
        total: torch.Tensor | None = None
        levels = []
        for index in range(len(maps) - 1, -1, -1):
            level = self.laterals[index](maps[index])
            total = level if total is None else total + level
            levels.append(_enlarge(self.refinement[index](self.smoothing[index](total)), 4.0))
        return self.classifier(torch.cat(levels, dim=1))  # type: ignore[no-any-return]


def _enlarge(features: torch.Tensor, factor: float) -> torch.Tensor:
    return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)

"""BiSeNet V1: a spatial path of three convolutions beside a ResNet-18 context path."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.layers import BasicBlock, ConvNormAct, PooledNorm, Stage, require_positive, resize_like


class BiSeNetConfig(PreTrainedConfig):
    """Values of a BiSeNet V1; the defaults are the network on a ResNet-18.

    Args:
        num_channels: Channels of an image.
        hidden_sizes: Channels of the ResNet at strides 4, 8, 16 and 32.
        depths: Its blocks there.
        spatial_channels: Channels of the spatial path.
        context_channels: Channels that the context path and the spatial path end with.
        auxiliary_channels: Channels of an auxiliary head before its last convolution.
        use_auxiliary_head: Learn from the context path at strides 8 and 16, too.
    """

    model_type = "segplus-bisenet"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        hidden_sizes: tuple[int, ...] | list[int] = (64, 128, 256, 512),
        depths: tuple[int, ...] | list[int] = (2, 2, 2, 2),
        spatial_channels: int = 64,
        context_channels: int = 128,
        auxiliary_channels: int = 64,
        use_auxiliary_head: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_channels, self.hidden_sizes, self.depths = num_channels, list(hidden_sizes), list(depths)
        self.spatial_channels, self.context_channels = spatial_channels, context_channels
        self.auxiliary_channels, self.use_auxiliary_head = auxiliary_channels, use_auxiliary_head
        require_positive(
            self.model_type,
            num_channels=num_channels,
            hidden_sizes=self.hidden_sizes,
            depths=self.depths,
            spatial_channels=spatial_channels,
            context_channels=context_channels,
            auxiliary_channels=auxiliary_channels,
        )
        if len(self.hidden_sizes) != 4 or len(self.depths) != 4:
            raise ValueError(
                f"{self.model_type}: hidden_sizes and depths are four numbers each, "
                f"found {self.hidden_sizes} and {self.depths}"
            )


class BiSeNetForSemanticSegmentation(SegmentationNetwork):
    """Both paths and the feature fusion module; logits at stride 8.

    Reference:
        Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation, 2018, figure 2.
        https://arxiv.org/abs/1808.00897
    """

    config_class = BiSeNetConfig
    _no_split_modules: ClassVar[list[str]] = ["Stage", "AttentionRefinement", "FeatureFusion"]

    def __init__(self, config: BiSeNetConfig) -> None:
        super().__init__(config)
        self.backbone = BiSeNetFeatures(config)
        fused = 2 * config.context_channels
        self.classifier = _build_head(fused, fused, config.num_labels)
        self.auxiliary_heads = nn.ModuleList()
        if config.use_auxiliary_head:
            self.auxiliary_heads.extend(
                _build_head(config.context_channels, config.auxiliary_channels, config.num_labels) for _ in range(2)
            )
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits at stride 8, and in training those of the context path at strides 8 and 16."""
        fused, context = self.backbone(pixel_values)
        auxiliary = None
        if self.training and len(self.auxiliary_heads):
            auxiliary = tuple(head(maps) for head, maps in zip(self.auxiliary_heads, context, strict=True))
        return SegmentationOutput(logits=self.classifier(fused), auxiliary_logits=auxiliary)


class BiSeNetFeatures(nn.Module):
    """Spatial path, context path and their fusion."""

    def __init__(self, config: BiSeNetConfig) -> None:
        super().__init__()
        sizes, width, context = config.hidden_sizes, config.spatial_channels, config.context_channels
        self.spatial = Stage(
            ConvNormAct(config.num_channels, width, 7, 2, activation=nn.ReLU()),
            ConvNormAct(width, width, 3, 2, activation=nn.ReLU()),
            ConvNormAct(width, width, 3, 2, activation=nn.ReLU()),
            ConvNormAct(width, context, 1, activation=nn.ReLU()),
        )
        self.stem = nn.Sequential(
            ConvNormAct(config.num_channels, sizes[0], 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.ModuleList(
            _build_resnet_stage(narrow, wide, blocks, 1 if level == 0 else 2)
            for level, (narrow, wide, blocks) in enumerate(
                zip([sizes[0], *sizes[:-1]], sizes, config.depths, strict=True)
            )
        )
        self.refine16 = AttentionRefinement(sizes[2], context)
        self.refine32 = AttentionRefinement(sizes[3], context)
        self.whole = nn.Sequential(nn.Conv2d(sizes[3], context, 1, bias=False), PooledNorm(context), nn.ReLU())
        self.smooth16 = ConvNormAct(context, context, activation=nn.ReLU())
        self.smooth32 = ConvNormAct(context, context, activation=nn.ReLU())
        self.fusion = FeatureFusion(2 * context)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return fused features at stride 8, and those of the context path at strides 8 and 16."""
        spatial = self.spatial(pixel_values)
        features = []
        hidden = self.stem(pixel_values)
        for stage in self.stages:
            hidden = stage(hidden)
            features.append(hidden)
        _, fine, middle, coarse = features
        whole = self.whole(F.adaptive_avg_pool2d(coarse, 1))  # (N, C, 1, 1)
        refined = self.refine32(coarse) + whole
        context16 = self.smooth32(resize_like(refined, middle))
        context8 = self.smooth16(resize_like(self.refine16(middle) + context16, fine))
        return self.fusion(spatial, context8), (context8, context16)


class AttentionRefinement(GradientCheckpointingLayer):
    """A 3x3 convolution whose channels are weighted by their means over the map."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, channels, activation=nn.ReLU())
        self.weigh = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), PooledNorm(channels), nn.Sigmoid())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features of the same size."""
        hidden = self.conv(hidden)
        return hidden * self.weigh(F.adaptive_avg_pool2d(hidden, 1))


class FeatureFusion(GradientCheckpointingLayer):
    """Both paths side by side, mixed, and the mixture's channels weighted by their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = ConvNormAct(channels, channels, 1, activation=nn.ReLU())
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, spatial: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return features of the same size, shape (N, both, h, w)."""
        mixed = self.mix(torch.cat([spatial, context], dim=1))
        return mixed + mixed * self.weigh(F.adaptive_avg_pool2d(mixed, 1))


def _build_resnet_stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> Stage:
    inputs, strides = [in_channels] + [out_channels] * (blocks - 1), [stride] + [1] * (blocks - 1)
    return Stage(*(BasicBlock(narrow, out_channels, step) for narrow, step in zip(inputs, strides, strict=True)))


def _build_head(in_channels: int, channels: int, num_labels: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(in_channels, channels, activation=nn.ReLU()), nn.Conv2d(channels, num_labels, 1))

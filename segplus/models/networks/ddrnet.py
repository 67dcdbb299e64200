"""DDRNet: two branches of different resolution that exchange features, and a pyramid of pooled maps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.network_layers import (
    Bottleneck,
    ConvNormAct,
    NormActConv,
    PreActivatedHead,
    Stage,
    build_pyramid_pools,
    build_residual_stage,
    require_positive,
    resize_like,
)


class DDRNetConfig(PreTrainedConfig):
    """Values of a DDRNet; the defaults are DDRNet-23-slim, and width 64 with head_channels 128 is DDRNet-23.

    Args:
        num_channels: Channels of an image.
        width: Channels at strides 2 and 4, of which all others are multiples.
        depths: Basic blocks at strides 4, 8, 16 and 32; the branch at stride 8 has as many as the first two.
        pyramid_channels: Channels inside the pyramid of pooled maps.
        head_channels: Channels of the head before its last convolution.
        use_auxiliary_head: Learn from the branch of high resolution, too.
    """

    model_type = "segplus-ddrnet"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        width: int = 32,
        depths: tuple[int, ...] | list[int] = (2, 2, 2, 2),
        pyramid_channels: int = 128,
        head_channels: int = 64,
        use_auxiliary_head: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_channels, self.width, self.depths = num_channels, width, list(depths)
        self.pyramid_channels, self.head_channels = pyramid_channels, head_channels
        self.use_auxiliary_head = use_auxiliary_head
        require_positive(
            self.model_type,
            num_channels=num_channels,
            width=width,
            depths=self.depths,
            pyramid_channels=pyramid_channels,
            head_channels=head_channels,
        )
        if len(self.depths) != 4:
            raise ValueError(f"{self.model_type}: depths are four numbers, found {self.depths}")


class DDRNetForSemanticSegmentation(SegmentationNetwork):
    """The dual-resolution network; logits at stride 8.

    Reference:
        Hong et al., Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes,
        2021, section 3. https://arxiv.org/abs/2101.06085
    """

    config_class = DDRNetConfig
    _no_split_modules: ClassVar[list[str]] = ["Stage", "DeepAggregationPyramid"]

    def __init__(self, config: DDRNetConfig) -> None:
        super().__init__(config)
        self.backbone = DDRNetFeatures(config)
        self.classifier = PreActivatedHead(4 * config.width, config.head_channels, config.num_labels)
        self.auxiliary_heads = nn.ModuleList()
        if config.use_auxiliary_head:
            self.auxiliary_heads.append(PreActivatedHead(2 * config.width, config.head_channels, config.num_labels))
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits at stride 8, and in training those of the high resolution after its first exchange."""
        features, fine = self.backbone(pixel_values)
        auxiliary = None
        if self.training and len(self.auxiliary_heads):
            auxiliary = tuple(head(fine) for head in self.auxiliary_heads)
        return SegmentationOutput(logits=self.classifier(features), auxiliary_logits=auxiliary)


class DDRNetFeatures(nn.Module):
    """Both branches: the fine one stays at stride 8, the coarse one goes down to 64."""

    def __init__(self, config: DDRNetConfig) -> None:
        super().__init__()
        width, depths = config.width, config.depths
        self.stem = nn.Sequential(
            ConvNormAct(config.num_channels, width, 3, 2, bias=True, activation=nn.ReLU()),
            ConvNormAct(width, width, 3, 2, bias=True, activation=nn.ReLU()),
        )
        self.stage1 = build_residual_stage(width, width, depths[0])
        self.stage2 = build_residual_stage(width, 2 * width, depths[1], 2)
        self.coarse3 = build_residual_stage(2 * width, 4 * width, depths[2], 2)
        self.coarse4 = build_residual_stage(4 * width, 8 * width, depths[3], 2)
        self.coarse5 = Stage(Bottleneck(8 * width, 8 * width, 2, activate=False))
        self.fine3 = build_residual_stage(2 * width, 2 * width, 2)
        self.fine4 = build_residual_stage(2 * width, 2 * width, 2)
        self.fine5 = Stage(Bottleneck(2 * width, 2 * width, activate=False))
        self.to_fine3 = ConvNormAct(4 * width, 2 * width, 1)
        self.to_fine4 = ConvNormAct(8 * width, 2 * width, 1)
        self.to_coarse3 = ConvNormAct(2 * width, 4 * width, 3, 2)
        self.to_coarse4 = nn.Sequential(
            ConvNormAct(2 * width, 4 * width, 3, 2, activation=nn.ReLU()), ConvNormAct(4 * width, 8 * width, 3, 2)
        )
        self.pyramid = DeepAggregationPyramid(16 * width, config.pyramid_channels, 4 * width)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sum of both branches, and the fine one after its first exchange, both at stride 8."""
        shared = F.relu(self.stage2(F.relu(self.stage1(self.stem(pixel_values)))))
        coarse, fine = F.relu(self.coarse3(shared)), self.fine3(shared)
        sent = self.to_coarse3(F.relu(fine))
        fine = first = fine + resize_like(self.to_fine3(coarse), fine)
        coarse = F.relu(self.coarse4(F.relu(coarse + sent)))
        fine = self.fine4(F.relu(fine))
        sent = self.to_coarse4(F.relu(fine))
        fine = self.fine5(F.relu(fine + resize_like(self.to_fine4(coarse), fine)))
        coarse = self.pyramid(self.coarse5(F.relu(coarse + sent)))
        return fine + resize_like(coarse, fine), first


class DeepAggregationPyramid(GradientCheckpointingLayer):
    """The map and four pooled ones, each refined with the one before added to it."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.keep = NormActConv(in_channels, channels)
        self.pools = build_pyramid_pools(in_channels, channels)
        self.refine = nn.ModuleList(NormActConv(channels, channels, 3) for _ in self.pools)
        self.compress = NormActConv(channels * (len(self.pools) + 1), out_channels)
        self.shortcut = NormActConv(in_channels, out_channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return maps of the same size, shape (N, out_channels, h, w)."""
        levels = [self.keep(hidden)]
        for pool, refine in zip(self.pools, self.refine, strict=True):
            levels.append(refine(resize_like(pool(hidden), hidden) + levels[-1]))
        return self.compress(torch.cat(levels, dim=1)) + self.shortcut(hidden)

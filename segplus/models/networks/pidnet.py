"""PIDNet: branches for detail, for context and for boundaries, which decide between the other two."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.layers import (
    BasicBlock,
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


class PIDNetConfig(PreTrainedConfig):
    """Values of a PIDNet; the defaults are PIDNet-S.

    Args:
        num_channels: Channels of an image.
        width: Channels at strides 2 and 4, of which most others are multiples.
        depths: Basic blocks of the context branch at strides 4, 8, 16 and 32.
        detail_depth: Basic blocks of each stage of the detail branch.
        pyramid_channels: Channels inside the pyramid of pooled maps.
        head_channels: Channels of the heads before their last convolution.
        use_auxiliary_head: Learn from the detail branch and, by its boundaries, from the boundary branch, too.
    """

    model_type = "segplus-pidnet"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        width: int = 32,
        depths: tuple[int, ...] | list[int] = (2, 2, 3, 3),
        detail_depth: int = 2,
        pyramid_channels: int = 96,
        head_channels: int = 128,
        use_auxiliary_head: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_channels, self.width, self.depths = num_channels, width, list(depths)
        self.detail_depth, self.pyramid_channels, self.head_channels = detail_depth, pyramid_channels, head_channels
        self.use_auxiliary_head = use_auxiliary_head
        require_positive(
            self.model_type,
            num_channels=num_channels,
            width=width,
            depths=self.depths,
            detail_depth=detail_depth,
            pyramid_channels=pyramid_channels,
            head_channels=head_channels,
        )
        if len(self.depths) != 4:
            raise ValueError(f"{self.model_type}: depths are four numbers, found {self.depths}")


class PIDNetForSemanticSegmentation(SegmentationNetwork):
    """Three branches and the boundary-attention-guided fusion (light Bag); logits at stride 8.

    Reference:
        Xu et al., PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers, 2022, section 3.
        https://arxiv.org/abs/2206.02066
    """

    config_class = PIDNetConfig
    _no_split_modules: ClassVar[list[str]] = ["Stage", "ParallelAggregationPyramid", "PixelAttention"]

    def __init__(self, config: PIDNetConfig) -> None:
        super().__init__(config)
        width = config.width
        self.backbone = PIDNetFeatures(config)
        self.classifier = PreActivatedHead(4 * width, config.head_channels, config.num_labels)
        self.auxiliary_heads, self.boundary_heads = nn.ModuleList(), nn.ModuleList()
        if config.use_auxiliary_head:
            self.auxiliary_heads.append(PreActivatedHead(2 * width, config.head_channels, config.num_labels))
            self.boundary_heads.append(PreActivatedHead(2 * width, width, 1))
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits at stride 8, and in training those of the detail branch and of boundaries beside them."""
        fused, detail, boundary = self.backbone(pixel_values)
        outputs = SegmentationOutput(logits=self.classifier(fused))
        if self.training and len(self.auxiliary_heads):
            outputs.auxiliary_logits = tuple(head(detail) for head in self.auxiliary_heads)
            outputs.boundary_logits = self.boundary_heads[0](boundary)
        return outputs


class PIDNetFeatures(nn.Module):
    """Detail (P) and boundary (D) branch at stride 8, context branch (I) down to stride 64."""

    def __init__(self, config: PIDNetConfig) -> None:
        super().__init__()
        width, depths, detail_depth = config.width, config.depths, config.detail_depth
        self.stem = nn.Sequential(
            ConvNormAct(config.num_channels, width, 3, 2, bias=True, activation=nn.ReLU()),
            ConvNormAct(width, width, 3, 2, bias=True, activation=nn.ReLU()),
        )
        self.context1 = build_residual_stage(width, width, depths[0])
        self.context2 = build_residual_stage(width, 2 * width, depths[1], 2)
        self.context3 = build_residual_stage(2 * width, 4 * width, depths[2], 2)
        self.context4 = build_residual_stage(4 * width, 8 * width, depths[3], 2)
        self.context5 = Stage(Bottleneck(8 * width, 8 * width, 2), Bottleneck(16 * width, 8 * width, activate=False))
        self.detail3 = build_residual_stage(2 * width, 2 * width, detail_depth)
        self.detail4 = build_residual_stage(2 * width, 2 * width, detail_depth)
        self.detail5 = Stage(Bottleneck(2 * width, 2 * width, activate=False))
        self.attend3 = PixelAttention(4 * width, 2 * width, width)
        self.attend4 = PixelAttention(8 * width, 2 * width, width)
        self.boundary3 = Stage(BasicBlock(2 * width, width, activate=False))
        self.boundary4 = Stage(Bottleneck(width, width, activate=False))
        self.boundary5 = Stage(Bottleneck(2 * width, 2 * width, activate=False))
        self.differ3 = ConvNormAct(4 * width, width)
        self.differ4 = ConvNormAct(8 * width, 2 * width)
        self.pyramid = ParallelAggregationPyramid(16 * width, config.pyramid_channels, 4 * width)
        self.fusion = BoundaryFusion(4 * width)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return fused, detail (after its first exchange) and boundary features (after their last), at stride 8."""
        shared = F.relu(self.context2(F.relu(self.context1(self.stem(pixel_values)))))
        context = F.relu(self.context3(shared))
        detail = first_detail = self.attend3(self.detail3(shared), context)
        boundary = self.boundary3(shared)
        boundary = boundary + resize_like(self.differ3(context), boundary)
        context = F.relu(self.context4(context))
        detail = self.attend4(self.detail4(F.relu(detail)), context)
        boundary = self.boundary4(F.relu(boundary))
        boundary = last_boundary = boundary + resize_like(self.differ4(context), boundary)
        detail, boundary = self.detail5(F.relu(detail)), self.boundary5(F.relu(boundary))
        context = resize_like(self.pyramid(self.context5(context)), detail)
        return self.fusion(detail, context, boundary), first_detail, last_boundary


class PixelAttention(GradientCheckpointingLayer):
    """Pixel-attention-guided fusion (Pag): each pixel takes context as far as it resembles the detail."""

    def __init__(self, context_channels: int, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.compress = ConvNormAct(context_channels, channels, 1)
        self.embed_detail = ConvNormAct(channels, inner_channels, 1)
        self.embed_context = ConvNormAct(channels, inner_channels, 1)

    def forward(self, detail: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return features of the detail's shape."""
        context = self.compress(context)
        likeness = self.embed_detail(detail) * resize_like(self.embed_context(context), detail)
        share = likeness.sum(1, keepdim=True).sigmoid()  # (N, 1, h, w)
        return share * resize_like(context, detail) + (1 - share) * detail


class BoundaryFusion(nn.Module):
    """Light Bag: detail where there is a boundary, context elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvNormAct(channels, channels, 1)
        self.context = ConvNormAct(channels, channels, 1)

    def forward(self, detail: torch.Tensor, context: torch.Tensor, boundary: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        share = boundary.sigmoid()
        return self.detail(detail + (1 - share) * context) + self.context(context + share * detail)


class ParallelAggregationPyramid(GradientCheckpointingLayer):
    """The map and four pooled ones added to it, which one grouped convolution refines together."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.keep = NormActConv(in_channels, channels)
        self.pools = build_pyramid_pools(in_channels, channels)
        count = len(self.pools)
        self.refine = NormActConv(count * channels, count * channels, 3, groups=count)
        self.compress = NormActConv((count + 1) * channels, out_channels)
        self.shortcut = NormActConv(in_channels, out_channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return maps of the same size, shape (N, out_channels, h, w)."""
        kept = self.keep(hidden)
        pooled = torch.cat([resize_like(pool(hidden), hidden) + kept for pool in self.pools], dim=1)
        return self.compress(torch.cat([kept, self.refine(pooled)], dim=1)) + self.shortcut(hidden)

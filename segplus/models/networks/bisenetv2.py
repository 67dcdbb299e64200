"""BiSeNet V2: a wide shallow branch for detail beside a narrow deep one for meaning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.network_layers import ConvNormAct, PooledNorm, Stage, require_positive, resize_like


class BiSeNetV2Config(PreTrainedConfig):
    """Values of a BiSeNet V2; the defaults are the published network.

    Args:
        num_channels: Channels of an image.
        detail_channels: Channels of the detail branch at strides 2, 4 and 8.
        semantic_channels: Channels of the semantic branch at strides 4, 8, 16 and 32.
        expansion: Channels inside a gather-and-expansion layer, as a multiple of those outside.
        head_channels: Channels of the head before its last convolution.
        auxiliary_channels: The same of an auxiliary head.
        use_auxiliary_head: Learn from the four stages of the semantic branch, too.
    """

    model_type = "segplus-bisenetv2"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        detail_channels: tuple[int, ...] | list[int] = (64, 64, 128),
        semantic_channels: tuple[int, ...] | list[int] = (16, 32, 64, 128),
        expansion: int = 6,
        head_channels: int = 1024,
        auxiliary_channels: int = 128,
        use_auxiliary_head: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        values = {
            "num_channels": num_channels,
            "detail_channels": list(detail_channels),
            "semantic_channels": list(semantic_channels),
            "expansion": expansion,
            "head_channels": head_channels,
            "auxiliary_channels": auxiliary_channels,
        }
        require_positive(self.model_type, **values)
        if len(detail_channels) != 3 or len(semantic_channels) != 4:
            raise ValueError(f"{self.model_type}: detail_channels are three numbers, semantic_channels four")
        if semantic_channels[0] % 2 or detail_channels[-1] != semantic_channels[-1]:
            raise ValueError(
                f"{self.model_type}: the first of semantic_channels is even, and both branches end with as many "
                f"channels, found {list(detail_channels)} and {list(semantic_channels)}"
            )
        for name, value in values.items():
            setattr(self, name, value)
        self.use_auxiliary_head = use_auxiliary_head


class BiSeNetV2ForSemanticSegmentation(SegmentationNetwork):
    """Both branches, fused by the guided aggregation layer; logits at stride 8.

    Reference:
        Yu et al., BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation, 2020,
        table 1 and figures 4 to 6. https://arxiv.org/abs/2004.02147
    """

    config_class = BiSeNetV2Config
    _no_split_modules: ClassVar[list[str]] = ["Stage", "Stem", "GuidedAggregation"]

    def __init__(self, config: BiSeNetV2Config) -> None:
        super().__init__(config)
        self.backbone = BiSeNetV2Features(config)
        channels = config.detail_channels[-1]
        self.classifier = nn.Sequential(
            ConvNormAct(channels, config.head_channels, activation=nn.ReLU()),
            nn.Dropout(0.1),
            nn.Conv2d(config.head_channels, config.num_labels, 1),
        )
        self.auxiliary_heads = nn.ModuleList()
        if config.use_auxiliary_head:
            for level, channels in enumerate(config.semantic_channels):
                # As many channels as pixels that one feature covers.
                cells = 4 ** (level + 2)
                self.auxiliary_heads.append(BoosterHead(channels, config.auxiliary_channels, cells, config.num_labels))
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits at stride 8, and in training those of the four semantic stages, at strides 2 to 16."""
        fused, stages = self.backbone(pixel_values)
        auxiliary = None
        if self.training and len(self.auxiliary_heads):
            auxiliary = tuple(head(stage) for head, stage in zip(self.auxiliary_heads, stages, strict=True))
        return SegmentationOutput(logits=self.classifier(fused), auxiliary_logits=auxiliary)


class BiSeNetV2Features(nn.Module):
    """Detail branch, semantic branch and aggregation."""

    def __init__(self, config: BiSeNetV2Config) -> None:
        super().__init__()
        self.detail = _build_detail_branch(config.num_channels, config.detail_channels)
        stem, *channels = config.semantic_channels
        self.stem = Stem(config.num_channels, stem)
        repeats = (1, 1, 3)  # layers without a stride at strides 8, 16 and 32
        self.semantic = nn.ModuleList(
            Stage(
                ReducingExpansion(narrow, wide, config.expansion),
                *(Expansion(wide, config.expansion) for _ in range(count)),
            )
            for narrow, wide, count in zip([stem, *channels], channels, repeats, strict=False)
        )
        self.context = ContextEmbedding(channels[-1])
        self.aggregation = GuidedAggregation(channels[-1])

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return fused features at stride 8 and the semantic stages at strides 4, 8, 16 and 32."""
        detail = self.detail(pixel_values)
        stages = [self.stem(pixel_values)]
        for stage in self.semantic:
            stages.append(stage(stages[-1]))
        return self.aggregation(detail, self.context(stages[-1])), stages


class Stem(GradientCheckpointingLayer):
    """Stride 4 on two ways, by convolution and by pooling."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, channels, 3, 2, activation=nn.ReLU())
        self.left = nn.Sequential(
            ConvNormAct(channels, channels // 2, 1, activation=nn.ReLU()),
            ConvNormAct(channels // 2, channels, 3, 2, activation=nn.ReLU()),
        )
        self.right = nn.MaxPool2d(3, 2, 1)
        self.fuse = ConvNormAct(2 * channels, channels, 3, activation=nn.ReLU())

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features at stride 4."""
        hidden = self.conv(pixel_values)
        return self.fuse(torch.cat([self.left(hidden), self.right(hidden)], dim=1))


class Expansion(nn.Module):
    """Gather-and-expansion layer of stride 1: a 3x3 convolution, a widening depthwise one, a narrowing 1x1."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.gather = ConvNormAct(channels, channels, activation=nn.ReLU())
        self.expand = ConvNormAct(channels, wide, groups=channels, activation=nn.ReLU())
        self.project = ConvNormAct(wide, channels, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        return F.relu(hidden + self.project(self.expand(self.gather(hidden))))


class ReducingExpansion(nn.Module):
    """Gather-and-expansion layer of stride 2, with two depthwise convolutions and a separable shortcut."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.gather = ConvNormAct(in_channels, in_channels, activation=nn.ReLU())
        self.reduce = ConvNormAct(in_channels, wide, 3, 2, groups=in_channels)
        self.expand = ConvNormAct(wide, wide, groups=wide, activation=nn.ReLU())
        self.project = ConvNormAct(wide, out_channels, 1)
        self.shortcut = nn.Sequential(
            ConvNormAct(in_channels, in_channels, 3, 2, groups=in_channels), ConvNormAct(in_channels, out_channels, 1)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features of half the size."""
        main = self.project(self.expand(self.reduce(self.gather(hidden))))
        return F.relu(main + self.shortcut(hidden))


class ContextEmbedding(nn.Module):
    """The mean of the whole map, added to every position of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PooledNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv_norm = PooledNorm(channels)
        self.fuse = ConvNormAct(channels, channels, activation=nn.ReLU())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        pooled = self.norm(F.adaptive_avg_pool2d(hidden, 1))  # (N, C, 1, 1)
        return self.fuse(hidden + F.relu(self.conv_norm(self.conv(pooled))))


class GuidedAggregation(GradientCheckpointingLayer):
    """Bilateral guided aggregation: each branch is weighted by what the other sees at its scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail_keep = _build_separable(channels)
        self.detail_reduce = nn.Sequential(ConvNormAct(channels, channels, 3, 2), nn.AvgPool2d(3, 2, 1))
        self.semantic_enlarge = ConvNormAct(channels, channels)
        self.semantic_keep = _build_separable(channels)
        self.fuse = ConvNormAct(channels, channels, activation=nn.ReLU())

    def forward(self, detail: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        """Return fused features at stride 8 of detail (stride 8) and semantic (stride 32) ones."""
        fine = self.detail_keep(detail) * resize_like(self.semantic_enlarge(semantic), detail).sigmoid()
        coarse = self.detail_reduce(detail) * self.semantic_keep(semantic).sigmoid()
        return self.fuse(fine + resize_like(coarse, fine))


class BoosterHead(nn.Module):
    """Auxiliary head, which upsamples twice before its last convolutions."""

    def __init__(self, in_channels: int, channels: int, cells: int, num_labels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, channels, activation=nn.ReLU())
        self.dropout = nn.Dropout(0.1)
        self.upsampled = ConvNormAct(channels, cells, activation=nn.ReLU())
        self.classifier = nn.Conv2d(cells, num_labels, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits of twice the size."""
        hidden = F.interpolate(self.dropout(self.conv(hidden)), scale_factor=2.0, mode="nearest")
        return self.classifier(self.upsampled(hidden))


def _build_detail_branch(in_channels: int, channels: list[int]) -> nn.Sequential:
    stages = []
    for wide, count in zip(channels, (2, 3, 3), strict=True):
        strides = [2] + [1] * (count - 1)
        inputs = [in_channels] + [wide] * (count - 1)
        stages.append(
            Stage(*(ConvNormAct(c, wide, 3, s, activation=nn.ReLU()) for c, s in zip(inputs, strides, strict=True)))
        )
        in_channels = wide
    return nn.Sequential(*stages)


def _build_separable(channels: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(channels, channels, groups=channels), nn.Conv2d(channels, channels, 1, bias=False))

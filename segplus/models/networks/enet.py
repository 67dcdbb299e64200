"""ENet: a large encoder of bottlenecks at stride 8 and a small decoder that unpools by indices."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.network_layers import ConvNormAct, Stage, crop_to_image, pad_to_multiple, require_positive

_POOLED = 3  # channels of the pooled image beside the first convolution
_NARROWING = 4  # channels outside a bottleneck, as a multiple of those inside
# The repeated part of stages 2 and 3: dilations, and the sides of convolutions that are split in two.
_SECTION: tuple[dict[str, Any], ...] = (
    {}, {"dilation": 2}, {"asymmetric": 5}, {"dilation": 4}, {}, {"dilation": 8}, {"asymmetric": 5}, {"dilation": 16},
)  # fmt: skip


class ENetConfig(PreTrainedConfig):
    """Values of an ENet; the defaults are the published network.

    Args:
        num_channels: Channels of an image.
        hidden_sizes: Channels at strides 2, 4 and 8, growing multiples of 4; the decoder has the first two again.
        first_depth: Bottlenecks at stride 4 after the reducing one.
        sections: How often the eight bottlenecks of different shapes come at stride 8.
        dropout: Share of channels that each bottleneck drops in training; a tenth of it at stride 4.
    """

    model_type = "segplus-enet"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        hidden_sizes: tuple[int, ...] | list[int] = (16, 64, 128),
        first_depth: int = 4,
        sections: int = 2,
        dropout: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_channels, self.hidden_sizes = num_channels, list(hidden_sizes)
        self.first_depth, self.sections, self.dropout = first_depth, sections, dropout
        require_positive(
            self.model_type,
            num_channels=num_channels,
            hidden_sizes=self.hidden_sizes,
            first_depth=first_depth,
            sections=sections,
        )
        sizes = self.hidden_sizes
        grows = all(narrow < wide for narrow, wide in pairwise(sizes))
        if len(sizes) != 3 or not grows or any(size % _NARROWING for size in sizes):
            raise ValueError(f"{self.model_type}: hidden_sizes are three growing multiples of 4, found {sizes}")
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"{self.model_type}: dropout is a share from 0 to below 1, found {dropout!r}")


class ENetForSemanticSegmentation(SegmentationNetwork):
    """The network for which every layer was made cheap; logits at full resolution, by a last transposed convolution.

    Images are padded to multiples of 8. A PReLU has one slope, and reducing bottlenecks are as narrow as their input
    makes them: 0.35 M parameters, where the paper, with a slope a channel, counts 0.37 M.

    Reference:
        Paszke et al., ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation, 2016, table 1 and
        figure 2. https://arxiv.org/abs/1606.02147
    """

    config_class = ENetConfig
    _no_split_modules: ClassVar[list[str]] = ["Stage", "ReducingBottleneck", "EnlargingBottleneck"]

    def __init__(self, config: ENetConfig) -> None:
        super().__init__(config)
        self.backbone = ENetFeatures(config)
        self.classifier = nn.ConvTranspose2d(
            config.hidden_sizes[0], config.num_labels, 3, stride=2, padding=1, output_padding=1
        )
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits of the images' size."""
        logits = self.classifier(self.backbone(pad_to_multiple(pixel_values, 8)))
        return SegmentationOutput(logits=crop_to_image(logits, pixel_values.shape[-2:], 1))


class ENetFeatures(nn.Module):
    """Encoder and decoder, without the last transposed convolution."""

    def __init__(self, config: ENetConfig) -> None:
        super().__init__()
        first, second, third = config.hidden_sizes
        dropout = config.dropout
        self.stem = Stem(config.num_channels, first)
        self.reduce1 = ReducingBottleneck(first, second, dropout / 10)
        self.stage1 = Stage(*(EBottleneck(second, dropout / 10) for _ in range(config.first_depth)))
        self.reduce2 = ReducingBottleneck(second, third, dropout)
        self.stage2 = Stage(
            *(EBottleneck(third, dropout, **values) for _ in range(config.sections) for values in _SECTION)
        )
        self.enlarge4 = EnlargingBottleneck(third, second, dropout)
        self.stage4 = Stage(*(EBottleneck(second, dropout, prelu=False) for _ in range(2)))
        self.enlarge5 = EnlargingBottleneck(second, first, dropout)
        self.stage5 = Stage(EBottleneck(first, dropout, prelu=False))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features at stride 2 of images whose sides are multiples of 8."""
        hidden, places1 = self.reduce1(self.stem(pixel_values))
        hidden, places2 = self.reduce2(self.stage1(hidden))
        hidden = self.stage4(self.enlarge4(self.stage2(hidden), places2))
        return self.stage5(self.enlarge5(hidden, places1))


class Stem(nn.Module):
    """A strided convolution beside a pooled image."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels - _POOLED, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features at stride 2."""
        pooled = F.max_pool2d(pixel_values, 2)
        given = pooled.shape[1]
        if given != _POOLED:
            # As a convolution is widened: what comes after sees three channels, whatever an image has.
            pooled = torch.stack([pooled[:, offset % given :: _POOLED].mean(1) for offset in range(_POOLED)], dim=1)
        return self.act(self.norm(torch.cat([self.conv(pixel_values), pooled], dim=1)))


class EBottleneck(nn.Module):
    """Projection, a regular, dilated or asymmetric convolution, expansion, and the input added to them."""

    def __init__(
        self, channels: int, dropout: float, *, dilation: int = 1, asymmetric: int = 0, prelu: bool = True
    ) -> None:
        super().__init__()
        narrow = channels // _NARROWING
        if asymmetric:
            middle = nn.Sequential(
                ConvNormAct(narrow, narrow, (asymmetric, 1), activation=_activate(prelu)),
                ConvNormAct(narrow, narrow, (1, asymmetric), activation=_activate(prelu)),
            )
        else:
            middle = ConvNormAct(narrow, narrow, dilation=dilation, activation=_activate(prelu))
        self.layers = nn.Sequential(
            ConvNormAct(channels, narrow, 1, activation=_activate(prelu)),
            middle,
            ConvNormAct(narrow, channels, 1),
            nn.Dropout2d(dropout),
        )
        self.act = _activate(prelu)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        return self.act(hidden + self.layers(hidden))


class ReducingBottleneck(GradientCheckpointingLayer):
    """Stride 2 by a bottleneck beside max pooling, whose channels are filled up with zeros."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        narrow = in_channels // _NARROWING
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, narrow, 2, stride=2, bias=False), nn.BatchNorm2d(narrow), nn.PReLU()
        )
        self.layers = nn.Sequential(
            ConvNormAct(narrow, narrow, activation=nn.PReLU()),
            ConvNormAct(narrow, out_channels, 1),
            nn.Dropout2d(dropout),
        )
        self.added = out_channels - in_channels
        self.act = nn.PReLU()

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features of half the size, and the indices of the maxima, shape (N, in_channels, h / 2, w / 2)."""
        pooled, indices = F.max_pool2d(hidden, 2, return_indices=True)
        main = F.pad(pooled, (0, 0, 0, 0, 0, self.added))  # (N, out_channels, h / 2, w / 2)
        return self.act(main + self.layers(self.project(hidden))), indices


class EnlargingBottleneck(GradientCheckpointingLayer):
    """Twice the size, by unpooling beside a bottleneck with a transposed convolution."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        narrow = in_channels // _NARROWING
        self.main = ConvNormAct(in_channels, out_channels, 1)
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, narrow, 1, activation=nn.ReLU()),
            nn.ConvTranspose2d(narrow, narrow, 2, stride=2, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            ConvNormAct(narrow, out_channels, 1),
            nn.Dropout2d(dropout),
        )

    def forward(self, hidden: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Return features of twice the size, shape (N, out_channels, 2 h, 2 w)."""
        return F.relu(F.max_unpool2d(self.main(hidden), indices, [2, 2]) + self.layers(hidden))


def _activate(prelu: bool) -> nn.Module:
    return nn.PReLU() if prelu else nn.ReLU()

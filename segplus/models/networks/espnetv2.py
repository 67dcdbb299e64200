"""ESPNetv2: depthwise dilated convolutions in spatial pyramids, for devices with little memory and power."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.network_layers import ConvNormAct, Stage, crop_to_image, pad_to_multiple, require_positive

_BRANCHES = 4
_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of the maps in the decoder's pyramids
_SMALLEST = 5  # rows and columns of such a map
_IMAGE = 3  # channels of the image where it comes in again
_DECODER = (64, 48, 32)  # channels at strides 16 to 4, after each pyramid


class ESPNetV2Config(PreTrainedConfig):
    """Values of an ESPNetv2; the defaults are the authors' s = 2.0.

    Args:
        num_channels: Channels of an image.
        stem_channels: Channels at stride 2, a multiple of 16.
        hidden_sizes: Channels at strides 4, 8 and 16, multiples of 16; each stage adds to the one before. 64, 128 and
            256 at s = 1.0.
        depths: Blocks after the reducing one, at strides 8 and 16.
        pyramid_channels: Channels inside the decoder's pyramids; the authors take half the classes, at most 16.
    """

    model_type = "segplus-espnetv2"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        stem_channels: int = 32,
        hidden_sizes: tuple[int, ...] | list[int] = (128, 256, 512),
        depths: tuple[int, ...] | list[int] = (3, 7),
        pyramid_channels: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_channels, self.stem_channels, self.pyramid_channels = num_channels, stem_channels, pyramid_channels
        self.hidden_sizes, self.depths = list(hidden_sizes), list(depths)
        require_positive(
            self.model_type,
            num_channels=num_channels,
            stem_channels=stem_channels,
            pyramid_channels=pyramid_channels,
            hidden_sizes=self.hidden_sizes,
            depths=self.depths,
        )
        sizes = [stem_channels, *self.hidden_sizes]
        grows = all(narrow < wide for narrow, wide in pairwise(sizes))
        if len(sizes) != 4 or len(self.depths) != 2 or not grows or any(size % _BRANCHES**2 for size in sizes):
            raise ValueError(
                f"{self.model_type}: stem_channels and three hidden_sizes are growing multiples of 16, depths are two, "
                f"found {stem_channels}, {self.hidden_sizes} and {self.depths}"
            )


class ESPNetV2ForSemanticSegmentation(SegmentationNetwork):
    """The encoder of extremely efficient spatial pyramids and the decoder of efficient ones; logits at stride 2.

    The authors upsample the logits with `align_corners=True`; images are padded to multiples of 32.

    Reference:
        Mehta et al., ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural Network,
        2019, section 3. https://arxiv.org/abs/1811.11431
    """

    config_class = ESPNetV2Config
    _no_split_modules: ClassVar[list[str]] = ["EESP", "ReducingEESP", "DecoderStage", "EfficientPyramid"]

    def __init__(self, config: ESPNetV2Config) -> None:
        super().__init__(config)
        self.backbone = ESPNetV2Features(config)
        self.classifier = EfficientPyramid(_DECODER[-1], config.pyramid_channels, config.num_labels, activate=False)
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits at stride 2."""
        logits = self.classifier(self.backbone(pad_to_multiple(pixel_values, 32)))
        return SegmentationOutput(logits=crop_to_image(logits, pixel_values.shape[-2:], 2))


class ESPNetV2Features(nn.Module):
    """Encoder, and the decoder without its last pyramid."""

    def __init__(self, config: ESPNetV2Config) -> None:
        super().__init__()
        stem, second, third, fourth = config.stem_channels, *config.hidden_sizes
        channels = config.num_channels
        self.stem = ConvNormAct(channels, stem, 3, 2, activation=nn.PReLU(stem))
        self.reduce = nn.ModuleList(
            ReducingEESP(narrow, wide, channels) for narrow, wide in ((stem, second), (second, third), (third, fourth))
        )
        self.stage3 = Stage(*(EESP(third, third, dilations=(1, 2, 3, 4)) for _ in range(config.depths[0])))
        self.stage4 = Stage(*(EESP(fourth, fourth, dilations=(1, 1, 2, 3)) for _ in range(config.depths[1])))
        self.pyramid = EfficientPyramid(fourth, config.pyramid_channels, _DECODER[0])
        skips, inputs = (third, second, stem), _DECODER
        outputs = (*_DECODER[1:], None)  # the last pyramid is the classifier
        self.decoder = nn.ModuleList(
            DecoderStage(skip, wide, config.pyramid_channels, out)
            for skip, wide, out in zip(skips, inputs, outputs, strict=True)
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features at stride 2 of images whose sides are multiples of 32."""
        first = self.stem(pixel_values)
        second = self.reduce[0](first, pixel_values)
        third = self.stage3(self.reduce[1](second, pixel_values))
        fourth = self.stage4(self.reduce[2](third, pixel_values))
        hidden = self.pyramid(fourth)
        for stage, skip in zip(self.decoder, (third, second, first), strict=True):
            hidden = stage(hidden, skip)
        return hidden


class EESP(nn.Module):
    """Extremely efficient spatial pyramid: dilated depthwise branches, added up, between grouped 1x1 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, *, dilations: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        narrow = out_channels // _BRANCHES
        self.project = ConvNormAct(in_channels, narrow, 1, groups=_BRANCHES, activation=nn.PReLU(narrow))
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, narrow, 3, stride, dilation, dilation, groups=narrow, bias=False)
            for dilation in dilations
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.norm_act = nn.PReLU(out_channels)
        self.expand = ConvNormAct(out_channels, out_channels, 1, groups=_BRANCHES)
        self.stride = stride
        # The authors keep one in reducing blocks as well, where nothing passes it.
        self.act = nn.PReLU(out_channels) if stride == 1 else nn.Identity()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return features at the block's stride; with the input added, and activated, where that is 1."""
        narrow = self.project(hidden)
        sums = [self.branches[0](narrow)]
        for branch in self.branches[1:]:
            sums.append(sums[-1] + branch(narrow))
        expanded = self.expand(self.norm_act(self.norm(torch.cat(sums, dim=1))))
        return self.act(expanded + hidden) if self.stride == 1 else expanded


class ReducingEESP(GradientCheckpointingLayer):
    """Stride 2 by pooling beside a spatial pyramid, reinforced by the image itself."""

    def __init__(self, in_channels: int, out_channels: int, image_channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.pyramid = EESP(in_channels, out_channels - in_channels, dilations=(1, 2, 3, 4), stride=2)
        self.image = ConvNormAct(image_channels, _IMAGE, 3, activation=nn.PReLU(_IMAGE))
        self.image_project = ConvNormAct(_IMAGE, out_channels, 1)
        self.act = nn.PReLU(out_channels)

    def forward(self, hidden: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features of half the size, shape (N, out_channels, h / 2, w / 2)."""
        reduced = torch.cat([self.pool(hidden), self.pyramid(hidden)], dim=1)
        while pixel_values.shape[-2] > reduced.shape[-2]:
            pixel_values = self.pool(pixel_values)
        return self.act(reduced + self.image_project(self.image(pixel_values)))


class EfficientPyramid(GradientCheckpointingLayer):
    """Depthwise convolutions of the map at five sizes, mixed over the sizes and projected."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, activate: bool = True) -> None:
        super().__init__()
        count = len(_SCALES)
        self.project = ConvNormAct(in_channels, channels, 1, activation=nn.PReLU(channels))
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False) for _ in _SCALES
        )
        self.norm = nn.BatchNorm2d(count * channels)
        self.norm_act = nn.PReLU(count * channels)
        self.mix = ConvNormAct(count * channels, channels, 3, groups=channels, activation=nn.PReLU(channels))
        self.expand = nn.Conv2d(channels, out_channels, 1, bias=not activate)
        self.out = nn.Sequential(nn.BatchNorm2d(out_channels), nn.PReLU(out_channels)) if activate else nn.Identity()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return maps of the same size, shape (N, out_channels, h, w)."""
        narrow = self.project(hidden)
        scales = [_convolve_at(narrow, branch, scale) for branch, scale in zip(self.branches, _SCALES, strict=True)]
        joined = self.norm_act(self.norm(torch.cat(scales, dim=1)))  # (N, sizes C, h, w)
        batch, _, height, width = joined.shape
        # One group for each channel, with its maps of all sizes.
        grouped = joined.view(batch, len(scales), -1, height, width).transpose(1, 2)  # (N, C, sizes, h, w)
        return self.out(self.expand(self.mix(grouped.reshape(batch, -1, height, width))))


class DecoderStage(GradientCheckpointingLayer):
    """Upsampling, the skip weighted by its own mean, and a pyramid but in the last stage."""

    def __init__(self, skip_channels: int, channels: int, pyramid_channels: int, out_channels: int | None) -> None:
        super().__init__()
        groups = math.gcd(skip_channels, channels)
        self.skip = ConvNormAct(skip_channels, channels, 3, groups=groups, activation=nn.PReLU(channels))
        self.skip_weight = nn.Conv2d(skip_channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)
        self.pyramid = (
            nn.Identity() if out_channels is None else EfficientPyramid(channels, pyramid_channels, out_channels)
        )

    def forward(self, hidden: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return features of the skip's size."""
        upsampled = F.interpolate(hidden, size=skip.shape[-2:], mode="bilinear", align_corners=True)
        weight = self.skip_weight(F.adaptive_avg_pool2d(skip, 1)).sigmoid()  # (N, C, 1, 1)
        return self.pyramid(self.act(self.norm(upsampled + self.skip(skip) * weight)))


def _convolve_at(hidden: torch.Tensor, branch: nn.Module, scale: float) -> torch.Tensor:
    """Return the map resized by a scale, convolved, and brought back to its size."""
    height, width = hidden.shape[-2:]
    size = (max(math.ceil(height * scale), _SMALLEST), max(math.ceil(width * scale), _SMALLEST))
    if scale < 1:
        small = branch(F.adaptive_avg_pool2d(hidden, size))
        return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=True)
    if scale > 1:
        large = branch(F.interpolate(hidden, size=size, mode="bilinear", align_corners=True))
        return F.adaptive_avg_pool2d(large, (height, width))
    return branch(hidden)

"""SegNet: VGG16 and its mirror image, which unpools by the indices of the maxima."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.networks.network_layers import ConvNormAct, Stage, crop_to_image, pad_to_multiple, require_positive


class SegNetConfig(PreTrainedConfig):
    """Values of a SegNet; the defaults are the network on VGG16.

    Args:
        num_channels: Channels of an image.
        hidden_sizes: Channels at strides 1, 2, 4, ...
        depths: Convolutions there, in the encoder and again in the decoder.
    """

    model_type = "segplus-segnet"

    def __init__(
        self,
        *,
        num_channels: int = 3,
        hidden_sizes: tuple[int, ...] | list[int] = (64, 128, 256, 512, 512),
        depths: tuple[int, ...] | list[int] = (2, 2, 3, 3, 3),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_channels, self.hidden_sizes, self.depths = num_channels, list(hidden_sizes), list(depths)
        require_positive(self.model_type, num_channels=num_channels, hidden_sizes=self.hidden_sizes, depths=self.depths)
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"{self.model_type}: hidden_sizes and depths are as many, found {self.hidden_sizes} and {self.depths}"
            )


class SegNetForSemanticSegmentation(SegmentationNetwork):
    """Encoder and decoder joined by pooling indices alone; logits at full resolution.

    Images are padded to what the poolings divide.

    Reference:
        Badrinarayanan, Kendall, Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
        Segmentation, 2015, section 3 and figure 2. https://arxiv.org/abs/1511.00561
    """

    config_class = SegNetConfig
    _no_split_modules: ClassVar[list[str]] = ["Stage"]

    def __init__(self, config: SegNetConfig) -> None:
        super().__init__(config)
        self.backbone = SegNetFeatures(config)
        self.classifier = nn.Conv2d(config.hidden_sizes[0], config.num_labels, 3, padding=1)
        self.post_init()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits of the images' size."""
        padded = pad_to_multiple(pixel_values, 2 ** len(self.config.depths))
        logits = self.classifier(self.backbone(padded))
        return SegmentationOutput(logits=crop_to_image(logits, pixel_values.shape[-2:], 1))


class SegNetFeatures(nn.Module):
    """Encoder and decoder, without the last convolution."""

    def __init__(self, config: SegNetConfig) -> None:
        super().__init__()
        sizes, depths = config.hidden_sizes, config.depths
        self.encoder = nn.ModuleList(
            _build_stage([narrow] + [wide] * depth)
            for narrow, wide, depth in zip([config.num_channels, *sizes], sizes, depths, strict=False)
        )
        # Each stage gives the channels of the level above; the first leaves its last convolution to the classifier.
        self.decoder = nn.ModuleList(
            _build_stage([wide] * depth + ([narrow] if level else []))
            for level, (narrow, wide, depth) in enumerate(zip([0, *sizes], sizes, depths, strict=False))
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return features at full resolution."""
        hidden, pooled_at = pixel_values, []
        for stage in self.encoder:
            hidden, indices = F.max_pool2d(stage(hidden), 2, return_indices=True)
            pooled_at.append(indices)
        for stage in reversed(self.decoder):
            hidden = stage(F.max_unpool2d(hidden, pooled_at.pop(), [2, 2]))
        return hidden


def _build_stage(channels: list[int]) -> Stage:
    pairs = pairwise(channels)
    return Stage(*(ConvNormAct(narrow, wide, bias=True, activation=nn.ReLU()) for narrow, wide in pairs))

"""A shallow branch on the image itself, for objects that the encoder's first strides lose."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization as init

from segplus.models.heads.blocks import ConvBlock, PooledBatchNorm, resize


class DetailBranch(nn.Module):
    """BiSeNet's spatial path at stride 4, which corrects a head's logits: poles and signs keep their place in it.

    What the head gives is upsampled to stride 4 where it is coarser, and the branch adds to it; it begins at zero, so a
    training begins with the head alone.

    Args:
        num_channels: Channels of the images.
        num_labels: Number of classes.
        channels: Channels of the branch.

    Reference:
        Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation, 2018, section 3.1, with
        two strided convolutions for its three. https://arxiv.org/abs/1808.00897
    """

    def __init__(self, num_channels: int, num_labels: int, *, channels: int = 64) -> None:
        super().__init__()
        self.path = nn.Sequential(
            _StridedConvBlock(num_channels, channels),
            _StridedConvBlock(channels, channels),
            ConvBlock(channels, channels),
        )
        self.mix = ConvBlock(channels + num_labels, channels, 3)
        self.correction = CorrectingConvolution(channels, num_labels, 1)

    def forward(self, logits: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the corrected logits, at stride 4, or at the head's own stride where that is finer.

        Args:
            logits: The head's, shape (N, C, h, w).
            pixel_values: The images, shape (N, channels, H, W).
        """
        detail = self.path(pixel_values)  # (N, channels, H / 4, W / 4)
        if logits.shape[2] > detail.shape[2]:
            detail = resize(detail, logits)
        else:
            logits = resize(logits, detail)
        return logits + self.correction(self.mix(torch.cat([detail, logits.to(detail.dtype)], dim=1)))


class CorrectingConvolution(nn.Conv2d):
    """A convolution that begins at zero: it corrects nothing yet."""

    def initialize_weights(self) -> None:
        """Begin at zero."""
        init.zeros_(self.weight)
        init.zeros_(self.bias)


class _StridedConvBlock(nn.Sequential):
    """3x3 convolution that halves the size, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            PooledBatchNorm(outputs),
            nn.ReLU(inplace=True),
        )

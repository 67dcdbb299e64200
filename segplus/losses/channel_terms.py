"""Terms that need whole images, one class at a time: only one channel is ever upsampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.losses.softmax import LOG2_E, SoftmaxWalk
from segplus.losses.terms import LabelBatch, Reduction, Summand, Term


class Channels:
    """The upsampled probabilities of a batch, class by class, and the gradient that terms give them.

    Args:
        walk: The batch.
        log_norms: Of every image, arranged; see `Measures`.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """

    def __init__(self, walk: SoftmaxWalk, log_norms: Sequence[Tensor], gradient: Tensor | None) -> None:
        self.batch, self.classes, self.gradient = walk.batch, walk.classes, gradient
        self.logits, self.limit, self.peaks = walk.logits, walk.limit, walk.logits.amax(1, keepdim=True)
        self.log_norms = walk.grid.restore(torch.cat(list(log_norms)))  # (N, H, W)
        # The sum over classes of p dL/dp of every pixel: a softmax's gradient is p (dL/dp - mean_slope).
        self.mean_slope = torch.zeros_like(self.log_norms)

    def upsample(self, images: slice, index: int) -> Tensor:
        """Return the probabilities of one class in some images, shape (n, H, W)."""
        channel = self.logits[images, index : index + 1]
        # As `SoftmaxSource` reads them, or the norms would not be theirs.
        if self.limit is None:
            channel = (channel - self.peaks[images]).mul_(LOG2_E)
        else:
            channel = channel.clamp(-self.limit, self.limit)
        full = F.interpolate(channel, size=self.log_norms.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        full.sub_(self.log_norms[images])
        return full.exp2_() if self.limit is None else full.exp_()

    def add_gradient(self, images: slice, index: int, probabilities: Tensor, slopes: Tensor) -> None:
        """Add the gradient of the loss by the probabilities of one class, `slopes`, which is overwritten."""
        if self.gradient is None:
            return
        slopes.mul_(probabilities)
        self.mean_slope[images] += slopes
        size, shape = list(slopes.shape[1:]), [len(slopes), 1, *self.logits.shape[2:]]
        back = torch.ops.aten.upsample_bilinear2d_backward(slopes[:, None], size, shape, False, None, None)
        self.gradient[images, index] += back[:, 0]


@dataclass(frozen=True)
class ChannelTerm(Term):
    """A loss of whole maps of probabilities, one class after the other."""

    def walk(self, summand: Summand[ChannelTerm], channels: Channels, reduction: Reduction) -> None:
        """Add the value to the summand, and the gradient by `channels.add_gradient`.

        Args:
            summand: This term with its weight.
            channels: The batch.
            reduction: How processes share a batch.
        """
        raise NotImplementedError

    def evaluate(
        self, summand: Summand[ChannelTerm], probabilities: Tensor, batch: LabelBatch, reduction: Reduction
    ) -> Tensor:
        """Return the value the plain way, from probabilities (N, C, H, W)."""
        raise NotImplementedError

"""The softmax of the upsampled logits, chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from segplus.losses.terms import ImageLabels, LabelBatch
from segplus.losses.upsample import Grid, Position

# Below this range of a pixel's logits the maximum over the classes is subtracted once, on the low-resolution grid:
# interpolation is a convex combination, so shifted logits stay at or below 0, and no sum of exp() is 0.
SAFE_RANGE = 50.0

# Logits are walked in units of log 2: exp2 is exp without a multiplication, and on CPUs several times faster in torch.
LOG2_E = math.log2(math.e)

# Pixels that are added in one product: its partial sums stay small, so that float32 rounds little.
RUN = 4096


@dataclass
class Image:
    """One image on its walk: its labels, and arranged maps of them."""

    logits: Tensor  # (C, h, w), or (C + 1, h, w) with the weighted sum of all logits last where labels are smoothed
    labels: ImageLabels
    ids: Tensor
    valid: Tensor


class Exponentials(NamedTuple):
    """A chunk of P pixels under the exponential.

    Args:
        exps: Exponentials of the logits, up to a factor a pixel, shape (C, P).
        norm: Their sum, shape (P,).
        log_norm: The logarithm to base 2 of the sum before that factor, shape (P,).
        log_target: Log-probability of the true class, shape (P,).
        log_mixed: Weighted sum of all log-probabilities, shape (P,); None where no labels are smoothed.
    """

    exps: Tensor
    norm: Tensor
    log_norm: Tensor
    log_target: Tensor
    log_mixed: Tensor | None


class Measures(NamedTuple):
    """What one walk without a gradient finds in an image.

    Args:
        log_target: Log-probability of the true class, arranged.
        log_norm: Logarithm to base 2 of the sum of the exponentials of `Image.logits`, arranged.
        sums: Hits, areas and squares, shape (3, C).
    """

    log_target: Tensor
    log_norm: Tensor
    sums: Tensor


class SoftmaxWalk:
    """The walks that a batch needs for a set of pixel and overlap terms.

    Args:
        logits: Shape (N, C, h, w), in the working precision.
        batch: The labels.
        grid: The walk.
        stable: Subtract the maximum on every chunk, for logits of a range beyond SAFE_RANGE.
        smoothed: Whether a term smooths its labels.
    """

    def __init__(self, logits: Tensor, batch: LabelBatch, grid: Grid, stable: bool, smoothed: bool) -> None:
        self.logits, self.batch, self.grid, self.stable = logits, batch, grid, stable
        self.classes = logits.shape[1]
        self.values = self.classes * batch.labels.shape[-2] * batch.labels.shape[-1]
        self.ones = logits.new_ones(self.classes)
        weights = batch.class_weights
        self.mixture = (logits.new_ones(self.classes) if weights is None else weights.to(logits)) if smoothed else None
        self.mixture_sum = 0.0 if self.mixture is None else self.mixture.sum()

    def select_image(self, index: int) -> Image:
        """Return image `index` with its labels arranged for the walk."""
        source, mixture = self.logits[index], self.mixture
        # One buffer with room for the mixture: a second copy of the image would count in every thread's memory.
        logits = source.new_empty(self.classes + (mixture is not None), *source.shape[1:])
        torch.sub(source, source.amax(0), out=logits[: self.classes]).mul_(LOG2_E)
        if mixture is not None:
            logits[self.classes] = torch.tensordot(mixture, logits[: self.classes], 1)
        labels = self.batch.select_image(index, logits.dtype)
        return Image(logits, labels, self.grid.arrange(labels.ids), self.grid.arrange(labels.valid))

    def exponentiate(self, chunk: Tensor, ids: Tensor) -> Exponentials:
        """Turn a chunk into exponentials in place.

        Args:
            chunk: Logits, shape (C or C + 1, P).
            ids: Class ids, shape (1, P).
        """
        exps = chunk[: self.classes]
        mixed = None if self.mixture is None else chunk[self.classes]
        target = exps.gather(0, ids)[0]
        peak = exps.amax(0) if self.stable else None
        if peak is not None:
            exps.sub_(peak)
        exps.exp2_()
        norm = self.ones @ exps
        log_norm = norm.log2() if peak is None else norm.log2().add_(peak)
        log_target = target.sub_(log_norm).div_(LOG2_E)
        log_mixed = None if mixed is None else (mixed - log_norm * self.mixture_sum) / LOG2_E
        return Exponentials(exps, norm, log_norm, log_target, log_mixed)

    def measure(self, image: Image, areas: bool, squares: bool) -> Measures:
        """Walk once without a gradient.

        Args:
            image: The image.
            areas: Whether the sums of probabilities are wanted.
            squares: Whether the sums of their squares are wanted.
        """
        log_target, log_norm = torch.empty_like(image.valid), torch.empty_like(image.valid)
        # In float64: added one after the other to a large float32 sum, a million probabilities were 2 % too many.
        sums = image.logits.new_zeros(3, self.classes, dtype=torch.float64)

        def compute(chunk: Tensor, position: Position) -> None:
            ids, valid = image.ids[position].reshape(1, -1), image.valid[position].flatten()
            found = self.exponentiate(chunk.flatten(1), ids)
            log_target[position] = found.log_target.view_as(log_target[position])
            log_norm[position] = found.log_norm.view_as(log_norm[position])
            if areas:
                share = valid / found.norm
                sums[1] += _add_over_pixels(found.exps, share)
                if squares:
                    sums[2] += _add_over_pixels(found.exps.mul_(found.exps), share.mul_(share))

        self.grid.visit(image.logits, compute, None)
        hits = log_target.exp().mul_(image.valid).double()
        sums[0].scatter_add_(0, image.ids.flatten(), hits.flatten())
        return Measures(log_target, log_norm, sums.to(log_norm))


def _add_over_pixels(maps: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of maps (C, P) times factors (P,) by class, in runs short enough for float32."""
    runs = zip(torch.split(maps, RUN, 1), torch.split(factors, RUN), strict=True)
    return torch.stack([some @ by for some, by in runs]).sum(0)

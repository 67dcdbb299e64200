"""The softmax of the upsampled logits, chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from segplus.losses.terms import ImageLabels, LabelBatch
from segplus.losses.upsample import Grid, Position, Source, find_limit

# Below this range of a pixel's logits the maximum over the classes is subtracted once, on the low-resolution grid:
# interpolation is a convex combination, so shifted logits stay at or below 0, and no sum of exp() is 0.
SAFE_RANGE = 50.0

# Logits are walked in units of log 2: exp2 is exp without a multiplication, and on CPUs several times faster in torch.
LOG2_E = math.log2(math.e)

# Pixels that are added in one product: its partial sums stay small, so that float32 rounds little.
RUN = 4096


@dataclass
class SoftmaxSource(Source):
    """Logits in units of log 2, with their maximum over the classes subtracted; within a limit, just as they are.

    Args:
        mixture: Factors of all logits, shape (C,), whose sum is one more channel; None where no labels are smoothed.
    """

    mixture: Tensor | None = None

    @property
    def channels(self) -> int:
        """Channels of a chunk."""
        return len(self.logits) + (self.mixture is not None)

    def read(self, rows: slice, out: Tensor) -> None:
        """Write rows of the low-resolution grid to `out`, shape (channels, n, k, w)."""
        source, classes = self.logits[:, :, rows], len(self.logits)
        if self.limit is None:
            torch.sub(source, source.amax(0), out=out[:classes]).mul_(LOG2_E)
        else:
            torch.clamp(source, -self.limit, self.limit, out=out[:classes])
        if self.mixture is not None:
            out[classes] = torch.tensordot(self.mixture, out[:classes], 1)

    def collect(self, rows: slice, found: Tensor) -> None:
        """Add the gradient by what was read, shape (channels, n, k, w)."""
        if self.gradient is None:
            return
        gradient, classes = self.gradient[:, :, rows], len(self.logits)
        gradient += found[:classes]
        if self.mixture is not None:
            gradient += found[classes] * self.mixture[:, None, None, None]


@dataclass
class Images:
    """Some images on their walk: their labels, and arranged maps of them."""

    source: SoftmaxSource
    labels: ImageLabels
    ids: Tensor
    valid: Tensor


class Exponentials(NamedTuple):
    """A chunk of n images under the exponential.

    Args:
        exps: Exponentials of the logits, up to a factor a pixel, shape (C, n, rows, width).
        norm: Their sum, shape (n, rows, width).
        log_norm: The logarithm of the sum before that factor, in the unit of the logits; None where nobody asked.
        log_target: Log-probability of the true class, likewise.
        log_mixed: Weighted sum of all log-probabilities, likewise; None where no labels are smoothed.
    """

    exps: Tensor
    norm: Tensor
    log_norm: Tensor | None
    log_target: Tensor
    log_mixed: Tensor | None


class Measures(NamedTuple):
    """What one walk without a gradient finds in some images.

    Args:
        log_target: Log-probability of the true class, arranged.
        log_norm: Logarithm of the sum of the exponentials of what was read, arranged, in its unit; None if not wanted.
        sums: Hits, areas and squares, shape (3, n, C).
    """

    log_target: Tensor
    log_norm: Tensor | None
    sums: Tensor


class SoftmaxWalk:
    """The walks that a batch needs for a set of pixel and overlap terms.

    Args:
        logits: Shape (N, C, h, w), in the working precision.
        batch: The labels.
        grid: The walk.
        joined: Whether all images are walked together.
        stable: Subtract the maximum on every chunk, for logits of a range beyond SAFE_RANGE.
        smoothed: Whether a term smooths its labels.
    """

    def __init__(
        self, logits: Tensor, batch: LabelBatch, grid: Grid, *, joined: bool, stable: bool, smoothed: bool
    ) -> None:
        self.logits, self.batch, self.grid, self.stable = logits, batch, grid, stable
        self.limit = find_limit(logits, joined)
        # Of the logits that are read. On a GPU it saves nothing, and two operations a chunk are counted.
        self.unit = LOG2_E if self.limit is None else 1.0
        self.groups = group_images(len(logits), joined)
        self.classes = logits.shape[1]
        self.values = self.classes * batch.labels.shape[-2] * batch.labels.shape[-1]
        self.ones = logits.new_ones(self.classes)
        weights = batch.class_weights
        self.mixture = (logits.new_ones(self.classes) if weights is None else weights.to(logits)) if smoothed else None
        self.mixture_sum = 0.0 if self.mixture is None else self.mixture.sum()

    def select_images(self, images: slice, gradient: Tensor | None = None) -> Images:
        """Return some images with their labels arranged for the walk.

        Args:
            images: Which.
            gradient: Of the batch, shape (N, C, h, w), added to in place by the walk.
        """
        mine = None if gradient is None else gradient[images].transpose(0, 1)
        source = SoftmaxSource(self.logits[images].transpose(0, 1), mine, self.limit, self.mixture)
        labels = self.batch.select_images(images, self.logits.dtype)
        return Images(source, labels, self.grid.arrange(labels.ids), self.grid.arrange(labels.valid))

    def exponentiate(self, chunk: Tensor, ids: Tensor, *, norms: bool = False) -> Exponentials:
        """Turn a chunk into exponentials in place.

        Args:
            chunk: Logits, shape (C or C + 1, n, rows, width).
            ids: Class ids, shape (n, rows, width).
            norms: Whether `log_norm` is wanted.
        """
        exps = chunk[: self.classes]
        mixed = None if self.mixture is None else chunk[self.classes]
        peak = exps.amax(0) if self.stable else None
        if peak is not None:
            exps.sub_(peak)
        target = exps.gather(0, ids[None])[0]
        if self.limit is None:
            norm = (self.ones @ exps.exp2_().flatten(1)).view_as(target)
            log_norm = norm.log2()
            log_target = target.sub_(log_norm).div_(self.unit)
        else:
            norm = (self.ones @ exps.exp_().flatten(1)).view_as(target)
            log_norm = norm.log()
            log_target = target.sub_(log_norm)
        if peak is not None and (norms or mixed is not None):
            log_norm += peak
        log_mixed = None if mixed is None else (mixed - log_norm * self.mixture_sum) / self.unit
        return Exponentials(exps, norm, log_norm if norms else None, log_target, log_mixed)

    def measure(self, images: Images, *, areas: bool, squares: bool, norms: bool) -> Measures:
        """Walk once without a gradient.

        Args:
            images: The images.
            areas: Whether the sums of probabilities are wanted.
            squares: Whether the sums of their squares are wanted.
            norms: Whether the logarithms of the sums of exponentials are wanted.
        """
        log_target = torch.empty_like(images.valid)
        log_norm = torch.empty_like(images.valid) if norms else None
        # In float64: added one after the other to a large float32 sum, a million probabilities were 2 % too many.
        sums = log_target.new_zeros(3, len(log_target), self.classes, dtype=torch.float64)

        def compute(chunk: Tensor, position: Position) -> None:
            found = self.exponentiate(chunk, images.ids[position], norms=norms)
            log_target[position] = found.log_target
            if log_norm is not None and found.log_norm is not None:
                log_norm[position] = found.log_norm
            if areas:
                share = images.valid[position] / found.norm
                sums[1] += _add_over_pixels(found.exps, share)
                if squares:
                    sums[2] += _add_over_pixels(found.exps.mul_(found.exps), share.mul_(share))

        self.grid.visit(images.source, compute)
        if areas:
            hits = log_target.exp().mul_(images.valid).double()
            sums[0].scatter_add_(1, images.ids.flatten(1), hits.flatten(1))
        return Measures(log_target, log_norm, sums.to(log_target))


def group_images(count: int, joined: bool) -> list[slice]:
    """Return the images that are walked together: each by itself, or all."""
    return [slice(0, count)] if joined else [slice(i, i + 1) for i in range(count)]


def _add_over_pixels(maps: Tensor, factors: Tensor) -> Tensor:
    """Return the sum over pixels of maps (C, n, rows, width) times factors (n, rows, width), shape (n, C)."""
    if maps.shape[1] > 1:
        return torch.matmul(maps.flatten(2).transpose(0, 1), factors.flatten(1)[:, :, None])[..., 0]
    # In runs short enough for float32.
    runs = zip(torch.split(maps.flatten(1), RUN, 1), torch.split(factors.flatten(), RUN), strict=True)
    return torch.stack([some @ by for some, by in runs]).sum(0)[None]

"""All terms on the softmax in one or two walks over the upsampled grid, with the gradient computed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segplus.losses.overlap import Overlaps, OverlapTerm
from segplus.losses.pixelwise import PixelTerm
from segplus.losses.terms import ImageLabels, LabelBatch, Reduction
from segplus.losses.upsample import Grid, Place

# Below this range of a pixel's logits the maximum over the classes is subtracted once, on the low-resolution grid:
# interpolation is a convex combination, so shifted logits stay at or below 0, and no sum of exp() is 0.
SAFE_RANGE = 60.0


@dataclass
class Image:
    """One image on its walk: its labels, and arranged maps of them."""

    logits: Tensor  # (C, h, w), or (C + 1, h, w) with the weighted sum of all logits last where labels are smoothed
    labels: ImageLabels
    ids: Tensor
    valid: Tensor


class SoftmaxWalk:
    """The walks that a batch needs for a set of pixel and overlap terms.

    Args:
        logits: Shape (N, C, h, w), in the working precision.
        batch: The labels.
        grid: The walk.
        stable: Subtract the maximum on every piece, for logits of a range beyond SAFE_RANGE.
        smoothed: Whether a term smooths its labels.
    """

    def __init__(self, logits: Tensor, batch: LabelBatch, grid: Grid, stable: bool, smoothed: bool) -> None:
        self.logits, self.batch, self.grid, self.stable = logits, batch, grid, stable
        self.classes = logits.shape[1]
        weights = batch.class_weights
        self.mixture = (logits.new_ones(self.classes) if weights is None else weights.to(logits)) if smoothed else None
        self.mixture_sum = 0.0 if self.mixture is None else self.mixture.sum()

    def select_image(self, index: int) -> Image:
        """Return image `index` with its labels arranged for the walk."""
        logits = self.logits[index]
        logits = logits - logits.amax(0)
        if self.mixture is not None:
            logits = torch.cat([logits, torch.tensordot(self.mixture, logits, 1)[None]])
        labels = self.batch.select_image(index, logits.dtype)
        return Image(logits, labels, self.grid.arrange(labels.ids), self.grid.arrange(labels.valid))

    def exponentiate(self, piece: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Turn a piece into exponentials in place.

        Args:
            piece: Logits, shape (C or C + 1, P).
            ids: Class ids, shape (1, P).
        Returns:
            The exponentials (C, P), their sum (P,), the log-probability of the true class (P,) and, where labels are
            smoothed, the weighted sum of all log-probabilities (P,).
        """
        exps = piece[: self.classes]
        mixed = None if self.mixture is None else piece[self.classes]
        if self.stable:
            peak = exps.amax(0)
            exps.sub_(peak)
            if mixed is not None:
                mixed.sub_(peak * self.mixture_sum)
        target = exps.gather(0, ids)[0]
        exps.exp_()
        norm = exps.sum(0)
        log_norm = norm.log()
        return exps, norm, target.sub_(log_norm), None if mixed is None else mixed - log_norm * self.mixture_sum

    def measure(self, image: Image, squares: bool) -> tuple[Tensor, Tensor]:
        """Walk once without a gradient.

        Returns:
            The arranged log-probabilities of the true class, and the sums (3, C): hits, areas, squares.
        """
        log_target = torch.empty_like(image.valid)
        sums = image.logits.new_zeros(3, self.classes)

        def compute(piece: Tensor, place: Place) -> None:
            ids, valid = image.ids[place].reshape(1, -1), image.valid[place].flatten()
            exps, norm, log_true, _ = self.exponentiate(piece.flatten(1), ids)
            log_target[place] = log_true.view_as(log_target[place])
            share = valid / norm
            sums[1] += exps @ share
            if squares:
                sums[2] += exps.mul_(exps) @ share.mul_(share)

        self.grid.visit(image.logits, compute, None)
        hits = log_target.exp().mul_(image.valid)
        sums[0].scatter_add_(0, image.ids.flatten(), hits.flatten())
        return log_target, sums


@dataclass
class PixelPart:
    """A pixel term in a batch: what every pixel's loss is multiplied by, and its value so far."""

    term: PixelTerm
    coefficient: Tensor
    value: Tensor


@dataclass
class OverlapPart:
    """An overlap term in a batch: its coefficient, denominators and, after the finish, its value and derivatives."""

    term: OverlapTerm
    coefficient: Tensor
    denominator: Tensor | None
    value: Tensor


def walk_softmax(
    walk: SoftmaxWalk,
    pixels: Sequence[PixelPart],
    overlaps: Sequence[OverlapPart],
    reduction: Reduction,
    gradient: Tensor | None,
) -> None:
    """Add every part's value to it and its gradient to `gradient`.

    Args:
        walk: The batch.
        pixels: Pixel terms.
        overlaps: Overlap terms.
        reduction: How overlap sums become a value.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """
    slopes = None
    if overlaps:
        squares = any(part.term.needs_squares for part in overlaps)
        sums = torch.stack([walk.measure(walk.select_image(i), squares)[1] for i in range(len(walk.logits))], 1)
        slopes = finish_overlaps(sums, walk.batch, overlaps, reduction)
        if gradient is None and not pixels:
            return
    for index in range(len(walk.logits)):
        image_slopes = None if slopes is None else slopes[:, index]
        walk_image(walk, index, pixels, image_slopes, None if gradient is None else gradient[index])


def finish_overlaps(sums: Tensor, batch: LabelBatch, parts: Sequence[OverlapPart], reduction: Reduction) -> Tensor:
    """Finish every overlap term.

    Args:
        sums: Hits, areas and squares of every image, shape (3, N, C).
    Returns:
        The derivative of the weighted values by `sums`, shape (3, N, C).
    """
    counts = batch.count_classes().to(sums)
    total = torch.zeros_like(sums)
    for part in parts:
        if part.term.per_image:
            leaf = sums.detach().requires_grad_()
            region = counts
            denominator = batch.count_images() if part.denominator is None else part.denominator
            scale = 1 / denominator.to(sums).clamp(min=1)
            value_scale = scale
        else:
            local = torch.cat([sums, counts[None]]).sum(1, keepdim=True)  # (4, 1, C)
            merged = reduction.add_over_processes(local) if part.term.sync else local
            leaf, region = merged[:3].detach().requires_grad_(), merged[3]
            scale = sums.new_tensor(reduction.gradient_share if part.term.sync else reduction.lone_share)
            value_scale = sums.new_tensor(reduction.value_share if part.term.sync else reduction.lone_share)
        with torch.enable_grad():
            value = part.term.finish(Overlaps(leaf[0], leaf[1], leaf[2], region), batch.class_weights).sum()
            (slope,) = torch.autograd.grad(value, leaf)
        part.value += value.detach() * value_scale
        total += slope * (part.coefficient * scale)
    return total


def walk_image(
    walk: SoftmaxWalk, index: int, pixels: Sequence[PixelPart], slopes: Tensor | None, gradient: Tensor | None
) -> None:
    """Walk once over one image for the values of the pixel terms and the gradient of all terms."""
    image = walk.select_image(index)
    weights = [walk.grid.arrange(part.term.weigh(image.labels)) for part in pixels]
    log_target = torch.empty_like(image.valid)
    log_mixed = torch.empty_like(image.valid) if walk.mixture is not None else None

    def compute(piece: Tensor, place: Place) -> None:
        ids, valid = image.ids[place].reshape(1, -1), image.valid[place].flatten()
        flat = piece.flatten(1)
        exps, norm, log_true, mixed = walk.exponentiate(flat, ids)
        log_target[place] = log_true.view_as(log_target[place])
        if log_mixed is not None and mixed is not None:
            log_mixed[place] = mixed.view_as(log_mixed[place])
        if gradient is None:
            return
        pull, spread = torch.zeros_like(norm), torch.zeros_like(norm)
        for part, weight in zip(pixels, weights, strict=True):
            slope = part.term.slopes(log_true) * (part.coefficient * weight[place].flatten())
            pull -= slope * (1 - part.term.smoothing)
            if part.term.smoothing:
                spread += valid * (part.coefficient * part.term.smoothing / walk.classes)
        rise = pull if walk.mixture is None else pull + spread * walk.mixture_sum
        if slopes is None:
            exps.mul_(rise / norm)
        else:
            pull = pull - _apply_slopes(exps, valid / norm, valid * log_true.exp(), slopes, ids[0], rise)
        exps.scatter_add_(0, ids, -pull[None])
        if walk.mixture is not None:
            flat[walk.classes] = -spread

    if gradient is None or walk.mixture is None:
        walk.grid.visit(image.logits, compute, gradient)
    else:
        extended = torch.zeros_like(image.logits)
        walk.grid.visit(image.logits, compute, extended)
        gradient.add_(extended[: walk.classes]).add_(extended[walk.classes] * walk.mixture[:, None, None])
    for part, weight in zip(pixels, weights, strict=True):
        add_value(part, walk, image, log_target, log_mixed, weight)


def _apply_slopes(exps: Tensor, share: Tensor, hit: Tensor, slopes: Tensor, ids: Tensor, rise: Tensor) -> Tensor:
    """Turn exponentials into the gradient of overlap terms plus `rise` times the probabilities, in place.

    Args:
        exps: Exponentials, shape (C, P).
        share: 1 / their sum, 0 where ignored, shape (P,).
        hit: Probability of the true class, 0 where ignored, shape (P,).
        slopes: Derivatives by hits, areas and squares, shape (3, C).
        ids: Class ids, shape (P,).
        rise: Factor of the probabilities from the pixel terms, 0 where ignored, shape (P,).
    Returns:
        What is still to be added at the true class, shape (P,).
    """
    true = hit * slopes[0][ids]
    probabilities = exps.mul_(share)
    by_class = torch.addcmul(slopes[1][:, None], 2 * slopes[2][:, None], probabilities)
    by_class.mul_(probabilities)
    rest = rise - by_class.sum(0) - true
    probabilities.mul_(rest).add_(by_class)
    return true


def add_value(
    part: PixelPart, walk: SoftmaxWalk, image: Image, log_target: Tensor, log_mixed: Tensor | None, weight: Tensor
) -> None:
    """Add one image's value of a pixel term, from the arranged maps of its log-probabilities."""
    smoothing = part.term.smoothing
    total = (part.term.losses(log_target) * weight).sum() * (1 - smoothing)
    if smoothing and log_mixed is not None:
        total = total - (log_mixed * image.valid).sum() * (smoothing / walk.classes)
    part.value += total

"""All terms on one softmax in one or two walks over the upsampled grid, with the gradient computed on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segplus.losses.channel_terms import Channels, ChannelTerm
from segplus.losses.concurrency import map_images
from segplus.losses.overlap import Overlaps, OverlapTerm
from segplus.losses.pixelwise import PixelTerm
from segplus.losses.softmax import Exponentials, Images, Measures, SoftmaxWalk
from segplus.losses.terms import Reduction, Summand
from segplus.losses.upsample import Position


@dataclass
class ImageTerms:
    """What all terms ask of some images in the walk that computes the gradient.

    Args:
        pixels: Pixel terms with the arranged choice of their pixels, None where all count.
        slopes: Derivatives of overlap terms by hits, areas and squares, shape (3, n, C), or None.
        squares: Whether those by squares are not all 0.
        mean_slope: That of `Channels`, arranged, or None.
        log_target: Log-probability of the true class, arranged, where an earlier walk has found it.
    """

    pixels: list[tuple[Summand[PixelTerm], Tensor | None]]
    slopes: Tensor | None
    squares: bool
    mean_slope: Tensor | None
    log_target: Tensor | None


def stream_softmax_terms(
    walk: SoftmaxWalk,
    pixels: Sequence[Summand[PixelTerm]],
    overlaps: Sequence[Summand[OverlapTerm]],
    channelled: Sequence[Summand[ChannelTerm]],
    reduction: Reduction,
    gradient: Tensor | None,
) -> None:
    """Add every summand's value to it and its gradient to `gradient`.

    Args:
        walk: The batch.
        pixels: Pixel terms.
        overlaps: Overlap terms.
        channelled: Terms on one class after the other.
        reduction: How sums become values.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """
    device = walk.logits.device
    squares = any(summand.term.needs_squares for summand in overlaps)
    measures: list[Measures] = []
    if overlaps or channelled or any(summand.term.selects for summand in pixels):
        wanted = {"areas": bool(overlaps), "squares": squares, "norms": bool(channelled)}
        measures = map_images(
            lambda images: walk.measure(walk.select_images(images), **wanted), walk.groups, device, walk.values
        )
    slopes = mean_slope = None
    if overlaps:
        sums = torch.cat([measure.sums for measure in measures], 1)  # (3, N, C)
        slopes = finish_overlaps(sums, walk, overlaps, reduction, wants_slopes=gradient is not None)
    if channelled:
        channels = Channels(walk, [m.log_norm for m in measures if m.log_norm is not None], gradient)
        for summand in channelled:
            summand.term.walk(summand, channels, reduction)
        mean_slope = walk.grid.arrange(channels.mean_slope)
    chosen = {id(pixel): select_pixels(walk, pixel, measures, reduction) for pixel in pixels if pixel.term.selects}
    if not pixels and gradient is None:
        return

    def walk_images(images: slice) -> list[Tensor]:
        index = walk.groups.index(images)
        terms = ImageTerms(
            [(pixel, chosen[id(pixel)][index] if pixel.term.selects else None) for pixel in pixels],
            None if slopes is None else slopes[:, images],
            squares,
            None if mean_slope is None else mean_slope[images],
            measures[index].log_target if measures else None,
        )
        return ImageWalk(walk, walk.select_images(images, gradient), terms).run()

    for values in map_images(walk_images, walk.groups, device, walk.values):
        for pixel, value in zip(pixels, values, strict=True):
            pixel.value += value


def select_pixels(
    walk: SoftmaxWalk, summand: Summand[PixelTerm], measures: Sequence[Measures], reduction: Reduction
) -> list[Tensor]:
    """Return the arranged choice of every group, and set the denominator where it is the number of chosen pixels."""
    valid = [walk.grid.arrange(walk.batch.select_images(images, walk.logits.dtype).valid) for images in walk.groups]
    chosen = [summand.term.select(measure.log_target, one) for measure, one in zip(measures, valid, strict=True)]
    if summand.denominator is None:
        kept = torch.stack([mask.sum() for mask in chosen]).sum()
        summand.denominator = summand.term.divide_kept(kept, reduction)
    return chosen


def finish_overlaps(
    sums: Tensor,
    walk: SoftmaxWalk,
    summands: Sequence[Summand[OverlapTerm]],
    reduction: Reduction,
    *,
    wants_slopes: bool,
) -> Tensor | None:
    """Add the value of every overlap term to its summand, and return the derivative of their weighted sum.

    By class, h_i, a_i, q_i and n_i are the hits, areas and squares of image i and its pixels of the truth. A term with
    the finish f and the weight w adds v f to its value and w g f' to the slopes, f' being the derivative by h, a and q:

        per image:       f(h_i, a_i, q_i, n_i)            v = g = 1 / (number of images that count)
        of the batch:    f(sum_i (h_i, a_i, q_i, n_i))    v and g as in `Reduction`

    With sync the sum is over the images of all processes.

    Args:
        sums: Hits, areas and squares of every image, shape (3, N, C).
        walk: The batch.
        summands: The terms.
        reduction: How sums become values.
        wants_slopes: Whether to differentiate; in inference mode nothing can be.
    Returns:
        The slopes, shape (3, N, C), or None.
    """
    counts = walk.batch.class_pixels.to(sums)  # (N, C)
    slopes = torch.zeros_like(sums)
    for summand in summands:
        synced = summand.term.sync
        if summand.term.per_image:
            regions, region_counts = sums.detach(), counts
            value_factor = gradient_factor = summand.scale
        else:
            whole = torch.cat([sums, counts[None]]).sum(1, keepdim=True)  # (4, 1, C)
            whole = reduction.add_over_processes(whole) if synced else whole
            regions, region_counts = whole[:3].detach(), whole[3]
            value_factor = sums.new_full((), reduction.value_factor)
            gradient_factor = sums.new_full((), reduction.synced_gradient_factor) if synced else value_factor
        with torch.set_grad_enabled(wants_slopes):
            regions.requires_grad_(wants_slopes)
            overlaps = Overlaps(regions[0], regions[1], regions[2], region_counts)
            value = summand.term.finish(overlaps, walk.batch.class_weights).sum()
            summand.value += value.detach() * value_factor
            if wants_slopes:
                (slope,) = torch.autograd.grad(value, regions, materialize_grads=True, allow_unused=True)
                slopes += slope * (summand.weight * gradient_factor)
    return slopes if wants_slopes else None


class ImageWalk:
    """The last walk over some images: the values of the pixel terms and the gradient of all terms.

    With p the probabilities of a pixel, t its true class and m the mixture (the class weights, or 1), pixel term k is
    u_k l_k(log p_t) - e_k sum_c m_c log p_c; H_c, A_c and Q_c are the slopes of all overlap terms by the hits, areas
    and squares of class c. The gradient by logit c is

        probability_factor p_c - target_factor [c = t] - mixture_factor m_c + p_c (A_c + 2 Q_c p_c), where

        target_factor      = -sum_k u_k l_k'(log p_t) - H_t p_t
        mixture_factor     = sum_k e_k
        probability_factor = target_factor + mixture_factor sum_c m_c - sum_c p_c (A_c + 2 Q_c p_c) - mean_slope

    and mean_slope belongs to the terms of `Channels`, which add p_c dL/dp_c by themselves.

    Args:
        walk: The batch.
        images: The images.
        terms: What to apply.
    """

    def __init__(self, walk: SoftmaxWalk, images: Images, terms: ImageTerms) -> None:
        self.walk, self.images, self.terms = walk, images, terms
        # By pixel term, arranged: -u_k, and the factor of e_k that differs from pixel to pixel.
        self.negated_weights, self.smoothed = [], []
        for summand, chosen in terms.pixels:
            weight, emphasis = summand.term.weigh(images.labels), summand.term.emphasize(images.labels)
            arranged = walk.grid.arrange(weight if emphasis is None else weight * emphasis)
            factor = summand.scale * (-_find_weight(summand) * (1 - summand.term.smoothing))
            self.negated_weights.append((arranged if chosen is None else arranged * chosen) * factor)
            if emphasis is None or summand.term.smoothing == 0:
                self.smoothed.append(images.valid)
            else:
                self.smoothed.append(images.valid * walk.grid.arrange(emphasis))
        known, slopes = terms.log_target, terms.slopes
        self.log_target = torch.empty_like(images.valid) if known is None else known
        self.hits: Tensor | None = None  # H_t p_t
        if slopes is not None and known is not None:
            slope = slopes[0].gather(1, images.ids.flatten(1)).view_as(known)
            self.hits = slope.mul_(known.exp()).mul_(images.valid)
        self.log_mixed = torch.empty_like(images.valid) if walk.mixture is not None else None

    def run(self) -> list[Tensor]:
        """Walk, adding the gradient where the images have one, and return the values of the pixel terms."""
        differentiates = self.images.source.gradient is not None
        self.walk.grid.visit(self.images.source, self._differentiate if differentiates else self._observe)
        values = []
        for (summand, _), negated, smoothed in zip(self.terms.pixels, self.negated_weights, self.smoothed, strict=True):
            smoothing = summand.term.smoothing
            total = (summand.term.losses(self.log_target) * negated).sum() / -_find_weight(summand)
            if smoothing and self.log_mixed is not None:
                total = total - (self.log_mixed * smoothed).sum() * summand.scale * (smoothing / self.walk.classes)
            values.append(total)
        return values

    def _observe(self, chunk: Tensor, position: Position) -> Exponentials:
        found = self.walk.exponentiate(chunk, self.images.ids[position])
        if self.terms.log_target is None:
            self.log_target[position] = found.log_target
        if self.log_mixed is not None and found.log_mixed is not None:
            self.log_mixed[position] = found.log_mixed
        return found

    def _differentiate(self, chunk: Tensor, position: Position) -> None:
        """Put the gradient by a chunk's logits in its place."""
        found, terms = self._observe(chunk, position), self.terms
        ids = self.images.ids[position]
        target_factor = self._sum_target_factors(found.log_target, position)
        mixture_factor = self._sum_mixture_factors(position) if self.walk.mixture is not None else None
        probability_factor = target_factor
        if mixture_factor is not None:
            probability_factor = target_factor + mixture_factor * self.walk.mixture_sum
        if terms.mean_slope is not None:
            probability_factor = probability_factor - terms.mean_slope[position]
        if terms.slopes is None or self.hits is None:
            found.exps.mul_(probability_factor / found.norm)
        else:
            hit, share = self.hits[position], self.images.valid[position] / found.norm
            target_factor = target_factor - hit
            _apply_slopes(found.exps, share, terms.slopes, probability_factor - hit, terms.squares)
        found.exps.scatter_add_(0, ids[None], -target_factor[None])
        if mixture_factor is not None:
            chunk[self.walk.classes] = -mixture_factor

    def _sum_target_factors(self, log_target: Tensor, position: Position) -> Tensor:
        """Return -sum_k u_k l_k'(log p_t) of a chunk's pixels."""
        total = None
        for (summand, _), negated in zip(self.terms.pixels, self.negated_weights, strict=True):
            if summand.weight:
                factor = summand.term.slopes(log_target) * negated[position]
                total = factor if total is None else total.add_(factor)
        return torch.zeros_like(log_target) if total is None else total

    def _sum_mixture_factors(self, position: Position) -> Tensor:
        """Return sum_k e_k of a chunk's pixels."""
        total = torch.zeros_like(self.images.valid[position])
        for (summand, _), smoothed in zip(self.terms.pixels, self.smoothed, strict=True):
            share = summand.term.smoothing / self.walk.classes
            total += smoothed[position] * (summand.scale * (summand.weight * share))
        return total


def _find_weight(summand: Summand[PixelTerm]) -> float:
    """Return the weight of a term, 1 where that is 0: its value is wanted, too."""
    return summand.weight or 1.0


def _apply_slopes(exps: Tensor, share: Tensor, slopes: Tensor, factor: Tensor, squares: bool) -> None:
    """Turn exponentials into p_c (factor + A_c + 2 Q_c p_c - sum_j p_j (A_j + 2 Q_j p_j)), in place.

    Args:
        exps: Exponentials, shape (C, n, rows, width).
        share: 1 / their sum, 0 where ignored, shape (n, rows, width).
        slopes: Derivatives H, A and Q by hits, areas and squares, shape (3, n, C).
        factor: Of the probabilities from everything else, 0 where ignored, shape (n, rows, width).
        squares: Whether Q is not all 0.
    """
    by_area, by_square = slopes[1].t()[:, :, None, None], slopes[2].t()[:, :, None, None]  # (C, n, 1, 1)
    if squares:
        probabilities = exps.mul_(share)
        by_class = (probabilities * (2 * by_square)).add_(by_area).mul_(probabilities)
        probabilities.mul_(factor - by_class.sum(0)).add_(by_class)
    else:
        rest = factor - _add_over_classes(slopes[1], exps) * share
        exps.mul_(torch.add(by_area, rest)).mul_(share)


def _add_over_classes(factors: Tensor, exps: Tensor) -> Tensor:
    """Return the sum over classes of factors (n, C) times exponentials (C, n, rows, width)."""
    if len(factors) == 1:
        return (factors[0] @ exps.flatten(1)).view(exps.shape[1:])
    return torch.matmul(factors[:, None], exps.flatten(2).transpose(0, 1)).view(exps.shape[1:])

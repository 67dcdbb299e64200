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
from segplus.losses.softmax import Exponentials, Image, Measures, SoftmaxWalk
from segplus.losses.terms import Reduction, Summand
from segplus.losses.upsample import Position


@dataclass
class ImageTerms:
    """What all terms ask of one image in the walk that computes the gradient.

    Args:
        pixels: Pixel terms with the arranged choice of their pixels, None where all count.
        slopes: Derivatives of overlap terms by hits, areas and squares, shape (3, C), or None.
        squares: Whether those by squares are not all 0.
        mean_slope: That of `Channels`, arranged, or None.
    """

    pixels: list[tuple[Summand[PixelTerm], Tensor | None]]
    slopes: Tensor | None
    squares: bool
    mean_slope: Tensor | None


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
    count = len(walk.logits)
    squares = any(summand.term.needs_squares for summand in overlaps)
    measures: list[Measures] = []
    if overlaps or channelled or any(summand.term.selects for summand in pixels):
        areas = bool(overlaps)
        measures = map_images(
            lambda i: walk.measure(walk.select_image(i), areas, squares), count, walk.logits.device, walk.values
        )
    slopes = mean_slope = None
    if overlaps:
        sums = torch.stack([measure.sums for measure in measures], 1)  # (3, N, C)
        slopes = finish_overlaps(sums, walk, overlaps, reduction, wants_slopes=gradient is not None)
    if channelled:
        channels = Channels(walk, [measure.log_norm for measure in measures], gradient)
        for summand in channelled:
            summand.term.walk(summand, channels, reduction)
        mean_slope = walk.grid.arrange(channels.mean_slope)
    chosen = {id(pixel): select_pixels(walk, pixel, measures, reduction) for pixel in pixels if pixel.term.selects}
    if not pixels and gradient is None:
        return

    def walk_image(index: int) -> list[Tensor]:
        terms = ImageTerms(
            [(pixel, chosen[id(pixel)][index] if pixel.term.selects else None) for pixel in pixels],
            None if slopes is None else slopes[:, index],
            squares,
            None if mean_slope is None else mean_slope[index],
        )
        return ImageWalk(walk, walk.select_image(index), terms).run(None if gradient is None else gradient[index])

    for values in map_images(walk_image, count, walk.logits.device, walk.values):
        for pixel, value in zip(pixels, values, strict=True):
            pixel.value += value


def select_pixels(
    walk: SoftmaxWalk, summand: Summand[PixelTerm], measures: Sequence[Measures], reduction: Reduction
) -> list[Tensor]:
    """Return the arranged choice of every image, and set the denominator where it is the number of chosen pixels."""
    images = range(len(walk.logits))
    valid = [walk.select_image(i).valid for i in images]
    chosen = [summand.term.select(measures[i].log_target, valid[i]) for i in images]
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
    """Finish every overlap term.

    Args:
        sums: Hits, areas and squares of every image, shape (3, N, C).
        walk: The batch.
        summands: The terms.
        reduction: How sums become values.
        wants_slopes: Whether to differentiate; in inference mode nothing can be.
    Returns:
        The derivative of the weighted values by `sums`, shape (3, N, C), or None.
    """
    counts = walk.batch.class_pixels.to(sums)
    total = torch.zeros_like(sums)
    for summand in summands:
        if summand.term.per_image:
            leaf, regions = sums.detach(), counts
            scale = value_scale = summand.scale
        else:
            local = torch.cat([sums, counts[None]]).sum(1, keepdim=True)  # (4, 1, C)
            merged = reduction.add_over_processes(local) if summand.term.sync else local
            leaf, regions = merged[:3].detach(), merged[3]
            scale = sums.new_tensor(reduction.gradient_share if summand.term.sync else reduction.lone_share)
            value_scale = sums.new_tensor(reduction.value_share if summand.term.sync else reduction.lone_share)
        with torch.set_grad_enabled(wants_slopes):
            leaf.requires_grad_(wants_slopes)
            value = summand.term.finish(Overlaps(leaf[0], leaf[1], leaf[2], regions), walk.batch.class_weights).sum()
            summand.value += value.detach() * value_scale
            if wants_slopes:
                (slope,) = torch.autograd.grad(value, leaf, materialize_grads=True, allow_unused=True)
                total += slope * (summand.weight * scale)
    return total if wants_slopes else None


class ImageWalk:
    """The last walk over one image: the values of the pixel terms and the gradient of all terms.

    The gradient by logit c of a pixel is rise * p_c - hold * [c is the true class] - spread * mixture_c, plus what
    overlap terms add by class.

    Args:
        walk: The batch.
        image: The image.
        terms: What to apply.
    """

    def __init__(self, walk: SoftmaxWalk, image: Image, terms: ImageTerms) -> None:
        self.walk, self.image, self.terms = walk, image, terms
        # By pixel term: the weight of the true class, and of the share that is spread over all classes.
        self.weights, self.spreads = [], []
        for summand, chosen in terms.pixels:
            weight, emphasis = summand.term.weigh(image.labels), summand.term.emphasize(image.labels)
            arranged = walk.grid.arrange(weight if emphasis is None else weight * emphasis)
            self.weights.append(arranged if chosen is None else arranged * chosen)
            if emphasis is None or summand.term.smoothing == 0:
                self.spreads.append(image.valid)
            else:
                self.spreads.append(image.valid * walk.grid.arrange(emphasis))
        self.scales = [summand.scale * summand.weight for summand, _ in terms.pixels]
        self.log_target = torch.empty_like(image.valid)
        self.log_mixed = torch.empty_like(image.valid) if walk.mixture is not None else None

    def run(self, gradient: Tensor | None) -> list[Tensor]:
        """Walk, adding the gradient to `gradient`, shape (C, h, w), and return the values of the pixel terms."""
        walk, image = self.walk, self.image
        if gradient is None:
            walk.grid.visit(image.logits, self._observe, None)
        elif walk.mixture is None:
            walk.grid.visit(image.logits, self._differentiate, gradient)
        else:
            extended = torch.zeros_like(image.logits)
            walk.grid.visit(image.logits, self._differentiate, extended)
            gradient.add_(extended[: walk.classes]).add_(extended[walk.classes] * walk.mixture[:, None, None])
        values = []
        for (summand, _), weight, spread in zip(self.terms.pixels, self.weights, self.spreads, strict=True):
            smoothing = summand.term.smoothing
            total = (summand.term.losses(self.log_target) * weight).sum() * (1 - smoothing)
            if smoothing and self.log_mixed is not None:
                total = total - (self.log_mixed * spread).sum() * (smoothing / walk.classes)
            values.append(total * summand.scale)
        return values

    def _observe(self, chunk: Tensor, position: Position) -> Exponentials:
        ids = self.image.ids[position].reshape(1, -1)
        found = self.walk.exponentiate(chunk.flatten(1), ids)
        self.log_target[position] = found.log_target.view_as(self.log_target[position])
        if self.log_mixed is not None and found.log_mixed is not None:
            self.log_mixed[position] = found.log_mixed.view_as(self.log_mixed[position])
        return found

    def _differentiate(self, chunk: Tensor, position: Position) -> None:
        found, terms = self._observe(chunk, position), self.terms
        ids, valid = self.image.ids[position].reshape(1, -1), self.image.valid[position].flatten()
        hold, spread = self._hold_pixels(found.log_target, valid, position)
        rise = hold if self.walk.mixture is None else hold + spread * self.walk.mixture_sum
        if terms.mean_slope is not None:
            rise = rise - terms.mean_slope[position].flatten()
        if terms.slopes is None:
            found.exps.mul_(rise / found.norm)
        else:
            hit = valid * found.log_target.exp() * terms.slopes[0][ids[0]]
            hold = hold - hit
            _apply_slopes(found.exps, valid / found.norm, terms.slopes, rise - hit, terms.squares)
        found.exps.scatter_add_(0, ids, -hold[None])
        if self.walk.mixture is not None:
            chunk.flatten(1)[self.walk.classes] = -spread

    def _hold_pixels(self, log_target: Tensor, valid: Tensor, position: Position) -> tuple[Tensor, Tensor]:
        """Return `hold` and `spread` of the pixel terms, each (P,)."""
        hold, spread = valid * 0, valid * 0
        pixels = zip(self.terms.pixels, self.weights, self.spreads, self.scales, strict=True)
        for (summand, _), weight, mixed, scale in pixels:
            slope = summand.term.slopes(log_target) * (scale * weight[position].flatten())
            hold -= slope * (1 - summand.term.smoothing)
            if summand.term.smoothing:
                spread += mixed[position].flatten() * (scale * summand.term.smoothing / self.walk.classes)
        return hold, spread


def _apply_slopes(exps: Tensor, share: Tensor, slopes: Tensor, rise: Tensor, squares: bool) -> None:
    """Turn exponentials into `rise` times the probabilities plus what areas and squares add by class, in place.

    Args:
        exps: Exponentials, shape (C, P).
        share: 1 / their sum, 0 where ignored, shape (P,).
        slopes: Derivatives by hits, areas and squares, shape (3, C).
        rise: Factor of the probabilities from everything else, 0 where ignored, shape (P,).
        squares: Whether the derivatives by squares are not all 0.
    """
    if squares:
        probabilities = exps.mul_(share)
        by_class = (probabilities * (2 * slopes[2][:, None])).add_(slopes[1][:, None]).mul_(probabilities)
        probabilities.mul_(rise - by_class.sum(0)).add_(by_class)
    else:
        rest = rise - (slopes[1] @ exps) * share
        exps.mul_(torch.add(slopes[1][:, None], rest)).mul_(share)

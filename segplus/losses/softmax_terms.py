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
from segplus.losses.terms import Part, Reduction
from segplus.losses.upsample import Place


@dataclass
class Pull:
    """What the last walk over one image applies to its pieces.

    Args:
        pixels: Pixel terms with the arranged choice of their pixels, None where all count.
        slopes: Derivatives of overlap terms by hits, areas and squares, shape (3, C), or None.
        squares: Whether those by squares are not all 0.
        lift: What the factor of the probabilities is lowered by, arranged, or None.
    """

    pixels: list[tuple[Part[PixelTerm], Tensor | None]]
    slopes: Tensor | None
    squares: bool
    lift: Tensor | None


def walk_softmax(
    walk: SoftmaxWalk,
    pixels: Sequence[Part[PixelTerm]],
    overlaps: Sequence[Part[OverlapTerm]],
    channelled: Sequence[Part[ChannelTerm]],
    reduction: Reduction,
    gradient: Tensor | None,
) -> None:
    """Add every part's value to it and its gradient to `gradient`.

    Args:
        walk: The batch.
        pixels: Pixel terms.
        overlaps: Overlap terms.
        channelled: Terms on one class after the other.
        reduction: How sums become values.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """
    count = len(walk.logits)
    squares = any(part.term.needs_squares for part in overlaps)
    measures: list[Measures] = []
    if overlaps or channelled or any(part.term.selects for part in pixels):
        areas = bool(overlaps)
        measures = map_images(
            lambda i: walk.measure(walk.select_image(i), areas, squares), count, walk.logits.device, walk.values
        )
    slopes = lift = None
    if overlaps:
        sums = torch.stack([measure.sums for measure in measures], 1)  # (3, N, C)
        slopes = finish_overlaps(sums, walk, overlaps, reduction, wants_slopes=gradient is not None)
    if channelled:
        channels = Channels(walk, [measure.log_norm for measure in measures], gradient)
        for part in channelled:
            part.term.walk(part, channels, reduction)
        lift = walk.grid.arrange(channels.lift)
    chosen = {id(part): select_pixels(walk, part, measures, reduction) for part in pixels if part.term.selects}
    if not pixels and gradient is None:
        return

    def walk_image(index: int) -> list[Tensor]:
        pull = Pull(
            [(part, chosen[id(part)][index] if part.term.selects else None) for part in pixels],
            None if slopes is None else slopes[:, index],
            squares,
            None if lift is None else lift[index],
        )
        return ImageWalk(walk, walk.select_image(index), pull).run(None if gradient is None else gradient[index])

    for values in map_images(walk_image, count, walk.logits.device, walk.values):
        for pixel, value in zip(pixels, values, strict=True):
            pixel.value += value


def select_pixels(
    walk: SoftmaxWalk, part: Part[PixelTerm], measures: Sequence[Measures], reduction: Reduction
) -> list[Tensor]:
    """Return the arranged choice of every image, and set the denominator where it is the number of chosen pixels."""
    images = range(len(walk.logits))
    valid = [walk.select_image(i).valid for i in images]
    chosen = [part.term.select(measures[i].log_target, valid[i]) for i in images]
    if part.denominator is None:
        kept = torch.stack([mask.sum() for mask in chosen]).sum()
        part.denominator = part.term.divide_kept(kept, reduction)
    return chosen


def finish_overlaps(
    sums: Tensor,
    walk: SoftmaxWalk,
    parts: Sequence[Part[OverlapTerm]],
    reduction: Reduction,
    *,
    wants_slopes: bool,
) -> Tensor | None:
    """Finish every overlap term.

    Args:
        sums: Hits, areas and squares of every image, shape (3, N, C).
        walk: The batch.
        parts: The terms.
        reduction: How sums become values.
        wants_slopes: Whether to differentiate; in inference mode nothing can be.
    Returns:
        The derivative of the weighted values by `sums`, shape (3, N, C), or None.
    """
    counts = walk.batch.class_pixels.to(sums)
    total = torch.zeros_like(sums)
    for part in parts:
        if part.term.per_image:
            leaf, regions = sums.detach(), counts
            scale = value_scale = part.scale
        else:
            local = torch.cat([sums, counts[None]]).sum(1, keepdim=True)  # (4, 1, C)
            merged = reduction.add_over_processes(local) if part.term.sync else local
            leaf, regions = merged[:3].detach(), merged[3]
            scale = sums.new_tensor(reduction.gradient_share if part.term.sync else reduction.lone_share)
            value_scale = sums.new_tensor(reduction.value_share if part.term.sync else reduction.lone_share)
        with torch.set_grad_enabled(wants_slopes):
            leaf.requires_grad_(wants_slopes)
            value = part.term.finish(Overlaps(leaf[0], leaf[1], leaf[2], regions), walk.batch.class_weights).sum()
            part.value += value.detach() * value_scale
            if wants_slopes:
                (slope,) = torch.autograd.grad(value, leaf, materialize_grads=True, allow_unused=True)
                total += slope * (part.weight * scale)
    return total if wants_slopes else None


class ImageWalk:
    """The last walk over one image: the values of the pixel terms and the gradient of all terms.

    The gradient by logit c of a pixel is rise * p_c - hold * [c is the true class] - spread * mixture_c, plus what
    overlap terms add by class.

    Args:
        walk: The batch.
        image: The image.
        pull: What to apply.
    """

    def __init__(self, walk: SoftmaxWalk, image: Image, pull: Pull) -> None:
        self.walk, self.image, self.pull = walk, image, pull
        # By pixel term: the weight of the true class, and of the share that is spread over all classes.
        self.weights, self.spreads = [], []
        for part, chosen in pull.pixels:
            weight, emphasis = part.term.weigh(image.labels), part.term.emphasize(image.labels)
            arranged = walk.grid.arrange(weight if emphasis is None else weight * emphasis)
            self.weights.append(arranged if chosen is None else arranged * chosen)
            if emphasis is None or part.term.smoothing == 0:
                self.spreads.append(image.valid)
            else:
                self.spreads.append(image.valid * walk.grid.arrange(emphasis))
        self.scales = [part.scale * part.weight for part, _ in pull.pixels]
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
        for (part, _), weight, spread in zip(self.pull.pixels, self.weights, self.spreads, strict=True):
            smoothing = part.term.smoothing
            total = (part.term.losses(self.log_target) * weight).sum() * (1 - smoothing)
            if smoothing and self.log_mixed is not None:
                total = total - (self.log_mixed * spread).sum() * (smoothing / walk.classes)
            values.append(total * part.scale)
        return values

    def _observe(self, piece: Tensor, place: Place) -> Exponentials:
        ids = self.image.ids[place].reshape(1, -1)
        found = self.walk.exponentiate(piece.flatten(1), ids)
        self.log_target[place] = found.log_target.view_as(self.log_target[place])
        if self.log_mixed is not None and found.log_mixed is not None:
            self.log_mixed[place] = found.log_mixed.view_as(self.log_mixed[place])
        return found

    def _differentiate(self, piece: Tensor, place: Place) -> None:
        found, pull = self._observe(piece, place), self.pull
        ids, valid = self.image.ids[place].reshape(1, -1), self.image.valid[place].flatten()
        hold, spread = self._hold_pixels(found.log_target, valid, place)
        rise = hold if self.walk.mixture is None else hold + spread * self.walk.mixture_sum
        if pull.lift is not None:
            rise = rise - pull.lift[place].flatten()
        if pull.slopes is None:
            found.exps.mul_(rise / found.norm)
        else:
            hit = valid * found.log_target.exp() * pull.slopes[0][ids[0]]
            hold = hold - hit
            _apply_slopes(found.exps, valid / found.norm, pull.slopes, rise - hit, pull.squares)
        found.exps.scatter_add_(0, ids, -hold[None])
        if self.walk.mixture is not None:
            piece.flatten(1)[self.walk.classes] = -spread

    def _hold_pixels(self, log_target: Tensor, valid: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Return `hold` and `spread` of the pixel terms, each (P,)."""
        hold, spread = valid * 0, valid * 0
        terms = zip(self.pull.pixels, self.weights, self.spreads, self.scales, strict=True)
        for (part, _), weight, mixed, scale in terms:
            slope = part.term.slopes(log_target) * (scale * weight[place].flatten())
            hold -= slope * (1 - part.term.smoothing)
            if part.term.smoothing:
                spread += mixed[place].flatten() * (scale * part.term.smoothing / self.walk.classes)
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

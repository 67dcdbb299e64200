"""Terms that look at a pixel's neighbours: sums over slabs of whole rows, and a finish for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.losses.terms import LabelBatch, Part, Term
from segplus.losses.upsample import PIECE_BYTES, Place, Slabs

# A slab with a halo has at least this many rows more, or the halo would cost more than the slab.
LEAST_ROWS = 12


@dataclass(frozen=True)
class Slab:
    """Some whole rows of the upsampled grid.

    Args:
        probabilities: Shape (C, R, W).
        truth: 1 at the class of the label, shape (C, R, W), the type of the probabilities.
        valid: 1 where the label counts, 0 where it is ignored, shape (R, W).
        own: The rows whose sums are this slab's; the others are halo.
    """

    probabilities: Tensor
    truth: Tensor
    valid: Tensor
    own: slice


@dataclass(frozen=True)
class SlabTerm(Term):
    """A loss of one image from sums over its slabs, averaged over the images that count."""

    row_step_px: ClassVar[int] = 1

    @property
    def halo_px(self) -> int:
        """Rows that a slab must see beyond its own, on each side."""
        return 0

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the number of images that count."""
        return batch.count_images()

    def activate(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits (C, R, W)."""
        return logits.softmax(0)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise InputError where labels of this height and width are too small for the term."""

    def measure(self, slab: Slab) -> Tensor:
        """Return the sums of a slab, any shape."""
        raise NotImplementedError

    def finish(self, sums: Tensor) -> Tensor:
        """Return the loss of one image from the sums of its slabs, a scalar that counts once in the mean."""
        raise NotImplementedError


class SlabWalk:
    """One image's walk over slabs for one term.

    Args:
        term: The term.
        logits: Shape (C, h, w).
        batch: The labels of the batch.
        index: The image.
        slabs: The slabs, which all images share.
    """

    def __init__(self, term: SlabTerm, logits: Tensor, batch: LabelBatch, index: int, slabs: Slabs) -> None:
        self.term, self.logits, self.classes, self.slabs = term, logits, logits.shape[0], slabs
        self.labels = batch.select_image(index, logits.dtype)

    def select_slab(self, probabilities: Tensor, place: Place) -> Slab:
        """Return a slab of these probabilities, shape (C, R, W)."""
        rows = place[0]
        assert isinstance(rows, slice)
        halo = 0 if rows.start == 0 else self.term.halo_px
        own = slice(halo, halo + self.slabs.rows)
        valid = self.labels.valid[rows]
        truth = F.one_hot(self.labels.ids[rows], self.classes).movedim(-1, 0).to(valid) * valid
        return Slab(probabilities, truth, valid, own)

    def add(self) -> Tensor:
        """Return the sums of the whole image."""
        found: list[Tensor] = []

        def compute(piece: Tensor, place: Place) -> None:
            sums = self.term.measure(self.select_slab(self.term.activate(piece), place))
            found[:] = [found[0] + sums] if found else [sums]

        self.slabs.visit(self.logits, compute, None)
        return found[0]

    def differentiate(self, slope: Tensor, gradient: Tensor) -> None:
        """Add the gradient of the sums, times `slope`, to `gradient`, shape (C, h, w)."""

        def compute(piece: Tensor, place: Place) -> None:
            with torch.enable_grad():
                leaf = piece.detach().clone().requires_grad_()
                sums = self.term.measure(self.select_slab(self.term.activate(leaf), place))
                (found,) = torch.autograd.grad(sums, leaf, slope)
            piece.copy_(found)

        self.slabs.visit(self.logits, compute, gradient)


def cut_slabs(term: SlabTerm, logits: Tensor, batch: LabelBatch) -> Slabs:
    """Return the slabs in which a term sees images, given logits (N, C, h, w)."""
    height, width = batch.labels.shape[-2:]
    rows = max(LEAST_ROWS + term.halo_px if term.halo_px else 1, PIECE_BYTES // (4 * logits.shape[1] * width))
    rows = -(-rows // term.row_step_px) * term.row_step_px
    return Slabs((logits.shape[2], logits.shape[3]), (height, width), rows, term.halo_px)


def walk_slabs(logits: Tensor, batch: LabelBatch, part: Part[SlabTerm], gradient: Tensor | None) -> None:
    """Add the part's value to it and its gradient to `gradient`, image by image.

    Args:
        logits: Shape (N, C, h, w).
        batch: The labels.
        part: The term.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """
    part.term.check_size((batch.labels.shape[-2], batch.labels.shape[-1]))
    slabs = cut_slabs(part.term, logits, batch)
    for index, image in enumerate(logits):
        walk = SlabWalk(part.term, image, batch, index, slabs)
        sums = walk.add()
        if gradient is None:
            part.value += part.term.finish(sums) * part.scale
            continue
        with torch.enable_grad():
            value = part.term.finish(sums.requires_grad_())
            (slope,) = torch.autograd.grad(value, sums)
        part.value += value.detach() * part.scale
        walk.differentiate(slope * (part.scale * part.weight), gradient[index])


def evaluate_slabs(part: Part[SlabTerm], full: Tensor, batch: LabelBatch) -> Tensor:
    """Return the value the plain way, from upsampled logits (N, C, H, W)."""
    part.term.check_size((full.shape[2], full.shape[3]))
    total = full.sum() * 0
    for index, image in enumerate(full):
        labels = batch.select_image(index, full.dtype)
        truth = F.one_hot(labels.ids, len(image)).movedim(-1, 0).to(full) * labels.valid
        slab = Slab(part.term.activate(image), truth, labels.valid, slice(None))
        total = total + part.term.finish(part.term.measure(slab))
    return total * part.scale

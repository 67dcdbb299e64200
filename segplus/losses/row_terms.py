"""Terms that look at a pixel's neighbours: sums over chunks of whole rows, and a finish for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from segplus.losses.terms import LabelBatch, Summand, Term
from segplus.losses.upsample import (
    CHUNK_BYTES,
    DEVICE_SHARE,
    Position,
    Rows,
    Source,
    count_device_rows,
    find_limit,
)

# A chunk with a halo has at least this many rows more, or the halo would cost more than the chunk.
LEAST_ROWS = 12


@dataclass(frozen=True)
class RowChunk:
    """Some whole rows of the upsampled grid.

    Args:
        probabilities: Shape (C, R, W).
        truth: 1 at the class of the label, shape (C, R, W), the type of the probabilities.
        valid: 1 where the label counts, 0 where it is ignored, shape (R, W).
        own: The rows whose sums are this chunk's; the others are halo.
    """

    probabilities: Tensor
    truth: Tensor
    valid: Tensor
    own: slice


@dataclass(frozen=True)
class RowTerm(Term):
    """A loss of one image from sums over its chunks, averaged over the images that count."""

    row_step_px: ClassVar[int] = 1

    @property
    def halo_px(self) -> int:
        """Rows that a chunk must see beyond its own, on each side."""
        return 0

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the number of images that count."""
        return batch.count_images()

    def activate(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits (C, R, W)."""
        return logits.softmax(0)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise InputError where labels of this height and width are too small for the term."""

    def measure(self, chunk: RowChunk) -> Tensor:
        """Return the sums of a chunk, any shape."""
        raise NotImplementedError

    def finish(self, sums: Tensor) -> Tensor:
        """Return the loss of one image from the sums of its chunks, a scalar that counts once in the mean."""
        raise NotImplementedError


class RowWalk:
    """One image's walk over chunks for one term.

    Args:
        term: The term.
        logits: Shape (C, h, w).
        batch: The labels of the batch.
        index: The image.
        grid: The chunks, which all images share.
        limit: See `Source`.
    """

    def __init__(
        self, term: RowTerm, logits: Tensor, batch: LabelBatch, index: int, grid: Rows, limit: float | None
    ) -> None:
        self.term, self.logits, self.classes, self.grid = term, logits, logits.shape[0], grid
        self.limit = limit
        labels = batch.select_images(slice(index, index + 1), logits.dtype)
        self.ids, self.valid = labels.ids[0], labels.valid[0]

    def select_chunk(self, probabilities: Tensor, position: Position) -> RowChunk:
        """Return a chunk of these probabilities, shape (C, R, W)."""
        rows = position[-2]
        assert isinstance(rows, slice)
        halo = 0 if rows.start == 0 else self.term.halo_px
        own = slice(halo, halo + self.grid.rows)
        valid = self.valid[rows]
        truth = draw_truth(self.ids[rows], self.classes, valid)
        return RowChunk(probabilities, truth, valid, own)

    def add(self) -> Tensor:
        """Return the sums of the whole image."""
        found: list[Tensor] = []

        def compute(chunk: Tensor, position: Position) -> None:
            sums = self.term.measure(self.select_chunk(self.term.activate(chunk[:, 0]), position))
            found[:] = [found[0] + sums] if found else [sums]

        self.grid.visit(Source(self.logits[:, None], None, self.limit), compute)
        return found[0]

    def differentiate(self, slope: Tensor, gradient: Tensor) -> None:
        """Add the gradient of the sums, times `slope`, to `gradient`, shape (C, h, w)."""

        def compute(chunk: Tensor, position: Position) -> None:
            with torch.enable_grad():
                leaf = chunk[:, 0].detach().clone().requires_grad_()
                sums = self.term.measure(self.select_chunk(self.term.activate(leaf), position))
                (found,) = torch.autograd.grad(sums, leaf, slope)
            chunk[:, 0] = found

        self.grid.visit(Source(self.logits[:, None], gradient[:, None], self.limit), compute)


def draw_truth(ids: Tensor, classes: int, valid: Tensor) -> Tensor:
    """Return 1 at the class of the label, 0 where ignored, shape (C, R, W), in the type of `valid`."""
    truth = valid.new_zeros(classes, *ids.shape)
    return truth.scatter_(0, ids[None], valid[None])  # not F.one_hot, for which an accelerator has to be waited for


def choose_rows(term: RowTerm, logits: Tensor, batch: LabelBatch, joined: bool) -> Rows:
    """Return the grid whose chunks a term sees, given logits (N, C, h, w)."""
    images, channels = logits.shape[:2]
    rows = CHUNK_BYTES // (4 * channels * batch.size[1])
    if joined:
        rows = count_device_rows(channels, batch.size, DEVICE_SHARE * images)
    rows = max(LEAST_ROWS + term.halo_px if term.halo_px else 1, rows)
    rows = -(-rows // term.row_step_px) * term.row_step_px
    return Rows((logits.shape[2], logits.shape[3]), batch.size, rows, term.halo_px)


def stream_row_terms(
    logits: Tensor, batch: LabelBatch, joined: bool, summand: Summand[RowTerm], gradient: Tensor | None
) -> None:
    """Add the summand's value to it and its gradient to `gradient`, image by image.

    Args:
        logits: Shape (N, C, h, w).
        batch: The labels.
        joined: Whether other terms walk all images together: chunks then are as large as theirs.
        summand: The term.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """
    summand.term.check_size(batch.size)
    grid = choose_rows(summand.term, logits, batch, joined)
    for index, image in enumerate(logits):
        walk = RowWalk(summand.term, image, batch, index, grid, find_limit(logits, joined))
        sums = walk.add()
        if gradient is None:
            summand.value += summand.term.finish(sums) * summand.scale
            continue
        with torch.enable_grad():
            value = summand.term.finish(sums.requires_grad_())
            (slope,) = torch.autograd.grad(value, sums)
        summand.value += value.detach() * summand.scale
        walk.differentiate(slope * (summand.scale * summand.weight), gradient[index])


def evaluate_rows(summand: Summand[RowTerm], full: Tensor, batch: LabelBatch) -> Tensor:
    """Return the value the plain way, from upsampled logits (N, C, H, W)."""
    summand.term.check_size(batch.size)
    total = full.sum() * 0
    for index, image in enumerate(full):
        labels = batch.select_images(slice(index, index + 1), full.dtype)
        truth = draw_truth(labels.ids[0], len(image), labels.valid[0])
        chunk = RowChunk(summand.term.activate(image), truth, labels.valid[0], slice(None))
        total = total + summand.term.finish(summand.term.measure(chunk))
    return total * summand.scale

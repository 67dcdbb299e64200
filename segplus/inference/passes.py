"""One pass of a model over an image: scores on the model's grid, read from the top down, and labels made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segplus.metrics import label_map
from segplus.metrics.resizing import (
    choose_float_dtype,
    count_values,
    interpolate_columns,
    interpolate_rows,
    locate_pixels,
)


class ScorePass:
    """The scores of an image on a grid of which only the rows that are still needed are held.

    Args:
        blocks: The grid's rows from the top, in blocks of shape (C, n, w), each with the height of the whole grid.
        covers: Height and width that the whole grid stretches over, in pixels of the image, padding included.
    """

    def __init__(self, blocks: Iterator[tuple[Tensor, int]], covers: tuple[float, float]) -> None:
        self.blocks, self.covers = blocks, covers
        self.held, self.height = next(blocks)
        self.first = 0

    @property
    def is_whole(self) -> bool:
        """Whether the whole grid is held."""
        return self.held.shape[1] == self.height

    @property
    def fits_pixels(self) -> bool:
        """Whether the grid covers whole pixels, and each of its rows does where rows come one after the other."""
        return all(float(side).is_integer() for side in self.covers) and (
            self.is_whole or self.covers[0] % self.height == 0
        )

    def read(self, first: int, last: int) -> Tensor:
        """Return the rows [first, last), shape (C, n, w), and forget those above."""
        while self.first + self.held.shape[1] < last:
            block, _ = next(self.blocks)
            self.held = torch.cat([self.held[:, first - self.first :], block], 1)
            self.first = first
        return self.held[:, first - self.first : last - self.first]

    def take_blocks(self) -> Iterator[Tensor]:
        """Yield all blocks, the held one first."""
        yield self.held
        yield from (block for block, _ in self.blocks)


@dataclass(frozen=True)
class GridChunk:
    """Some rows of a grid that fits the pixels.

    Args:
        scores: The rows, shape (C, n, w), with one row of the chunk above, if there is one.
        size: Height and width that they stretch over, in pixels.
        start: First row of pixels that belongs to this chunk.
        end: The row after the last; the pixels below it lie nearer to the next chunk.
    """

    scores: Tensor
    size: tuple[int, int]
    start: int
    end: int

    def find_labels(self, width: int) -> Tensor:
        """Return the label map of the chunk's own pixels, as wide as the image."""
        return label_map(self.scores[None], self.size)[0, self.start : self.end, :width]

    def interpolate(self, width: int) -> Iterator[Tensor]:
        """Yield the scores of the chunk's own pixels a few rows at a time, (rows, width, C)."""
        alone = ScorePass(iter([(self.scores, self.scores.shape[1])]), self.size)
        for top, scores in average_passes([alone], (self.size[0], width)):
            yield scores[max(0, self.start - top) : max(0, self.end - top)]


def cut_chunks(scores: ScorePass) -> Iterator[GridChunk]:
    """Yield the chunks of one pass whose grid fits the pixels, top to bottom; one chunk where the grid is whole."""
    covered_height, covered_width = (round(side) for side in scores.covers)
    if scores.is_whole:
        yield GridChunk(scores.held, (covered_height, covered_width), 0, covered_height)
        return
    stride = covered_height // scores.height
    above: Tensor | None = None
    row = 0
    for block in scores.take_blocks():
        row += block.shape[1]
        rows = block if above is None else torch.cat([above, block], 1)
        height, half = rows.shape[1] * stride, stride // 2
        # Pixels between a chunk's last row and the next one wait for the next chunk.
        end = height if row == scores.height else height - stride + half
        yield GridChunk(rows, (height, covered_width), 0 if above is None else half, end)
        above = block[:, -1:].clone()


def join_passes(passes: list[ScorePass]) -> list[ScorePass]:
    """Return one pass of their mean where all have the same grid, whole, over the same pixels; otherwise all of them.

    Interpolation is linear, so that the mean may be taken before it: one grid costs what one model's does.
    """
    first = passes[0]
    if len(passes) == 1 or not all(
        one.is_whole and one.covers == first.covers and one.held.shape == first.held.shape for one in passes
    ):
        return passes
    mean = sum(one.held for one in passes[1:]) + first.held
    mean = mean / len(passes)
    return [ScorePass(iter([(mean, first.height)]), first.covers)]


def fill_rows(target: Tensor, top: int, rows: Tensor) -> int:
    """Write rows into a tensor that begin at a row of it, and return the row after them; those beyond it are left out.

    Rows go into one block of memory: small tensors that are kept between large temporary ones would pin those.
    """
    bottom = min(top + len(rows), len(target))
    target[top:bottom] = rows[: bottom - top]
    return bottom


def average_passes(passes: list[ScorePass], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the mean scores of several passes at the image's size, a few rows at a time.

    Args:
        passes: The passes.
        size: Height and width of the image.
    Yields:
        The first row, and scores of shape (rows, width, C).
    """
    height, width = size
    axes = []
    for scores in passes:
        held = scores.held
        dtype = choose_float_dtype(held)
        vertical = locate_pixels(scores.height, height, dtype, held.device, scores.covers[0])
        axes.append((vertical, locate_pixels(held.shape[2], width, dtype, held.device, scores.covers[1])))
    rows = max(1, 4 * count_values(passes[0].held.device) // (len(passes[0].held) * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        total: Tensor | None = None
        for scores, (vertical, horizontal) in zip(passes, axes, strict=True):
            chunk = interpolate_columns(interpolate_rows(scores.read, vertical, top, bottom), horizontal)
            # One scale's windows may be blended on the CPU and another's on the accelerator.
            total = chunk if total is None else total.add_(chunk.to(total.device))
        assert total is not None
        yield top, total if len(passes) == 1 else total / len(passes)

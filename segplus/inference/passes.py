"""One pass of a model over a picture: scores on the model's grid, read from the top down, and labels made of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segplus.evaluation import label_map
from segplus.evaluation.resizing import (
    choose_float_dtype,
    count_values,
    interpolate_columns,
    interpolate_rows,
    locate_pixels,
)


class ScorePass:
    """The scores of a picture on a grid of which only the rows that are still needed are held.

    Args:
        blocks: The grid's rows from the top, in blocks of shape (C, n, w), each with the height of the whole grid.
        covers: Height and width that the whole grid stretches over, in pixels of the picture, padding included.
    """

    def __init__(self, blocks: Iterator[tuple[Tensor, int]], covers: tuple[float, float]) -> None:
        self.blocks, self.covers = blocks, covers
        self.held, self.height = next(blocks)
        self.first = 0

    @property
    def is_whole(self) -> bool:
        """Whether the whole grid is held."""
        return self.held.shape[1] == self.height

    def read(self, first: int, last: int) -> Tensor:
        """Return the rows [first, last), shape (C, n, w), and forget those above."""
        while self.first + self.held.shape[1] < last:
            block, _ = next(self.blocks)
            self.held = torch.cat([self.held[:, first - self.first :], block], 1)
            self.first = first
        return self.held[:, first - self.first : last - self.first]

    def collect(self) -> ScorePass:
        """Hold the whole grid, and return this pass."""
        parts = [self.held, *(block for block, _ in self.blocks)]
        self.held = torch.cat(parts, 1) if len(parts) > 1 else self.held
        return self

    def take_blocks(self) -> Iterator[Tensor]:
        """Yield all blocks, the held one first."""
        yield self.held
        yield from (block for block, _ in self.blocks)


def label_grid(scores: ScorePass, size: tuple[int, int]) -> Tensor:
    """Return the label map of one pass whose grid covers whole pixels, shape (height, width).

    Args:
        scores: The pass.
        size: Height and width of the picture.
    """
    covered_height, covered_width = (round(side) for side in scores.covers)
    if scores.is_whole:
        return label_map(scores.held[None], (covered_height, covered_width))[0, : size[0], : size[1]]
    stride = covered_height // scores.height
    strips: list[Tensor] = []
    above: Tensor | None = None
    row = 0
    for block in scores.take_blocks():
        row += block.shape[1]
        slab = block if above is None else torch.cat([above, block], 1)
        strip = label_map(slab[None], (slab.shape[1] * stride, covered_width))[0]
        # Pixels between a slab's last row and the next one wait for the next slab.
        start = 0 if above is None else stride // 2
        end = len(strip) if row == scores.height else len(strip) - stride + stride // 2
        strips.append(strip[start:end, : size[1]])
        above = block[:, -1:]
    return torch.cat(strips)[: size[0]]


def average_passes(passes: list[ScorePass], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the mean scores of several passes at the picture's size, a few rows at a time.

    Args:
        passes: The passes.
        size: Height and width of the picture.
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
            slab = interpolate_columns(interpolate_rows(scores.read, vertical, top, bottom), horizontal)
            total = slab if total is None else total.add_(slab)
        assert total is not None
        yield top, total if len(passes) == 1 else total / len(passes)

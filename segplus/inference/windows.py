"""Sliding windows: scores are blended at the model's stride where that is exact, and leave row by row.

It is exact where every window begins on the model's grid. Elsewhere each window's scores are resized to its pixels and
blended on the CPU, where only one row of windows is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.recipe.evaluation_section import ProtocolRecipe

# (top, left, height, width) in pixels of each window -> scores (n, C, h, w)
ScoreWindows = Callable[[list[tuple[int, int, int, int]]], Tensor]
_SIGMA_SHARE = 1 / 8
_LEAST_WEIGHT = 1e-3
# Values in one block of rows that are blended at the size of the pixels: 16 MiB.
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class WindowLayout:
    """Where windows lie on a padded image.

    Args:
        tops: First row of each row of windows, in pixels.
        lefts: First column of each column of windows.
        height: Height of every window.
        width: Width of every window.
    """

    tops: list[int]
    lefts: list[int]
    height: int
    width: int

    @property
    def is_single(self) -> bool:
        """Whether one window holds the whole image."""
        return len(self.tops) == len(self.lefts) == 1


def pad_size(size: tuple[int, int], stride_px: int) -> tuple[int, int]:
    """Return the size rounded up to multiples of the stride."""
    return math.ceil(size[0] / stride_px) * stride_px, math.ceil(size[1] / stride_px) * stride_px


def place_windows(total: int, window: int, overlap: float, stride_px: int) -> list[int]:
    """Return the first pixels of windows that cover an axis, all multiples of the stride.

    Args:
        total: Length of the axis, a multiple of the stride.
        window: Length of a window, a multiple of the stride, at most `total`.
        overlap: Share of a window that the next one covers again.
        stride_px: The stride.
    """
    step = max(1, int(window * (1 - overlap)) // stride_px) * stride_px
    return [*range(0, total - window, step), total - window]


def lay_windows(size: tuple[int, int], protocol: ProtocolRecipe) -> WindowLayout:
    """Return the windows of an image of this padded size; one of its whole size for the protocol `original`."""
    windows = size if protocol.name == "original" else protocol.window_px
    height, width = min(size[0], windows[0]), min(size[1], windows[1])
    tops = place_windows(size[0], height, protocol.overlap, protocol.stride_px)
    lefts = place_windows(size[1], width, protocol.overlap, protocol.stride_px)
    return WindowLayout(tops, lefts, height, width)


@lru_cache(maxsize=16)
def weigh_pixels(length: int, blending: str) -> Tensor:
    """Return the weights of a window's rows or columns, (length,), in (0, 1]."""
    if blending == "uniform":
        return torch.ones(length)
    distance = (torch.arange(length) + 0.5) / length - 0.5
    return torch.exp(-0.5 * (distance / _SIGMA_SHARE) ** 2).clamp_min(_LEAST_WEIGHT)


def _sum_weights(starts: list[int], weights: Tensor, total: int) -> Tensor:
    summed = torch.zeros(total)
    for start in starts:
        summed[start : start + len(weights)] += weights
    return summed


def find_strides(layout: WindowLayout, grid: tuple[int, int], total: tuple[int, int]) -> tuple[int, int] | None:
    """Return the model's vertical and horizontal stride in pixels, or None where a window begins between its steps.

    Args:
        layout: The windows.
        grid: Height and width of a window's scores.
        total: Height and width of the padded image, in pixels.
    """
    strides = layout.height // grid[0], layout.width // grid[1]
    if (grid[0] * strides[0], grid[1] * strides[1]) != (layout.height, layout.width):
        return None
    starts = (*layout.tops, total[0]), (*layout.lefts, total[1])
    is_exact = all(start % stride == 0 for axis, stride in zip(starts, strides, strict=True) for start in axis)
    return strides if is_exact else None


class Blender:
    """Weighted sums of one row of windows after the other.

    Args:
        layout: The windows.
        grid: Height and width of a window's scores.
        total: Height and width of the padded image, in pixels.
        protocol: Says how to blend.
    """

    def __init__(
        self, layout: WindowLayout, grid: tuple[int, int], total: tuple[int, int], protocol: ProtocolRecipe
    ) -> None:
        strides = find_strides(layout, grid, total)
        self.is_exact = strides is not None
        self.strides = strides or (1, 1)
        self.window = layout.height // self.strides[0], layout.width // self.strides[1]
        self.grid = total[0] // self.strides[0], total[1] // self.strides[1]
        self.tops = [top // self.strides[0] for top in layout.tops]
        self.lefts = [left // self.strides[1] for left in layout.lefts]
        self.row_weights, self.column_weights = (weigh_pixels(side, protocol.blending) for side in self.window)
        self.row_sums = _sum_weights(self.tops, self.row_weights, self.grid[0])
        self.column_sums = _sum_weights(self.lefts, self.column_weights, self.grid[1])
        self.sums: Tensor | None = None
        self.top = 0

    def add(self, left: int, scores: Tensor) -> None:
        """Add the scores, (C, h, w), of the window of this row that starts in this column of pixels."""
        if not self.is_exact:
            scores = F.interpolate(scores[None], size=self.window, mode="bilinear", align_corners=False)[0].cpu()
        if self.sums is None:
            self.sums = torch.zeros(len(scores), self.window[0], self.grid[1], device=scores.device)
        weights = self.row_weights[:, None] * self.column_weights
        start = left // self.strides[1]
        self.sums[:, :, start : start + self.window[1]].addcmul_(scores, weights.to(scores.device))

    def take_rows(self, bottom: int) -> Iterator[Tensor]:
        """Yield the blended scores down to this row of the grid, blocks of shape (C, n, w), and forget them."""
        assert self.sums is not None
        classes, held, width = self.sums.shape
        count = bottom - self.top
        rows = count if self.is_exact else max(1, _BLOCK_VALUES // (classes * width))
        for first in range(0, count, rows):
            last = min(first + rows, count)
            divisor = self.row_sums[self.top + first : self.top + last, None] * self.column_sums
            yield self.sums[:, first:last] / divisor.to(self.sums.device)
        for one in self.sums:  # class by class: a copy of all would double what is held
            one[: held - count] = one[count:].clone()
        self.sums[:, held - count :] = 0
        self.top = bottom


def blend_windows(
    score: ScoreWindows, layout: WindowLayout, total: tuple[int, int], protocol: ProtocolRecipe
) -> Iterator[tuple[Tensor, int]]:
    """Yield the scores of an image as blocks of rows of a grid, top to bottom, (C, n, w), with the grid's height.

    Args:
        score: Gives the scores of windows.
        layout: The windows.
        total: Height and width of the padded image, in pixels.
        protocol: Says how to blend and how many windows go through the model at once.
    """
    blender: Blender | None = None
    for row, top in enumerate(layout.tops):
        for start in range(0, len(layout.lefts), protocol.windows_per_batch):
            lefts = layout.lefts[start : start + protocol.windows_per_batch]
            scores = score([(top, left, layout.height, layout.width) for left in lefts])
            if layout.is_single:
                yield scores[0], scores.shape[2]
                return
            blender = blender or Blender(layout, (scores.shape[-2], scores.shape[-1]), total, protocol)
            for left, one in zip(lefts, scores, strict=True):
                blender.add(left, one)
        assert blender is not None
        is_last = row + 1 == len(layout.tops)
        for block in blender.take_rows(blender.grid[0] if is_last else blender.tops[row + 1]):
            yield block, blender.grid[0]

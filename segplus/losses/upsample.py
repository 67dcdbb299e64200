"""The bilinearly upsampled grid, chunk by chunk: what `F.interpolate` would build, without building it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The position of a chunk in an arranged map: indices of its leading dimensions, then a slice of rows.
Position = tuple[int | slice, ...]
# Reads one chunk (C, rows, width) and, where a gradient is wanted, overwrites it with d loss / d chunk.
Compute = Callable[[Tensor, Position], object]

# Bytes of one chunk: a few of them stay in the caches, and one operation outlasts its call.
CHUNK_BYTES = 2048 * 1024

# A smaller phase costs less than the calls that compute it: SegFormer's 80x80 is above, a stride of 16 on a crop below.
LEAST_PHASE_BYTES = 48 * 1024

# Low-resolution rows that are stretched at once, that is, interpolated horizontally.
STRETCHED_ROWS = 8


class Grid(Protocol):
    """A way to walk over the upsampled grid of one image."""

    def arrange(self, full: Tensor) -> Tensor:
        """Return a map (..., H, W) in the order of the walk, so that every chunk is contiguous."""
        ...

    def restore(self, arranged: Tensor) -> Tensor:
        """Return an arranged map as (..., H, W): the inverse of `arrange`."""
        ...

    def visit(self, image: Tensor, compute: Compute, gradient: Tensor | None) -> None:
        """Call `compute` on every chunk of the upsampled image; collect what it leaves there into `gradient`.

        Args:
            image: Logits of one image, shape (C, h, w).
            compute: Called with a chunk (C, rows, width) and its position in an arranged map.
            gradient: Shape (C, h, w); the adjoint of the upsampling is added to it. None where no gradient is wanted.
        """
        ...


def choose_grid(low: tuple[int, int], high: tuple[int, int], channels: int) -> Grid:
    """Return phases where both scales are whole numbers and a phase is worth its calls, rows elsewhere.

    Args:
        low: Height and width of the logits.
        high: Height and width of the labels.
        channels: Channels of a chunk, which bound its number of rows.
    """
    phase_bytes = 4 * channels * low[0] * (low[1] + 2)
    if high[0] % low[0] == 0 and high[1] % low[1] == 0 and phase_bytes >= LEAST_PHASE_BYTES:
        return Phases(low, (high[0] // low[0], high[1] // low[1]), _count_rows(channels, low[1]))
    return Rows(low, high, _count_rows(channels, high[1]))


def _count_rows(channels: int, width: int) -> int:
    return max(1, CHUNK_BYTES // (4 * channels * width))


def list_taps(scale: int) -> list[tuple[int, float, float]]:
    """Return for each phase of an integer scale: the offset into the padded grid and the weights of its two taps."""
    taps = []
    for phase in range(scale):
        position = (phase + 0.5) / scale - 0.5
        offset = 0 if position < 0 else 1
        right = position + 1 if position < 0 else position
        taps.append((offset, 1 - right, right))
    return taps


class Phases:
    """Integer scales: output pixels (p::s, q::s) are one fixed 2x2-tap stencil on the low-resolution grid.

    The grid is padded by one replicated cell on each side, and a phase is computed on whole padded rows, so that every
    operation runs over contiguous memory: a chunk is (C, rows, w + 2), of which w columns are pixels and two are
    filler. It never leaves the cache. Maps are arranged as (..., scale_y, scale_x, h, w + 2), 0 at the filler, which so
    adds nothing to a sum.
    """

    def __init__(self, low: tuple[int, int], scale: tuple[int, int], rows: int) -> None:
        self.low, self.scale, self.rows = low, scale, min(rows, low[0])
        self.taps_y, self.taps_x = list_taps(scale[0]), list_taps(scale[1])

    def arrange(self, full: Tensor) -> Tensor:
        """Return a map (..., H, W) as (..., scale_y, scale_x, h, w + 2)."""
        (h, w), (sy, sx) = self.low, self.scale
        split = full.reshape(*full.shape[:-2], h, sy, w, sx).movedim(-3, -4).movedim(-1, -3)  # (..., sy, sx, h, w)
        arranged = full.new_zeros(*split.shape[:-1], w + 2)
        half = sx // 2
        arranged[..., :half, :, :w] = split[..., :half, :, :]
        arranged[..., half:, :, 1 : w + 1] = split[..., half:, :, :]
        return arranged

    def restore(self, arranged: Tensor) -> Tensor:
        """Return an arranged map as (..., H, W)."""
        w, half = self.low[1], self.scale[1] // 2
        split = torch.cat([arranged[..., :half, :, :w], arranged[..., half:, :, 1 : w + 1]], -3)
        return split.movedim(-3, -1).movedim(-4, -3).flatten(-2).flatten(-3, -2)

    def visit(self, image: Tensor, compute: Compute, gradient: Tensor | None) -> None:
        """Call `compute` on every phase, some rows at a time; see `Grid.visit`."""
        height = self.low[0]
        padded = _pad_border(image)
        collected = None if gradient is None else torch.zeros_like(padded)
        for start in range(0, height, self.rows):
            self._visit_phases(padded, start, min(start + self.rows, height), compute, collected)
        if gradient is not None and collected is not None:
            _fold_border(collected)
            gradient.add_(collected[:, 1:-1, 1:-1])

    def _visit_phases(self, padded: Tensor, start: int, stop: int, compute: Compute, collected: Tensor | None) -> None:
        channels, width = padded.shape[0], padded.shape[2]
        length = (stop - start) * width
        source = padded.flatten(1)
        # One element more than the rows hold: the right tap of the last cell, which is filler.
        mixed, spread = padded.new_zeros(channels, length + 1), padded.new_zeros(channels, length + 1)
        chunk = padded.new_empty(channels, stop - start, width)
        flat = chunk.flatten(1)
        for p, (top, above, below) in enumerate(self.taps_y):
            upper, lower = (start + top) * width, (start + top + 1) * width
            torch.lerp(source[:, upper : upper + length], source[:, lower : lower + length], below, out=mixed[:, :-1])
            for q, (_, before, after) in enumerate(self.taps_x):
                torch.lerp(mixed[:, :-1], mixed[:, 1:], after, out=flat)
                compute(chunk, (p, q, slice(start, stop)))
                if collected is None:
                    continue
                if q == 0:
                    torch.mul(flat, before, out=spread[:, :-1])
                else:
                    spread[:, :-1].add_(flat, alpha=before)
                if after:
                    spread[:, 1:].add_(flat, alpha=after)
            if collected is not None:
                target = collected.flatten(1)
                target[:, upper : upper + length].add_(spread[:, :-1], alpha=above)
                target[:, lower : lower + length].add_(spread[:, :-1], alpha=below)


def _pad_border(image: Tensor) -> Tensor:
    """Return (C, h + 2, w + 2): the image with its border cells repeated."""
    channels, height, width = image.shape
    padded = image.new_empty(channels, height + 2, width + 2)
    padded[:, 1:-1, 1:-1] = image
    padded[:, 0, 1:-1], padded[:, -1, 1:-1] = image[:, 0], image[:, -1]
    padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
    return padded


def _fold_border(collected: Tensor) -> None:
    """Add the border of replicated cells to the cells that they were copied from, in place."""
    collected[:, 1] += collected[:, 0]
    collected[:, -2] += collected[:, -1]
    collected[:, :, 1] += collected[:, :, 0]
    collected[:, :, -2] += collected[:, :, -1]


class Rows:
    """Any scale: a chunk is a few whole rows of the output, shape (C, rows, W), with separable weights.

    Low-resolution rows are stretched to the width of the output, several at once, and then mixed by chunk. Maps keep
    their order.

    Args:
        low: Height and width of the logits.
        high: Height and width of the labels.
        rows: Rows of a chunk.
        halo: Rows by which chunks overlap on each side, for terms that look at neighbours.
    """

    def __init__(self, low: tuple[int, int], high: tuple[int, int], rows: int, halo: int = 0) -> None:
        self.low, self.high, self.rows, self.halo = low, high, min(rows, high[0]), halo
        # Output rows that share stretched rows.
        self.step = max(1, STRETCHED_ROWS * high[0] // (low[0] * self.rows)) * self.rows
        self._weights: dict[tuple[int, int, int, int], Tensor] = {}  # of every chunk, shared by the images of a batch

    def arrange(self, full: Tensor) -> Tensor:
        """Return the map itself: rows come in its order."""
        return full.contiguous()

    def restore(self, arranged: Tensor) -> Tensor:
        """Return the map itself."""
        return arranged

    def visit(self, image: Tensor, compute: Compute, gradient: Tensor | None) -> None:
        """Call `compute` on every chunk; see `Grid.visit`. Its position includes its halo."""
        height = self.high[0]
        for start in range(0, height, self.step):
            stop = min(start + self.step, height)
            first = self._find_source(max(start - self.halo, 0))[0]
            last = min(self._find_source(min(stop + self.halo, height) - 1)[0] + 1, self.low[0] - 1)
            stretched = F.interpolate(image[:, first : last + 1], size=self.high[1], mode="linear", align_corners=False)
            collected = None if gradient is None else torch.zeros_like(stretched)
            for row in range(start, stop, self.rows):
                self._visit_chunk(stretched, first, (row, min(row + self.rows, stop)), compute, collected)
            if gradient is not None:
                shape = [image.shape[0], last + 1 - first, self.low[1]]
                spread = torch.ops.aten.upsample_linear1d_backward
                gradient[:, first : last + 1] += spread(collected, [self.high[1]], shape, False, None)

    def _visit_chunk(
        self, stretched: Tensor, first: int, rows: tuple[int, int], compute: Compute, collected: Tensor | None
    ) -> None:
        start, stop = max(rows[0] - self.halo, 0), min(rows[1] + self.halo, self.high[0])
        mix = self._weigh_rows(stretched, first, start, stop)
        chunk = torch.matmul(mix, stretched)  # (rows, k) x (C, k, W) -> (C, rows, W)
        compute(chunk, (slice(start, stop),))
        if collected is not None:
            collected.add_(torch.matmul(mix.T, chunk))

    def _weigh_rows(self, stretched: Tensor, first: int, start: int, stop: int) -> Tensor:
        """Return the vertical weights of output rows start:stop on stretched rows, shape (stop - start, k)."""
        key = (start, stop, first, stretched.shape[1])
        if key in self._weights:
            return self._weights[key]
        weights = np.zeros((stop - start, stretched.shape[1]))
        for number, row in enumerate(range(start, stop)):
            top, below = self._find_source(row)
            weights[number, top - first] += 1 - below
            weights[number, min(top + 1, self.low[0] - 1) - first] += below
        self._weights[key] = torch.from_numpy(weights).to(stretched)
        return self._weights[key]

    def _find_source(self, row: int) -> tuple[int, float]:
        """Return the low-resolution row above an output row, and the weight of the row below that."""
        position = max((row + 0.5) * self.low[0] / self.high[0] - 0.5, 0.0)
        top = min(int(position), self.low[0] - 1)
        return top, position - top

"""The bilinearly upsampled grid, piece by piece: what `F.interpolate` would build, without building it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# A place in an arranged map: indices of its leading dimensions, then a slice of rows.
Place = tuple[int | slice, ...]
# Reads one piece (C, rows, width) and, where a gradient is wanted, overwrites it with d loss / d piece.
Compute = Callable[[Tensor, Place], None]

# Bytes of one piece: a few of them, shared by two threads, stay in the second-level cache.
PIECE_BYTES = 512 * 1024


class Grid(Protocol):
    """A way to walk over the upsampled grid of one image."""

    def arrange(self, full: Tensor) -> Tensor:
        """Return a map (..., H, W) in the order of the walk, so that every piece is contiguous."""
        ...

    def restore(self, arranged: Tensor) -> Tensor:
        """Return an arranged map as (..., H, W): the inverse of `arrange`."""
        ...

    def visit(self, image: Tensor, compute: Compute, gradient: Tensor | None) -> None:
        """Call `compute` on every piece of the upsampled image; collect what it leaves there into `gradient`.

        Args:
            image: Logits of one image, shape (C, h, w).
            compute: Called with a piece (C, rows, width) and its place in an arranged map.
            gradient: Shape (C, h, w); the adjoint of the upsampling is added to it. None where no gradient is wanted.
        """
        ...


def choose_grid(low: tuple[int, int], high: tuple[int, int], channels: int) -> Grid:
    """Return phases where both scales are whole numbers, row slabs elsewhere.

    Args:
        low: Height and width of the logits.
        high: Height and width of the labels.
        channels: Channels of a piece, which bound its number of rows.
    """
    if high[0] % low[0] == 0 and high[1] % low[1] == 0:
        return Phases(low, (high[0] // low[0], high[1] // low[1]), _count_rows(channels, low[1]))
    return Slabs(low, high, _count_rows(channels, high[1]))


def _count_rows(channels: int, width: int) -> int:
    return max(1, PIECE_BYTES // (4 * channels * width))


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

    A piece is one phase of a few low-resolution rows, shape (C, rows, w), and never leaves the cache.
    Maps are arranged as (..., scale_y, scale_x, h, w).
    """

    def __init__(self, low: tuple[int, int], scale: tuple[int, int], rows: int) -> None:
        self.low, self.scale, self.rows = low, scale, min(rows, low[0])
        self.taps_y, self.taps_x = list_taps(scale[0]), list_taps(scale[1])

    def arrange(self, full: Tensor) -> Tensor:
        """Return a map (..., H, W) as (..., scale_y, scale_x, h, w)."""
        (h, w), (sy, sx) = self.low, self.scale
        split = full.reshape(*full.shape[:-2], h, sy, w, sx)
        return split.movedim(-3, -4).movedim(-1, -3).contiguous()  # (..., sy, sx, h, w)

    def restore(self, arranged: Tensor) -> Tensor:
        """Return an arranged map (..., scale_y, scale_x, h, w) as (..., H, W)."""
        split = arranged.movedim(-3, -1).movedim(-4, -3)  # (..., h, sy, w, sx)
        return split.flatten(-2).flatten(-3, -2)

    def visit(self, image: Tensor, compute: Compute, gradient: Tensor | None) -> None:
        """Call `compute` on every phase of every tile of rows; see `Grid.visit`."""
        height = self.low[0]
        padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]  # (C, h + 2, w + 2)
        collected = None if gradient is None else torch.zeros_like(padded)
        for start in range(0, height, self.rows):
            stop = min(start + self.rows, height)
            self._visit_tile(padded, start, stop, compute, collected)
        if gradient is not None and collected is not None:
            _fold_border(collected)
            gradient.add_(collected[:, 1:-1, 1:-1])

    def _visit_tile(self, padded: Tensor, start: int, stop: int, compute: Compute, collected: Tensor | None) -> None:
        count, width = stop - start, self.low[1]
        mixed = padded.new_empty(padded.shape[0], count, width + 2)
        spread = torch.empty_like(mixed)
        piece = padded.new_empty(padded.shape[0], count, width)
        for p, (top, above, below) in enumerate(self.taps_y):
            rows = padded[:, start + top : stop + top + 1]
            _mix(rows[:, :-1], rows[:, 1:], above, below, mixed)
            spread.zero_()
            for q, (left, before, after) in enumerate(self.taps_x):
                _mix(mixed[:, :, left : left + width], mixed[:, :, left + 1 : left + 1 + width], before, after, piece)
                compute(piece, (p, q, slice(start, stop)))
                if collected is not None:
                    spread[:, :, left : left + width].add_(piece, alpha=before)
                    if after:
                        spread[:, :, left + 1 : left + 1 + width].add_(piece, alpha=after)
            if collected is not None:
                collected[:, start + top : stop + top].add_(spread, alpha=above)
                collected[:, start + top + 1 : stop + top + 1].add_(spread, alpha=below)


def _mix(first: Tensor, second: Tensor, weight: float, other: float, out: Tensor) -> None:
    torch.mul(first, weight, out=out)
    if other:
        out.add_(second, alpha=other)


def _fold_border(collected: Tensor) -> None:
    """Add the border of replicated cells to the cells that they were copied from, in place."""
    collected[:, 1] += collected[:, 0]
    collected[:, -2] += collected[:, -1]
    collected[:, :, 1] += collected[:, :, 0]
    collected[:, :, -2] += collected[:, :, -1]


class Slabs:
    """Any scale: a piece is a few whole rows of the output, shape (C, rows, W), with separable weights.

    Maps keep their order, (..., H, W).
    """

    def __init__(self, low: tuple[int, int], high: tuple[int, int], rows: int, halo: int = 0) -> None:
        self.low, self.high, self.rows, self.halo = low, high, min(rows, high[0]), halo

    def arrange(self, full: Tensor) -> Tensor:
        """Return the map itself: slabs walk in its order."""
        return full.contiguous()

    def restore(self, arranged: Tensor) -> Tensor:
        """Return the map itself."""
        return arranged

    def visit(self, image: Tensor, compute: Compute, gradient: Tensor | None) -> None:
        """Call `compute` on every slab; see `Grid.visit`. With a halo, slabs overlap by that many rows on each side."""
        height = self.high[0]
        for start in range(0, height, self.rows):
            stop = min(start + self.rows, height)
            self._visit_slab(image, max(start - self.halo, 0), min(stop + self.halo, height), compute, gradient)

    def _visit_slab(self, image: Tensor, start: int, stop: int, compute: Compute, gradient: Tensor | None) -> None:
        top, below = self._find_rows(start, stop, image)
        first, last = int(self._find_position(start)), min(int(self._find_position(stop - 1)) + 1, self.low[0] - 1)
        source = image[:, first : last + 1]
        top_index, bottom_index = top - first, (top - first + 1).clamp_(max=last - first)
        mixed = torch.lerp(source.index_select(1, top_index), source.index_select(1, bottom_index), below[:, None])
        piece = F.interpolate(mixed, size=self.high[1], mode="linear", align_corners=False)  # (C, rows, W)
        compute(piece, (slice(start, stop),))
        if gradient is not None:
            shape = list(mixed.shape)
            spread = torch.ops.aten.upsample_linear1d_backward(piece, [self.high[1]], shape, False, None)
            low = gradient[:, first : last + 1]
            low.index_add_(1, top_index, spread * (1 - below)[:, None])
            low.index_add_(1, bottom_index, spread * below[:, None])

    def _find_position(self, row: int) -> float:
        return max((row + 0.5) * self.low[0] / self.high[0] - 0.5, 0.0)

    def _find_rows(self, start: int, stop: int, image: Tensor) -> tuple[Tensor, Tensor]:
        positions = [self._find_position(row) for row in range(start, stop)]
        top = [min(int(position), self.low[0] - 1) for position in positions]
        below = [position - row for position, row in zip(positions, top, strict=True)]
        device = image.device
        return torch.tensor(top, device=device), torch.tensor(below, dtype=image.dtype, device=device)

"""Bilinear resizing a few rows at a time, with the positions of F.interpolate(align_corners=False)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Values worked on at once: what stays in a CPU's cache, and what keeps an accelerator busy.
_CPU_VALUES = 1 << 19
_ACCELERATOR_VALUES = 1 << 26

ReadRows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Axis:
    """Where the pixels of one resized axis lie between those of the low-resolution axis.

    Cell `i` lies between low-resolution pixels `i - 1` and `i`, clamped to the axis; there are `low + 1` of them. Its
    output pixels are `start[i]`, ..., `start[i + 1] - 1`, at most `shares.shape[1]`.
    """

    near: Tensor  # (low + 1,) the cell's first corner
    far: Tensor  # (low + 1,) the cell's last corner
    cell: Tensor  # (size,) the cell of each output pixel
    share: Tensor  # (size,) the weight of the far corner
    start: Tensor  # (low + 2,)
    pixels: Tensor  # (low + 1, longest) each cell's output pixels, the last one repeated
    shares: Tensor  # (low + 1, longest) their weights


@lru_cache(maxsize=64)
def locate_pixels(low: int, size: int, dtype: torch.dtype, device: torch.device, covers: float | None = None) -> Axis:
    """Return the Axis from `low` pixels to `size`, with positions rounded in `dtype` as F.interpolate does.

    Args:
        low: Pixels of the low-resolution axis.
        size: Pixels of the output.
        dtype: Floating-point type of the weights.
        device: Where the weights will be needed.
        covers: Output pixels that the whole low-resolution axis stretches over; by default `size`, and never less.
    """
    scale = torch.tensor(low, dtype=dtype) / torch.tensor(covers or size, dtype=dtype)
    position = (torch.arange(size, dtype=dtype) + 0.5) * scale - 0.5
    floor = position.floor().clamp_(-1, low - 1)
    cell = floor.long() + 1
    share = position - floor
    start = torch.searchsorted(cell, torch.arange(low + 2))
    longest = int((start[1:] - start[:-1]).max())
    pixels = torch.minimum(start[:-1, None] + torch.arange(longest), start[1:, None] - 1).clamp_min(0)
    cells = torch.arange(low + 1)
    parts = ((cells - 1).clamp_min(0), cells.clamp_max(low - 1), cell, share, start, pixels, share[pixels])
    return Axis(*(part.to(device) for part in parts))


def count_values(device: torch.device) -> int:
    """Return how many values are worked on at once."""
    return _CPU_VALUES if device.type == "cpu" else _ACCELERATOR_VALUES


def choose_float_dtype(image: Tensor) -> torch.dtype:
    """Return the type in which scores are interpolated: float64 for float64, else float32."""
    return torch.float64 if image.dtype == torch.float64 else torch.float32


def interpolate_rows(read: ReadRows, axis: Axis, top: int, bottom: int) -> Tensor:
    """Return the output rows [top, bottom), not yet resized along the width, shape (rows, w, C).

    Args:
        read: Gives the low-resolution rows [first, last), shape (C, rows, w).
        axis: The vertical axis.
        top: First output row.
        bottom: The row after the last.
    """
    cell = axis.cell[top:bottom]
    near, far = axis.near[cell], axis.far[cell]
    first = int(near[0])
    block = read(first, int(far[-1]) + 1).to(axis.share.dtype).permute(1, 2, 0).contiguous()  # (n, w, C)
    share = axis.share[top:bottom, None, None]
    return torch.lerp(block.index_select(0, near - first), block.index_select(0, far - first), share)


def interpolate_columns(slab: Tensor, axis: Axis) -> Tensor:
    """Return (rows, w, C) resized along the width, shape (rows, width, C)."""
    left, right = slab.index_select(1, axis.near[axis.cell]), slab.index_select(1, axis.far[axis.cell])
    return torch.lerp(left, right, axis.share[:, None])

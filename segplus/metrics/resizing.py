"""Bilinear resizing a few rows at a time, with the positions of F.interpolate(align_corners=False)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
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
    if covers is None or covers == size:
        cell, share = _measure_bilinear_weights(low, size, dtype)
    else:
        position = (torch.arange(size, dtype=dtype) + 0.5) * (low / covers) - 0.5
        floor = position.floor().clamp_(-1, low - 1)
        cell, share = floor.long() + 1, position - floor
    start = torch.searchsorted(cell, torch.arange(low + 2))
    longest = int((start[1:] - start[:-1]).max())
    pixels = torch.minimum(start[:-1, None] + torch.arange(longest), start[1:, None] - 1).clamp_min(0)
    cells = torch.arange(low + 1)
    fields = ((cells - 1).clamp_min(0), cells.clamp_max(low - 1), cell, share, start, pixels, share[pixels])
    return Axis(*(field.to(device) for field in fields))


def _measure_bilinear_weights(low: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return each pixel's cell and the weight of its far corner, as F.interpolate rounds them on this machine.

    Output pixel x lies at p = (x + 1/2) low / size - 1/2, in cell floor(p) + 1, and the far corner's weight is
    p - floor(p). Whether p is rounded once or twice (a fused multiply-add) depends on how it was compiled; that moves a
    weight by up to 1e-5. So the weights are read off it: three signals, each 1 at every third low-resolution pixel,
    come out as the weights of the two corners and 0.
    """
    thirds = torch.eye(3, dtype=dtype).repeat(1, low // 3 + 1)[:, :low]  # (3, low)
    weights = F.interpolate(thirds[None, :, None], size=(1, size), mode="bilinear", align_corners=False)[0, :, 0]
    position = (torch.arange(size, dtype=torch.float64) + 0.5) * (low / size) - 0.5
    near = position.floor().long().clamp_(-1, low - 1)
    for step in (-1, 1):  # rounded across a low-resolution pixel
        other = near + step
        fits = weights.gather(0, (near[None] + 2) % 3)[0] == 0
        inside = (near >= 0) & (near < low - 1) & (other >= 0) & (other < low - 1)
        better = weights.gather(0, (other[None] + 2) % 3)[0] == 0
        near = torch.where(inside & ~fits & better, other, near)
    return near + 1, weights.gather(0, (near[None] + 1) % 3)[0]


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


def interpolate_columns(chunk: Tensor, axis: Axis) -> Tensor:
    """Return (rows, w, C) resized along the width, shape (rows, width, C)."""
    left, right = chunk.index_select(1, axis.near[axis.cell]), chunk.index_select(1, axis.far[axis.cell])
    return torch.lerp(left, right, axis.share[:, None])

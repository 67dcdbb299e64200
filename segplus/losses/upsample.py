"""The bilinearly upsampled grid, chunk by chunk: what `F.interpolate` would build, without building it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# The index of a chunk in an arranged map of its images: shape (n, rows, width).
Position = tuple[EllipsisType | int | slice, ...]
# Reads one chunk (C, n, rows, width) and, where a gradient is wanted, overwrites it with d loss / d chunk.
Compute = Callable[[Tensor, Position], object]

# Bytes of one chunk on a CPU: a few of them stay in the caches, and one operation outlasts its call.
CHUNK_BYTES = 2048 * 1024

# Elsewhere an operation costs its launch, so chunks are large: this share of the upsampled logits of all images, of
# which the naive way holds three copies. A smaller chunk than the least takes no longer.
DEVICE_SHARE = 1 / 16
LEAST_DEVICE_BYTES = 16 * 1024 * 1024

# What logits are kept within where nobody waits to learn their range: in float32 differences and sums over pixels of
# larger ones would overflow, and in any type 0 x inf is NaN.
LIMITS = {torch.float32: 1e18, torch.float64: 1e38}

# A smaller phase costs less than the calls that compute it: SegFormer's 80x80 is above, a stride of 16 on a crop below.
LEAST_PHASE_BYTES = 48 * 1024

# Low-resolution rows that are stretched at once, that is, interpolated horizontally.
STRETCHED_ROWS = 8


@dataclass
class Source:
    """What a walk reads, and where it leaves the gradient.

    Args:
        logits: Shape (C, n, h, w): n images are walked together.
        gradient: Likewise, added to in place; None where no gradient is wanted.
        limit: What the logits are kept within; None where they are known to be in range.
    """

    logits: Tensor
    gradient: Tensor | None
    limit: float | None = None

    @property
    def channels(self) -> int:
        """Channels of a chunk."""
        return len(self.logits)

    def read(self, rows: slice, out: Tensor) -> None:
        """Write rows of the low-resolution grid, as they are to be upsampled, to `out`, shape (channels, n, k, w)."""
        if self.limit is None:
            out.copy_(self.logits[:, :, rows])
        else:
            torch.clamp(self.logits[:, :, rows], -self.limit, self.limit, out=out)

    def collect(self, rows: slice, found: Tensor) -> None:
        """Add the gradient by what was read, shape (channels, n, k, w)."""
        if self.gradient is not None:
            self.gradient[:, :, rows] += found


class Grid(Protocol):
    """A way to walk over the upsampled grid."""

    def arrange(self, full: Tensor) -> Tensor:
        """Return a map (..., H, W) in the order of the walk, so that every chunk is contiguous."""
        ...

    def restore(self, arranged: Tensor) -> Tensor:
        """Return an arranged map as (..., H, W): the inverse of `arrange`."""
        ...

    def visit(self, source: Source, compute: Compute) -> None:
        """Call `compute` on every chunk of the upsampled images; hand what it leaves there back to the source.

        Args:
            source: The images.
            compute: Called with a chunk (channels, n, rows, width) and its position in an arranged map.
        """
        ...


def joins_images(device: torch.device) -> bool:
    """Return whether the images of a batch are walked together, in large chunks: everywhere but on a CPU."""
    return device.type != "cpu"


def find_limit(logits: Tensor, joined: bool) -> float | None:
    """Return what logits are kept within where images are joined; None elsewhere, where their range is known."""
    return LIMITS[logits.dtype] if joined else None


def choose_grid(low: tuple[int, int], high: tuple[int, int], channels: int, joined_images: int = 0) -> Grid:
    """Return phases where both scales are whole numbers and a phase is worth its calls, rows elsewhere.

    Args:
        low: Height and width of the logits.
        high: Height and width of the labels.
        channels: Channels of a chunk, which bound its number of rows.
        joined_images: Images that are walked together; 0 on a CPU, where one goes after the other.
    """
    if joined_images:
        return Rows(low, high, count_device_rows(channels * joined_images, high, DEVICE_SHARE), stretched=0)
    phase_bytes = 4 * channels * low[0] * (low[1] + 2)
    if high[0] % low[0] == 0 and high[1] % low[1] == 0 and phase_bytes >= LEAST_PHASE_BYTES:
        return Phases(low, (high[0] // low[0], high[1] // low[1]), _count_rows(channels, low[1]))
    return Rows(low, high, _count_rows(channels, high[1]), stretched=STRETCHED_ROWS)


def _count_rows(channels: int, width: int) -> int:
    return max(1, CHUNK_BYTES // (4 * channels * width))


def count_device_rows(channels: int, high: tuple[int, int], share: float) -> int:
    """Return the rows of a chunk off the CPU: a share of the upsampled logits.

    Args:
        channels: Channels of all images of a chunk.
        high: Height and width of the labels.
        share: Of the rows of the chunk's images.
    """
    least = LEAST_DEVICE_BYTES // (4 * channels * high[1])
    return min(high[0], max(1, int(high[0] * share), least))


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

    def visit(self, source: Source, compute: Compute) -> None:
        """Call `compute` on every phase of one image, some rows at a time; see `Grid.visit`."""
        height, width = self.low
        padded = source.logits.new_empty(source.channels, height + 2, width + 2)
        source.read(slice(0, height), padded[:, None, 1:-1, 1:-1])
        _repeat_border(padded)
        collected = None if source.gradient is None else torch.zeros_like(padded)
        for start in range(0, height, self.rows):
            self._visit_phases(padded, start, min(start + self.rows, height), compute, collected)
        if collected is not None:
            _fold_border(collected)
            source.collect(slice(0, height), collected[:, None, 1:-1, 1:-1])

    def _visit_phases(self, padded: Tensor, start: int, stop: int, compute: Compute, collected: Tensor | None) -> None:
        channels, width = padded.shape[0], padded.shape[2]
        length = (stop - start) * width
        source = padded.flatten(1)
        # One element more than the rows hold: the right tap of the last cell, which is filler.
        mixed, spread = padded.new_zeros(channels, length + 1), padded.new_zeros(channels, length + 1)
        chunk = padded.new_empty(channels, 1, stop - start, width)
        flat = chunk.flatten(1)
        for p, (top, above, below) in enumerate(self.taps_y):
            upper, lower = (start + top) * width, (start + top + 1) * width
            torch.lerp(source[:, upper : upper + length], source[:, lower : lower + length], below, out=mixed[:, :-1])
            for q, (_, before, after) in enumerate(self.taps_x):
                torch.lerp(mixed[:, :-1], mixed[:, 1:], after, out=flat)
                compute(chunk, (..., p, q, slice(start, stop), slice(None)))
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


def _repeat_border(padded: Tensor) -> None:
    """Write the outermost cells of the image inside, (C, h + 2, w + 2), to the border around it."""
    padded[:, 0, 1:-1], padded[:, -1, 1:-1] = padded[:, 1, 1:-1], padded[:, -2, 1:-1]
    padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]


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
        stretched: Low-resolution rows that are stretched at once, or as many as a chunk needs.
    """

    def __init__(
        self, low: tuple[int, int], high: tuple[int, int], rows: int, halo: int = 0, stretched: int = STRETCHED_ROWS
    ) -> None:
        self.low, self.high, self.rows, self.halo = low, high, min(rows, high[0]), halo
        # Output rows that share stretched rows.
        self.step = max(1, stretched * high[0] // (low[0] * self.rows)) * self.rows

    def arrange(self, full: Tensor) -> Tensor:
        """Return the map itself: rows come in its order."""
        return full.contiguous()

    def restore(self, arranged: Tensor) -> Tensor:
        """Return the map itself."""
        return arranged

    def visit(self, source: Source, compute: Compute) -> None:
        """Call `compute` on every chunk; see `Grid.visit`. Its position includes its halo."""
        for start in range(0, self.high[0], self.step):
            self._visit_step(source, compute, start, min(start + self.step, self.high[0]))

    def _visit_step(self, source: Source, compute: Compute, start: int, stop: int) -> None:
        """Visit the output rows [start, stop), whose low-resolution rows are stretched at once."""
        (low, width), high = self.low, self.high[0]
        first = _find_source(low, high, max(start - self.halo, 0))[0]
        last = _find_source(low, high, min(stop + self.halo, high) - 1)[0]
        rows = slice(first, min(last + 2, low))
        shape = (source.channels, source.logits.shape[1], rows.stop - first, width)
        collected = self._visit_chunks(self._stretch(source, rows, shape), shape, first, (start, stop), compute, source)
        if collected is not None:
            flat = [shape[0], shape[1] * shape[2], width]
            spread = torch.ops.aten.upsample_linear1d_backward
            found = spread(collected.view(*flat[:2], self.high[1]), [self.high[1]], flat, False, None)
            source.collect(rows, found.view(shape))

    def _stretch(self, source: Source, rows: slice, shape: tuple[int, int, int, int]) -> Tensor:
        """Return low-resolution rows of this shape, (C, n, k, w), at the width of the output, (C n, k, W)."""
        low = source.logits.new_empty(shape)
        source.read(rows, low)
        stretched = F.interpolate(low.flatten(1, 2), size=self.high[1], mode="linear", align_corners=False)
        return stretched.view(-1, shape[2], self.high[1])

    def _visit_chunks(
        self,
        stretched: Tensor,
        shape: tuple[int, int, int, int],
        first: int,
        span: tuple[int, int],
        compute: Compute,
        source: Source,
    ) -> Tensor | None:
        """Visit the chunks of stretched rows (C n, k, W); return the gradient by these, where one is wanted."""
        collected = None
        for row in range(*span, self.rows):
            start = max(row - self.halo, 0)
            stop = min(min(row + self.rows, span[1]) + self.halo, self.high[0])
            key = (start, stop, first, shape[2])
            mix = weigh_rows(self.low[0], self.high[0], key, stretched.dtype, stretched.device)
            chunk = torch.matmul(mix, stretched)  # (rows, k) x (C n, k, W) -> (C n, rows, W)
            if row + self.rows >= span[1]:
                del stretched  # its memory is wanted for what becomes of the chunk
            compute(chunk.view(*shape[:2], *chunk.shape[1:]), (..., slice(start, stop), slice(None)))
            if source.gradient is not None:
                found = torch.matmul(mix.T, chunk)
                collected = found if collected is None else collected.add_(found)
        return collected


@lru_cache(maxsize=1024)
def weigh_rows(low: int, high: int, key: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the vertical weights of output rows on low-resolution rows, shape (rows, k).

    They are kept: on an accelerator it would wait for each copy.

    Args:
        low: Height of the logits.
        high: Height of the labels.
        key: First output row and the one after the last; first low-resolution row and their number, k.
        dtype: Of the weights.
        device: Of the weights.
    """
    start, stop, first, count = key
    weights = np.zeros((stop - start, count))
    for number, row in enumerate(range(start, stop)):
        top, below = _find_source(low, high, row)
        weights[number, top - first] += 1 - below
        weights[number, min(top + 1, low - 1) - first] += below
    with torch.inference_mode(False):
        return torch.from_numpy(weights).to(device, dtype)


def _find_source(low: int, high: int, row: int) -> tuple[int, float]:
    """Return the low-resolution row above an output row, and the weight of the row below that."""
    position = max((row + 0.5) * low / high - 0.5, 0.0)
    top = min(int(position), low - 1)
    return top, position - top

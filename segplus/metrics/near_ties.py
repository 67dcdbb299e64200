"""Pixels whose two best classes differ by no more than rounding: F.interpolate itself decides.

Two ways of writing the same interpolation round differently, so where two classes come within a few units in the last
place either may win. Such pixels are rare, some ten in two million; for theirs the few classes that may win are resized
by F.interpolate: the two rows about the pixel, then its column, or where many pixels tie the whole plane of a class.
Scores that lie class by class beside each other (channels_last) F.interpolate adds up in another order, which even
depends on a class's place among the others: there whole output rows of all classes are resized.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.metrics.resizing import Axis, choose_float_dtype

# Roundings between the value of one way and of the other, each of half a unit in the last place of the largest corner.
_ROUNDINGS = 16
# On a CPU F.interpolate rounds otherwise for three channels and for outputs whose sides add up to 128 and less: there
# all classes are resized as the peer resizes them, at once.
_FEW_CLASSES, _SHORT_SIDES = 4, 128
# Larger label maps with many ties keep what lerp gave: a plane of 2**26 values takes 256 MiB.
_LARGEST_PLANE = 1 << 26
_PAIR_VALUES = 1 << 22
_ROWS_A_THREAD = 1 << 15


def measure_tolerance(values: Tensor) -> float:
    """Return the difference up to which two interpolated classes are too close to tell; 0 for infinite corners."""
    if values.numel() == 0:
        return 0.0
    low, high = torch.aminmax(values)
    tolerance = _ROUNDINGS * torch.finfo(values.dtype).eps / 2 * max(-float(low), float(high))
    return tolerance if math.isfinite(tolerance) else 0.0


def find_best_last(scores: Tensor) -> Tensor:
    """Return the argmax of the last axis, int64."""
    if scores.device.type != "cpu" or scores.dtype not in (torch.float32, torch.float64):
        return scores.argmax(-1)
    # NumPy's argmax of rows is vectorised where torch's is not (7 against 25 ms for 131,072 rows of 150), but on one
    # core; it lets other threads run.
    rows = scores.detach().reshape(-1, scores.shape[-1]).numpy()
    threads = min(torch.get_num_threads(), len(rows) // _ROWS_A_THREAD)
    if threads < 2:
        return torch.from_numpy(rows.argmax(-1)).view(scores.shape[:-1])
    best = torch.empty(len(rows), dtype=torch.int64)
    with ThreadPoolExecutor(threads) as pool:
        chunks = zip(np.array_split(rows, threads), np.array_split(best.numpy(), threads), strict=True)
        list(pool.map(lambda chunk: chunk[0].argmax(-1, out=chunk[1]), chunks))
    return best.view(scores.shape[:-1])


def find_best_two(scores: Tensor, tolerance: float, close: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the argmax of the last axis, int64, and whether another class comes within the tolerance.

    Overwrites `close`, booleans of the scores' shape, where it is given.
    """
    best = find_best_last(scores)
    close = torch.ge(scores, scores.gather(-1, best[..., None]) - tolerance, out=close)
    # Near ties are rare: one count over all is cheaper than one for every pixel.
    if int(torch.count_nonzero(close)) == best.numel():
        return best, torch.zeros_like(best, dtype=torch.bool)
    return best, close.sum(-1) > 1


def find_best_two_of_first(scores: Tensor, tolerance: float, close: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same for the first axis; on a CPU vectorised however few classes there are, where an argmax is not.

    Overwrites `scores` and `close`, booleans of the same shape.
    """
    torch.ge(scores, scores.amax(0) - tolerance, out=close)
    near = torch.zeros(scores.shape[1:], dtype=torch.bool, device=scores.device)
    others = corrected = None
    if int(torch.count_nonzero(close)) != near.numel():
        count = close.sum(0)
        near = count > 1
        others = count != 1  # near ties, and NaN, to which nothing is close
        corrected = scores[:, others].argmax(0)
    ids = torch.arange(len(scores), dtype=scores.dtype, device=scores.device)
    best = (ids @ scores.copy_(close).flatten(1)).view(near.shape).long()  # the only class that is close
    if others is not None and corrected is not None:
        best[others] = corrected
    return best, near


def settle_near_ties(image: Tensor, target: Tensor, pixels: Tensor, axes: tuple[Axis, Axis]) -> None:
    """Write the classes of pixels whose best classes nearly tie, as F.interpolate and argmax give them.

    Args:
        image: Scores on the model's grid, shape (C, h, w).
        target: Label map, shape (height, width); overwritten at the pixels.
        pixels: Flat positions in the label map, shape (P,).
        axes: The vertical and the horizontal axis of the label map.
    """
    height, width = target.shape
    together = len(image) <= _FEW_CLASSES or height + width <= _SHORT_SIDES
    if not together and image[None].is_contiguous(memory_format=torch.channels_last) and image.device.type == "cpu":
        _settle_by_row(image, target, pixels)
        return
    by_line = not together and min(height, width) >= _SHORT_SIDES
    step = max(1, _PAIR_VALUES // (2 * width + height))
    if by_line and len(pixels) <= step:
        _interpolate_rows_then_column(image, target, pixels, axes)
    elif len(pixels) and target.numel() <= _LARGEST_PLANE:
        _settle_by_plane(image, target, pixels, len(image) if together else 1)


def _interpolate_rows_then_column(image: Tensor, target: Tensor, pixels: Tensor, axes: tuple[Axis, Axis]) -> None:
    """Write the class of the largest score of each pixel, as F.interpolate computes it.

    With corners a, the weight s of the right one and t of the lower one, a score is v = (1 - t) r_0 + t r_1, where
    r_i = (1 - s) a_i0 + s a_i1. That is computed for all classes; those whose v may be the largest within rounding are
    resized once more by F.interpolate itself: their two rows to get r_0 and r_1, then the column of these two.
    """
    (height, width), (vertical, horizontal) = target.shape, axes
    y, x = pixels // width, pixels % width
    row, column = vertical.cell[y], horizontal.cell[x]
    sides = vertical.near[row], vertical.far[row]
    edges = horizontal.near[column], horizontal.far[column]
    corners = torch.stack([image[:, side, edge] for side in sides for edge in edges]).to(horizontal.share.dtype)
    upper = torch.lerp(corners[0], corners[1], horizontal.share[x])
    lower = torch.lerp(corners[2], corners[3], horizontal.share[x])
    values = torch.lerp(upper, lower, vertical.share[y])  # (C, P)
    rivals = values >= values.amax(0) - measure_tolerance(corners)
    for chunk in torch.split(rivals.nonzero(), max(1, _PAIR_VALUES // (2 * width + height))):
        index, pixel = chunk.unbind(1)
        rows = torch.cat([image[index, side[pixel]] for side in sides]).to(values.dtype)  # (2K, w)
        ends = F.interpolate(rows[:, None, None], size=(1, width), mode="bilinear", align_corners=False)
        ends = ends[torch.arange(len(rows), device=image.device), 0, 0, x[pixel].repeat(2)].view(2, -1)
        lone = ends.new_zeros(len(chunk), image.shape[1])
        for side, end in zip(sides, ends, strict=True):
            lone.scatter_(1, side[pixel, None], end[:, None])
        done = F.interpolate(lone[:, None, :, None], size=(height, 1), mode="bilinear", align_corners=False)
        values[index, pixel] = done[torch.arange(len(chunk), device=image.device), 0, y[pixel], 0]
    values.masked_fill_(~rivals, -torch.inf)
    target.view(-1)[pixels] = values.argmax(0).to(target.dtype)


def _settle_by_row(image: Tensor, target: Tensor, pixels: Tensor) -> None:
    """Resize the two rows about each output row with a near tie, all classes together, in their layout."""
    height, width = target.shape
    scale, position = measure_channels_last_rows(image.shape[1], height, choose_float_dtype(image))
    resize = torch.ops.aten.upsample_bilinear2d
    pixels = pixels.sort().values
    found, counts = torch.unique_consecutive(pixels // width, return_counts=True)
    for y, x in zip(found.tolist(), torch.split(pixels % width, counts.tolist()), strict=True):
        first = min(int(position[y]), image.shape[1] - 1)
        rows = image[None, :, first : first + 2].to(position.dtype)
        if first == 0:
            # The first rows' weights are finer than the others': the output begins with row 0, by the scale of all.
            row, each = y, scale
        else:
            # The centre of the first of several rows is half their scale: at the lower row's weight, to the last bit.
            row, each = 0, 2 * (float(position[y]) - first) + 1
        # Three rows at least: where the output is as high as the input F.interpolate copies.
        values = resize(rows, [max(row + 1, 3), width], False, 1 / each, None)[0, :, row]
        target[y, x] = values[:, x].argmax(0).to(target.dtype)


@lru_cache(maxsize=64)
def measure_channels_last_rows(low: int, size: int, dtype: torch.dtype) -> tuple[float, Tensor]:
    """Return the scale and the position of every output row among the rows of channels_last scores, (size,).

    Whether a position is rounded once or twice (a fused multiply-add) depends on how F.interpolate was compiled: the
    way that agrees with the weights of a signal is taken.

    Args:
        low: Rows of the scores.
        size: Rows of the output.
        dtype: Floating-point type of the weights.
    """
    scale = torch.tensor(low, dtype=dtype) / size
    centers = torch.arange(size, dtype=dtype) + 0.5
    once = (scale.double() * centers.double() - 0.5).to(dtype)
    twice = scale * centers - 0.5
    signal = (torch.arange(low, dtype=dtype) % 2).expand(1, _FEW_CLASSES + 1, 1, low).movedim(-1, 2)
    signal = signal.contiguous(memory_format=torch.channels_last)
    weights = F.interpolate(signal, size=(size, 1), mode="bilinear", align_corners=False)[0, 0, :, 0]

    def agree(position: Tensor) -> int:
        floor = position.floor()
        share = torch.where(floor % 2 == 0, position - floor, 1 - (position - floor))
        return int((share == weights).sum())

    position = once if agree(once) >= agree(twice) else twice
    return float(scale), position.clamp_(min=0)


def _settle_by_plane(image: Tensor, target: Tensor, pixels: Tensor, together: int) -> None:
    """Resize class by class, or all classes together."""
    dtype = choose_float_dtype(image)
    best = torch.full(pixels.shape, -torch.inf, dtype=dtype, device=image.device)
    labels = torch.zeros(pixels.shape, dtype=target.dtype, device=image.device)
    for first in range(0, len(image), together):
        planes = image[None, first : first + together].to(dtype)
        planes = planes if together > 1 else planes.contiguous()
        resized = F.interpolate(planes, size=target.shape, mode="bilinear", align_corners=False)[0]
        for index, plane in enumerate(resized, first):
            values = plane.flatten()[pixels]
            labels.masked_fill_(values > best, index)
            best = torch.maximum(best, values)
    target.view(-1)[pixels] = labels

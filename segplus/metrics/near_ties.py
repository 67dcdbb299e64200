"""Pixels whose two best classes differ by no more than rounding: F.interpolate itself decides.

Two ways of writing the same interpolation round differently, so where two classes come within a few units in the last
place either may win. Such pixels are rare, some ten in two million; for theirs the few classes that may win are resized
by F.interpolate: the two rows about the pixel, then its column, or where many pixels tie the whole plane of a class.
Channels_last scores have a way of their own (channels_last_ties).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.metrics.channels_last_ties import settle_channels_last
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
        settle_channels_last(image, target, pixels)
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

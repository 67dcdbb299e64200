"""Near ties of channels_last scores: the corners of a pixel are resized, all classes together, by F.interpolate.

Scores that lie class by class beside each other F.interpolate adds up in an order that depends on a class's place among
the others, so the classes stay together. Where a pixel lies does not matter as long as its weights are the same to the
last bit: a window of two rows and two columns is resized by the scale at which its first output pixel has them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.metrics.resizing import choose_float_dtype

# F.interpolate rounds otherwise for outputs whose sides add up to less, and copies one as large as the input.
_SIDES, _LEAST_SIDE = 129, 3
_CLASSES = 5  # of a signal that it resizes as it does many classes


class _Window(NamedTuple):
    """A few rows (or columns) of the scores and the output row that is wanted of them."""

    first: int
    end: int
    scale: float  # rows an output row; 0: those of the whole axis
    output: int


def settle_channels_last(image: Tensor, target: Tensor, pixels: Tensor) -> None:
    """Write the classes of pixels whose best classes nearly tie, as F.interpolate and argmax give them.

    Args:
        image: Scores on the model's grid, shape (C, h, w), of channels_last logits on a CPU; C > 4.
        target: Label map, shape (height, width); overwritten at the pixels.
        pixels: Flat positions in the label map, shape (P,).
    """
    (height, width), (_, low_height, low_width) = target.shape, image.shape
    dtype = choose_float_dtype(image)
    vertical = measure_positions(low_height, height, dtype, across=False)
    horizontal = measure_positions(low_width, width, dtype, across=True)
    pixels = pixels.sort().values
    found, counts = torch.unique_consecutive(pixels // width, return_counts=True)
    for y, columns in zip(found.tolist(), torch.split(pixels % width, counts.tolist()), strict=True):
        row = _choose_window(*vertical, y, low_height)
        if len(columns) * _SIDES > width:
            values = _resize(image, row, _Window(0, low_width, 0.0, width - 1), dtype)
            target[y, columns] = values[:, columns].argmax(0).to(target.dtype)
            continue
        for x in columns.tolist():
            column = _choose_window(*horizontal, x, low_width)
            target[y, x] = _resize(image, row, column, dtype)[:, column.output].argmax()


def _choose_window(scale: float, position: Tensor, index: int, low: int) -> _Window:
    first = min(int(position[index]), max(low - 2, 0))
    if first == 0:
        # The first weights are finer than the others: the output begins with row 0, by the scale of all.
        return _Window(0, 2, scale, index)
    # The centre of the first of several rows is half their scale: at the wanted weight, to the last bit.
    return _Window(first, first + 2, 2 * (float(position[index]) - first) + 1, 0)


def _resize(image: Tensor, row: _Window, column: _Window, dtype: torch.dtype) -> Tensor:
    """Return the wanted output row, shape (C, output columns)."""
    window = image[None, :, row.first : row.end, column.first : column.end].to(dtype)
    window = window.contiguous(memory_format=torch.channels_last)
    width = column.output + 1 if column.scale == 0 else max(column.output + 1, _LEAST_SIDE)
    height = max(row.output + 1, _LEAST_SIDE, _SIDES - width)
    scales = 1 / row.scale, 1 / column.scale if column.scale else None
    resized: Tensor = torch.ops.aten.upsample_bilinear2d(window, [height, width], False, *scales)
    return resized[0, :, row.output]


@lru_cache(maxsize=64)
def measure_positions(low: int, size: int, dtype: torch.dtype, across: bool) -> tuple[float, Tensor]:
    """Return the scale and the position of every output row among the rows of channels_last scores, (size,).

    Whether a position is rounded once or twice (a fused multiply-add) depends on how F.interpolate was compiled: the
    way that agrees with the weights of a signal is taken.

    Args:
        low: Rows of the scores.
        size: Rows of the output.
        dtype: Floating-point type of the weights.
        across: Whether columns are meant in place of rows.
    """
    scale = torch.tensor(low, dtype=dtype) / size
    centers = torch.arange(size, dtype=dtype) + 0.5
    once = (scale.double() * centers.double() - 0.5).to(dtype)
    twice = scale * centers - 0.5
    signal = (torch.arange(low, dtype=dtype) % 2).expand(1, _CLASSES, _SIDES, low)
    signal = (signal if across else signal.mT).contiguous(memory_format=torch.channels_last)
    resized = F.interpolate(
        signal, size=(_SIDES, size) if across else (size, _SIDES), mode="bilinear", align_corners=False
    )
    weights = resized[0, 0, 0] if across else resized[0, 0, :, 0]

    def agree(position: Tensor) -> int:
        floor = position.floor()
        share = torch.where(floor % 2 == 0, position - floor, 1 - (position - floor))
        return int((share == weights).sum())

    position = once if agree(once) >= agree(twice) else twice
    return float(scale), position.clamp_(min=0)

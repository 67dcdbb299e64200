"""Images deeper than 8 bits: whether their values need a stated range, and which one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.arrays import load_array
from segplus.data.decoding.depth import is_cut_to_bytes
from segplus.data.decoding.stored import Stored, find_array, open_with_pillow
from segplus.data.misreadings import choose_evenly
from segplus.errors import InputError

_LEAST_FILLED = 0.25  # share of the type's range below which values become a handful of grey levels
_DEEPEST = 65535.0  # what becomes 255 where no range is stated
_LOOKED_AT = 16  # images of a split before training
_INNER = (0.1, 99.9)  # percentiles between which nearly all values lie
_EIGHT_BITS = ("uint8", "bool")
_SHALLOW = ("drawn", "JPEG", "MPO", "GIF", "WEBP", "BMP", "PNG L", "PNG P", "PNG 1", "TIFF L", "TIFF P", "NumPy uint8")


def read_deep_values(split: SegmentationSplit, index: int, kind: str) -> npt.NDArray[Any] | None:
    """Return the values of an image deeper than 8 bits for which no range is stated, None of every other.

    Args:
        split: The split.
        index: Position of the image.
        kind: Its file format and mode, as `describe_encoding` gives them.
    Raises:
        InputError: If the image cannot be read.
    """
    if split.reader.value_range is not None or kind.startswith(_SHALLOW):
        return None
    stored, source = split.stored(index)[0], split.sources(index)[0]
    if kind.startswith("NumPy"):
        values = load_array(find_array(stored), split.reader.max_pixels * max(split.reader.channels, 4))
    elif split.reader.channels != 3 or kind.split()[-1].startswith(("I", "F")):
        reader = split.reader if split.reader.channels != 3 else replace(split.reader, channels=1)
        values = np.asarray(reader.read(stored, source))
    elif kind.startswith("TIFF uint16") or _is_cut(stored):
        values = np.asarray(split.image(index)).astype(np.float64) * (_DEEPEST / 255)  # to the nearest 257
    else:
        return None
    return None if values.dtype.name in _EIGHT_BITS else values


def needs_range(low: float, high: float, channels: int) -> bool:
    """Return whether values need a stated range: always of other than three channels, else where they fill little."""
    return channels != 3 or high - low < _LEAST_FILLED * _DEEPEST


def _is_cut(stored: Stored) -> bool:
    with open_with_pillow(stored) as image:
        return is_cut_to_bytes(image)


def measure_range(values: npt.NDArray[Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the least and the greatest value, and those between which nearly all lie."""
    low, high = np.percentile(values[:: max(1, values.shape[0] // 512)], _INNER)
    return (float(values.min()), float(values.max())), (float(low), float(high))


def refuse_unfilled_range(split: SegmentationSplit) -> None:
    """Raise InputError if images deeper than 8 bits fill little of their type's range, and no range is stated."""
    ranges = [
        measure_range(values)
        for index in choose_evenly(len(split), _LOOKED_AT)
        if (values := read_deep_values(split, index, split.describe_encoding(index)[0])) is not None
    ]
    low, high = min((wide[0] for wide, _ in ranges), default=0), max((wide[1] for wide, _ in ranges), default=_DEEPEST)
    if not needs_range(low, high, 3):
        return
    levels = max(1, round((high - low) * 255 / _DEEPEST))
    raise InputError(
        f"{split.title}: images deeper than 8 bits whose values fill little of their type's range",
        found=f"values {low:g} to {high:g} in {len(ranges)} images looked at, which would become {levels} grey levels",
        fix=f"set data.image_range: [{low:g}, {high:g}], or what segplus inspect proposes from all images; [0, 65535] "
        "leaves them as they are",
    )


def find_float_range(splits: Iterable[SegmentationSplit]) -> tuple[float, float] | None:
    """Return the least and the greatest value of images of real numbers, which no type bounds; None of every other.

    Raises:
        InputError: If one of them cannot be read.
    """
    found: list[tuple[float, float]] = []
    for split in splits:
        if split.reader.value_range is not None or not _holds_reals(split.describe_encoding(0)[0]):
            return None
        for index in range(len(split)):
            values = read_deep_values(split, index, split.describe_encoding(index)[0])
            if values is not None and np.isfinite(values).all():
                found.append(measure_range(values)[0])
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _holds_reals(kind: str) -> bool:
    return kind.split()[-1] == "F" or "float" in kind

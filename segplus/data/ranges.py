"""Images deeper than 8 bits: what their values lie in, and which range a recipe is to state."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.data.dataset import SegmentationSplit
from segplus.errors import InputError
from segplus.images import DecodedImage, ImageRange, fills_type, is_deep

Extents = npt.NDArray[np.float64]  # least value, two percentiles, greatest value
_TAILS = (0.1, 99.9)  # percentiles: single pixels beyond them are hot or dead
_SPARSE = 1 << 16  # values that percentiles are taken from
_ANY_RANGE = ImageRange(-1e300, 1e300)
_REAL = re.compile(r"float| F$")  # in the description of a file
_UNBOUNDED = re.compile(r"float| F$|(?<!u)int16|int32|int64")
_BITS = (10, 12, 14)  # of the sensors whose values lie in files of 16
_HOT = 2.0  # times what nearly all values lie in
_APART = 2.0  # times the values' spread below them: a mark of pixels without data


def measure_extents(image: DecodedImage) -> Extents:
    """Return the least value of a deep image, two percentiles and the greatest value, shape (4,); NaN of 8 bits."""
    if not is_deep(image):
        return np.full(4, np.nan)
    return _measure_values(np.asarray(image))


def _measure_values(pixels: npt.NDArray[Any]) -> Extents:
    sparse = pixels.reshape(-1)[:: max(1, pixels.size // _SPARSE)].astype(np.float64)
    tails = np.percentile(_leave_out_no_data(sparse), _TAILS)
    return np.array([pixels.min(), *tails, pixels.max()], dtype=np.float64)


def _leave_out_no_data(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the values but for a negative one that lies far below all others: -9999, say."""
    least = values.min()
    kept = values[values > least]
    is_apart = least < 0 and kept.size > 0 and kept.min() - least > _APART * (kept.max() - kept.min())
    return kept if is_apart else values


def join_extents(extents: Extents) -> Extents:
    """Return the extents of all images, shape (4,), from those of each, shape (images, 4)."""
    return np.array([*extents[:, :2].min(axis=0), *extents[:, 2:].max(axis=0)])


def find_unstated_range(extents: Extents, channels: int) -> Extents | None:
    """Return the extents of all deep images, shape (4,), where a range is to be stated, None where none is needed.

    Of 16-bit images of three channels the type's range serves, unless their values fill less than a quarter of it.

    Args:
        extents: Of each image, shape (images, 4); NaN of images of 8 bits.
        channels: Of each image.
    """
    deep = extents[~np.isnan(extents).any(axis=1)]
    if not len(deep):
        return None
    joined = join_extents(deep)
    return None if channels == 3 and fills_type(joined[0], joined[3]) else joined


def describe_unstated_range(title: str, count: int, extents: Extents) -> InputError:
    """Return what to say of a split's deep images, of these extents, shape (4,), where a range is to be stated."""
    return InputError(
        f"{title}: {count} images deeper than 8 bits, and no range is stated",
        found=f"values {extents[0]:g} to {extents[3]:g}",
        fix=f"set data.image_range: {format_range(propose_range(extents))}, the values that become 0 and 255 in every "
        "image",
    )


def find_needed_range(splits: Iterable[SegmentationSplit]) -> Extents | None:
    """Return the extents, shape (4,), of images that cannot be read without a range; None of every other.

    These are images of real numbers, and those of three channels of whole numbers that have a sign or 32 bits and more.

    Raises:
        InputError: If one of them cannot be read.
    """
    found = []
    for split in splits:
        unbounded = _UNBOUNDED if split.reader.channels == 3 else _REAL
        if split.reader.value_range is not None or not unbounded.search(split.describe_encoding(0)[0]):
            return None
        reader = replace(split.reader, value_range=_ANY_RANGE)
        for index in range(len(split)):
            values = np.asarray(reader.read(split.stored(index)[0], split.sources(index)[0]))
            if np.isfinite(values).all():
                found.append(_measure_values(values))
    return join_extents(np.array(found)) if found else None


def propose_range(extents: Extents) -> list[float] | dict[str, Any]:
    """Return a range as a recipe states it, which single hot or dead pixels do not widen.

    Args:
        extents: Of all images, shape (4,).
    """
    least, low, high, most = (_tidy(value) for value in extents)
    if high <= low or most - least <= _HOT * (high - low):
        start = min(0, least)
        return [start, _fill_bits(most) if start == 0 else most] if most > start else [start, start + 1]
    low, high = (_tidy(float(f"{value:.4g}")) for value in (min(0, low), high))
    return {"low": low, "high": high, "clip": True}


def _fill_bits(most: float) -> float:
    """Return the greatest value of 10, 12 or 14 bits where values reach into its upper half, else the value itself."""
    return next((2**bits - 1 for bits in _BITS if 2 ** (bits - 1) <= most < 2**bits), most)


def format_range(stated: list[float] | dict[str, Any]) -> str:
    """Return a proposed range as a line of YAML."""
    if isinstance(stated, list):
        return f"[{stated[0]:g}, {stated[1]:g}]"
    return f"{{low: {stated['low']:g}, high: {stated['high']:g}, clip: true}}"


def _tidy(value: float) -> float:
    return int(value) if value == int(value) else float(value)

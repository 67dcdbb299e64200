"""Every pair looked at once before training: headers of images, pixels of masks."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt

from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.parallel import map_pairs
from segplus.data.remembered import find_cache_folder, remember_json
from segplus.data.statistics import SplitStatistics, measure_split
from segplus.errors import InputError
from segplus.images import fills_type, is_deep

_FORMAT = 4  # of the remembered checks; raise it when a check is added
_HOT = 2.0  # times what nearly all values lie in


def check_split(split: SegmentationSplit, *parts: str, progress: bool = True) -> SplitStatistics:
    """Return what a split holds after every pair was checked; a split that passed before is not read again.

    Args:
        split: The split.
        parts: What else is counted in the same pass; see `measure_split`.
        progress: Show a progress bar.

    Raises:
        InputError: If a pair is damaged, of two sizes, or holds a value outside the classes: the first one's message,
            with the names of others. If all of the foreground is ignored or background, an index of a palette has two
            colours, or images deeper than 8 bits leave most of the range empty.
    """
    has_no_range = split.reader.value_range is None and _begins_deep(split)
    statistics = measure_split(split, *parts, *(["values"] if has_no_range else []), progress=progress)
    path = find_cache_folder() / "checks" / f"{split.fingerprint}-{_FORMAT}.json"
    remember_json(path, lambda: _check_meaning(split, statistics))
    return statistics


def _check_meaning(split: SegmentationSplit, statistics: SplitStatistics) -> bool:
    refuse_hidden_foreground(split, statistics.counts.sum(axis=0))
    refuse_mixed_palettes(split)
    refuse_unused_range(split, statistics)
    return True


def _begins_deep(split: SegmentationSplit) -> bool:
    with suppress(InputError):  # it is reported when every pair is read
        return len(split) > 0 and is_deep(split.image(0))
    return False


def refuse_unused_range(split: SegmentationSplit, statistics: SplitStatistics) -> None:
    """Raise InputError if images deeper than 8 bits, without a stated range, fill less than a quarter of their type's.

    Of other channels than colours no type's range is taken: they need one that is stated.
    """
    extents = statistics.extents[~np.isnan(statistics.extents).any(axis=1)]
    if split.reader.value_range is not None or not len(extents):
        return
    least, most = float(extents[:, 0].min()), float(extents[:, 3].max())
    if split.reader.channels == 3 and fills_type(least, most):
        return
    raise InputError(
        f"{split.title}: {len(extents)} images deeper than 8 bits, and no range is stated",
        found=f"values {least:g} to {most:g}",
        fix=f"set data.image_range: {propose_range(extents)}, the values that become 0 and 255 in every image",
    )


def propose_range(extents: npt.NDArray[np.float64]) -> str:
    """Return a range as a recipe states it, which single hot or dead pixels do not widen.

    Args:
        extents: `SplitStatistics.extents` of images deeper than 8 bits, shape (images, 4).
    """
    least, low, high, most = extents[:, 0].min(), extents[:, 1].min(), extents[:, 2].max(), extents[:, 3].max()
    if high <= low or most - least <= _HOT * (high - low):
        return f"[{min(0.0, least):g}, {most if most > min(0.0, least) else least + 1:g}]"
    return f"{{low: {min(0.0, low):g}, high: {high:g}, clip: true}}"


def refuse_hidden_foreground(split: SegmentationSplit, pixels: npt.NDArray[np.int64]) -> None:
    """Raise InputError if masks were read so that all of the foreground is ignored, or background."""
    classes = split.classes
    if looks_like_bytes(split.decoder, pixels):
        raw = np.unique(split.raw_label(0))
        if set(raw.tolist()) <= {0, 255}:
            raise InputError(
                f"{split.title}: masks of 0 and 255, and 255 is ignored",
                found=f"no pixel of '{classes.names[1]}', {int(pixels[-1])} ignored",
                fix="set data.encoding: binary, or data.void: [255] where 255 means nothing",
            )
    faint = find_faint_masks(split, pixels)
    if faint:
        raise InputError(
            f"{split.title}: no mask reaches data.threshold",
            found=f"no value from {split.decoder.threshold} on, lower ones in {len(faint)} masks, such as {faint[0]}",
            fix="set data.threshold to the least value of the foreground: 1 for masks of 0 and 1",
        )


def looks_like_bytes(decoder: MaskDecoder, pixels: npt.NDArray[np.int64]) -> bool:
    """Return whether the second of two classes has no pixel, 255 has some, and the recipe does not call it void."""
    read_as_ids = decoder.encoding in ("ids", "auto") and not decoder.states_void
    return bool(read_as_ids and decoder.classes.num_classes == 2 and pixels[1] == 0 and pixels[-1] > 0)


def find_faint_masks(split: SegmentationSplit, pixels: npt.NDArray[np.int64]) -> list[str]:
    """Return the files of binary masks whose foreground lies below the threshold, in a split of which none reaches it.

    Args:
        split: The split.
        pixels: Its pixels of each class, then ignored ones.
    """
    foreground = min(split.classes.raw_to_class.get(1, len(pixels)), len(pixels) - 1)
    if split.decoder.encoding != "binary" or pixels[foreground] > 0:
        return []
    found = map_pairs(partial(_is_faint, split), len(split), None)
    return [split.sources(index)[1] for index, faint in enumerate(found) if faint]


def _is_faint(split: SegmentationSplit, index: int) -> bool:
    try:
        return split.decoder.holds_faint_values(split.stored(index)[1], split.sources(index)[1])
    except InputError:
        return False  # it is reported when the pair is read


def refuse_mixed_palettes(split: SegmentationSplit) -> None:
    """Raise InputError if an index that masks use has another colour in one file than in another."""
    known: dict[int, tuple[tuple[int, ...], str]] = {}
    seen: set[bytes] = set()
    for index in range(len(split)):
        source = split.sources(index)[1]
        palette = split.palette(index)
        if palette is None:
            return  # masks of one data set are of one type; single odd ones were refused when they were read
        if palette in seen and len(seen) == 1:
            continue
        seen.add(palette)
        for value in np.unique(split.raw_label(index)).tolist():
            color = tuple(palette[3 * value : 3 * value + 3])
            first = known.setdefault(value, (color, source))
            if first[0] != color:
                raise InputError(
                    f"{source}: palette index {value} has another colour than in {first[1]}",
                    found=f"{color} and {first[0]}",
                    fix="set data.encoding: colors and give each class its colour in data.colors",
                )

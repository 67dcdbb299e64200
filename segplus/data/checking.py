"""Every pair looked at once before training: headers of images, pixels of masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segplus.data.dataset import SegmentationSplit, refuse_different_sizes
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.parallel import map_pairs
from segplus.data.remembered import find_cache_folder, remember_json
from segplus.errors import InputError

T = TypeVar("T")
_FORMAT = 3  # of the remembered checks; raise it when a check is added


@dataclass
class SplitCheck:
    """What the masks of a split hold.

    Args:
        images: Number of pairs.
        pixels: Pixels of each class, then ignored pixels; length C + 1.
        images_with: Images that hold each class, then images with ignored pixels; length C + 1.
    """

    images: int
    pixels: list[int] = field(default_factory=list)
    images_with: list[int] = field(default_factory=list)


def check_split(split: SegmentationSplit, *, progress: bool = True) -> SplitCheck:
    """Return the class counts of a split after every pair was checked; a split that passed before is not read again.

    Args:
        split: The split.
        progress: Show a progress bar.

    Raises:
        InputError: If a pair is damaged, of two sizes, or holds a value outside the classes: the first one's message,
            with the names of others.
    """
    path = find_cache_folder() / "checks" / f"{split.fingerprint}-{_FORMAT}.json"
    return SplitCheck(**remember_json(path, lambda: vars(_check_pairs(split, progress))))


def _check_pairs(split: SegmentationSplit, progress: bool) -> SplitCheck:
    classes = split.classes
    total = np.zeros(classes.num_classes + 1, dtype=np.int64)
    present = np.zeros_like(total)
    problems: list[InputError] = []
    for counts in map_pairs(
        lambda index: _check_pair(split, index), len(split), f"check {split.title}" if progress else None
    ):
        if isinstance(counts, InputError):
            problems.append(counts)
            continue
        total += counts
        present += counts > 0
    _raise_first(problems, len(split))
    refuse_hidden_foreground(split, total)
    refuse_mixed_palettes(split)
    return SplitCheck(len(split), total.tolist(), present.tolist())


def find_presence(split: SegmentationSplit) -> npt.NDArray[np.bool_]:
    """Return whether each image holds each class, shape (images, C)."""
    width = split.classes.num_classes + 1
    rows = np.zeros((len(split), width), dtype=np.bool_)
    for index, label in enumerate(map_pairs(split.label, len(split), "classes per image")):
        rows[index] = count_labels(label, width - 1) > 0
    return rows[:, :-1]


def count_labels(label: npt.NDArray[np.unsignedinteger], num_classes: int) -> npt.NDArray[np.int64]:  # type: ignore[type-arg]
    """Return pixels of each class, then ignored pixels; shape (C + 1,)."""
    counts = np.bincount(label.ravel(), minlength=num_classes)
    result = np.zeros(num_classes + 1, dtype=np.int64)
    result[:num_classes] = counts[:num_classes]
    result[-1] = label.size - result[:-1].sum()
    return result


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


def _check_pair(split: SegmentationSplit, index: int) -> npt.NDArray[np.int64] | InputError:
    try:
        size = split.size_px(index)
        label = split.label(index)
        split.check_mask(index)
        refuse_different_sizes(size, label.shape, *split.sources(index))
    except InputError as error:
        return error
    return count_labels(label, split.classes.num_classes)


def _raise_first(problems: list[InputError], count: int) -> None:
    if not problems:
        return
    first = problems[0]
    if len(problems) == 1:
        raise first
    others = ", ".join(error.what.split(": ")[0] for error in problems[1:4])
    others += ", ..." if len(problems) > 4 else ""
    more = f"{first.what} ({len(problems)} of {count} pairs have problems; also {others})"
    raise InputError(more, found=first.found, allowed=first.allowed, fix=first.fix)

"""Masks that can be read, but not in the way the recipe says: the foreground ignored, numbers of things as classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from segplus.classes import ClassMap
from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.mask_values import Numbering, describe_numbering, look_like_numbers, read_stored_mask
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.layouts.unmasked import list_masked
from segplus.data.parallel import map_pairs
from segplus.errors import InputError

Counts = npt.NDArray[np.int64]
_SAMPLED = 64  # masks that are read before all of them are
_LOOKED_AT = 16  # masks of a split whose values are looked at as they lie in the file
_NOISE = 32  # how far a value lies from 0 and from 255 at most where a mask of the two was saved as a JPEG
_SOFT = 0.4  # share of the marked pixels between the two, from which on a mask is no longer one of two values
_LACKING, _STRANGE = 5, 0.3  # classes of Cityscapes without a pixel, share of its void: from there on ids are others
_DOMINANT, _IGNORED = 0.999, 0.5  # shares of all pixels that are worth a warning


def find_misreadings(split: SegmentationSplit, pixels: Sequence[int]) -> Iterator[tuple[str, InputError]]:
    """Yield what is wrong with the way a split's masks are read: a few words that name it, and the message.

    Args:
        split: The split; every mask of it can be read.
        pixels: Its pixels of each class, then ignored ones.
    """
    for kind, find in _FINDERS.items():
        problem = find(split, np.asarray(pixels, dtype=np.int64))
        if problem is not None:
            yield kind, problem
    try:
        refuse_mixed_palettes(split)
    except InputError as error:
        yield "palettes that differ", error


def find_ignored_foreground(split: SegmentationSplit, pixels: Counts) -> InputError | None:
    """Return what to say of masks of 0 and 255 that are read as ids, 255 ignored."""
    if not _ignores_bytes(split.decoder) or pixels[1:-1].any() or not pixels[-1]:
        return None
    first = split.raw_label(next(iter(list_masked(split.rows)), 0))
    return _describe_ignored_foreground(split) if set(np.unique(first).tolist()) <= {0, 255} else None


def refuse_ignored_foreground(split: SegmentationSplit) -> None:
    """Raise InputError if masks are of 0 and 255, and 255 is ignored; few are read where one shows another value."""
    if not _ignores_bytes(split.decoder):
        return
    if all(_holds_bytes_alone(split, some) for some in (choose_evenly(len(split), _SAMPLED), range(len(split)))):
        raise _describe_ignored_foreground(split)


def _ignores_bytes(decoder: MaskDecoder) -> bool:
    """Return whether ids are read of which 0 is the first class, and 255 is ignored without the recipe's word."""
    classes = decoder.classes
    reads_ids = decoder.encoding in ("ids", "auto", "palette") and not classes.legend and not decoder.states_void
    return reads_ids and classes.num_classes > 1 and classes.raw_to_class.get(0) == 0


def _describe_ignored_foreground(split: SegmentationSplit) -> InputError:
    names, behind = split.classes.names, " and the classes behind it" if split.classes.num_classes > 2 else ""
    return InputError(
        f"{split.title}: masks of 0 and 255, and 255 is ignored",
        found=f"no pixel of '{names[1]}'{behind}, those of 255 ignored",
        fix="set data.encoding: binary and two names in data.classes, or data.void: [255] where 255 means nothing",
    )


def _holds_bytes_alone(split: SegmentationSplit, positions: Iterable[int]) -> bool:
    """Return whether masks hold 0 and 255, both, and nothing else; those that cannot be read are reported later."""
    seen: set[int] = set()
    for index in positions:
        try:
            seen |= set(np.unique(split.raw_label(index)).tolist())
        except InputError:
            return False
        if not seen <= {0, 255}:
            return False
    return 255 in seen


def find_faint_foreground(split: SegmentationSplit, pixels: Counts) -> InputError | None:
    """Return what to say of binary masks of which none reaches the threshold."""
    foreground = min(split.classes.raw_to_class.get(1, len(pixels)), len(pixels) - 1)
    if split.decoder.encoding != "binary" or pixels[foreground] > 0:
        return None
    found = map_pairs(partial(_is_faint, split), len(split), None)
    faint = [split.sources(index)[1] for index, is_faint in enumerate(found) if is_faint]
    if not faint:
        return None
    return InputError(
        f"{split.title}: no mask reaches data.threshold",
        found=f"no value from {split.decoder.threshold} on, lower ones in {len(faint)} masks, such as {faint[0]}",
        fix="set data.threshold to the least value of the foreground: 1 for masks of 0 and 1",
    )


def _is_faint(split: SegmentationSplit, index: int) -> bool:
    try:
        return split.decoder.holds_faint_values(split.stored(index)[1], split.sources(index)[1])
    except InputError:
        return False  # it is reported when the pair is read


def find_cut_values(split: SegmentationSplit, pixels: Counts) -> InputError | None:
    """Return what to say of binary masks whose threshold lies in the middle of many different values."""
    decoder = split.decoder
    if decoder.encoding != "binary" or not pixels[:-1].all():
        return None
    values: Counter[int] = Counter()
    numberings: list[Numbering] = []
    is_deep = True
    masked = list_masked(split.rows)
    for index in (masked[position] for position in choose_evenly(len(masked), _LOOKED_AT)):
        stored, source = split.stored(index)[1], split.sources(index)[1]
        mask = read_stored_mask(stored, source, decoder.max_pixels)
        if mask.values.ndim != 2 or mask.palette is not None:
            return None
        found, counts = np.unique(mask.values, return_counts=True)
        values.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        is_deep = is_deep and mask.values.dtype != np.uint8
        if not mask.is_lossy:
            numberings.append(describe_numbering(mask.values))
    return _describe_cut(split, values, look_like_numbers(numberings, is_deep))


def _describe_cut(split: SegmentationSplit, values: Mapping[int, int], are_numbers: bool) -> InputError | None:
    threshold = split.decoder.threshold
    low, high = ([v for v in sorted(values) if v and (v >= threshold) == side] for side in (False, True))
    if not low or not high or threshold <= 1:
        return None
    found = f"{len(low)} values below it ({low[0]} to {low[-1]}), {len(high)} from it on ({high[0]} to {high[-1]})"
    if are_numbers:
        return InputError(
            f"{split.title}: data.threshold ({threshold}) divides numbers of things, and half of them are lost",
            found=found,
            fix="set data.threshold: 1, so that every thing is foreground",
        )
    if split.decoder.states_threshold or not is_soft(values):
        return None
    return InputError(
        f"{split.title}: masks of many values, and nothing says from which one on they are foreground",
        found=found,
        fix=f"set data.threshold to the least value of the foreground, such as {threshold}",
    )


def is_soft(values: Mapping[int, int]) -> bool:
    """Return whether many marked pixels lie between 0 and the largest value, and not near one of the two.

    Args:
        values: Mask value -> pixels.
    """
    most = max(values, default=0)
    noise = max(1, round(_NOISE * most / 255))
    marked = sum(count for value, count in values.items() if value > noise)
    between = sum(count for value, count in values.items() if noise < value < most - noise)
    return len(values) > 16 and between > _SOFT * max(1, marked)


def find_unreached_divisor(split: SegmentationSplit, pixels: Counts) -> InputError | None:
    """Return what to say of instance masks of which no value reaches the divisor, so that all would be one class."""
    divisor = split.decoder.instance_divisor
    masked = list_masked(split.rows) if split.decoder.encoding == "instances" else []
    if not masked or not pixels.any():
        return None
    most = 0
    for index in masked:
        stored, source = split.stored(index)[1], split.sources(index)[1]
        most = max(most, int(read_stored_mask(stored, source, split.decoder.max_pixels).values.max(initial=0)))
        if most >= divisor:
            return None
    return InputError(
        f"{split.title}: no mask value reaches data.instance_divisor, and every pixel would be class 0",
        found=f"values up to {most}, data.instance_divisor {divisor}",
        fix="set data.encoding: binary and data.threshold: 1 where values number things, data.encoding: ids where they "
        "are classes",
    )


_FINDERS: dict[str, Callable[[SegmentationSplit, Counts], InputError | None]] = {
    "binary masks read as ids": find_ignored_foreground,
    "foreground below the threshold": find_faint_foreground,
    "threshold between values": find_cut_values,
    "no instances": find_unreached_divisor,
}


def refuse_mixed_palettes(split: SegmentationSplit) -> None:
    """Raise InputError if an index that masks use has another colour in one file than in another."""
    known: dict[int, tuple[tuple[int, ...], str]] = {}
    seen: set[bytes] = set()
    for index in list_masked(split.rows):
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


def find_presumed_names(
    splits: Mapping[str, SegmentationSplit], pixels: Mapping[str, Sequence[int]]
) -> InputError | None:
    """Return what to say of masks that take their class names from a benchmark, and do not look like it.

    Args:
        splits: The splits.
        pixels: Pixels of each class, then ignored ones, of each split.
    """
    first = next(iter(splits.values()), None)
    if first is None or not first.decoder.presumed:
        return None
    *total, void = np.sum(list(pixels.values()), axis=0)
    present = np.flatnonzero(total)
    names, benchmark = first.classes.names, first.decoder.presumed
    if benchmark == "Cityscapes":
        absent, share = len(names) - len(present), void / max(1, sum(total) + void)
        if absent < _LACKING or share < _STRANGE:
            return None
        return InputError(
            "data.classes: folders of Cityscapes, and ids that are hardly its own",
            found=f"{100 * share:.0f} % of the pixels are void, and {absent} of its {len(names)} classes have none",
            fix="name your ids: data.classes: {0: ..., 1: ...}; or set data.layout: cityscapes where they are its own",
        )
    is_start = len(present) < len(names) and present.tolist() == list(range(len(present)))
    palette = first.palette(0)
    shown = {int(value): tuple(palette[3 * value : 3 * value + 3]) for value in present} if palette is not None else {}
    odd = [value for value, color in shown.items() if color != name_voc_color(value)]
    is_grey = palette is not None and all(len(set(palette[3 * v : 3 * v + 3])) == 1 for v in present)
    if not is_start and (not odd or is_grey):
        return None
    found = f"ids {', '.join(map(str, present[:12]))}" + (f", id {odd[0]} in another colour" if odd else "")
    return InputError(
        f"data.classes: folders of {benchmark}, and masks that hold only the first of its ids, or other colours",
        found=f"{found}; {benchmark} calls id {present[-1]} '{names[present[-1]]}'",
        fix=f"name your classes: data.classes: {{{', '.join(f'{v}: ...' for v in present[:4])}}}; or data.classes: voc",
    )


def name_voc_color(value: int) -> tuple[int, int, int]:
    """Return the colour of an index in Pascal VOC's palette: its bits, dealt out to red, green and blue."""
    red, green, blue = (
        sum(((int(value) >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)
    )
    return red, green, blue


def describe_odd_shares(classes: ClassMap, pixels: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a sentence on classes without a pixel in any split, on most pixels ignored, and on one class nearly alone.

    Args:
        classes: The classes.
        pixels: Pixels of each class, then ignored ones, of each split.
    """
    total = np.sum(list(pixels.values()), axis=0)
    lines = []
    absent = [name for name, count in zip(classes.names, total[:-1], strict=True) if count == 0]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        lines.append(f"{len(absent)} of {classes.num_classes} classes have no pixel in any split: {shown}")
    valid = int(total[:-1].sum())
    if total[-1] > _IGNORED * max(1, total.sum()):
        lines.append(f"{100 * total[-1] / total.sum():.1f} % of all pixels are ignored")
    if classes.num_classes > 1 and valid and total[:-1].max() > _DOMINANT * valid:
        name = classes.names[int(total[:-1].argmax())]
        lines.append(f"{100 * total[:-1].max() / valid:.2f} % of all pixels are '{name}'")
    return [f"look at how the masks are read: {line}" for line in lines]


def choose_evenly(count: int, most: int) -> list[int]:
    """Return up to `most` of the positions 0 to count - 1, evenly spaced."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})

"""Every pair looked at once before training: headers of images, pixels of masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segplus.data.dataset import SegmentationSplit, refuse_different_sizes
from segplus.data.misreadings import describe_odd_shares, find_misreadings, find_presumed_names
from segplus.data.parallel import map_pairs
from segplus.data.ranges import refuse_unfilled_range
from segplus.data.remembered import find_cache_folder, remember_json
from segplus.errors import InputError

T = TypeVar("T")
logger = logging.getLogger(__name__)
_FORMAT = 4  # of the remembered checks; raise it when a check is added


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


def check_splits(splits: Mapping[str, SegmentationSplit], *, progress: bool = True) -> dict[str, SplitCheck]:
    """Return the class counts of all splits after every pair was checked, and warn of classes that look misread.

    Raises:
        InputError: If a split does not pass, or masks do not fit the class names that their layout usually has.
    """
    checks = {name: check_split(split, progress=progress) for name, split in splits.items()}
    pixels = {name: np.array(check.pixels, dtype=np.int64) for name, check in checks.items()}
    problem = find_presumed_names(splits, pixels)
    if problem is not None:
        raise problem
    if splits:
        for line in describe_odd_shares(next(iter(splits.values())).classes, pixels):
            logger.warning("%s", line)
    return checks


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
    for _, problem in find_misreadings(split, total):
        raise problem
    refuse_unfilled_range(split)
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

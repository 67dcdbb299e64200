"""What is checked of every pair before training: it can be read, it fits, and its masks mean what the recipe says."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from segplus.data.dataset import SegmentationSplit
from segplus.data.layouts.unmasked import list_masked
from segplus.data.misreadings import describe_odd_shares, find_misreadings, find_presumed_names
from segplus.data.ranges import describe_unstated_range, find_unstated_range
from segplus.data.remembered import find_cache_folder, remember_json
from segplus.data.statistics import SplitStatistics, measure_split
from segplus.errors import InputError
from segplus.images import is_deep

logger = logging.getLogger(__name__)
_FORMAT = 6  # of the remembered checks; raise it when a check is added


def check_splits(
    splits: Mapping[str, SegmentationSplit],
    train_parts: Sequence[str] = (),
    *,
    progress: bool = True,
    warn: bool = True,
) -> dict[str, SplitStatistics]:
    """Return what all splits hold after every pair was checked, and warn of classes that look misread.

    Args:
        splits: The splits by name.
        train_parts: What is counted of the training split beside the classes' pixels; see `measure_split`.
        progress: Show progress bars.
        warn: Log the warnings; of several processes one is enough.
    Raises:
        InputError: If a split does not pass, or masks do not fit the class names that their layout usually has.
    """
    found = {
        name: _check_pairs(split, *(train_parts if name == "train" else ()), progress=progress)
        for name, split in splits.items()
    }
    refuse_unstated_range(splits, found)
    pixels = {name: statistics.pixels for name, statistics in found.items()}
    problem = find_presumed_names(splits, pixels)
    if problem is not None:
        raise problem
    if splits and warn:
        for line in describe_odd_shares(next(iter(splits.values())).classes, pixels):
            logger.warning("%s", line)
    return found


def check_split(split: SegmentationSplit, *parts: str, progress: bool = True) -> SplitStatistics:
    """Return what a split holds after every pair was checked; a split that passed before is not read again.

    Args:
        split: The split.
        parts: What is counted beside the classes' pixels; see `measure_split`.
        progress: Show a progress bar.
    Raises:
        InputError: If a pair is damaged, of two sizes, or holds a value outside the classes: the first one's message,
            with the names of others. If masks are read as they are not meant, an index of a palette has two colours,
            or images deeper than 8 bits leave most of the range empty.
    """
    statistics = _check_pairs(split, *parts, progress=progress)
    lacking = len(split) - len(list_masked(split.rows))
    if lacking and progress:
        name = split.classes.names[0]
        logger.warning("%d of %d images have no mask: read as %s (data.unmasked)", lacking, len(split), name)
    refuse_unstated_range({split.title: split}, {split.title: statistics})
    return statistics


def _check_pairs(split: SegmentationSplit, *parts: str, progress: bool) -> SplitStatistics:
    has_no_range = split.reader.value_range is None and _begins_deep(split)
    statistics = measure_split(split, *parts, *(["values"] if has_no_range else []), progress=progress)
    path = find_cache_folder() / "checks" / f"{split.fingerprint}-{_FORMAT}.json"
    remember_json(path, lambda: _check_meaning(split, statistics))
    return statistics


def _check_meaning(split: SegmentationSplit, statistics: SplitStatistics) -> bool:
    for _, problem in find_misreadings(split, statistics.pixels):
        raise problem
    return True


def _begins_deep(split: SegmentationSplit) -> bool:
    with suppress(InputError):  # it is reported when every pair is read
        return len(split) > 0 and is_deep(split.image(0))
    return False


def refuse_unstated_range(splits: Mapping[str, SegmentationSplit], found: Mapping[str, SplitStatistics]) -> None:
    """Raise InputError if images deeper than 8 bits, without a stated range, fill less than a quarter of their type's.

    All splits are looked at together, as one range is for all. Of other channels than colours no type's range is taken:
    they need one that is stated.
    """
    extents = {name: found[name].extents for name, split in splits.items() if split.reader.value_range is None}
    deep = {name: kept for name, all_of in extents.items() if len(kept := all_of[~np.isnan(all_of).any(axis=1)])}
    if not deep:
        return
    together = np.concatenate([*deep.values()])
    needed = find_unstated_range(together, next(iter(splits.values())).reader.channels)
    if needed is not None:
        raise describe_unstated_range(", ".join(deep), len(together), needed)

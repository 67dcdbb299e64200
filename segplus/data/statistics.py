"""What a whole split holds: the mean and spread of each channel, the pixels of each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segplus.data.dataset import SegmentationSplit
from segplus.data.parallel import map_pairs
from segplus.data.remembered import find_cache_folder, remember_json
from segplus.errors import InputError

Counts = npt.NDArray[np.int64]
_FORMAT = 2  # of what is remembered


@dataclass(frozen=True)
class ChannelStatistics:
    """Each channel over all pixels of a split.

    Args:
        mean: One a channel, in 0..255.
        std: Standard deviation over all pixels (not over n - 1), one a channel, in 0..255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_channels(split: SegmentationSplit, *, progress: bool = True) -> ChannelStatistics:
    """Return the mean and the spread of each channel of a split; a split that was measured is not read again.

    The sums are of integers, hence exact and the same in whatever order the images come.

    Args:
        split: Images of equally many channels, 8-bit as the recipe's range makes them.
        progress: Show a progress bar.
    Raises:
        InputError: If an image is damaged, or is not 8-bit because no range is stated for its depth.
    """
    path = find_cache_folder() / "channels" / f"{split.fingerprint}-{_FORMAT}.json"
    title = f"measure channels of {split.title}" if progress else None

    def measure() -> dict[str, Any]:
        counts = sum(map_pairs(lambda index: _count_values(split, index), len(split), title))
        return asdict(summarize_counts(np.asarray(counts)))

    stored = remember_json(path, measure)
    return ChannelStatistics(tuple(stored["mean"]), tuple(stored["std"]))


def summarize_counts(counts: npt.NDArray[np.int64]) -> ChannelStatistics:
    """Return mean and standard deviation of channels.

    Args:
        counts: How often each value occurs in each channel, shape (channels, 256).
    """
    mean, std = [], []
    for channel in counts.tolist():  # Python's integers: squares of millions of pixels pass 64 bits
        pixels = sum(channel)
        total = sum(value * count for value, count in enumerate(channel))
        squares = sum(value * value * count for value, count in enumerate(channel))
        mean.append(total / pixels)
        std.append((pixels * squares - total * total) ** 0.5 / pixels)
    return ChannelStatistics(tuple(mean), tuple(std))


def _count_values(split: SegmentationSplit, index: int) -> npt.NDArray[np.int64]:
    """Return how often each of the 256 values occurs in each channel of an image, shape (channels, 256)."""
    image = split.image(index)
    channels = np.asarray(image)
    if channels.dtype != np.uint8:
        raise InputError(
            f"{split.sources(index)[0]}: not an 8-bit image, and no range is stated",
            found=f"{channels.dtype}, values {channels.min():g}..{channels.max():g}",
            fix="set data.image_range: [low, high], the values that become 0 and 255 in every image",
        )
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(channels, -1, 0)])


def count_class_pixels(labels: Iterable[npt.NDArray[Any] | Tensor], num_classes: int) -> Counts:
    """Return pixels by class, and the images' pixels that any class of them shares, in one streamed pass.

    Args:
        labels: Class ids of any integer type, any shape; values outside [0, C) are ignored.
        num_classes: C.
    Returns:
        Int64, shape (2, C): pixels of class c; valid pixels of the images that contain class c.
    """
    total = np.zeros((2, num_classes), dtype=np.int64)
    for label in labels:
        ids = np.asarray(label).reshape(-1)
        ids = ids[(ids >= 0) & (ids < num_classes)]
        counts = np.bincount(ids, minlength=num_classes)
        total[0] += counts
        total[1] += (counts > 0) * counts.sum()
    return total


def count_split(split: SegmentationSplit, num_classes: int, *, cache: Path | None = None) -> Counts:
    """Return `count_class_pixels` of a whole split, from the cache where it was counted before.

    Args:
        split: Has a length, `label(i)` and a fingerprint.
        num_classes: C.
        cache: Folder of cached counts, one file a fingerprint; None counts anew.
    """

    def count() -> list[list[int]]:
        counts = count_class_pixels(map_pairs(split.label, len(split), "counting classes"), num_classes)
        return [row.tolist() for row in counts]

    if cache is None:
        return np.array(count(), dtype=np.int64)
    file = cache / f"class_pixels_{split.fingerprint}_{num_classes}-{_FORMAT}.json"
    return np.array(remember_json(file, count), dtype=np.int64)

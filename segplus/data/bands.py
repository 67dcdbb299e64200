"""Pictures as bands: the mean and spread of each over a split, and what they look like."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.data.checking import map_pairs
from segplus.data.contents import find_cache_folder
from segplus.data.dataset import SegmentationSplit
from segplus.errors import InputError
from segplus.images import Picture

_FORMAT = 1  # of the remembered statistics
_SEEN = (1.0, 99.0)  # percentiles of a band that are drawn black and white


@dataclass(frozen=True)
class BandStatistics:
    """Each band over all pixels of a split.

    Args:
        mean: One a band, in 0..255.
        std: Standard deviation over all pixels (not over n - 1), one a band, in 0..255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_bands(split: SegmentationSplit, *, progress: bool = True) -> BandStatistics:
    """Return the mean and the spread of each band of a split, read once; a split that was measured is not read again.

    The sums are of integers, hence exact and the same in whatever order the pictures come.

    Args:
        split: Pictures of equally many bands, 8-bit as the recipe's range makes them.
        progress: Show a progress bar.
    Raises:
        InputError: If a picture is damaged, or is not 8-bit because no range is stated for its depth.
    """
    place = find_cache_folder() / "bands" / f"{split.fingerprint}-{_FORMAT}.json"
    if place.is_file():
        stored = json.loads(place.read_text())
        return BandStatistics(tuple(stored["mean"]), tuple(stored["std"]))
    title = f"measure bands of {split.title}" if progress else None
    counts = sum(map_pairs(lambda index: _count_values(split, index), len(split), title))
    statistics = summarize_counts(np.asarray(counts))
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(asdict(statistics)))
    draft.replace(place)
    return statistics


def summarize_counts(counts: npt.NDArray[np.int64]) -> BandStatistics:
    """Return mean and standard deviation of bands.

    Args:
        counts: How often each value occurs in each band, shape (bands, 256).
    """
    mean, std = [], []
    for band in counts.tolist():  # Python's integers: squares of millions of pixels pass 64 bits
        pixels = sum(band)
        total = sum(value * count for value, count in enumerate(band))
        squares = sum(value * value * count for value, count in enumerate(band))
        mean.append(total / pixels)
        std.append((pixels * squares - total * total) ** 0.5 / pixels)
    return BandStatistics(tuple(mean), tuple(std))


def _count_values(split: SegmentationSplit, index: int) -> npt.NDArray[np.int64]:
    """Return how often each of the 256 values occurs in each band of a picture, shape (bands, 256)."""
    image = split.image(index)
    bands = np.asarray(image)
    if bands.dtype != np.uint8:
        raise InputError(
            f"{split.sources(index)[0]}: not an 8-bit image, and no range is stated",
            found=f"{bands.dtype}, values {bands.min():g}..{bands.max():g}",
            fix="set data.image_range: [low, high], the values that become 0 and 255 in every image",
        )
    return np.stack([np.bincount(band.ravel(), minlength=256) for band in np.moveaxis(bands, -1, 0)])


def show_as_rgb(image: Picture) -> Image.Image:
    """Return a picture for the eye: of many bands the first three, of one or two the first as grey, each stretched."""
    if isinstance(image, Image.Image):
        return image
    bands = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    shown = bands.astype(np.float32)
    low, high = np.percentile(shown, _SEEN, axis=(0, 1)).astype(np.float32)
    stretched = (shown - low) / np.maximum(high - low, 1e-9)
    return Image.fromarray(np.rint(stretched.clip(0, 1) * 255).astype(np.uint8))

"""The one scan of a split: what each pair holds, counted once and remembered; all numbers of a split are sums of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segplus.data.dataset import SegmentationSplit, refuse_different_sizes
from segplus.data.parallel import map_pairs
from segplus.data.ranges import measure_extents
from segplus.data.remembered import find_cache_folder, remember
from segplus.errors import InputError
from segplus.images import DEEP_COLORS, DecodedImage, is_deep, measure_image

Counts = npt.NDArray[np.int64]
PARTS = ("points", "values")
POINTS_PER_CLASS = 8
_FORMAT = 1  # of what is remembered; raise it when what is counted or checked changes


@dataclass(frozen=True)
class SplitStatistics:
    """What each pair of a split holds.

    Args:
        counts: Pixels of each class, then ignored ones, int64, shape (images, C + 1).
        starts: Where the points of (image, class) begin, flat, int64, shape (images * C + 1,); part "points".
        points: (row, column) of a few pixels of each class in each image, int32, shape (points, 2); part "points".
        sums: Pixels, sum and sum of squares of each channel in 0..255, float64, shape (images, channels, 3); NaN where
            nothing says what the values mean; part "values".
        extents: Least value, two percentiles and greatest value of images deeper than 8 bits, NaN of others, float64,
            shape (images, 4); part "values".
    """

    counts: Counts
    starts: Counts = field(default_factory=lambda: np.zeros(0, np.int64))
    points: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0, 3)))
    extents: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    @property
    def images(self) -> int:
        """Number of pairs."""
        return len(self.counts)

    @property
    def pixels(self) -> list[int]:
        """Pixels of each class, then ignored ones; length C + 1."""
        return [int(count) for count in self.counts.sum(axis=0)]

    @property
    def images_with(self) -> list[int]:
        """Images that hold each class, then images with ignored pixels; length C + 1."""
        return [int(count) for count in (self.counts > 0).sum(axis=0)]

    @property
    def class_pixels(self) -> Counts:
        """Pixels of each class, and valid pixels of the images that hold it, shape (2, C): what class weights need."""
        return sum_class_pixels(self.counts[:, :-1])

    @property
    def presence(self) -> npt.NDArray[np.bool_]:
        """Whether each image holds each class, shape (images, C)."""
        return self.counts[:, :-1] > 0

    @property
    def parts(self) -> set[str]:
        """Which of PARTS were counted."""
        return {part for part, found in zip(PARTS, (self.starts, self.sums), strict=True) if len(found)}

    def select(self, indices: npt.ArrayLike) -> SplitStatistics:
        """Return what these pairs hold, in this order."""
        chosen, classes = np.asarray(indices, dtype=np.int64), self.counts.shape[1] - 1
        starts, points = self.starts, self.points
        if len(starts):
            cells = (chosen[:, None] * classes + np.arange(classes)).ravel()
            spans = [points[starts[cell] : starts[cell + 1]] for cell in cells]
            starts, points = _join_spans(spans)
        values = (part[chosen] if len(part) else part for part in (self.sums, self.extents))
        return SplitStatistics(self.counts[chosen], starts, points, *values)

    def pack(self) -> bytes:
        """Return the statistics as the bytes of an .npz file."""
        packed = io.BytesIO()
        np.savez_compressed(packed, **{item.name: getattr(self, item.name) for item in fields(self)})
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> SplitStatistics:
        """Return the statistics that `pack` made bytes of."""
        with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
            return cls(**{item.name: stored[item.name] for item in fields(cls)})


def measure_split(split: SegmentationSplit, *parts: str, progress: bool = True) -> SplitStatistics:
    """Return what a split holds after every pair was checked; a split that passed before is not read again.

    Args:
        split: The split.
        parts: What is counted beside the classes' pixels: "points", "values".
        progress: Show a progress bar.
    Raises:
        InputError: If a pair is damaged, of two sizes, or holds a value outside the classes: the first one's message,
            with the names of others.
    """
    if split.statistics is None or not split.statistics.parts.issuperset(parts):
        split.statistics = _remember_scan(split, set(parts), lambda: _scan(split, set(parts), progress))
    found: SplitStatistics = split.statistics
    return found


def keep_counts(split: SegmentationSplit, counts: Counts) -> None:
    """Remember what a visit to every pair of a split has counted, so that the check before training reads none again.

    Args:
        split: The split; no pair of it has a problem.
        counts: Pixels of each class, then ignored ones, shape (images, C + 1).
    Raises:
        InputError: If the cache's folder cannot be written to.
    """
    split.statistics = _remember_scan(split, set(), lambda: SplitStatistics(counts))


def _remember_scan(split: SegmentationSplit, parts: set[str], scan: Callable[[], SplitStatistics]) -> SplitStatistics:
    folder = find_cache_folder() / "statistics"
    known = [{part for part in PARTS if part in parts or part in more} for more in ((), *((p,) for p in PARTS), PARTS)]
    paths = [folder / f"{'-'.join([split.fingerprint, str(_FORMAT), *sorted(names)])}.npz" for names in known]
    path = next((path for path in paths if path.exists()), paths[0])
    return remember(path, scan, SplitStatistics.pack, SplitStatistics.unpack)


def _scan(split: SegmentationSplit, parts: set[str], progress: bool) -> SplitStatistics:
    rows: list[dict[str, Any]] = []
    problems: list[InputError] = []
    for visit in visit_pairs(split, f"check {split.title}" if progress else None, parts):
        if visit.problem is not None:
            problems.append(visit.problem)
        elif not problems:
            rows.append(visit.counted)
    _raise_first(problems, len(split))
    if not rows:
        return SplitStatistics(np.zeros((0, split.classes.num_classes + 1), np.int64))
    counted: dict[str, Any] = {
        key: np.stack([row[key] for row in rows]) for key in ("counts", "sums", "extents") if key in rows[0]
    }
    if "points" in parts:
        counted["starts"], counted["points"] = _join_spans([span for row in rows for span in row["spans"]])
    return SplitStatistics(**counted)


class Visit(NamedTuple):
    """What a visit to a pair gave.

    counted: what `SplitStatistics` joins; empty where the pair cannot be read. problem: why training refuses the pair.
    seen: what the visitor's `look` returned.
    """

    counted: dict[str, Any]
    problem: InputError | None = None
    seen: Any = None


def visit_pairs(
    split: SegmentationSplit, title: str | None, parts: Collection[str] = (), look: Callable[..., Any] | None = None
) -> Iterator[Visit]:
    """Yield what each pair of a split holds, in order: the one place where a split is counted.

    Args:
        split: The split.
        title: Of the progress bar; None shows none.
        parts: What is counted beside the classes' pixels; see `measure_split`.
        look: Called with the position, the image, the mask's raw values and its class ids, of every pair that can be
            read. Where it is given, pairs of two sizes and values outside the classes are counted, too, the latter as
            ignored.
    """
    tolerant = replace(split.classes, unknown="ignore")

    def visit(index: int) -> Visit:
        sources = split.sources(index)
        try:
            image = split.image(index) if look is not None or "values" in parts else None
            size = split.size_px(index) if image is None else measure_image(image)
            raw = split.raw_label(index)
            split.check_mask(index)
        except InputError as error:
            return Visit({}, error)
        problem = None
        try:
            label = split.classes.decode(raw, sources[1])
            refuse_different_sizes(size, label.shape, *sources)
        except InputError as error:
            problem = error
            if look is None:
                return Visit({}, problem)
            label = tolerant.decode(raw, sources[1])
        counted: dict[str, Any] = {"counts": count_labels(label, tolerant.num_classes)}
        if "points" in parts:
            counted["spans"] = choose_points(label, counted["counts"][:-1], np.random.default_rng([0, index]))
        if "values" in parts and image is not None:
            counted["sums"], counted["extents"] = _measure_values(split, image)
        return Visit(counted, problem, None if look is None else look(index, image, raw, label))

    return map_pairs(visit, len(split), title)


def count_labels(label: npt.NDArray[Any], num_classes: int) -> Counts:
    """Return pixels of each class, then ignored pixels; shape (C + 1,)."""
    counts = np.bincount(label.ravel(), minlength=num_classes)
    result = np.zeros(num_classes + 1, dtype=np.int64)
    result[:num_classes] = counts[:num_classes]
    result[-1] = label.size - result[:-1].sum()
    return result


def choose_points(
    label: npt.NDArray[Any], counts: Counts, rng: np.random.Generator, most: int = POINTS_PER_CLASS
) -> list[npt.NDArray[np.int32]]:
    """Return (row, column) of at most so many pixels of each class, one array (points, 2) a class."""
    spans = [np.empty((0, 2), np.int32)] * len(counts)
    for class_id in np.flatnonzero(counts):
        flat = np.flatnonzero(label == class_id)
        chosen = flat[rng.choice(len(flat), size=min(most, len(flat)), replace=False, shuffle=False)]
        spans[class_id] = np.stack(np.divmod(chosen, label.shape[1]), axis=1).astype(np.int32)
    return spans


def _join_spans(spans: list[npt.NDArray[np.int32]]) -> tuple[Counts, npt.NDArray[np.int32]]:
    """Return where each array begins in all of them, and all of them."""
    starts = np.concatenate([[0], np.cumsum([len(span) for span in spans], dtype=np.int64)])
    return starts, np.concatenate([np.empty((0, 2), np.int32), *spans])


def _measure_values(
    split: SegmentationSplit, image: DecodedImage
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return pixels, sum and sum of squares of each channel, (channels, 3), and the extents of a deep image, (4,)."""
    pixels, extents = np.asarray(image), np.full(4, np.nan)
    image_range = split.reader.value_range or (DEEP_COLORS if split.reader.channels == 3 else None)
    if is_deep(image):
        extents = measure_extents(image)
        if image_range is None:
            return np.full((pixels.shape[-1], 3), np.nan), extents
        pixels = image_range.scale(pixels)
    channels = np.moveaxis(pixels, -1, 0).reshape(pixels.shape[-1], -1)
    if pixels.dtype == np.uint8:  # whole numbers: exact in whatever order they come
        counts = np.stack([np.bincount(channel, minlength=256) for channel in channels])
        levels = np.arange(256)
        return np.stack([counts.sum(1), counts @ levels, counts @ levels**2], axis=1).astype(np.float64), extents
    wide = channels.astype(np.float64)
    return np.stack([np.full(len(wide), wide.shape[1]), wide.sum(1), (wide * wide).sum(1)], axis=1), extents


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


def sum_class_pixels(counts: Counts) -> Counts:
    """Return pixels of each class, and valid pixels of the images that hold it, shape (2, C), of counts (images, C)."""
    return np.stack([counts.sum(axis=0), ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)])


def count_class_pixels(labels: Iterable[npt.NDArray[Any] | Tensor], num_classes: int) -> Counts:
    """Return what class weights need of masks that are no split, int64, shape (2, C).

    Args:
        labels: Class ids of any integer type, any shape; values outside [0, C) are ignored.
        num_classes: C.
    """
    total = np.zeros((2, num_classes), dtype=np.int64)
    for label in labels:
        ids = np.asarray(label).reshape(-1)
        counts = np.bincount(ids[(ids >= 0) & (ids < num_classes)], minlength=num_classes)
        total += sum_class_pixels(counts[None])
    return total


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

    Raises:
        InputError: If an image is damaged, or is not 8-bit and no range is stated.
    """
    statistics = measure_split(split, "values", progress=progress)
    for index in np.flatnonzero(np.isnan(statistics.sums).any(axis=(1, 2)))[:1].tolist():
        raise InputError(
            f"{split.sources(index)[0]}: not an 8-bit image, and no range is stated",
            found="values {:g}..{:g}".format(*statistics.extents[index, [0, 3]]),
            fix="set data.image_range: [low, high], the values that become 0 and 255 in every image",
        )
    mean, std = [], []
    for channel in np.moveaxis(statistics.sums, 1, 0).tolist():  # fractions: squares of millions pass 64 bits
        pixels, total, squares = (sum(map(Fraction, column)) for column in zip(*channel, strict=True))
        mean.append(float(total / pixels))
        std.append(float(squares / pixels - (total / pixels) ** 2) ** 0.5)
    return ChannelStatistics(tuple(mean), tuple(std))

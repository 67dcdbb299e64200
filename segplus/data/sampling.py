"""Which images an epoch holds, and where in them the rare classes are."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from segplus.data.dataset import SegmentationSplit

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassIndex:
    """How many pixels each class has in each image, and a few of its pixels; made once by reading every mask.

    Args:
        counts: Pixels, int64, shape (images, classes).
        starts: Where the points of (image, class) begin, flat, int64, shape (images * classes + 1,).
        points: (row, column) of chosen pixels, int32, shape (points, 2).
    """

    counts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    points: npt.NDArray[np.int32]

    def draw_focus(self, index: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return (row, column) of a pixel of image `index`, or None where it holds no class.

        The class is drawn among those of the image, each with the inverse of its pixels in the split: the rarer, the
        likelier.
        """
        present = np.flatnonzero(self.counts[index])
        if not len(present):
            return None
        rarity = 1 / self.counts.sum(axis=0)[present]
        drawn = rng.choice(present, p=rarity / rarity.sum())
        cell = index * self.counts.shape[1] + int(drawn)
        row, column = self.points[rng.integers(self.starts[cell], self.starts[cell + 1])]
        return int(row), int(column)

    def select(self, indices: npt.ArrayLike) -> ClassIndex:
        """Return the index of these images only, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        classes = self.counts.shape[1]
        cells = (chosen[:, None] * classes + np.arange(classes)).ravel()
        spans = [self.points[self.starts[cell] : self.starts[cell + 1]] for cell in cells]
        return ClassIndex(self.counts[chosen], _count_starts(map(len, spans)), _join_points(spans))

    def pack(self) -> bytes:
        """Return the index as the bytes of an .npz file."""
        packed = io.BytesIO()
        np.savez_compressed(packed, counts=self.counts, starts=self.starts, points=self.points)
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> ClassIndex:
        """Return the index that `pack` made bytes of."""
        with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
            return cls(stored["counts"], stored["starts"], stored["points"])


def index_classes(
    split: SegmentationSplit,
    num_classes: int,
    ignore_index: int,
    points_per_class: int = 8,
    seed: int = 0,
    tell: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> ClassIndex:
    """Return the class index of a split; every mask is read once.

    Args:
        split: The masks.
        num_classes: Number of classes, C.
        ignore_index: The label that is ignored.
        points_per_class: At most so many points are kept per class and image.
        seed: Chooses the points.
        tell: Wraps the positions, to show progress.
    """
    counts = np.zeros((len(split), num_classes), np.int64)
    spans: list[npt.NDArray[np.int32]] = []
    for index in tell(range(len(split))):
        label = split.label(index)
        rng = np.random.default_rng([seed, index])
        found = np.bincount(label.ravel(), minlength=max(num_classes, ignore_index + 1))
        counts[index] = found[:num_classes]
        totals = enumerate(counts[index].tolist())
        spans.extend(_choose_points(label, class_id, total, points_per_class, rng) for class_id, total in totals)
    return ClassIndex(counts, _count_starts(map(len, spans)), _join_points(spans))


def _choose_points(
    label: npt.NDArray[Any], class_id: int, count: int, limit: int, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    if not count:
        return np.empty((0, 2), np.int32)
    flat = np.flatnonzero(label == class_id)
    chosen = flat[rng.choice(count, size=min(limit, count), replace=False, shuffle=False)]
    return np.stack(np.divmod(chosen, label.shape[1]), axis=1).astype(np.int32)


def _count_starts(lengths: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))])


def _join_points(spans: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    return np.concatenate(spans) if spans else np.empty((0, 2), np.int32)


def balance_classes(counts: npt.NDArray[np.int64]) -> Float:
    """Return how often each image is drawn in an epoch when first a class is drawn evenly, then an image that holds it.

    Args:
        counts: Pixels of each class in each image, shape (images, classes).
    Returns:
        Expected draws, shape (images,); their sum is the number of images. An image without a class is never drawn.
    """
    present = counts > 0
    holders = present.sum(axis=0)
    share = np.divide(1.0, holders, out=np.zeros(len(holders)), where=holders > 0)
    classes = max(int((holders > 0).sum()), 1)
    draws: Float = len(counts) * (present @ share) / classes
    return draws


def count_repeats(counts: npt.NDArray[np.int64], threshold: float) -> Float:
    """Return how often each image is repeated in an epoch, 1 or more.

    Args:
        counts: Pixels of each class in each image, shape (images, classes).
        threshold: Share of images, t, below which a class is rare.
    Returns:
        Repeat factors, shape (images,): the largest sqrt(t / f) of the image's classes, f the share of images
            that hold the class.
    Reference:
        Gupta, Dollar, Girshick, LVIS: A Dataset for Large Vocabulary Instance Segmentation, 2019, section 5.
        https://arxiv.org/abs/1908.03195
    """
    present = counts > 0
    frequency = present.mean(axis=0)
    factor = np.ones(len(frequency))
    seen = frequency > 0
    factor[seen] = np.maximum(1.0, np.sqrt(threshold / frequency[seen]))
    repeats: Float = np.where(present, factor, 1.0).max(axis=1, initial=1.0)
    return repeats


class RepeatSampler(Sampler[int]):
    """Draw each image as often as its expected number says, in a new order every epoch.

    Whole parts are drawn for certain; the fractions are rounded by one random offset for all, so that an epoch's length
    never changes. Order and rounding depend on seed and epoch alone.

    Args:
        repeats: Expected draws per epoch, shape (images,).
        seed: Another seed gives other orders.
    """

    def __init__(self, repeats: Float, seed: int = 0) -> None:
        self.length = max(round(float(repeats.sum())), 1)
        # Scaled so that the sum is whole: then every offset gives the same length.
        self._edges = np.concatenate([[0.0], np.cumsum(repeats * (self.length / repeats.sum()))])
        self._edges[-1] = self.length
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; accelerate's data loader calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        marks = np.arange(self.length) + rng.random()
        drawn = np.searchsorted(self._edges, marks, side="right") - 1
        yield from rng.permutation(drawn).tolist()


def build_sampler(
    sampling: str, counts: npt.NDArray[np.int64] | None, repeat_threshold: float, seed: int
) -> RepeatSampler | None:
    """Return the sampler that a recipe's `transforms.sampling` names, or None for uniform.

    Args:
        sampling: "uniform", "class_balanced" or "repeat_factor".
        counts: `ClassIndex.counts`; not needed for uniform.
        repeat_threshold: For repeat_factor.
        seed: Another seed gives other orders.
    """
    if sampling == "uniform" or counts is None:
        return None
    repeats = balance_classes(counts) if sampling == "class_balanced" else count_repeats(counts, repeat_threshold)
    return RepeatSampler(repeats, seed)

"""Which images an epoch holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Float = npt.NDArray[np.float64]


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
        counts: Pixels of each class in each image, shape (images, classes); not needed for uniform.
        repeat_threshold: For repeat_factor.
        seed: Another seed gives other orders.
    """
    if sampling == "uniform" or counts is None:
        return None
    repeats = balance_classes(counts) if sampling == "class_balanced" else count_repeats(counts, repeat_threshold)
    return RepeatSampler(repeats, seed)

"""Pairs of values in two label maps, counted: a run of equal pixels at once where runs are long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BYTE_PAIRS = 1 << 16
_NARROW = 1024  # values below are counted by one bincount
_SHORTEST_RUN = 4  # pixels on average, from which counting runs is faster than counting pixels


def add_byte_pairs(counts: npt.NDArray[np.int64], truth: npt.NDArray[np.uint8], guess: npt.NDArray[np.uint8]) -> None:
    """Add the pairs of two 8-bit maps to their counts.

    Args:
        counts: At 256 * label + prediction, shape (65536,); changed in place.
        truth: Labels, shape (P,), at least one.
        guess: Predictions, shape (P,).
    """
    changes = truth[1:] != truth[:-1]
    changes |= guess[1:] != guess[:-1]
    ends = np.flatnonzero(changes)
    if len(ends) * _SHORTEST_RUN > truth.size:
        counts += np.bincount(truth.astype(np.int64) << 8 | guess, minlength=counts.size)
        return
    ends = np.append(ends, truth.size - 1)
    np.add.at(counts, truth[ends].astype(np.int64) << 8 | guess[ends], np.diff(ends, prepend=-1))


def count_pairs(truth: npt.NDArray[np.int64], guess: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return predictions, labels and pixels of every pair of values that occurs, shape (3, pairs).

    Raises:
        ValueError: If a value is negative.
    """
    if truth.size == 0:
        return np.empty((3, 0), np.int64)
    if min(truth.min(), guess.min()) < 0:
        raise ValueError("label maps hold negative values")
    width = int(max(truth.max(), guess.max())) + 1
    pairs = truth * width + guess
    if width <= _NARROW:
        counts = np.bincount(pairs)
        found = np.flatnonzero(counts)
        return np.stack([found % width, found // width, counts[found]])
    found, pixels = np.unique(pairs, return_counts=True)
    return np.stack([found % width, found // width, pixels])

"""Images that occur more than once: equal ones, near-equal ones across splits, and sequences that splits share."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

_BITS = np.array([bin(value).count("1") for value in range(65536)], dtype=np.uint8)
NEAR_BITS = 5  # of 64: neighbouring frames and re-encoded copies differ less, other pictures of one place more


def count_differing_bits(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Return the number of differing bits of each pair of hashes, shape (len(first), len(second))."""
    different = (first[:, None] ^ second[None, :]).view(np.uint16).reshape(len(first), len(second), 4)
    counts: npt.NDArray[np.uint8] = _BITS[different].sum(axis=-1, dtype=np.uint8)
    return counts


def find_near_pairs(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """Return (index in first, index of its nearest in second) of the images that have a near-duplicate there."""
    if not first or not second:
        return []
    left, right = np.array(first, dtype=np.uint64), np.array(second, dtype=np.uint64)
    pairs = []
    rows = max(1, 4_000_000 // len(right))  # about 64 MB of differences at a time
    for start in range(0, len(left), rows):
        distance = count_differing_bits(left[start : start + rows], right)
        nearest = distance.argmin(axis=1)
        near = np.flatnonzero(distance[np.arange(len(nearest)), nearest] <= NEAR_BITS)
        pairs += [(start + int(row), int(nearest[row])) for row in near]
    return pairs


def find_equal_images(digests: Mapping[str, Sequence[bytes]]) -> list[list[tuple[str, int]]]:
    """Return the groups of (split, index) whose images have equal pixels."""
    places: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for split, values in digests.items():
        for index, digest in enumerate(values):
            if digest:
                places[digest].append((split, index))
    return [group for group in places.values() if len(group) > 1]


def name_sequences(names: Sequence[str], pattern: str | None = None) -> list[str]:
    """Return each image's sequence: the pattern's group, or its name without the number at the end."""
    found = []
    for name in names:
        match = re.search(pattern, name) if pattern else re.match(r"(.*?)(?:[_.-]?[A-Za-z]?\d+)$", name)
        found.append(match[1] if match and match[1] else "")
    return found


def find_shared_sequences(names: Mapping[str, Sequence[str]], pattern: str | None = None) -> dict[str, dict[str, int]]:
    """Return sequence -> {split: images}, of the sequences that lie in more than one split.

    Without a pattern, names are taken for sequences only where they tell few of them with many images each apart.
    """
    counted = {split: Counter(name_sequences(list(values), pattern)) for split, values in names.items()}
    total = Counter[str]()
    for counts in counted.values():
        total += counts
    images = sum(total.values())
    if not pattern and (len(total) < 2 or len(total) * 5 > images or "" in total):
        return {}
    shared = {first_or_second for a, b in combinations(counted.values(), 2) for first_or_second in a.keys() & b.keys()}
    return {key: {split: counts[key] for split, counts in counted.items() if counts[key]} for key in sorted(shared)}

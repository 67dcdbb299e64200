"""Images that occur more than once: equal ones, near-equal ones across splits, and sequences that splits share."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import cv2
import numpy as np
import numpy.typing as npt

AGREEMENT = 0.7  # measured in docs/data.md: neighbouring frames from 0.71 on, unlike images up to 0.59
_THUMBNAIL_PX, _COARSE_PX = 48, 8.0
_SURROUND = 12.0  # grey values about that of the rim which are surround
_LEAST_INSIDE = 0.05  # of an image that holds something
_BITS = np.array([bin(value).count("1") for value in range(65536)], dtype=np.uint8)
NEAR_BITS = 5  # of 64: neighbouring frames and re-encoded copies differ less, other images of one scene more
NOTHING_NEAR = np.uint64(2**64 - 1)
_POSITION = np.uint64(2**32 - 1)
_AT_ONCE = 1_000_000  # comparisons: about 50 MB
_RANGES = list(pairwise(round(64 * cut / (NEAR_BITS + 1)) for cut in range(NEAR_BITS + 2)))


def find_near_pairs(first: npt.ArrayLike, second: npt.ArrayLike) -> list[tuple[int, int]]:
    """Return (index in first, index of its nearest in second) of the images that have a near-duplicate there.

    Two hashes that differ in up to NEAR_BITS bits are equal in at least one of NEAR_BITS + 1 ranges of bits, so only
    images that share a range are compared: time and memory do not grow with the product of the numbers.

    Args:
        first: 64-bit hashes, shape (N,); 0 stands for none.
        second: 64-bit hashes, shape (M,).
    """
    left, back = np.unique(np.asarray(first, dtype=np.uint64), return_inverse=True)
    right, positions = np.unique(np.asarray(second, dtype=np.uint64), return_index=True)
    right, positions = right[right != 0], positions[right != 0]
    # Distance and position of the nearest in one number, so that of two equally near ones the first is taken.
    best = np.full(len(left), NOTHING_NEAR, dtype=np.uint64)
    for low, high in _RANGES:
        _compare_range(left, right, positions, (np.uint64(low), np.uint64((1 << (high - low)) - 1)), best)
    best[left == 0] = NOTHING_NEAR
    nearest = best[back]
    return [(int(row), int(nearest[row] & _POSITION)) for row in np.flatnonzero(nearest != NOTHING_NEAR)]


def measure_agreement(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Return the correlation of two images in grey where both hold something, coarse brightness taken away; in [-1, 1].

    A surround that both have, such as the black one of fundus photographs, and brightness that falls off towards it are
    alike in images that have nothing else in common.

    Args:
        first: An image in grey, 0 to 255, shape (h, w).
        second: Another one, of any size.
    """
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    pair = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (first, second)]
    rim = np.median([edge for plane in pair for edge in (plane[0], plane[-1], plane[:, 0], plane[:, -1])])
    inside = (abs(pair[0] - rim) >= _SURROUND) | (abs(pair[1] - rim) >= _SURROUND)
    weight = inside.astype(np.float32)
    spread = np.maximum(cv2.GaussianBlur(weight, (0, 0), _COARSE_PX), 1e-3)
    fine = [(plane - cv2.GaussianBlur(plane * weight, (0, 0), _COARSE_PX) / spread)[inside] for plane in pair]
    if inside.mean() < _LEAST_INSIDE:
        return 0.0
    left, right = (values - values.mean() for values in fine)
    return float(left @ right / np.sqrt((left @ left) * (right @ right) + 1e-6))


def _compare_range(
    left: npt.NDArray[np.uint64],
    right: npt.NDArray[np.uint64],
    positions: npt.NDArray[np.int64],
    bits: tuple[np.uint64, np.uint64],
    best: npt.NDArray[np.uint64],
) -> None:
    """Lower `best` by the distances to hashes that have the same bits in one range (shift, mask)."""
    shift, mask = bits
    order = np.argsort((right >> shift) & mask, kind="stable")
    keys, asked = ((right >> shift) & mask)[order], (left >> shift) & mask
    starts, ends = np.searchsorted(keys, asked, "left"), np.searchsorted(keys, asked, "right")
    rows = np.flatnonzero(ends > starts)
    begin = 0
    while begin < len(rows):
        reach = np.cumsum(ends[rows[begin:]] - starts[rows[begin:]])
        some = rows[begin : begin + max(1, int(np.searchsorted(reach, _AT_ONCE, "right")))]
        begin += len(some)
        counts = ends[some] - starts[some]
        offsets = np.cumsum(counts) - counts
        candidates = order[np.arange(counts.sum()) + np.repeat(starts[some] - offsets, counts)]
        differing = _count_bits(np.repeat(left[some], counts) ^ right[candidates])
        found = (differing.astype(np.uint64) << np.uint64(32)) | positions[candidates].astype(np.uint64)
        found[differing > NEAR_BITS] = NOTHING_NEAR
        best[some] = np.minimum(best[some], np.minimum.reduceat(found, offsets))


def _count_bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    counts: npt.NDArray[np.uint8] = _BITS[values.view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.uint8)
    return counts


def find_equal_images(digests: Mapping[str, npt.ArrayLike]) -> list[list[tuple[str, int]]]:
    """Return the groups of (split, index) whose images have equal pixels, in the order of their first images.

    Args:
        digests: Split -> 64-bit digests of the pixels; 0 stands for none.
    """
    columns = {split: np.asarray(values, dtype=np.uint64) for split, values in digests.items()}
    joined = np.concatenate([np.zeros(0, np.uint64), *columns.values()])
    _, inverse, counts = np.unique(joined, return_inverse=True, return_counts=True)
    names, starts = list(columns), np.cumsum([0, *map(len, columns.values())])
    groups: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for position in np.flatnonzero((counts[inverse] > 1) & (joined != 0)).tolist():
        split = int(np.searchsorted(starts, position, "right")) - 1
        groups[int(inverse[position])].append((names[split], position - int(starts[split])))
    return list(groups.values())


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

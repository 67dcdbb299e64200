"""Which images belong together by their names: slices of a patient, both eyes of one, frames of a video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_FRAMES = re.compile("frame|video|vid|seq|slice|clip", re.IGNORECASE)
_BLOCK = 10  # consecutive frames that stay together where one video is all there is
_NEIGHBOURS = 0.6  # distance of neighbours' hashes to any two's, below which names follow one another in time
# Pattern -> what its group is, the first that fits is proposed. Letters alone may be the name of a class.
_PATTERNS = {
    r"^(.*\d.*)/[^/]+$": "folder",
    r"^(.*?\d+)[_-]?(?:[LlRr]|left|right|OD|OS)$": "pair of eyes or sides",
    r"^(.*\d.*?)[_-][A-Za-z]*\d+$": "name but for its last number",
}


class Grouping(NamedTuple):
    """A pattern for data.group_pattern, what it keeps together, and how many groups there are."""

    pattern: str
    what: str
    groups: int


def propose_grouping(names: Sequence[str], hashes: npt.ArrayLike | None = None) -> Grouping | None:
    """Return the pattern that keeps together what names show to belong together, or None.

    Args:
        names: Names of all images, in order.
        hashes: 64-bit hashes of their looks, in this order; 0 stands for none.
    """
    for pattern, what in _PATTERNS.items():
        matches = [re.search(pattern, name) for name in names]
        if not all(matches):
            continue
        counted = Counter(match[1] for match in matches if match)
        several = sum(count > 1 for count in counted.values())
        if len(counted) >= 3 and len(counted) <= 0.67 * len(names) and 2 * several >= len(counted):
            return Grouping(pattern, what, len(counted))
    return _propose_blocks(names, hashes)


def _propose_blocks(names: Sequence[str], hashes: npt.ArrayLike | None) -> Grouping | None:
    """Return blocks of consecutive frames, where the names number the frames of one video or a few."""
    pattern = r"^(.*?\d*)\d$"
    matches = [re.search(pattern, name) for name in names]
    if len(names) < 3 * _BLOCK or not all(matches):
        return None
    prefixes = {re.sub(r"\d+$", "", name) for name in names}
    if len(prefixes) > max(1, len(names) // 20):
        return None
    if not any(_FRAMES.search(prefix) for prefix in prefixes) and not _follow_one_another(hashes):
        return None
    groups = len({match[1] for match in matches if match})
    return Grouping(pattern, f"block of {_BLOCK} consecutive frames", groups) if groups >= 3 else None


def _follow_one_another(hashes: npt.ArrayLike | None) -> bool:
    """Return whether neighbours look much more alike than any two images do."""
    values = np.zeros(0, dtype=np.uint64) if hashes is None else np.asarray(hashes, dtype=np.uint64)
    if len(values) < 3 * _BLOCK:
        return False
    shuffled = np.random.default_rng(0).permutation(values)
    near = [int(a ^ b).bit_count() for a, b in zip(values[:-1].tolist(), values[1:].tolist(), strict=True)]
    far = [int(a ^ b).bit_count() for a, b in zip(shuffled[:-1].tolist(), shuffled[1:].tolist(), strict=True)]
    return float(np.median(near)) < _NEIGHBOURS * float(np.median(far))

"""What all pairs of a split hold together; grows by 32 bytes a pair, and by 8 a class."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segplus.data.statistics import SplitStatistics, Visit
from segplus.errors import InputError
from segplus.inspection.measurements import TURNS, WINDOW_PX, PairFacts

MOST_OUTSIDE = 1 << 16  # values outside the classes that are told apart: lossy colours would be millions
NAMED = 20  # files that are named of each problem; the others are counted
_IMAGES = 6
_OF_IMAGES = frozenset({"deep image", "dark image", "grey image", "constant image", "sizes differ"})


@dataclass
class Problem:
    """How often something is wrong, and in which files first."""

    count: int = 0
    files: list[str] = field(default_factory=list)
    details: Counter[str] = field(default_factory=Counter)
    fix: str | None = None

    def add(self, file: str, detail: str = "") -> None:
        """Count one more."""
        self.count += 1
        if len(self.files) < NAMED:
            self.files.append(file)
        if detail and (detail in self.details or len(self.details) < NAMED):
            self.details[detail] += 1


class SplitTally:
    """Sums over the pairs of one split: `pairs` that can be read, and how many training refuses.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        self.pairs = self.refused = 0
        self._counts = array("q")
        self.objects = np.zeros(num_classes, dtype=np.int64)
        self.smallest_px = np.zeros(num_classes, dtype=np.int64)
        self.outside: Counter[int] = Counter()
        self.extents = np.full(4, np.nan)  # of images deeper than 8 bits without a range
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.image_encodings: Counter[str] = Counter()
        self.mask_encodings: Counter[str] = Counter()
        self.problems: dict[str, Problem] = defaultdict(Problem)
        self.unreadable: dict[str, Problem] = {}  # by what is wrong, without the file
        self.hashes, self.digests, self.mask_digests = array("Q"), array("Q"), array("Q")
        width = 2 * WINDOW_PX + 1
        self.shift_profile = np.zeros((width, width), dtype=np.float64)
        self.turn_scores = np.zeros(len(TURNS), dtype=np.float64)
        self.shift_scales: float = 0.0
        self.with_edges = 0
        self.surrounded = 0  # images whose corners are black
        self.examples: list[int] = []
        self.suspects: list[tuple[int, str]] = []

    @property
    def statistics(self) -> SplitStatistics:
        """What the pairs that can be read hold: what training counts, where no pair has a problem."""
        return SplitStatistics(np.array(self._counts, dtype=np.int64).reshape(self.pairs, len(self.objects) + 1))

    def add(self, index: int, visit: Visit, sources: tuple[str, str]) -> None:
        """Add what a visit to one pair gave, in order; its `seen` are `PairFacts`."""
        self.refused += visit.problem is not None
        if visit.problem is not None and not visit.counted:
            for column in (self.hashes, self.digests, self.mask_digests):
                column.append(0)
            self._add_unreadable(visit.problem, sources)
            return
        facts: PairFacts = visit.seen
        pixels = visit.counted["counts"]
        self.pairs += 1
        self._counts.extend(pixels.tolist())
        self.objects += facts.objects
        smaller = (facts.smallest_px > 0) & ((self.smallest_px == 0) | (facts.smallest_px < self.smallest_px))
        self.smallest_px = np.where(smaller, facts.smallest_px, self.smallest_px)
        self.extents[:2] = np.fmin(self.extents[:2], facts.extents[:2])
        self.extents[2:] = np.fmax(self.extents[2:], facts.extents[2:])
        self.sizes[facts.size_px] += 1
        self.image_encodings[facts.image_encoding] += 1
        self.mask_encodings[facts.mask_encoding] += 1
        self.surrounded += facts.is_surrounded
        self.hashes.append(0 if "constant image" in facts.problems else facts.hash)
        self.digests.append(facts.digest)
        self.mask_digests.append(facts.mask_digest)
        if len(self.examples) < _IMAGES:
            self.examples.append(index)
        self._add_edges(facts)
        for value, count in facts.outside.items():
            if value in self.outside or len(self.outside) < MOST_OUTSIDE:
                self.outside[value] += count
        is_new = all(self.problems[name].count < _IMAGES for name in facts.problems)
        if facts.problems and is_new and len(self.suspects) < 2 * _IMAGES:
            self.suspects.append((index, ", ".join(facts.problems)))
        for name, detail in facts.problems.items():
            self.problems[name].add(sources[name not in _OF_IMAGES], detail)

    def _add_unreadable(self, error: InputError, sources: tuple[str, str]) -> None:
        """Count an error under its sentence, which is the same for all files that it is told of."""
        file = next((source for source in sources if error.what.startswith(f"{source}: ")), sources[0])
        sentence = error.what.removeprefix(f"{file}: ")
        self.problems["unreadable"].add(file)
        if sentence not in self.unreadable and len(self.unreadable) < NAMED:
            found = "" if error.found is None else f", such as {error.found}"
            self.unreadable[sentence] = Problem(details=Counter({f"{sentence}{found}": 1}), fix=error.fix)
        if sentence in self.unreadable:
            self.unreadable[sentence].add(file)

    def _add_edges(self, facts: PairFacts) -> None:
        if facts.shift_profile is None or facts.turn_scores is None:
            return
        self.shift_profile += facts.shift_profile
        self.turn_scores += np.nan_to_num(facts.turn_scores)
        self.shift_scales += facts.shift_scale
        self.with_edges += 1

    def describe(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the sums as a JSON-ready mapping."""
        pixels, images_with = self.statistics.pixels, self.statistics.images_with
        total = sum(pixels)
        return {
            "pairs": self.pairs,
            "pixels": total,
            "void_share": pixels[-1] / total if total else 0.0,
            "sizes_px": [[*size, count] for size, count in self.sizes.most_common(10)],
            "distinct_sizes": len(self.sizes),
            "image_encodings": dict(self.image_encodings.most_common()),
            "mask_encodings": dict(self.mask_encodings.most_common()),
            "pixel_counts": dict(zip(names, pixels, strict=False)),
            "ignored_pixels": pixels[-1],
            "images_containing": dict(zip(names, images_with, strict=False)),
            "images_with_ignored": images_with[-1],
            "objects": dict(zip(names, self.objects.tolist(), strict=True)),
            "smallest_object_px": dict(zip(names, self.smallest_px.tolist(), strict=True)),
        }

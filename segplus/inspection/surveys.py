"""What the mask files of a data set hold, looked at once, before anybody has said what it means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from segplus.classes import pack_colors
from segplus.data.dataset import name_source
from segplus.data.decoding.mask_values import (
    Numbering,
    StoredMask,
    describe_numbering,
    look_like_numbers,
    may_be_numbers,
    read_stored_mask,
)
from segplus.data.layouts.source import Source
from segplus.data.layouts.unmasked import list_masked
from segplus.data.misreadings import choose_evenly
from segplus.data.parallel import map_pairs
from segplus.errors import InputError

_NUMBERED = 24  # masks whose pieces are counted
_MOST = 1 << 16  # values and colours that are told apart


@dataclass
class Survey:
    """What mask files hold.

    Args:
        files: Files that were read.
        lossy: Those saved as JPEG.
        values: Value -> pixels, of masks of one channel; indices of palettes.
        colors: Packed colour -> pixels, of masks of several channels.
        shown: Packed colour -> pixels, of masks with a palette.
        palettes: Palettes of the masks that have one, as bytes.
        numberings: How a few masks use their values.
        is_deep: Masks have 16 bits and more.
        damaged: The message of the first file that could not be read.
    """

    files: int = 0
    lossy: int = 0
    values: Counter[int] = field(default_factory=Counter)
    colors: Counter[int] = field(default_factory=Counter)
    shown: Counter[int] = field(default_factory=Counter)
    palettes: set[bytes] = field(default_factory=set)
    numberings: list[Numbering] = field(default_factory=list)
    is_deep: bool = False
    damaged: InputError | None = None

    @property
    def counts_things(self) -> bool:
        """Whether the values number things."""
        return not self.lossy and look_like_numbers(self.numberings, self.is_deep)

    @property
    def may_count_things(self) -> bool:
        """Whether the values are as numbers of a few things are, and as classes may be."""
        return not self.lossy and may_be_numbers(self.numberings)

    def add(self, mask: StoredMask, numbering: Numbering | None) -> None:
        """Add one file."""
        self.files += 1
        self.lossy += mask.is_lossy
        is_color = mask.values.ndim == 3
        found, counts = np.unique(pack_colors(mask.values) if is_color else mask.values, return_counts=True)
        pixels = self.colors if is_color else self.values
        for value, count in zip(found.tolist(), counts.tolist(), strict=True):
            if value in pixels or len(pixels) < _MOST:
                pixels[value] += count
        if mask.palette is not None:
            self.palettes.add(mask.palette.tobytes())
            for color, count in zip(pack_colors(mask.palette)[found].tolist(), counts.tolist(), strict=True):
                self.shown[color] += count
        self.is_deep = self.is_deep or mask.values.dtype != np.uint8
        if numbering is not None:
            self.numberings.append(numbering)


def survey_masks(source: Source, max_pixels: int, progress: bool) -> Survey | None:
    """Return what the masks of all splits hold, None where they are shapes, whose meaning the layout knows."""
    rows = [(split, row) for split, table in source.splits.items() for row in list_masked(table)]
    if not rows or source.encoding == "one_hot" or _is_drawn(source.splits[rows[0][0]][rows[0][1]]["mask"]):
        return None
    numbered = set(choose_evenly(len(rows), _NUMBERED))

    def look(position: int) -> tuple[StoredMask, Numbering | None] | InputError:
        split, row = rows[position]
        entry = source.splits[split][row]
        try:
            mask = read_stored_mask(entry["mask"], name_source(entry["mask"], entry["name"]), max_pixels)
        except InputError as error:
            return error
        traced = position in numbered and mask.values.ndim == 2 and not mask.is_lossy
        return mask, describe_numbering(mask.values) if traced else None

    survey = Survey()
    for one in map_pairs(look, len(rows), "look at masks" if progress else None):
        if isinstance(one, InputError):
            survey.damaged = survey.damaged or one
        else:
            survey.add(*one)
    return survey if survey.files else None


def _is_drawn(stored: object) -> bool:
    return isinstance(stored, str) and stored.startswith("{")

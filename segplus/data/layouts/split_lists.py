"""Lists of a folder's images, one file a split: train.txt, val.txt and test.txt beside the images or in `splits`."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from segplus.data.layouts.source import SPLIT_ALIASES, WHOLE, Source, name_some
from segplus.errors import InputError
from segplus.texts import read_text

_FOLDERS = (".", "splits", "split", "lists", "ImageSets", "ImageSets/Segmentation")
_USUAL = {alias for aliases in SPLIT_ALIASES.values() for alias in aliases}


def divide_by_lists(source: Source) -> Source:
    """Divide the pairs of a folder that has no splits as its lists say; without lists the source is as it was.

    A line names an image by path, name or stem; what follows it, a mask's path mostly, is passed over.

    Raises:
        InputError: If a list names an image that has no pair, or two lists name one.
    """
    if set(source.splits) != {WHOLE} or source.root is None:
        return source
    table, lists = source.splits[WHOLE], _find_lists(source)
    rows = {_take_stem(path): row for row, path in enumerate(table["image"])}
    if lists and len(rows) < len(table):
        source.notes.append(
            f"{name_some(path.name for path in lists)} not read: images of several folders share a name"
        )
        return source
    found = {path.stem: _read_rows(path, rows) for path in lists}
    source.notes += [f"{split}.txt names none of the pairs, not read" for split, chosen in found.items() if not chosen]
    found = {split: chosen for split, chosen in found.items() if chosen}
    if not found:
        return source
    listed = Counter(row for chosen in found.values() for row in chosen)
    twice = [stem for stem, row in rows.items() if listed[row] > 1]
    if twice:
        raise InputError(
            f"{source.root}: lists of splits name an image twice",
            found=f"{name_some(twice)}, in {', '.join(f'{split}.txt' for split in found)}",
            fix="take it out of one list, or move the lists away",
        )
    source.splits = {split: table.select(chosen) for split, chosen in found.items()}
    source.notes += [f"{split}: {len(chosen)} pairs, as {split}.txt lists them" for split, chosen in found.items()]
    rest = [row for row in rows.values() if row not in listed]
    if rest and any(map(_is_training, found)):
        source.notes.append(f"{len(rest)} pairs are in no list, left out")
    elif rest:
        source.splits["train"] = table.select(rest)
        source.notes.append(f"train: {len(rest)} pairs, those that are in no list")
    return source


def _find_lists(source: Source) -> list[Path]:
    """Return the files that are called as a split, of the first folder that has one for training, or else has any."""
    folders = [root / below for root in (source.root, source.top) if root is not None for below in _FOLDERS]
    found = [[path for path in sorted(folder.glob("*.txt")) if path.stem.lower() in _USUAL] for folder in folders]
    return next(
        (lists for lists in found if any(_is_training(path.stem) for path in lists)), next(filter(None, found), [])
    )


def _is_training(split: str) -> bool:
    return split.lower() in SPLIT_ALIASES["train"]


def _read_rows(path: Path, rows: dict[str, int]) -> list[int]:
    """Return the rows that a list names, none where it names none of the images."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    whole = [(_take_stem(line), _take_stem(re.split(r"[\s,;]", line, maxsplit=1)[0])) for line in lines if line]
    stems = [line if line in rows else first for line, first in whole]  # a name may hold a space
    unknown = [stem for stem in stems if stem not in rows]
    if len(unknown) == len(stems):
        return []
    if unknown:
        raise InputError(
            f"{path}: lists images that have no pair",
            found=f"{len(unknown)} of {len(stems)}: {name_some(unknown)}",
            fix="correct the list, add the files, or move the list away",
        )
    return [rows[stem] for stem in stems]


def _take_stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path.replace("\\", "/")))[0]

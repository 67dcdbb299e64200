"""Images without a mask: refused, asked about, or, where the recipe says so, the first class all over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from datasets import Dataset, Value, concatenate_datasets

from segplus.classes import ClassMap
from segplus.data.decoding.stored import is_unmasked, stand_in_for_mask
from segplus.data.layouts.legends import normalize_names
from segplus.data.layouts.pairing import strip_suffix
from segplus.data.layouts.source import OpenChoiceError, Source, build_table
from segplus.data.layouts.words import is_mask_word, shows_nothing
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

BACKGROUND = "background"  # stands in for the first class until it has a name
_MANY = 0.25  # share of the images from which on a missing mask is hardly an accident


def settle_unmasked(source: Source, section: DataRecipe) -> None:
    """Read the images without a mask as data.unmasked says; where it says nothing they stay apart.

    Raises:
        OpenChoiceError: If it says nothing, and their folders, or how many they are, show that nothing is in them.
        InputError: If no image has a mask, or one of these is called as a mask is.
    """
    alone, pairs = source.images_alone, sum(map(len, source.splits.values()))
    count = f"{len(alone)} of {pairs + len(alone)} images have no mask"
    called = [path for path in alone if is_mask_word(re.split(r"[_\-. ]", os.path.basename(strip_suffix(path)))[-1])]
    if section.unmasked is None:
        if not alone or not pairs or source.masks_alone or called or not _name_ground(section):
            return
        folders = [os.path.relpath(os.path.dirname(path), source.root or ".").split(os.sep) for path in alone]
        is_evident = all(any(map(shows_nothing, parts)) for parts in folders)
        if is_evident or (len(alone) >= _MANY * (pairs + len(alone)) and all(map(len, source.splits.values()))):
            question = "" if is_evident else f"{count}: do they show background alone? data.unmasked says so"
            raise OpenChoiceError(
                **_describe_orphans(source, section), keys={"unmasked": BACKGROUND}, question=question
            )
    elif called or (alone and not pairs):
        what = f"{called[0]}: called as a mask is, and it would be an image without one" if called else ""
        fix = "add masks, rename such a file or move it away, or set data.image_pattern and data.mask_pattern"
        raise InputError(what or "data.unmasked: no image has a mask", found=f"{len(called or alone)} images", fix=fix)
    elif alone:
        for split, found in source.unmasked.items():
            rows = build_table((name, path, stand_in_for_mask(path)) for name, path in found)
            source.splits[split] = concatenate_datasets([source.splits[split], rows])
        source.notes.append(f"{count}: read as {section.unmasked}")
        source.unmasked = {}


def refuse_orphans(source: Source, section: DataRecipe) -> None:
    """Raise InputError if a file has no partner."""
    if source.images_alone or source.masks_alone:
        raise InputError(**_describe_orphans(source, section))


def _describe_orphans(source: Source, section: DataRecipe) -> dict[str, Any]:
    fix, ground = "add or remove the files, or match names with data.image_pattern and data.mask_pattern", ""
    if not source.masks_alone and any(map(len, source.splits.values())):
        ground = _name_ground(section)
    if ground:
        fix += f"; or, where images without a mask show {ground} alone, set data.unmasked: {ground}"
    what = f"{source.root}: images and masks do not pair"
    return {"what": what, "found": "; ".join(source.describe_orphans()), "fix": fix}


def _name_ground(section: DataRecipe) -> str:
    """Return the first class if it is what lies around everything else, "" if it may well be a thing of its own."""
    first = BACKGROUND
    if section.classes and isinstance(section.classes, list | dict):
        named = normalize_names(section.classes, "data.classes")
        first = named[min(named)]
    return first if section.encoding == "binary" or shows_nothing(first) else ""


def check_unmasked(source: Source, section: DataRecipe, classes: ClassMap) -> None:
    """Raise InputError if data.unmasked names another class than the first, or no image lacks a mask."""
    if section.unmasked is None:
        return
    if all(len(list_masked(rows)) == len(rows) for rows in source.splits.values()):
        allowed = "folders, lists and tables of files of which some have no mask"
        raise InputError("data.unmasked: no image lacks a mask", allowed=allowed, fix="leave it out")
    if section.unmasked != classes.names[0]:
        raise InputError(
            "data.unmasked: not the first class",
            found=section.unmasked,
            allowed=f"'{classes.names[0]}', if images without a mask show nothing else",
            fix="name the first class so, or leave data.unmasked out and add the masks",
        )


def list_masked(rows: Dataset) -> list[int]:
    """Return the positions of the rows that have a mask."""
    if not isinstance(rows.features.get("mask"), Value):  # those of a table of images, or drawn
        return list(range(len(rows)))
    masks: Iterable[object] = rows["mask"]
    return [position for position, mask in enumerate(masks) if not is_unmasked(mask)]

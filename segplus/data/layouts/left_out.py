"""Folders beside those that were read: none with pairs in it is left out without a word."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from segplus.data.layouts.discovery import ASIDE, holds_pairs, look_into
from segplus.data.layouts.folders import find_annotated, list_folders
from segplus.data.layouts.pairing import list_files
from segplus.data.layouts.source import Source, find_split_folders, name_some
from segplus.data.layouts.words import IMAGE_FOLDERS, MASK_FOLDERS
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

_DEEP = 2  # folders that are gone down in search of pairs
# Layouts whose splits are folders; a table or a list names its files.
IN_FOLDERS = frozenset({"folders", "flat", "mask_files", "labelme", "coco"})


@dataclass(frozen=True)
class LeftOut:
    """Folders that were not read, as paths below the data set.

    Args:
        paired: Those that hold pairs.
        images: Those that hold image files and no pairs.
    """

    paired: list[str]
    images: list[str]

    def describe(self) -> list[str]:
        """Return a sentence on each kind."""
        named = ((self.paired, "which hold pairs"), (self.images, "which hold images and no masks"))
        return [f"not read: {name_some(folders)}, {what}" for folders, what in named if folders]

    def refuse_pairs(self, dataset: str, read: list[str]) -> None:
        """Raise InputError if a folder with pairs was not read."""
        if self.paired:
            raise InputError(
                f"{dataset}: a folder with images and masks is not read",
                found=f"{name_some(self.paired)}, beside {name_some(read)}",
                allowed="train, training, train_val, validation, val, dev, test, testing and the like, in any letters",
                fix=f"say what it is: data.train_split: {os.path.basename(self.paired[0])} (or validation_split, "
                "test_split); rename it; or move it away",
            )


def find_left_out(path: Path, source: Source, section: DataRecipe) -> LeftOut:
    """Return the folders that lie beside those that hold a data set's pairs and were not read.

    Args:
        path: The data set's folder; the pairs may lie in one below.
        source: What was read.
        section: The data section.
    """
    root = source.root or path
    beside = _list_beside(path, root)
    if not beside:
        return LeftOut([], [])
    read = _list_read(source)
    unread = [folder for folder in beside if not any(f"{name}/".startswith(f"{folder}/") for name in read)]
    kinds = {folder: _classify(folder) for folder in unread}
    below = {
        kind: [str(folder.relative_to(path)) for folder in unread if kinds[folder] == kind]
        for kind in ("pairs", "images")
    }
    names = {folder.name.lower() for folder in unread}
    if find_split_folders(root, section.split_names.values()) and names & {*IMAGE_FOLDERS} and names & {*MASK_FOLDERS}:
        below["pairs"] += [folder for folder in below["images"] if Path(folder).name.lower() in IMAGE_FOLDERS]
    usual = {*IMAGE_FOLDERS, *MASK_FOLDERS}
    return LeftOut(below["pairs"], [folder for folder in below["images"] if Path(folder).name.lower() not in usual])


def _list_beside(path: Path, root: Path) -> list[Path]:
    """Return the folders that may hold pairs: those in the folder of the pairs, and beside it up to the data set's."""
    found, folder = [*list_folders(root)], root
    while folder != path and path in folder.parents:
        found += [other for other in list_folders(folder.parent) if other != folder]
        folder = folder.parent
    masks = {find_annotated(other) for other in found}
    return [other for other in found if other.name not in ASIDE and other not in masks]


def _list_read(source: Source) -> set[str]:
    """Return the folders that hold the images and masks that were read."""
    files = (path for rows in source.splits.values() for column in ("image", "mask") for path in rows[column])
    alone = (*source.images_alone, *source.masks_alone)
    return {os.path.dirname(path) for path in (*files, *alone) if isinstance(path, str) and path[:1] != "{"}


def _classify(folder: Path) -> str:
    """Return "pairs", "images" for image files alone, or "" for a folder of something else."""
    try:
        found = look_into(folder, DataRecipe(dataset=str(folder)), _DEEP)
    except InputError:  # more than one thing fits
        return "pairs"
    if found is None or not list_files(folder):
        return ""
    return "pairs" if holds_pairs(found) else "images"

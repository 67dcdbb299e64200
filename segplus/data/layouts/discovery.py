"""Which layout a folder has: every reader's marks are looked for, and two that match are never chosen between."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from segplus.data.layouts.coco_files import list_coco_files
from segplus.data.layouts.folders import find_annotated, list_folders
from segplus.data.layouts.mask_files import find_groups_of_masks, name_inner_folders
from segplus.data.layouts.pairing import list_files, split_flat_files
from segplus.data.layouts.run_lengths import find_columns, find_run_tables
from segplus.data.layouts.source import OpenChoiceError, find_split_folders, name_some, put_split
from segplus.data.layouts.tables import name_metadata
from segplus.data.layouts.trees import (
    hold_both,
    is_image,
    name_inner_files,
    name_masks_below,
    name_masks_beside,
    name_masks_called_alike,
    put_splits,
)
from segplus.data.layouts.words import IMAGE_FOLDERS, MASK_FOLDERS, match_folders
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file, refuse_special_file

_DEEPEST = 3  # folders that are gone down where a folder itself holds no pair
ASIDE = frozenset({"__MACOSX"})
# What is not read -> files that show it.
_NOT_READ = {
    "NIfTI volumes": ("*.nii", "*.nii.gz"), "DICOM volumes": ("*.dcm",), "CVAT's XML": ("annotations.xml",),
    "VGG's regions": ("via_*.json",), "Supervisely's ann/": ("ann/*.json", "*/ann/*.json"),
    "YOLO's text files": ("labels/*.txt", "*/labels/*.txt"),
}  # fmt: skip


class Discovery(NamedTuple):
    """What was recognised.

    layout: its name in the recipe. root: the folder that has it, at or below the data set. keys: what the recipe would
    say of it.
    """

    layout: str
    root: Path
    keys: Mapping[str, Any]


def find_layout(path: Path, section: DataRecipe) -> Discovery:
    """Return the layout of a folder, or of the one folder below it that has one.

    Raises:
        InputError: If none fits, or more than one does.
    """
    if not path.is_dir():
        refuse_special_file(path, str(path))
        return Discovery(_find_file_layout(path), path, {})
    found = look_into(path, section, _DEEPEST)
    if found is not None:
        return found
    _refuse_unread(path)
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    lonely = _name_folder_pair(path, list(find_split_folders(path).values()), both=False)
    if lonely:
        return Discovery("folders", path, {})  # whose reader says what is missing
    raise InputError(
        f"{path}: no layout recognised", found=inside, fix="set data.images and data.masks, or data.layout"
    )


def look_into(path: Path, section: DataRecipe, deepest: int) -> Discovery | None:
    """Return the layout of a folder or of the one below it, None where there is none.

    Of folders below, those with pairs count, and image files alone only where no folder has pairs.

    Raises:
        InputError: If more than one fits.
    """
    found = {layout: mark for layout, mark in _find_marks(path, section).items() if mark}
    if len(found) > 1:
        listed = "; ".join(f"{layout} ({mark})" for layout, mark in found.items())
        raise OpenChoiceError(
            f"{path}: more than one layout fits",
            found=listed,
            fix="set data.layout to one of them",
            keys={"layout": next(iter(found))},
            question=f"which layout is meant, {listed}? data.layout names it",
        )
    if found:
        return Discovery(next(iter(found)), path, {})
    splits = list(find_split_folders(path, section.split_names.values()).values())
    if any(is_image(entry) for folder in [path, *splits] for entry in folder.iterdir()):
        keys = name_masks_below(splits or [path], "" if not splits else put_split(splits[0].name))
        return Discovery("folders" if keys else "flat", path, keys)
    keys = put_splits([folder.name for folder in list_folders(path)]) or name_masks_beside(path)
    keys = keys or name_masks_called_alike(path, [path], "")
    if keys and not section.images and not section.masks:
        return Discovery("folders", path, keys)
    nested = _find_nested(path, splits)
    if nested is not None or section.images or section.masks or not deepest:
        return nested
    below = [look_into(folder, section, deepest - 1) for folder in list_folders(path) if folder.name not in ASIDE]
    found_below = [one for one in below if one is not None]
    matches = [one for one in found_below if holds_pairs(one)]
    if len(matches) > 1:
        raise InputError(
            f"{path}: more than one folder below could be the data set",
            found=name_some(str(one.root.relative_to(path)) for one in matches),
            fix=_say_how_to_choose(path, matches),
        )
    if not matches and len(found_below) > 1:
        return Discovery("flat", path, {})  # images and nothing beside them
    return next(iter(matches or found_below), None)


def holds_pairs(found: Discovery) -> bool:
    """Return whether what was recognised is more than image files in one folder that nothing pairs."""
    if found.layout != "flat":
        return True
    with suppress(InputError):
        for folder in [found.root, *find_split_folders(found.root).values()]:
            files = list_files(folder)
            if files:
                split_flat_files(files, folder)
                return True
    return False


def _say_how_to_choose(path: Path, matches: list[Discovery]) -> str:
    """Return the lines that read several folders as the cases of one data set, or choose one of a few."""
    choose = "set data.dataset to one of them"
    folders = [one.root for one in matches if one.layout == "folders" and one.root.parent == path]
    both = name_inner_folders(folders[0]) if folders else None
    if both is None:
        return choose if len(matches) <= 3 else "set data.images and data.masks, such as '*/images' and '*/masks'"
    return f"set data.images: '*/{both[0]}' and data.masks: '*/{both[1]}' if they are parts of one, or {choose}"


def _find_file_layout(path: Path) -> str:
    by_suffix = {".csv": "manifest", ".tsv": "manifest", ".jsonl": "manifest", ".parquet": "hub", ".arrow": "hub"}
    layout = by_suffix.get(path.suffix.lower())
    if layout is None:
        raise InputError(f"{path}: not a list of pairs", found=path.suffix or "no suffix", allowed=", ".join(by_suffix))
    return "run_lengths" if path.suffix.lower() == ".csv" and find_columns(path) else layout


def _find_marks(path: Path, section: DataRecipe) -> dict[str, str]:
    """Return layout -> what speaks for it, empty where nothing does."""
    split_folders = list(find_split_folders(path, section.split_names.values()).values())

    def has(folder: str) -> bool:
        return (path / folder).is_dir()

    own = {
        "voc": "JPEGImages, SegmentationClass" if has("JPEGImages") and has("ImageSets/Segmentation") else "",
        "cityscapes": "leftImg8bit, gtFine" if has("leftImg8bit") and (has("gtFine") or has("gtCoarse")) else "",
        "ade20k": next((table.name for table in sorted(path.glob("objectInfo150.*"))), ""),
        "saved": next((name for name in ("dataset_dict.json", "state.json") if (path / name).exists()), ""),
    }
    if any(own.values()):
        return own  # their folders also look like folders of images and masks
    coco = _name_coco(path, section)
    if (section.images and not section.masks) or section.annotations:  # where the images of annotations lie
        tables = {"coco": coco, "run_lengths": _name_runs(path, section)}
        if any(tables.values()):
            return tables
    if section.images or section.masks:
        return {"folders": f"images: {section.images}, masks: {section.masks}"}
    annotated = {"coco": coco, "labelme": _name_labelme(path, split_folders), "run_lengths": _name_runs(path, section)}
    several = any(find_groups_of_masks(folder) for folder in split_folders or [path])
    return {
        **annotated,
        "metadata": next(filter(None, map(name_metadata, [path, *split_folders])), ""),
        "hub": _name_parquet(path),
        "mask_files": "several mask files an image" if several else "",
        "folders": "" if several else _name_folder_pair(path, split_folders, both=True),
    }


def _find_nested(path: Path, splits: list[Path]) -> Discovery | None:
    """Return the layout of a folder a tile or patient: folders of images and masks in each, or two files in each."""
    folders = list_folders(splits[0] if splits else path)
    if not folders or (len(folders) == 1 and not splits):
        return None
    start = f"{put_split(splits[0].name)}/*" if splits else "*"
    for find in (name_inner_folders, name_inner_files):
        found = [find(folder) for folder in folders]
        if found[0] is not None and all(one == found[0] for one in found):
            keys = {"images": f"{start}/{found[0][0]}", "masks": f"{start}/{found[0][1]}"}
            return Discovery("folders", path, keys)
    alike = name_masks_called_alike(path, folders, f"{start}/")
    if alike:
        return Discovery("folders", path, alike)
    return Discovery("flat", path, {}) if not splits and hold_both(path, folders) else None


def _name_coco(path: Path, section: DataRecipe) -> str:
    if section.annotations:
        return "" if section.annotations.endswith(".csv") else f"data.annotations: {section.annotations}"
    return next((str(file.relative_to(path)) for file in list_coco_files(path)), "")


def _name_runs(path: Path, section: DataRecipe) -> str:
    if section.annotations:
        return section.annotations if section.annotations.endswith(".csv") else ""
    return next((table.name for table in find_run_tables(path)), "")


def _name_labelme(path: Path, split_folders: list[Path]) -> str:
    for folder in (path, *split_folders):
        for file in sorted(folder.glob("*.json"))[:3]:
            if is_file(file) and b'"shapes"' in file.read_bytes():
                return file.name
    return ""


def _name_parquet(path: Path) -> str:
    return next(
        (entry.name for folder in (path, path / "data") if folder.is_dir() for entry in folder.glob("*.parquet")), ""
    )


def _name_folder_pair(path: Path, split_folders: list[Path], both: bool) -> str:
    """Return the names of image and mask folders, both or at least one of them."""
    for folder in (path, *split_folders):
        names = [entry.name for entry in list_folders(folder)]
        if folder == path and put_splits(names):
            continue
        images, masks = match_folders(names, IMAGE_FOLDERS), match_folders(names, MASK_FOLDERS)
        masks = [name for name in masks if not both or list_files(folder / name)]
        if (images and masks) if both else (images or masks):
            return f"{folder.name}/ with " + ", ".join(sorted([*images, *masks]))
    beside = find_annotated(split_folders[0]) if split_folders else None
    return f"{split_folders[0].name} + {beside.name}" if beside and list_files(split_folders[0]) else ""


def _refuse_unread(path: Path) -> None:
    """Raise InputError where files of a known kind lie that no reader takes."""
    for what, patterns in _NOT_READ.items():
        for pattern in patterns:
            first = next((file for depth in ("", "*/") for file in sorted(path.glob(depth + pattern))), None)
            if first is not None:
                raise InputError(
                    f"{path}: {what} are not read",
                    found=str(first.relative_to(path)),
                    fix="export the masks as PNG files or as COCO annotations, slices of volumes as images",
                )

"""Which layout a folder has: every reader's marks are looked for, and two that match are never chosen between."""

from __future__ import annotations

from pathlib import Path

from segplus.data.decoding.image_reader import IMAGE_SUFFIXES
from segplus.data.layouts.folders import IMAGE_FOLDERS, MASK_FOLDERS
from segplus.data.layouts.pairing import list_files
from segplus.data.layouts.source import is_split_name
from segplus.data.layouts.tables import METADATA_NAMES
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file, refuse_special_file


def find_layout(path: Path, section: DataRecipe) -> str:
    """Return the layout's name in the recipe.

    Raises:
        InputError: If none fits, or more than one does.
    """
    if not path.is_dir():
        refuse_special_file(path, str(path))
        return _find_file_layout(path)
    found = {layout: mark for layout, mark in _find_marks(path, section).items() if mark}
    if not found and any(
        _is_image(entry) for folder in (path, *_list_split_folders(path)) for entry in folder.iterdir()
    ):
        return "flat"
    if len(found) == 1:
        return next(iter(found))
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    if not found:
        raise InputError(
            f"{path}: no layout recognised", found=inside, fix="set data.images and data.masks, or data.layout"
        )
    raise InputError(
        f"{path}: more than one layout fits",
        found="; ".join(f"{layout} ({mark})" for layout, mark in found.items()),
        fix="set data.layout to one of them",
    )


def _find_file_layout(path: Path) -> str:
    by_suffix = {".csv": "manifest", ".tsv": "manifest", ".jsonl": "manifest", ".parquet": "hub", ".arrow": "hub"}
    layout = by_suffix.get(path.suffix.lower())
    if layout is None:
        raise InputError(f"{path}: not a list of pairs", found=path.suffix or "no suffix", allowed=", ".join(by_suffix))
    return layout


def _find_marks(path: Path, section: DataRecipe) -> dict[str, str]:
    """Return layout -> what speaks for it, empty where nothing does."""
    split_folders = _list_split_folders(path)
    own = {
        "voc": "JPEGImages, SegmentationClass" if _has_all(path, "JPEGImages", "ImageSets/Segmentation") else "",
        "cityscapes": "leftImg8bit, gtFine"
        if (path / "leftImg8bit").is_dir() and _has_any(path, "gtFine", "gtCoarse")
        else "",
        "ade20k": next((table.name for table in sorted(path.glob("objectInfo150.*"))), ""),
        "saved": _name_first(path, ("dataset_dict.json", "state.json")),
    }
    if any(own.values()):
        return own  # their folders also look like folders of images and masks
    if section.images or section.masks:
        return {"folders": f"images: {section.images}, masks: {section.masks}"}
    annotated = {"coco": _name_coco(path, section), "labelme": _name_labelme(path, split_folders)}
    found = {
        **annotated,
        "metadata": _name_first(path, METADATA_NAMES)
        or next((_name_first(f, METADATA_NAMES) for f in split_folders if _name_first(f, METADATA_NAMES)), ""),
        "hub": _name_parquet(path),
        "folders": _name_folder_pair(path, split_folders, both=True),
    }
    return found if any(found.values()) else {"folders": _name_folder_pair(path, split_folders, both=False)}


def _has_all(path: Path, *names: str) -> bool:
    return all((path / name).is_dir() for name in names)


def _has_any(path: Path, *names: str) -> bool:
    return any((path / name).is_dir() for name in names)


def _name_coco(path: Path, section: DataRecipe) -> str:
    if section.annotations:
        return f"data.annotations: {section.annotations}"
    patterns = ("*/_annotations.coco.json", "_annotations.coco.json", "annotations/*.json")
    return next((str(file.relative_to(path)) for pattern in patterns for file in sorted(path.glob(pattern))), "")


def _name_labelme(path: Path, split_folders: list[Path]) -> str:
    for folder in (path, *split_folders):
        for file in sorted(folder.glob("*.json"))[:3]:
            if is_file(file) and b'"shapes"' in file.read_bytes():
                return file.name
    return ""


def _name_first(path: Path, names: tuple[str, ...]) -> str:
    return next((name for name in names if (path / name).exists()), "")


def _name_parquet(path: Path) -> str:
    return next(
        (entry.name for folder in (path, path / "data") if folder.is_dir() for entry in folder.glob("*.parquet")), ""
    )


def _name_folder_pair(path: Path, split_folders: list[Path], both: bool) -> str:
    """Return the names of image and mask folders, both or at least one of them."""
    for folder in (path, *split_folders):
        named = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
        images, masks = named.keys() & set(IMAGE_FOLDERS), named.keys() & set(MASK_FOLDERS)
        masks = {name for name in masks if not both or list_files(named[name])}
        if (images and masks) if both else (images or masks):
            return f"{folder.name}/ with " + ", ".join(sorted(images | masks))
    if split_folders and all((f.with_name(f.name + "annot")).is_dir() for f in split_folders):
        return "train + trainannot"
    return ""


def _list_split_folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and is_split_name(entry.name))


def _is_image(entry: Path) -> bool:
    return entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES

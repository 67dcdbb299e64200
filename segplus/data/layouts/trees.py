"""Where images and masks lie, by the names of folders and files alone: the rules that `discovery` tries in turn."""

from __future__ import annotations

import re
from pathlib import Path

from segplus.data.decoding.image_reader import IMAGE_SUFFIXES
from segplus.data.layouts.file_kinds import find_kinds
from segplus.data.layouts.folders import list_folders
from segplus.data.layouts.pairing import list_files, strip_suffix
from segplus.data.layouts.source import OpenChoiceError, put_split
from segplus.data.layouts.words import IMAGE_FOLDERS, MASK_FOLDERS, find_kind, is_mask_word, shows_nothing


def put_splits(names: list[str]) -> dict[str, str]:
    """Return data.images and data.masks of folders such as train_images, train_masks and val_images, or nothing."""
    templates = {put_split(name): find_kind(name) for name in names if put_split(name)}
    images = [template for template, kind in templates.items() if kind is IMAGE_FOLDERS]
    masks = [template for template, kind in templates.items() if kind is MASK_FOLDERS]
    return {"images": images[0], "masks": masks[0]} if len(images) == 1 and len(masks) == 1 else {}


def name_masks_below(folders: list[Path], start: str) -> dict[str, str]:
    """Return data.images and data.masks where folders of images hold one other folder, that of their masks."""
    inside = {below.name for folder in folders for below in list_folders(folder)}
    name = inside.pop() if len(inside) == 1 else ""
    holds_images = all(any(map(is_image, folder.iterdir())) for folder in folders)
    if not holds_images or not _hold(folders, name):
        return {}
    return {"images": start or ".", "masks": f"{start}/{name}" if start else name}


def name_masks_beside(path: Path) -> dict[str, str]:
    """Return data.images and data.masks where the folders of defects in that of masks are in one other folder, too."""
    inside = {folder.name: {below.name for below in list_folders(folder)} for folder in list_folders(path)}
    masks = [name for name in inside if find_kind(name) is MASK_FOLDERS]
    if len(masks) != 1 or not inside[masks[0]] or any(find_kind(name) is IMAGE_FOLDERS for name in inside):
        return {}
    images = [name for name, below in inside.items() if name != masks[0] and inside[masks[0]] <= below]
    return {"images": images[0], "masks": masks[0]} if len(images) == 1 else {}


def name_masks_called_alike(path: Path, folders: list[Path], start: str) -> dict[str, str]:
    """Return data.images and data.masks where masks lie in a folder called as that of the images, and on: cam_label.

    Raises:
        OpenChoiceError: If several are.
    """
    names = sorted(set.intersection(*({below.name for below in list_folders(folder)} for folder in folders)))
    images = [name for name in names if find_kind(name) is not MASK_FOLDERS]
    pairs = [(name, one) for name in images for one in names if re.match(f"{re.escape(name)}[_-]", one)]
    pairs = [(name, one) for name, one in pairs if _hold(folders, one)]
    if len({name for name, _ in pairs}) != 1:
        return {}
    keys, masks = {"images": start + pairs[0][0], "masks": start + pairs[0][1]}, ", ".join(one for _, one in pairs)
    if len(pairs) > 1:
        raise OpenChoiceError(
            f"{path}: more than one folder could hold the masks",
            found=masks,
            fix=f"set data.images: '{keys['images']}' and data.masks: '{keys['masks']}', or another one of them",
            keys={"dataset": str(path), **keys},
            question=f"which folder holds the masks, {masks}? data.masks names it",
        )
    return keys


def _hold(folders: list[Path], name: str) -> bool:
    """Return whether a name is that of masks, and a folder of it has files."""
    return find_kind(name) is MASK_FOLDERS and any(list_files(folder / name) for folder in folders)


def hold_both(path: Path, folders: list[Path]) -> bool:
    """Return whether folders hold images with their masks, but for those whose name says that nothing is in them."""
    marked = {folder.name: _has_mask_suffix(list_files(folder)) for folder in folders}
    fits = any(marked.values()) and all(is_so or shows_nothing(name) for name, is_so in marked.items())
    return fits or bool(find_kinds(list_files(path), path))


def name_inner_files(folder: Path) -> tuple[str, str] | None:
    """Return the file names of the one image and the one mask in a folder."""
    names = [entry.name for entry in sorted(folder.iterdir()) if is_image(entry)]
    masks = [name for name in names if is_mask_word(strip_suffix(name))]
    images = [name for name in names if strip_suffix(name).lower() in IMAGE_FOLDERS]
    if len(names) == 2 and len(masks) == 1:
        images = [name for name in names if name not in masks]
    return (images[0], masks[0]) if len(images) == 1 and len(masks) == 1 else None


def _has_mask_suffix(names: list[str]) -> bool:
    """Return whether half of the names or more, and not all, end in the usual word of a mask, or in it and a number."""
    stems = [re.sub(r"_\d+$", "", strip_suffix(name)) for name in names]
    marked = [stem for stem in stems if is_mask_word(stem.rpartition("_")[2])]
    return len(names) <= 2 * len(marked) < 2 * len(names)


def is_image(entry: Path) -> bool:
    """Return whether this is a file of a format that images have."""
    return entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES

"""Folders of images and masks: per split, split below, or unsplit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segplus.data.layouts.pairing import Pairing, pair_folders
from segplus.data.layouts.source import SPLIT_ALIASES, WHOLE, Source, find_split_folders
from segplus.data.layouts.wildcards import has_wildcards, pair_wildcards
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

IMAGE_FOLDERS = (
    "images", "image", "imgs", "img", "photos", "jpegimages", "inputs", "input", "rgb", "pictures",
    "original", "original_images", "raw_images", "frames", "image_files",
)  # fmt: skip
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "segmentation", "segmentations", "gt",
    "ground_truth", "groundtruth", "targets", "target", "mask_images", "1st_manual", "segmentationclass", "manual1",
    "gts", "truth", "annotated", "label_images", "ground truth",
)  # fmt: skip
_USUAL = [name for aliases in SPLIT_ALIASES.values() for name in aliases]
_ANNOTATED = ("annot", "_labels", "_masks", "_mask", "_label", "_gt", "_annotations", "_annot", "labels", "masks")


def read_folders(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of `{split}/images` + masks, `images/{split}` + `masks/{split}`, or `images` + `masks`.

    Raises:
        InputError: If no folders of images and masks are found, or more than one could be meant.
    """
    source = Source({}, "folders of images and masks", root)
    if has_wildcards(section):
        for split, images, masks in _fill_wildcards(root, section):
            add_pairing(source, split, pair_wildcards(root, images, masks, section), "by their folders")
        return source
    folders = find_folder_pairs(root, section)
    for split, (image_folder, mask_folder) in folders.items():
        found = pair_folders(image_folder, mask_folder, section.image_pattern, section.mask_pattern)
        add_pairing(source, split, found, f"{image_folder.relative_to(root)} with {mask_folder.relative_to(root)}")
    return source


def read_flat(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of one folder (or one folder a split) that holds images and masks side by side."""
    source = Source({}, "images and masks in one folder", root)
    for split, folder in (find_split_folders(root) or {WHOLE: root}).items():
        found = pair_folders(folder, folder, section.image_pattern, section.mask_pattern)
        add_pairing(source, split, found, "in one folder")
    return source


def add_pairing(source: Source, split: str, found: Pairing, where: str) -> None:
    """Add the pairs of a split, and the files without a partner, to a source."""
    source.splits[split] = found.table
    source.images_alone += found.images_alone
    source.masks_alone += found.masks_alone
    source.notes.append(f"{split}: {len(found.table)} pairs, {where}, {found.how}")


def find_folder_pairs(root: Path, section: DataRecipe) -> dict[str, tuple[Path, Path]]:
    """Return split name -> (folder of images, folder of masks)."""
    if section.images and "{split}" in section.images:
        return _fill_templates(root, section)
    folders = find_split_folders(root)
    beside = {name: (path, masks) for name, path in folders.items() if (masks := find_annotated(path)) is not None}
    if beside and len(beside) == len(folders):
        return beside
    per_split = {
        name: _find_image_and_mask(path, section) for name, path in folders.items() if _has_images(path, section)
    }
    if per_split:
        return per_split
    images, masks = _find_image_and_mask(root, section)
    below = find_split_folders(images)
    if not below:
        return {WHOLE: (images, masks)}
    missing = [name for name in below if not (masks / name).is_dir()]
    if missing:
        raise InputError(
            f"{masks}: a split has images and no masks", found=", ".join(missing), fix=f"add {masks / missing[0]}"
        )
    return {name: (images / name, masks / name) for name in below}


def find_annotated(split_folder: Path) -> Path | None:
    """Return the folder of masks beside that of a split's images, such as trainannot or train_labels, or None."""
    named = (split_folder.with_name(split_folder.name + ending) for ending in _ANNOTATED)
    return next((folder for folder in named if folder.is_dir()), None)


def _fill_templates(root: Path, section: DataRecipe) -> dict[str, tuple[Path, Path]]:
    head = section.images or ""
    if not section.masks or "{split}" not in section.masks:
        raise InputError("data.masks: data.images has {split}, so data.masks needs it", found=section.masks)
    found = {}
    asked = [name for name in section.split_names.values() if name and name != "none"]
    for name in dict.fromkeys([*asked, *_USUAL]):
        images, masks = root / head.replace("{split}", name), root / section.masks.replace("{split}", name)
        if images.is_dir():
            if not masks.is_dir():
                raise InputError(
                    f"{masks}: missing folder of masks", fix=f"add it, or correct data.masks ({section.masks})"
                )
            found[name] = (images, masks)
    if not found:
        raise InputError(f"{root}: no folder for data.images", found=head, fix="correct the template")
    return found


def _fill_wildcards(root: Path, section: DataRecipe) -> list[tuple[str, str, str]]:
    """Return split, pattern of images and pattern of masks; `{split}` in both stands for the usual names."""
    images, masks = section.images or "", section.masks or ""
    if "*" not in images or images.count("*") != masks.count("*") or ("{split}" in images) != ("{split}" in masks):
        raise InputError(
            "data.images and data.masks: patterns that do not go together",
            found=f"{images}, {masks}",
            allowed="as many * in both, such as */images and */masks",
        )
    if "{split}" not in images:
        return [(WHOLE, images, masks)]
    below = [name for name in _USUAL if (root / images.split("{split}")[0] / name).is_dir()]
    return [(name, images.replace("{split}", name), masks.replace("{split}", name)) for name in below]


def _has_images(folder: Path, section: DataRecipe) -> bool:
    return bool(_match(folder, (section.images,) if section.images else IMAGE_FOLDERS))


def _find_image_and_mask(folder: Path, section: DataRecipe) -> tuple[Path, Path]:
    return (
        _choose(folder, "images", section.images, IMAGE_FOLDERS),
        _choose(folder, "masks", section.masks, MASK_FOLDERS),
    )


def _choose(folder: Path, key: str, asked: str | None, usual: Sequence[str]) -> Path:
    if asked is not None:
        if not (folder / asked).is_dir():
            raise InputError(f"data.{key}: no such folder in {folder}", found=asked, allowed=_name_folders(folder))
        return folder / asked
    matches = _match(folder, usual)
    if len(matches) > 1:
        raise InputError(
            f"{folder}: more than one folder could hold the {key}",
            found=", ".join(path.name for path in matches),
            fix=f"set data.{key} to one of them",
        )
    if not matches:
        raise InputError(
            f"{folder}: no folder of {key}",
            found=_name_folders(folder),
            allowed=", ".join(usual[:4]),
            fix=f"set data.{key}",
        )
    return matches[0]


def _match(folder: Path, names: Sequence[str]) -> list[Path]:
    exact = [folder / name for name in names if len(names) == 1 and (folder / name).is_dir()]
    return exact or [path for path in list_folders(folder) if path.name.lower() in names]


def list_folders(folder: Path) -> list[Path]:
    """Return the folders inside a folder, sorted, without the hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _name_folders(folder: Path) -> str:
    return ", ".join(path.name for path in list_folders(folder)) or "no folder at all"

"""Folders of images and masks: per split, split below, or unsplit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from segplus.data.layouts.pairing import Pairing, find_common_start, list_files, pair_folders
from segplus.data.layouts.source import (
    WHOLE,
    OpenChoiceError,
    Source,
    divide_by_names,
    find_split_folders,
    is_split_name,
    rank_split,
)
from segplus.data.layouts.wildcards import has_wildcards, pair_wildcards
from segplus.data.layouts.words import IMAGE_FOLDERS, MASK_FOLDERS, match_folders
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

_ANNOTATED = ("annot", "_labels", "_masks", "_mask", "_label", "_gt", "_annotations", "_annot", "labels", "masks")


def read_folders(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of `{split}/images` + masks, `images/{split}` + `masks/{split}`, or `images` + `masks`.

    Raises:
        InputError: If no folders of images and masks are found, or more than one could be meant.
    """
    source = Source({}, "folders of images and masks", root)
    if has_wildcards(section):
        _read_wildcards(source, root, section)
        return source
    folders, unmasked = _set_unmasked_aside(find_folder_pairs(root, section))
    source.notes += [f"{name}: images and no masks, left out" for name in unmasked]
    for split, (image_folder, mask_folder) in folders.items():
        found = pair_folders(image_folder, mask_folder, section.image_pattern, section.mask_pattern)
        add_pairing(source, split, found, f"{image_folder.relative_to(root)} with {mask_folder.relative_to(root)}")
    return source


def read_flat(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of one folder (or one folder a split) that holds images and masks side by side."""
    source = Source({}, "images and masks in one folder", root)
    folders = find_split_folders(root, section.split_names.values()) or {WHOLE: root}
    for split, folder in folders.items():
        if source.splits and rank_split(split) > 0 and not _has_flat_masks(folder, source):
            source.notes.append(f"{split}: images and no masks, left out")
            continue
        found = pair_folders(folder, folder, section.image_pattern, section.mask_pattern)
        names, pairs = [*found.table["name"], *found.images_alone], len(found.table)
        parts = divide_by_names(names) if split == WHOLE else {}
        for part, rows in parts.items():
            table = found.table.select([row for row in rows if row < pairs])
            alone = {names[row]: found.images_alone[names[row]] for row in rows if row >= pairs}
            add_pairing(
                source, part, replace(found, table=table, images_alone=alone), "by the beginning of their names"
            )
            found = replace(found, masks_alone=[])  # they count once
        if not parts:
            add_pairing(source, split, found, "in one folder")
    return source


def _has_flat_masks(folder: Path, source: Source) -> bool:
    """Return whether a split's folder has files that are called as the masks of a split that was read."""
    rows = next(iter(source.splits.values()))
    endings = {
        column: find_common_start([Path(path).name[::-1] for path in rows[column]])[::-1]
        for column in ("image", "mask")
    }
    if endings["mask"] == endings["image"] or endings["image"].endswith(endings["mask"]):
        return True
    return any(name.endswith(endings["mask"]) for name in list_files(folder))


def add_pairing(source: Source, split: str, found: Pairing, where: str) -> None:
    """Add the pairs of a split, and the files without a partner, to a source."""
    source.splits[split] = found.table
    source.unmasked[split] = list(found.images_alone.items())
    source.masks_alone += found.masks_alone
    source.notes.append(f"{split}: {len(found.table)} pairs, {where}, {found.how}")


def find_folder_pairs(root: Path, section: DataRecipe) -> dict[str, tuple[Path, Path]]:
    """Return split name -> (folder of images, folder of masks)."""
    if section.images and "{split}" in section.images:
        return _fill_templates(root, section)
    folders = find_split_folders(root, section.split_names.values())
    beside = {name: (path, masks) for name, path in folders.items() if (masks := find_annotated(path)) is not None}
    if beside and len(beside) == len(folders):
        return beside
    if any(rank_split(name) == 0 for name in beside) and not any(list_folders(path) for path in folders.values()):
        return {name: beside.get(name, (path, root / f"{name}_masks")) for name, path in folders.items()}
    per_split = {name: path for name, path in folders.items() if _has_images(path, section)}
    if per_split:
        return _find_in_splits(per_split, section)
    images, masks = _find_image_and_mask(root, section)
    images, masks = _go_down(images, IMAGE_FOLDERS, section), _go_down(masks, MASK_FOLDERS, section)
    below = find_split_folders(images, section.split_names.values())
    return {name: (images / name, masks / name) for name in below} or {WHOLE: (images, masks)}


def _go_down(folder: Path, usual: tuple[str, ...], section: DataRecipe) -> Path:
    """Return the folder below that holds those of splits, as images/10k does, or else the folder itself."""
    below = folder
    while not find_split_folders(below, section.split_names.values()):
        inside = list_folders(below)
        chosen = inside if len(inside) == 1 else _match(below, usual)
        if len(chosen) != 1:
            return folder
        below = chosen[0]
    return below


def _find_in_splits(folders: dict[str, Path], section: DataRecipe) -> dict[str, tuple[Path, Path]]:
    """Return the folders of images and masks in each split's; where masks are missing, where they would lie."""
    masked = {
        name: bool(_match(path, (section.masks,) if section.masks else MASK_FOLDERS)) for name, path in folders.items()
    }
    whole = {
        name: _find_image_and_mask(path, section)
        for name, path in folders.items()
        if masked[name] or not any(masked.values())
    }
    usual = next(iter(whole.values()))[1].name
    return {
        name: whole.get(name) or (_choose(path, "images", section.images, IMAGE_FOLDERS), path / usual)
        for name, path in folders.items()
    }


def _set_unmasked_aside(
    found: dict[str, tuple[Path, Path]],
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Return the splits that have masks, and the names of those of validation and test that have none.

    Raises:
        InputError: If it is the training split that has none.
    """
    unmasked = [name for name, (_, masks) in found.items() if not masks.is_dir() or not any(masks.iterdir())]
    if len(unmasked) == len(found):
        return found, []  # the reader says what is missing
    for name in unmasked:
        if rank_split(name) == 0:
            raise InputError(
                f"{found[name][1]}: a split has images and no masks", found=name, fix=f"add {found[name][1]}"
            )
    return {name: both for name, both in found.items() if name not in unmasked}, unmasked


def find_annotated(split_folder: Path) -> Path | None:
    """Return the folder of masks beside that of a split's images, such as trainannot or train_labels, or None."""
    named = (split_folder.with_name(split_folder.name + ending) for ending in _ANNOTATED)
    return next((folder for folder in named if folder.is_dir()), None)


def _fill_templates(root: Path, section: DataRecipe) -> dict[str, tuple[Path, Path]]:
    head = section.images or ""
    if not section.masks or "{split}" not in section.masks:
        raise InputError("data.masks: data.images has {split}, so data.masks needs it", found=section.masks)
    names = list_splits(root, head, section)
    if not names:
        raise InputError(f"{root}: no folder for data.images", found=head, fix="correct the template")
    found = {
        name: (root / head.replace("{split}", name), root / section.masks.replace("{split}", name)) for name in names
    }
    if not any(masks.is_dir() for _, masks in found.values()):
        masks = next(iter(found.values()))[1]
        raise InputError(f"{masks}: missing folder of masks", fix=f"add it, or correct data.masks ({section.masks})")
    return found


def list_splits(root: Path, template: str, section: DataRecipe) -> list[str]:
    """Return the names that stand in the place of `{split}` in a path: usual ones, and those that were asked for."""
    parts = template.split("/")
    place = next(position for position, part in enumerate(parts) if "{split}" in part)
    expression = re.compile(
        "(.+)".join(re.escape(part) for part in parts[place].split("{split}", 1)).replace(re.escape("{split}"), r"\1")
    )
    folder = root.joinpath(*parts[:place])
    entries = list_folders(folder) if folder.is_dir() else []
    names = [match[1] for entry in entries if (match := expression.fullmatch(entry.name))]
    asked = {name for name in section.split_names.values() if name and name != "none"}
    return sorted((name for name in names if name in asked or is_split_name(name)), key=rank_split)


def _read_wildcards(source: Source, root: Path, section: DataRecipe) -> None:
    """Add the pairs of patterns; those below one folder as that folder's, where files of names may lie."""
    images, masks = section.images or "", section.masks or ""
    if "*" not in images or images.count("*") != masks.count("*") or ("{split}" in images) != ("{split}" in masks):
        raise InputError(
            "data.images and data.masks: patterns that do not go together",
            found=f"{images}, {masks}",
            allowed="as many * in both, such as */images and */masks",
        )
    inside = _find_common_folder(root, images, masks)
    if inside:
        source.root, source.top = root / inside, root
        root, images, masks = source.root, images[len(inside) + 1 :], masks[len(inside) + 1 :]
    if "{split}" not in images:
        add_pairing(source, WHOLE, pair_wildcards(root, images, masks, section), "by their folders")
        return
    for split in list_splits(root, images, section):
        image_pattern, mask_pattern = images.replace("{split}", split), masks.replace("{split}", split)
        if source.splits and rank_split(split) > 0 and not any(root.glob(mask_pattern)):
            source.notes.append(f"{split}: images and no masks, left out")
            continue
        add_pairing(source, split, pair_wildcards(root, image_pattern, mask_pattern, section), "by their folders")


def _find_common_folder(root: Path, images: str, masks: str) -> str:
    """Return the folder that two patterns begin with, "" where they begin apart."""
    same = []
    for image, mask in zip(images.split("/")[:-1], masks.split("/")[:-1], strict=False):
        if image != mask or any(mark in image for mark in ("*", "{split}", "..")) or not image:
            break
        same.append(image)
    inside = "/".join(same)
    return inside if inside and (root / inside).is_dir() else ""


def _has_images(folder: Path, section: DataRecipe) -> bool:
    return bool(_match(folder, (section.images,) if section.images else IMAGE_FOLDERS))


def _find_image_and_mask(folder: Path, section: DataRecipe) -> tuple[Path, Path]:
    return (
        _choose(folder, "images", section.images, IMAGE_FOLDERS),
        _choose(folder, "masks", section.masks, MASK_FOLDERS),
    )


def _choose(folder: Path, key: str, asked: str | None, usual: tuple[str, ...]) -> Path:
    if asked is not None:
        if not (folder / asked).is_dir():
            raise InputError(f"data.{key}: no such folder in {folder}", found=asked, allowed=_name_folders(folder))
        return folder / asked
    matches = _match(folder, usual)
    if len(matches) > 1:
        names = [path.name for path in matches]
        raise OpenChoiceError(
            f"{folder}: more than one folder could hold the {key}",
            found=", ".join(names),
            fix=f"set data.{key} to one of them",
            keys={key: names[0]},
            question=f"which folder holds the {key}, {', '.join(names)}? data.{key} names it",
        )
    if not matches:
        raise InputError(
            f"{folder}: no folder of {key}",
            found=_name_folders(folder),
            allowed=", ".join(usual[:4]),
            fix=f"set data.{key}",
        )
    return matches[0]


def _match(folder: Path, names: tuple[str, ...]) -> list[Path]:
    if len(names) == 1 and (folder / names[0]).is_dir():
        return [folder / names[0]]
    return [folder / name for name in match_folders((path.name for path in list_folders(folder)), names)]


def list_folders(folder: Path) -> list[Path]:
    """Return the folders inside a folder, sorted, without the hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _name_folders(folder: Path) -> str:
    return ", ".join(path.name for path in list_folders(folder)) or "no folder at all"

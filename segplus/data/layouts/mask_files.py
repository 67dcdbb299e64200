"""Several mask files an image: one an object, or one a class."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segplus.data.decoding.image_reader import read_size
from segplus.data.layouts.file_kinds import count_values, find_kinds
from segplus.data.layouts.folders import list_folders
from segplus.data.layouts.pairing import list_files, strip_suffix
from segplus.data.layouts.source import WHOLE, Source, build_table, find_split_folders
from segplus.data.layouts.words import IMAGE_FOLDERS, MASK_FOLDERS, match_folders
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe

OBJECT = "object"
_BINARY = 2  # values of a mask of things of one kind
_LOOKED_AT = 24  # masks without parts whose values are counted
# An image and its masks: name, path of the image, (path of a mask, its class).
_Group = tuple[str, str, list[tuple[str, str]]]


def read_mask_files(root: Path, section: DataRecipe) -> Source:
    """Return the images with the masks that several files make: `case/masks/*.png`, or `masks/CLASS/*.png`.

    A pixel that no file marks is background, value 0. Classes follow in the order of their folders' names, or of
    data.classes; where two overlap and data.classes does not say which lies on top, the mask is refused.

    Raises:
        InputError: If no image has masks of its own, or a class is named that has no file.
    """
    groups = {
        split: find_groups_of_masks(folder)
        for split, folder in find_split_folders(root, section.split_names.values()).items()
    }
    groups = {split: found for split, found in groups.items() if found} or {WHOLE: find_groups_of_masks(root)}
    kinds = {kind for found in groups.values() for _, _, masks in found for _, kind in masks}
    if not kinds:
        raise InputError(f"{root}: no image with mask files of its own", allowed="case/images and case/masks/*.png")
    order = _order_classes(sorted(kinds), section)
    source = Source({}, "several mask files an image", root, dict(enumerate(["background", *order])), encoding="ids")
    source.follows_classes = True
    stated = section.classes is not None
    for split, found in groups.items():
        source.splits[split] = build_table(_build_row(group, order, disjoint=not stated) for group in found)
        count = sum(len(masks) for _, _, masks in found)
        source.notes.append(f"{split}: {len(found)} images with {count} mask files")
    return source


def find_groups_of_masks(root: Path) -> list[_Group]:
    """Return the images of a folder with their mask files; nothing where it is built otherwise."""
    named = ((folder, name_inner_folders(folder)) for folder in list_folders(root))
    cases = [(folder / names[0], folder / names[1]) for folder, names in named if names]
    if cases:
        return _read_cases(cases)
    both = name_inner_folders(root)
    return _read_parts(root) if both is None else _read_class_folders(root / both[0], root / both[1])


def _read_parts(root: Path) -> list[_Group]:
    """Return the images of a folder whose masks lie beside them, some of several files: a_mask.png, a_mask_1.png.

    They are united only where no mask has other values than 0 and one more: then they show things of one kind.
    """
    files = list_files(root)
    stems = set(map(strip_suffix, files))
    if not any(stem != (whole := re.sub(r"[_-]\d+$", "", stem)) and whole in stems for stem in stems):
        return []
    kinds = find_kinds(files, root)
    if kinds is None or not kinds.parts or kinds.alone or kinds.unclear:
        return []
    if len(kinds.images) != 1 or len(kinds.masks) != 1:
        return []
    masks = kinds.files[kinds.masks[0]]
    owned = {key: [masks[key], *kinds.parts.get(key, [])] for key in masks}
    looked_at = [str(root / path) for key, some in owned.items() for path in some if key in kinds.parts]
    if count_values([*looked_at, *(str(root / path) for path in list(masks.values())[:_LOOKED_AT])]) != _BINARY:
        return []
    images = kinds.files[kinds.images[0]]
    return [
        (key, str(root / images[key]), [(str(root / path), OBJECT) for path in some]) for key, some in owned.items()
    ]


def name_inner_folders(folder: Path) -> tuple[str, str] | None:
    """Return the names of the folders of images and of masks in a folder, or None unless there is one of each."""
    names = [path.name for path in list_folders(folder)]
    images, masks = match_folders(names, IMAGE_FOLDERS), match_folders(names, MASK_FOLDERS)
    return (images[0], masks[0]) if len(images) == 1 and len(masks) == 1 else None


def _read_cases(cases: Iterable[tuple[Path, Path]]) -> list[_Group]:
    """Return a group a case of one image; its masks are classes where their names come back in other cases."""
    groups: list[_Group] = []
    for images, masks in cases:
        inside = list_files(images)
        if len(inside) != 1:
            return []
        files = [str(masks / name) for name in list_files(masks)]
        groups.append((images.parent.name, str(images / inside[0]), [(file, _stem(file)) for file in files]))
    if sum(len(masks) for _, _, masks in groups) == len(groups):
        return []  # one mask an image: pairs
    counted = Counter(kind for _, _, masks in groups for _, kind in masks)
    named = [kind for kind, count in counted.items() if count > 1 and not re.fullmatch(r"[\W\d_]*", kind)]
    if len(counted) <= 32 and len(named) == len(counted):
        return groups
    return [(name, image, [(file, OBJECT) for file, _ in masks]) for name, image, masks in groups]


def _read_class_folders(images: Path, masks: Path) -> list[_Group]:
    """Return the images with one mask in each class's folder that has one."""
    stems = {strip_suffix(name): str(images / name) for name in list_files(images)}
    kinds = list_folders(masks)
    if len(kinds) < 2 or {folder.name for folder in list_folders(images)} & {folder.name for folder in kinds}:
        return []
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for folder in kinds:
        for name in list_files(folder):
            stem = _match_stem(_stem(name), stems)
            if stem is None:
                raise InputError(f"{folder / name}: a mask without an image", fix=f"add the image to {images}")
            found[stem].append((str(folder / name), folder.name))
    return [(stem, path, found[stem]) for stem, path in stems.items()]


def _match_stem(stem: str, stems: dict[str, str]) -> str | None:
    """Return the image's name that a mask's is, or begins with."""
    while stem and stem not in stems:
        stem = re.split(r"[_\-. ](?!.*[_\-. ])", stem)[0] if re.search(r"[_\-. ]", stem) else ""
    return stem or None


def _stem(path: str) -> str:
    return os.path.basename(strip_suffix(path))


def _order_classes(kinds: list[str], section: DataRecipe) -> list[str]:
    if section.classes is None:
        return kinds
    if not isinstance(section.classes, list):
        raise InputError("data.classes: mask files have names, not values", found=section.classes, allowed="a list")
    asked = [str(name) for name in section.classes if name != "background"]
    if kinds == [OBJECT] and len(asked) == 1:
        return asked
    for name in asked:
        if name not in kinds:
            raise InputError("data.classes: no mask file of this class", found=name, fix=suggest(name, kinds))
    return asked


def _build_row(group: _Group, order: list[str], disjoint: bool) -> tuple[str, str, str]:
    name, image, masks = group
    value = {kind: position for position, kind in enumerate(order, start=1)}
    if len(order) == 1:  # of objects, the only class may have been given another name
        value[OBJECT] = 1
    shapes: list[dict[str, Any]] = [{"file": file, "value": value[kind]} for file, kind in masks if kind in value]
    shapes.sort(key=lambda shape: int(shape["value"]))
    mask = {"size": list(read_size(image, image)), "background": 0, "shapes": shapes, "disjoint": disjoint}
    return name, image, json.dumps(mask)

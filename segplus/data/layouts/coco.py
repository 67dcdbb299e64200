"""COCO and COCO-Stuff annotation files: polygons and run lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from segplus.data.layouts.coco_files import find_annotation_files, find_image_folder
from segplus.data.layouts.pairing import strip_suffix
from segplus.data.layouts.shapes import (
    Size,
    read_list,
    read_mapping,
    read_name,
    read_polygons,
    read_runs,
    read_stated_size,
    read_whole,
)
from segplus.data.layouts.source import Source, build_table
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file, read_json

UNLABELLED = -2  # below every category id and below the background's -1


def read_coco(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of COCO annotation files, one a split.

    The mask value of a category is its id. Unannotated pixels are a class `background` (value 0, or -1 where a category
    has 0), or ignored; larger shapes are drawn first, so that smaller ones lie on top.

    Raises:
        InputError: If no annotation file is found, two could be meant, or an image is missing.
    """
    splits, notes = {}, []
    names: dict[int, str] | None = None
    names_file = None
    for split, path in find_annotation_files(root, section).items():
        content = load_annotations(path)
        categories = read_categories(content["categories"], path)
        if names is not None and categories != names:
            raise InputError(
                f"{path}: other categories than in the other splits", found=categories, fix="make them equal"
            )
        names, names_file = categories, path
        pairs, left_out = build_pairs(content, categories, path, root, section)
        splits[split] = build_table(pairs)
        notes.append(
            f"{split}: {len(pairs)} images of {path.relative_to(root)}, {left_out} without annotation left out"
        )
    assert names is not None
    chosen = choose_values(names, section)
    listed = {value: names[value] for value in sorted(chosen)}
    if section.unlabelled == "background":
        listed = {pick_background(names): _name_background(listed), **listed}
    return Source(
        splits,
        "COCO",
        root,
        listed,
        void=(UNLABELLED,),
        encoding="ids",
        follows_classes=True,
        notes=notes,
        names_file=names_file,
    )


def _name_background(names: Mapping[int, str]) -> str:
    if "background" in names.values():
        raise InputError(
            "data.unlabelled: a category is called background already",
            fix="set data.unlabelled: ignore, or rename the category",
        )
    return "background"


def pick_background(categories: Mapping[int, str]) -> int:
    """Return the mask value of unannotated pixels: 0 where no category has it."""
    return -1 if 0 in categories else 0


def choose_values(categories: Mapping[int, str], section: DataRecipe) -> set[int]:
    """Return the category ids that the recipe's classes keep; all of them where it names none.

    Raises:
        InputError: If the recipe names a category that is not there.
    """
    if section.classes is None:
        return set(categories)
    if not isinstance(section.classes, list):
        raise InputError(
            "data.classes: COCO files name their categories",
            found=section.classes,
            allowed="a list of names, or nothing",
        )
    asked = [str(name) for name in section.classes if name != "background"]
    for name in asked:
        if name not in categories.values():
            raise InputError("data.classes: no such category", found=name, fix=suggest(name, categories.values()))
    return {value for value, name in categories.items() if name in asked}


def load_annotations(path: Path) -> dict[str, list[Any]]:
    """Return images, annotations and categories of an annotation file.

    Raises:
        InputError: If it is not JSON, or lacks one of them.
    """
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(
            f"{path}: not a COCO annotation file", found=f"no {', '.join(missing)}", fix="correct data.annotations"
        )
    return {key: read_list(content[key], f"{path}: {key}") for key in keys}


def read_categories(entries: Sequence[object], path: Path) -> dict[int, str]:
    """Return category id -> name.

    Raises:
        InputError: If there is none, or two have one id.
    """
    categories: dict[int, str] = {}
    for number, entry in enumerate(entries):
        what = f"{path}: categories[{number}]"
        category = read_mapping(entry, what)
        value = read_whole(category.get("id"), f"{what}, id")
        name = read_name(category.get("name"), f"{what}, name")
        if value in categories:
            found = f"{categories[value]}, {name}"
            raise InputError(f"{path}: two categories of id {value}", found=found, fix="give each its own")
        categories[value] = name
    if not categories:
        raise InputError(f"{path}: no categories", fix="list them with id and name")
    return categories


def build_pairs(
    content: Mapping[str, Sequence[object]],
    categories: Mapping[int, str],
    path: Path,
    root: Path,
    section: DataRecipe,
) -> tuple[list[tuple[str, str, str]], int]:
    """Return (name, image path, JSON of shapes) of every image, and how many were left out as wholly ignored.

    Raises:
        InputError: If an image or annotation lacks a member, or states what cannot be.
    """
    images = _read_images(content["images"], path)
    shapes = _collect_shapes(content["annotations"], images, categories, path)
    chosen = choose_values(categories, section)
    folder = find_image_folder([image.file for image in islice(images.values(), 1)], path, root, section)
    background = pick_background(categories) if section.unlabelled == "background" else UNLABELLED
    pairs, left_out = [], 0
    for key, image in images.items():
        drawn = [shape for _, shape in sorted(shapes[key], key=lambda item: -item[0]) if shape["value"] in chosen]
        if not drawn and section.unlabelled == "ignore":
            left_out += 1
            continue
        file = folder / image.file
        if not is_file(file):
            raise InputError(f"{path}: an image is missing", found=repr(str(file)), fix="add it, or set data.images")
        mask = {"size": list(image.size), "background": background, "shapes": drawn}
        pairs.append((strip_suffix(image.file), str(file), json.dumps(mask)))
    return pairs, left_out


class _Image(NamedTuple):
    file: str
    size: Size


def _read_images(entries: Sequence[object], path: Path) -> dict[int | str, _Image]:
    """Return id -> file name and size, of every image of the file."""
    images: dict[int | str, _Image] = {}
    if not entries:
        raise InputError(f"{path}: no images", fix="list at least one")
    for number, entry in enumerate(entries):
        what = f"{path}: images[{number}]"
        image = read_mapping(entry, what)
        file = read_name(image.get("file_name"), f"{what}, file_name")
        key = _read_id(image.get("id"), f"{what} ({file}), id")
        if key in images:
            raise InputError(f"{path}: two images of id {key}", found=f"{images[key].file}, {file}", fix="remove one")
        images[key] = _Image(file, read_stated_size(image.get("height"), image.get("width"), f"{what} ({file})"))
    return images


def _read_id(value: object, what: str) -> int | str:
    """Return an image's id: a whole number, or text."""
    return value if isinstance(value, str) and value else read_whole(value, what, -(2**63), 2**63 - 1)


def _collect_shapes(
    entries: Sequence[object], images: Mapping[int | str, _Image], categories: Mapping[int, str], path: Path
) -> dict[int | str, list[tuple[float, dict[str, Any]]]]:
    """Return image id -> area and shape of each of its annotations."""
    shapes: dict[int | str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
    for number, entry in enumerate(entries):
        annotation = read_mapping(entry, f"{path}: annotations[{number}]")
        what = f"{path}: annotation {repr(annotation.get('id', number))[:40]}"
        key = _read_id(annotation.get("image_id"), f"{what}, image_id")
        if key not in images:
            raise InputError(f"{what}: no such image", found=key, fix="add it to images, or remove the annotation")
        area = annotation.get("area") or 0
        if isinstance(area, bool) or not isinstance(area, int | float) or not 0 <= area < 1e18:
            raise InputError(f"{what}: no area", found=repr(area)[:100], allowed="a finite number, or none")
        shapes[key].append((float(area), build_shape(annotation, categories, images[key].size, what)))
    return shapes


def build_shape(entry: Mapping[str, Any], categories: Mapping[int, str], size: Size, what: str) -> dict[str, Any]:
    """Return a shape of an annotation: its value and its polygons or run lengths.

    Raises:
        InputError: If the category is unknown or there is no outline.
    """
    value = read_whole(entry.get("category_id"), f"{what}, category_id")
    if value not in categories:
        raise InputError(f"{what} has an unknown category", found=value, fix="add it to categories")
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        return {"value": value, "rle": read_runs(outline, size, what)}
    if isinstance(outline, list) and outline:
        return {"value": value, "polygons": read_polygons(outline, size, what)}
    raise InputError(f"{what} has no outline", found=repr(outline)[:100], fix="a box alone is no mask; remove it")

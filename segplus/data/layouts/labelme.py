"""Annotation files of labelme: one JSON beside each image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplus.data.decoding.image_reader import read_size
from segplus.data.layouts.coco import UNLABELLED
from segplus.data.layouts.shapes import Size, read_list, read_mapping, read_name, read_points, read_stated_size
from segplus.data.layouts.source import WHOLE, Source, build_table, find_split_folders
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file, read_json

# What lies beside files of labelme; the last two where predictions were written to be corrected.
_OTHERS = ("id2label.json", "label2id.json", "segplus_predictions.json", "coco.json")
IGNORED_LABEL, BACKGROUND_LABELS = "__ignore__", ("_background_", "background")


def read_labelme(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of labelme files, in one folder or one folder a split.

    Classes are the recipe's list, or every label that occurs, sorted; unlabelled pixels are `background` (value 0), or
    ignored.

    Raises:
        InputError: If a file is damaged, an image is missing, or a label is not among the classes.
    """
    folders = find_split_folders(root, section.split_names.values()) or {WHOLE: root}
    contents = {split: _load_folder(folder) for split, folder in folders.items()}
    labels = sorted(
        {shape["label"] for files in contents.values() for content in files.values() for shape in content["shapes"]}
    )
    values = number_labels(labels, section)
    splits = {
        split: build_table([_build_pair(path, content, values, root) for path, content in files.items()])
        for split, files in contents.items()
    }
    names = {value: label for label, value in values.items() if value > 0}
    if section.unlabelled == "background":
        names = {0: "background", **names}
    notes = [f"{split}: {len(rows)} annotated images" for split, rows in splits.items()]
    return Source(splits, "labelme", root, names, void=(UNLABELLED,), encoding="ids", follows_classes=True, notes=notes)


def number_labels(labels: list[str], section: DataRecipe) -> dict[str, int]:
    """Return label -> mask value: the classes from 1, the background 0, what is ignored below.

    Raises:
        InputError: If a label is not among the recipe's classes.
    """
    if section.classes is not None and not isinstance(section.classes, list):
        raise InputError(
            "data.classes: labelme files hold names, not values", found=section.classes, allowed="a list of names"
        )
    special = {IGNORED_LABEL, *BACKGROUND_LABELS}
    asked = [str(name) for name in section.classes or [label for label in labels if label not in special]]
    kept = [name for name in asked if name not in special]
    void = [entry for entry in section.void if isinstance(entry, str)]
    for label in labels:
        if label not in kept and label not in special and label not in void and section.unknown == "error":
            raise InputError("data.classes: a label that no class has", found=label, fix=suggest(label, kept))
    rest = 0 if section.unlabelled == "background" else UNLABELLED
    values = dict.fromkeys(labels, UNLABELLED) | {name: index for index, name in enumerate(kept, start=1)}
    return values | dict.fromkeys(BACKGROUND_LABELS, rest) | {IGNORED_LABEL: UNLABELLED, "": rest}


def _load_folder(folder: Path) -> dict[Path, Any]:
    contents = {}
    for path in sorted(folder.rglob("*.json")):
        if path.name in _OTHERS:
            continue
        content = read_json(path)
        if not isinstance(content, dict) or "shapes" not in content or "imagePath" not in content:
            raise InputError(
                f"{path}: not a labelme file", found="no shapes or no imagePath", fix="remove it from the folder"
            )
        kept = {key: content.get(key) for key in ("imagePath", "imageHeight", "imageWidth")}
        contents[path] = kept | {"shapes": _read_shapes(content["shapes"], path)}
    if not contents:
        raise InputError(f"{folder}: no labelme files", allowed="NAME.json beside NAME.jpg")
    return contents


def _read_shapes(value: object, path: Path) -> list[dict[str, Any]]:
    """Return the shapes with their labels as text; their points are read with the size of the image."""
    shapes = []
    for number, entry in enumerate(read_list(value, f"{path}: shapes")):
        shape = read_mapping(entry, f"{path}: shapes[{number}]")
        label = read_name(shape.get("label"), f"{path}: shapes[{number}], label")
        shape_type = "polygon" if shape.get("shape_type") is None else shape["shape_type"]
        shapes.append({"label": label, "points": shape.get("points"), "shape_type": shape_type})
    return shapes


def _build_pair(path: Path, content: Mapping[str, Any], values: Mapping[str, int], root: Path) -> tuple[str, str, str]:
    image = path.parent / read_name(content["imagePath"], f"{path}: imagePath").replace("\\", "/")
    if not is_file(image):
        found = repr(content["imagePath"])
        raise InputError(f"{path}: its image is missing", found=found, fix="add the image beside it")
    height, width = content["imageHeight"], content["imageWidth"]
    if height is None or width is None:
        height, width = read_size(str(image), str(image))
    size = read_stated_size(height, width, str(path))
    shapes = [_build_shape(shape, values, size, path) for shape in content["shapes"]]
    mask = {"size": list(size), "background": values[""], "shapes": shapes}
    return str(path.relative_to(root).with_suffix("")), str(image), json.dumps(mask)


def _build_shape(shape: Mapping[str, Any], values: Mapping[str, int], size: Size, path: Path) -> dict[str, Any]:
    value, shape_type = values[shape["label"]], shape["shape_type"]
    points = read_points(shape["points"], size, f"{path}: a shape of {shape['label']}")
    if shape_type == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points, shape_type = [[left, top], [right, top], [right, bottom], [left, bottom]], "polygon"
    if shape_type == "polygon" and len(points) >= 3:
        return {"value": value, "points": points}
    if shape_type == "circle" and len(points) == 2:
        return {"value": value, "circle": points}
    raise InputError(
        f"{path}: a shape without an area",
        found=f"{shape_type} of {len(points)} points",
        allowed="polygon, rectangle, circle",
    )

"""COCO and COCO-Stuff annotation files: polygons and run lengths."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segplus.data.layouts.folders import WHOLE
from segplus.data.layouts.source import SPLIT_ALIASES, Source, build_table
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe

UNLABELLED = -2  # below every category id and below the background's -1
_NO_MASKS = ("captions", "person_keypoints", "image_info", "panoptic", "labels")


def read_coco(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of COCO annotation files, one a split.

    The mask value of a category is its id. Unannotated pixels are a class `background` (value 0, or -1 where a category
    has 0), or ignored; larger shapes are drawn first, so that smaller ones lie on top.

    Raises:
        InputError: If no annotation file is found, two could be meant, or an image is missing.
    """
    splits, notes = {}, []
    names: dict[int, str] | None = None
    for split, path in find_annotation_files(root, section).items():
        content = load_annotations(path)
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        if names is not None and categories != names:
            raise InputError(
                f"{path}: other categories than in the other splits", found=categories, fix="make them equal"
            )
        names = categories
        pairs, left_out = build_pairs(content, path, root, section, choose_values(categories, section))
        splits[split] = build_table(pairs)
        notes.append(
            f"{split}: {len(pairs)} images of {path.relative_to(root)}, {left_out} without annotation left out"
        )
    assert names is not None
    chosen = choose_values(names, section)
    listed = {value: names[value] for value in sorted(chosen)}
    if section.unlabelled == "background":
        listed = {pick_background(names): _name_background(listed), **listed}
    return Source(splits, "COCO", root, listed, void=(UNLABELLED,), encoding="ids", follows_classes=True, notes=notes)


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


def find_annotation_files(root: Path, section: DataRecipe) -> dict[str, Path]:
    """Return split -> annotation file.

    Raises:
        InputError: If there is none, or a split has two.
    """
    template = section.annotations
    if template:
        files = _match_files(root, template)
    else:
        files = [
            path
            for pattern in ("*.json", "annotations/*.json", "*/_annotations.coco.json")
            for path in sorted(root.glob(pattern))
            if not path.stem.startswith(_NO_MASKS) and path.name not in ("id2label.json", "label2id.json")
        ]
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        found[guess_split(path, root) or WHOLE].append(path)
    for split, paths in found.items():
        if len(paths) > 1:
            raise InputError(
                f"{root}: more than one annotation file for {split}",
                found=", ".join(str(path.relative_to(root)) for path in paths),
                fix="set data.annotations, such as annotations/instances_{split}2017.json",
            )
    if not found:
        raise InputError(f"{root}: no annotation file", allowed="annotations/*.json or */_annotations.coco.json")
    return {split: paths[0] for split, paths in found.items()}


def _match_files(root: Path, template: str) -> list[Path]:
    allowed = f"a path below {root}, such as annotations/instances_{{split}}2017.json"
    try:
        files = sorted(path for path in root.glob(template.replace("{split}", "*")) if path.is_file())
    except (NotImplementedError, ValueError) as error:  # an absolute path, or a pattern that means nothing
        raise InputError(f"data.annotations: {error}", found=template, allowed=allowed) from None
    if not files:
        raise InputError("data.annotations: no such file", found=template, allowed=allowed)
    return files


def guess_split(path: Path, root: Path) -> str | None:
    """Return the usual split name that occurs as a word in a file's path, or None."""
    words = re.split(r"[^a-z]+", str(path.relative_to(root)).lower())
    matches = [word for word in words for aliases in SPLIT_ALIASES.values() if word in aliases]
    return matches[-1] if matches else None


def load_annotations(path: Path) -> dict[str, Any]:
    """Return the content of an annotation file.

    Raises:
        InputError: If it is not JSON, or lacks images, annotations or categories.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})", fix="correct the file") from None
    missing = [
        key for key in ("images", "annotations", "categories") if not isinstance(content, dict) or key not in content
    ]
    if missing:
        raise InputError(
            f"{path}: not a COCO annotation file", found=f"no {', '.join(missing)}", fix="correct data.annotations"
        )
    loaded: dict[str, Any] = content
    return loaded


def build_pairs(
    content: Mapping[str, Any], path: Path, root: Path, section: DataRecipe, chosen: set[int]
) -> tuple[list[tuple[str, str, str]], int]:
    """Return (name, image path, JSON of shapes) of every image, and how many were left out as wholly ignored."""
    categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    shapes: dict[int, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
    for entry in content["annotations"]:
        shape = build_shape(entry, categories, path)
        if shape["value"] in chosen:
            shapes[entry["image_id"]].append((float(entry.get("area") or 0.0), shape))
    folder = find_image_folder([str(image["file_name"]) for image in content["images"][:1]], path, root, section)
    background = pick_background(categories) if section.unlabelled == "background" else UNLABELLED
    pairs, left_out = [], 0
    for image in content["images"]:
        drawn = [shape for _, shape in sorted(shapes[image["id"]], key=lambda item: -item[0])]
        if not drawn and section.unlabelled == "ignore":
            left_out += 1
            continue
        file = folder / str(image["file_name"])
        if not file.is_file():
            raise InputError(f"{path}: an image is missing", found=str(file), fix="add it, or set data.images")
        mask = {"size": [image["height"], image["width"]], "background": background, "shapes": drawn}
        pairs.append((str(Path(image["file_name"]).with_suffix("")), str(file), json.dumps(mask)))
    return pairs, left_out


def build_shape(entry: Mapping[str, Any], categories: Mapping[int, str], path: Path) -> dict[str, Any]:
    """Return a shape of an annotation: its value and its polygons or run lengths.

    Raises:
        InputError: If the category is unknown or there is no outline.
    """
    value, outline = entry.get("category_id"), entry.get("segmentation")
    if value not in categories:
        raise InputError(
            f"{path}: annotation {entry.get('id')} has an unknown category", found=value, fix="add it to categories"
        )
    if isinstance(outline, dict):
        return {"value": value, "rle": outline}
    if isinstance(outline, list) and outline:
        return {"value": value, "polygons": outline}
    raise InputError(
        f"{path}: annotation {entry.get('id')} has no outline", found=outline, fix="a box alone is no mask; remove it"
    )


def find_image_folder(first: Sequence[str], path: Path, root: Path, section: DataRecipe) -> Path:
    """Return the folder that the file names of an annotation file are relative to.

    Raises:
        InputError: If the first image is in no usual folder, or in two.
    """
    split = re.sub(r"^(instances|stuff)_", "", path.stem)
    if section.images:
        return root / section.images.replace("{split}", split)
    candidates = [root, path.parent, root / split, root / "images", root / "images" / split]
    candidates += [root / (guess_split(path, root) or WHOLE)]
    matches = {path.resolve(): path for path in candidates if all((path / name).is_file() for name in first)}
    if len(matches) != 1:
        raise InputError(
            f"{path}: {'two folders hold' if matches else 'no folder holds'} its images",
            found=", ".join(map(str, matches.values())) or first[0],
            fix="set data.images, such as images/{split}",
        )
    return next(iter(matches.values()))

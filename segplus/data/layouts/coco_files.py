"""Where the annotation files of COCO lie, which split each is of, and where its images are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path

from segplus.data.layouts.source import SPLIT_ALIASES, WHOLE, find_split_folders, is_split_name
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file

_NO_MASKS = ("captions", "person_keypoints", "image_info", "panoptic")


def find_annotation_files(root: Path, section: DataRecipe) -> dict[str, Path]:
    """Return split -> annotation file.

    Raises:
        InputError: If there is none, or a split has two.
    """
    template = section.annotations
    files = _match_files(root, template) if template else list_coco_files(root) or _list_annotations(root)
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
        raise InputError(f"{root}: no annotation file", allowed="a COCO file in it, in annotations/ or in train/, val/")
    return {split: paths[0] for split, paths in found.items()}


def list_coco_files(root: Path) -> list[Path]:
    """Return the files of a folder, of its annotations/ and of its splits' folders that hold what a COCO file does."""
    return [path for path in _list_annotations(root) if _holds_annotations(path)]


def _list_annotations(root: Path) -> list[Path]:
    folders = [root, root / "annotations", *find_split_folders(root).values()]
    others = ("id2label.json", "label2id.json")
    files = [path for folder in folders for path in sorted(folder.glob("*.json")) if path.name not in others]
    return [path for path in files if not path.stem.startswith(_NO_MASKS)]


def _holds_annotations(path: Path) -> bool:
    """Return whether a file has the members of a COCO file; one that was cut short has some of them, and no end."""
    if not is_file(path):
        return False
    with path.open("rb") as file, suppress(ValueError), mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        held = sum(content.find(key) >= 0 for key in (b'"images"', b'"annotations"', b'"categories"'))
        is_whole = content[-64:].rstrip().endswith((b"}", b"]"))
        return held >= 2 or (held == 1 and not is_whole)
    return False  # empty


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
    folders = [part for part in path.relative_to(root).parts[:-1] if is_split_name(part)]
    if folders:
        return folders[-1]
    words = re.split(r"[^a-z]+", str(path.relative_to(root)).lower())
    matches = [word for word in words for aliases in SPLIT_ALIASES.values() if word in aliases]
    return matches[-1] if matches else None


def find_image_folder(first: Sequence[str], path: Path, root: Path, section: DataRecipe) -> Path:
    """Return the folder that the file names of an annotation file are relative to.

    Raises:
        InputError: If the first image is in no usual folder, or in two.
    """
    split = re.sub(r"^(instances|stuff)_", "", path.stem)
    if section.images:
        return root / section.images.replace("{split}", split)
    candidates = [root, path.parent, root / split, root / "images", root / "images" / split]
    candidates += [root / (guess_split(path, root) or WHOLE), path.parent / "images"]
    matches = {path.resolve(): path for path in candidates if all(is_file(path / name) for name in first)}
    if len(matches) != 1:
        raise InputError(
            f"{path}: {'two folders hold' if matches else 'no folder holds'} its images",
            found=", ".join(map(str, matches.values())) or first[0],
            fix="set data.images, such as images/{split}",
        )
    return next(iter(matches.values()))

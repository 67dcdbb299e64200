"""A folder a tile or patient: `images: "*/images"` and `masks: "*/masks"`, or `"*/image.png"` and `"*/mask.png"`."""

from __future__ import annotations

import re
from pathlib import Path

from segplus.data.layouts.pairing import Pairing, list_files, pair_folders, strip_suffix
from segplus.data.layouts.source import build_table
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe


def has_wildcards(section: DataRecipe) -> bool:
    """Return whether data.images or data.masks stands for many folders or files."""
    return "*" in (section.images or "") + (section.masks or "")


def pair_wildcards(root: Path, images: str, masks: str, section: DataRecipe) -> Pairing:
    """Return the pairs of folders or files that two patterns match with the same text in the place of each `*`.

    A pair's name begins with that text, so that `data.group_pattern` can keep a tile or a patient together.

    Args:
        root: The folder below which the patterns are matched.
        images: Pattern of folders of images, or of the images themselves.
        masks: The same of the masks.
        section: Its image_pattern and mask_pattern pair the files of two folders.
    Raises:
        InputError: If nothing matches, or files do not pair.
    """
    found, masked = find_matches(root, images, "images"), find_matches(root, masks, "masks")
    pairs: list[tuple[str, str, str]] = []
    alone: dict[str, str] = {}
    masks_alone = [file for key in masked.keys() - found.keys() for file in _list_below(masked[key], key).values()]
    for key, path in found.items():
        if key not in masked:
            alone |= _list_below(path, key)
        elif path.is_dir() and masked[key].is_dir():
            inside = pair_folders(path, masked[key], section.image_pattern, section.mask_pattern)
            pairs += [(f"{key}/{row['name']}", row["image"], row["mask"]) for row in inside.table]
            alone |= {f"{key}/{name}": file for name, file in inside.images_alone.items()}
            masks_alone += inside.masks_alone
        else:
            pairs.append((key, str(path), str(masked[key])))
    return Pairing(build_table(pairs), f"{images} with {masks}", alone, sorted(masks_alone))


def find_matches(root: Path, pattern: str, what: str) -> dict[str, Path]:
    """Return the text in the places of `*` -> the path, of what a pattern matches below a folder, sorted.

    Raises:
        InputError: If nothing matches, or the pattern leaves the folder.
    """
    if pattern.startswith("/") or ".." in pattern.split("/") or "**" in pattern:
        raise InputError(f"data.{what}: not a pattern below the data", found=pattern, allowed="such as */images")
    expression = re.compile("([^/]*)".join(re.escape(part) for part in pattern.rstrip("/").split("*")))
    matches: dict[str, Path] = {}
    for path in sorted(root.glob(pattern)):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match is not None and not path.name.startswith("."):
            matches["/".join(match.groups())] = path
    if not matches:
        raise InputError(f"data.{what}: nothing matches in {root}", found=pattern, fix="correct the pattern")
    return matches


def _list_below(path: Path, key: str) -> dict[str, str]:
    if not path.is_dir():
        return {key: str(path)}
    return {f"{key}/{strip_suffix(name)}": str(path / name) for name in list_files(path)}

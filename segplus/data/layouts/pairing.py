"""Which mask belongs to which image: by equal stems, by a pattern, or by one affix that explains every file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from datasets import Dataset

from segplus.data.decoding.image_reader import IMAGE_SUFFIXES
from segplus.data.layouts.file_kinds import choose_kinds, find_kinds
from segplus.data.layouts.source import build_table, name_some
from segplus.data.layouts.words import propose_patterns, split_by_words
from segplus.errors import InputError
from segplus.texts import refuse_special_file


@dataclass(frozen=True)
class Pairing:
    """What two folders hold.

    Args:
        table: The pairs, columns name, image, mask.
        how: How names were matched, for people.
        images_alone: Name -> path, of images without a mask.
        masks_alone: Paths of masks without an image.
    """

    table: Dataset
    how: str
    images_alone: dict[str, str]
    masks_alone: list[str]


def list_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[str]:
    """Return the paths of a folder's files, relative to it, sorted; hidden files and folders are left out.

    Raises:
        InputError: If one is a link to nothing, a FIFO, which would be waited for, or a folder without such files.
    """
    found: list[str] = []
    called_files: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(parent, folder)
        kept = [name for name in files if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes]
        for name in kept:
            path = os.path.join(parent, name)
            refuse_special_file(path, path)
        called_files += [
            os.path.join(inside, name) for name in folders if os.path.splitext(name)[1].lower() in suffixes
        ]
        found += kept if inside == "." else [f"{inside.replace(os.sep, '/')}/{name}" for name in kept]
    for name in map(os.path.normpath, called_files):
        if not any(path.startswith(f"{name}/") for path in found):
            refuse_special_file(folder / name, str(folder / name))
    return sorted(found)


def pair_folders(
    image_root: Path, mask_root: Path, image_pattern: str | None = None, mask_pattern: str | None = None
) -> Pairing:
    """Return the pairs of two folders, and the files that have no partner.

    Args:
        image_root: Folder of the images, searched with its subfolders.
        mask_root: Folder of the masks.
        image_pattern: Regular expression on the file name; its first group is the key, other files are left out. With a
            slash in it, on the path below the folder, and all groups make the key.
        mask_pattern: The same for masks.

    Raises:
        InputError: If there are no files, a key occurs twice, or two ways of pairing would do.
    """
    images, masks = list_files(image_root), list_files(mask_root)
    if image_root == mask_root and not (image_pattern and mask_pattern):
        images, masks = split_flat_files(images, image_root)
    if image_root in mask_root.parents:
        below = f"{mask_root.relative_to(image_root).as_posix()}/"
        images = [path for path in images if not path.startswith(below)]
    for files, root, noun in ((images, image_root, "images"), (masks, mask_root, "masks")):
        if not files:
            raise InputError(f"{root}: no {noun} in this folder", allowed=" ".join(sorted(IMAGE_SUFFIXES)))
    if image_root != mask_root:
        image_root, images = _enter_common_folder(image_root, images)
        mask_root, masks = _enter_common_folder(mask_root, masks, images)
    image_keys = key_files(images, image_pattern, image_root, "data.image_pattern")
    mask_keys = key_files(masks, mask_pattern, mask_root, "data.mask_pattern")
    how = "by pattern" if image_pattern or mask_pattern else "by equal names"
    if not image_pattern and not mask_pattern and not image_keys.keys() & mask_keys.keys():
        image_keys, mask_keys, how = match_affixes(images, masks, image_root, mask_root)
    both = sorted(image_keys.keys() & mask_keys.keys())
    alone = [mask_keys[key] for key in sorted(mask_keys.keys() - image_keys.keys())]
    alone += _find_parts(set(mask_keys.values()), masks) if mask_pattern else []
    return Pairing(
        build_table((key, str(image_root / image_keys[key]), str(mask_root / mask_keys[key])) for key in both),
        how,
        {key: str(image_root / image_keys[key]) for key in sorted(image_keys.keys() - mask_keys.keys())},
        [str(mask_root / file) for file in alone],
    )


def _find_parts(taken: set[str], files: Sequence[str]) -> list[str]:
    """Return the files that a pattern leaves out and that go on with the name of a mask: a_mask_1.png of a_mask.png."""
    stems = {strip_suffix(path) for path in taken}
    return [path for path in files if path not in taken and stems & set(_propose_shorter(strip_suffix(path)))]


def _enter_common_folder(root: Path, files: list[str], others: Sequence[str] = ()) -> tuple[Path, list[str]]:
    """Return the folder below that holds all files, and their paths relative to it, unless others lie in such a one."""
    folder = os.path.commonpath([os.path.dirname(path) or "." for path in files]) if files else ""
    inside = "" if folder in ("", ".") or any("/" not in path for path in files) else folder
    inside = "" if any(path.startswith(f"{inside}/") for path in others) else inside
    return (root / inside, [path[len(inside) + 1 :] for path in files]) if inside else (root, files)


def strip_suffix(path: str) -> str:
    """Return a relative path without its file suffix."""
    return os.path.splitext(path)[0]


def key_files(files: Sequence[str], pattern: str | None, root: Path, key: str) -> dict[str, str]:
    """Return key -> relative path: folder and stem, or folder and the pattern's first group."""
    if pattern is None:
        return _collect(files, strip_suffix, root)
    if "/" in pattern:  # on the path below the folder; all of its groups make the key
        return _collect_by_path(files, pattern, root, key)
    matched = [path for path in files if re.search(pattern, os.path.basename(path))]
    if not matched:
        raise InputError(
            f"{root}: no file name matches {key}", found=files[0], allowed=pattern, fix="correct the pattern"
        )

    def name(path: str) -> str:
        match = re.search(pattern, os.path.basename(path))
        return os.path.join(os.path.dirname(path), match[1] if match else "")

    return _collect(matched, name, root)


def _collect_by_path(files: Sequence[str], pattern: str, root: Path, key: str) -> dict[str, str]:
    keys = {path: "/".join(filter(None, match.groups())) for path in files if (match := re.search(pattern, path))}
    if not keys:
        raise InputError(f"{root}: no path matches {key}", found=files[0], allowed=pattern, fix="correct it")
    return _collect(list(keys), keys.__getitem__, root)


def _collect(files: Sequence[str], key: Callable[[str], str], root: Path) -> dict[str, str]:
    keyed: dict[str, str] = {}
    for path in files:
        name = key(path)
        if name in keyed:
            raise InputError(
                f"{root}: two files for one key '{name}'",
                found=f"{keyed[name]}, {path}",
                fix="remove one, or choose with data.image_pattern and data.mask_pattern",
            )
        keyed[name] = path
    return keyed


def match_affixes(
    images: Sequence[str], masks: Sequence[str], image_root: Path, mask_root: Path
) -> tuple[dict[str, str], dict[str, str], str]:
    """Return both key tables under the one pair of prefixes and suffixes that pairs every file, or else every mask.

    Raises:
        InputError: If no pair of affixes does, or two do with different results.
    """
    solutions: dict[tuple[tuple[str, str], ...], tuple[dict[str, str], dict[str, str], str]] = {}
    partial = dict(solutions)  # in which images lack a mask
    for image_affix, mask_affix in product(_propose_affixes(images, masks), _propose_affixes(masks, images)):
        image_keys, mask_keys = _strip_affix(images, image_affix), _strip_affix(masks, mask_affix)
        if image_keys and mask_keys and mask_keys.keys() <= image_keys.keys():
            pairing = tuple(sorted((image_keys[key], mask_keys[key]) for key in mask_keys))
            how = f"images '{image_affix[0]}*{image_affix[1]}' with masks '{mask_affix[0]}*{mask_affix[1]}'"
            found = solutions if len(mask_keys) == len(image_keys) else partial
            found.setdefault(pairing, (image_keys, mask_keys, how))
    solutions = solutions or partial
    if len(solutions) == 1:
        return next(iter(solutions.values()))
    if solutions:
        raise InputError(
            f"{image_root} and {mask_root}: more than one way to pair the files",
            found="; ".join(how for _, _, how in solutions.values()),
            fix="choose with data.image_pattern and data.mask_pattern",
        )
    raise InputError(
        f"{image_root} and {mask_root}: no image has the name of a mask",
        found=f"{len(images)} images ({name_some(images)}); {len(masks)} masks ({name_some(masks)})",
        fix=f"say what the names share: {propose_patterns(images, masks)}",
    )


def _propose_affixes(files: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Return (prefix, suffix) candidates: none, what all names share, what is left without another name."""
    stems = [os.path.basename(strip_suffix(path)) for path in files]
    proposals = {("", "")}
    start = find_common_start(stems)
    ending = find_common_start([stem[::-1] for stem in stems])[::-1]
    for mark in "_-. ":
        if mark in ending:
            proposals.add(("", ending[ending.index(mark) :]))
        if mark in start:
            proposals.add((start[: start.rindex(mark) + 1], ""))
    proposals |= {(prefix, suffix) for prefix, _ in list(proposals) for _, suffix in list(proposals)}
    for other in {os.path.basename(strip_suffix(path)) for path in others[:200]}:
        if other and other in stems[0]:
            prefix, _, suffix = stems[0].partition(other)
            proposals.add((prefix, suffix))
    return sorted(proposals)


def find_common_start(words: Sequence[str]) -> str:
    """Return the longest text that every word starts with."""
    first, last = min(words), max(words)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _strip_affix(files: Sequence[str], affix: tuple[str, str]) -> dict[str, str]:
    keyed: dict[str, str] = {}
    for path in files:
        folder, stem = os.path.split(strip_suffix(path))
        if not stem.startswith(affix[0]) or not stem.endswith(affix[1]) or len(stem) <= len(affix[0]) + len(affix[1]):
            return {}
        key = os.path.join(folder, stem[len(affix[0]) : len(stem) - len(affix[1])])
        if key in keyed:
            return {}
        keyed[key] = path
    return keyed


def split_flat_files(files: Sequence[str], root: Path) -> tuple[list[str], list[str]]:
    """Return (images, masks) of a folder that holds both, where one file suffix or one affix tells them apart.

    Raises:
        InputError: If nothing does, or more than one thing does.
    """
    solutions: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    half = len(files) // 2
    suffixes = {os.path.splitext(path)[1].lower() for path in files}
    for suffix in suffixes:
        masks = [path for path in files if os.path.splitext(path)[1].lower() == suffix]
        images = sorted(set(files) - set(masks))
        same = {strip_suffix(path) for path in masks} == {strip_suffix(path) for path in images}
        if suffix == ".png" and len(masks) == half and same:
            solutions[tuple(masks)] = (images, masks)
    stems = {strip_suffix(path) for path in files}
    endings = {stem[len(other) :] for stem in sorted(stems)[:400] for other in _propose_shorter(stem) if other in stems}
    for ending in endings:
        masks = [
            path
            for path in files
            if strip_suffix(path).endswith(ending) and strip_suffix(path)[: -len(ending)] in stems
        ]
        images = sorted(set(files) - set(masks))
        if len(masks) == len(images):
            solutions[tuple(masks)] = (images, masks)
    if not solutions:
        solutions.update((tuple(masks), (images, masks)) for images, masks in split_by_words(files))
    if len(solutions) == 1:
        return next(iter(solutions.values()))
    kinds = None if solutions else find_kinds(files, root)
    if kinds is not None:
        return choose_kinds(kinds, root)
    raise InputError(
        f"{root}: images and masks lie in one folder and "
        + ("more than one thing" if solutions else "nothing")
        + " tells them apart",
        found=name_some(files),
        fix=f"set {propose_patterns(files, files)}",
    )


def _propose_shorter(stem: str) -> list[str]:
    return [stem[:cut] for cut in range(1, len(stem)) if stem[cut] in "_-. "]

"""Where images and masks lie, by the names of folders and files alone: the rules that `discovery` tries in turn."""

from __future__ import annotations

import re
from pathlib import Path

from segplus.data.decoding.image_reader import IMAGE_SUFFIXES
from segplus.data.layouts.pairing import strip_suffix
from segplus.data.layouts.source import put_split
from segplus.data.layouts.words import IMAGE_FOLDERS, MASK_FOLDERS, find_kind, is_mask_word


def put_splits(names: list[str]) -> dict[str, str]:
    """Return data.images and data.masks of folders such as train_images, train_masks and val_images, or nothing."""
    templates = {put_split(name): find_kind(name) for name in names if put_split(name)}
    images = [template for template, kind in templates.items() if kind is IMAGE_FOLDERS]
    masks = [template for template, kind in templates.items() if kind is MASK_FOLDERS]
    return {"images": images[0], "masks": masks[0]} if len(images) == 1 and len(masks) == 1 else {}


def name_inner_files(folder: Path) -> tuple[str, str] | None:
    """Return the file names of the one image and the one mask in a folder."""
    names = [entry.name for entry in sorted(folder.iterdir()) if is_image(entry)]
    masks = [name for name in names if is_mask_word(strip_suffix(name))]
    images = [name for name in names if strip_suffix(name).lower() in IMAGE_FOLDERS]
    if len(names) == 2 and len(masks) == 1:
        images = [name for name in names if name not in masks]
    return (images[0], masks[0]) if len(images) == 1 and len(masks) == 1 else None


def has_mask_suffix(names: list[str]) -> bool:
    """Return whether half of the names or more, and not all, end in the usual word of a mask, or in it and a number."""
    stems = [re.sub(r"_\d+$", "", strip_suffix(name)) for name in names]
    marked = [stem for stem in stems if is_mask_word(stem.rpartition("_")[2])]
    return len(names) <= 2 * len(marked) < 2 * len(names)


def is_image(entry: Path) -> bool:
    """Return whether this is a file of a format that images have."""
    return entry.is_file() and entry.suffix.lower() in IMAGE_SUFFIXES

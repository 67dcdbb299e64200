"""From the recipe's data section to the splits of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from segplus.classes import ClassMap
from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.masks import DEFAULT_THRESHOLD, MaskDecoder
from segplus.data.layouts.benchmarks import read_ade20k, read_cityscapes, read_voc
from segplus.data.layouts.coco import read_coco
from segplus.data.layouts.discovery import find_layout
from segplus.data.layouts.encodings import find_encoding
from segplus.data.layouts.folders import read_flat, read_folders
from segplus.data.layouts.hub_datasets import read_hub, read_saved
from segplus.data.layouts.labelme import read_labelme
from segplus.data.layouts.left_out import IN_FOLDERS, find_left_out
from segplus.data.layouts.mask_files import read_mask_files
from segplus.data.layouts.names import build_class_map, find_names, read_colors
from segplus.data.layouts.run_lengths import read_run_lengths
from segplus.data.layouts.source import OpenChoiceError, Source, find_split
from segplus.data.layouts.split_lists import divide_by_lists
from segplus.data.layouts.tables import read_manifest, read_metadata
from segplus.data.layouts.unmasked import check_unmasked, refuse_orphans, settle_unmasked
from segplus.data.misreadings import refuse_ignored_foreground
from segplus.data.splits import choose_splits, describe_splits, limit_splits, make_fold
from segplus.data.streaming import StreamedSplit
from segplus.data.synthetic.drawn_splits import draw_splits
from segplus.errors import InputError, suggest
from segplus.images import ImageRange
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.imports import import_object
from segplus.recipe.paths import expand_path
from segplus.recipe.strict import build_dataclass

_READERS: dict[str, Callable[[Path, DataRecipe], Source]] = {
    "folders": read_folders,
    "flat": read_flat,
    "metadata": read_metadata,
    "manifest": read_manifest,
    "saved": read_saved,
    "voc": read_voc,
    "cityscapes": read_cityscapes,
    "ade20k": read_ade20k,
    "coco": read_coco,
    "labelme": read_labelme,
    "mask_files": read_mask_files,
    "run_lengths": read_run_lengths,
}
_LISTS = frozenset({"manifest"})  # layouts that are one file; the others are folders


@dataclass(frozen=True)
class SegmentationData:
    """The splits of a data set and the classes that all of them share.

    Args:
        splits: "train", "validation", "test" -> split; only those that exist.
        classes: The classes.
        found: What was recognised, one line each, for people.
        stream: The training split where `data.streaming` reads it as a stream; `splits` then has no "train".
    """

    splits: Mapping[str, SegmentationSplit]
    classes: ClassMap
    found: tuple[str, ...] = ()
    stream: StreamedSplit | None = None


def load_segmentation_dataset(section: DataRecipe | Mapping[str, Any]) -> SegmentationData:
    """Return the splits and classes that a recipe's data section describes.

    Args:
        section: The section, as the dataclass or as a mapping with the same keys.

    Raises:
        InputError: If a key is unknown, a folder is missing, files do not pair, or classes have no names.
    """
    recipe = build_section(section)
    if recipe.dataset == "synthetic" or recipe.layout == "synthetic":
        drawn, classes = draw_splits(recipe)
        splits = limit_splits(make_fold(drawn, recipe) if recipe.folds else drawn, recipe)
        return SegmentationData(splits, classes, ("drawn street scenes", *describe_splits(splits)))
    source = read_source(recipe)
    refuse_orphans(source, recipe)
    data = assemble(source, recipe)
    if "train" in data.splits:
        refuse_ignored_foreground(data.splits["train"])
    return data


def assemble(source: Source, recipe: DataRecipe) -> SegmentationData:
    """Return the splits and classes of the pairs that a layout found.

    Raises:
        InputError: If classes have no names, or a split has no images.
    """
    encoding, legend = find_encoding(recipe, source)
    classes = build_class_map(recipe, source, legend)
    check_unmasked(source, recipe, classes)
    _, names = find_names(recipe, source, read_colors(recipe, source))
    max_pixels = int(recipe.max_image_megapixels * 1e6)
    decoder = MaskDecoder(
        classes,
        encoding=encoding,
        threshold=DEFAULT_THRESHOLD if recipe.threshold is None else recipe.threshold,
        color_tolerance=recipe.color_tolerance,
        instance_divisor=recipe.instance_divisor,
        mask_channel=recipe.mask_channel,
        planes=len(names),
        states_void=255 in recipe.void or names.get(255) in recipe.void,
        states_threshold=recipe.threshold is not None,
        presumed=source.found if source.presumed and recipe.classes is None else "",
        max_pixels=max_pixels,
    )
    value_range = None if recipe.image_range is None else ImageRange.parse(recipe.image_range)
    reader = ImageReader(recipe.channels, value_range, max_pixels)
    available = {name: SegmentationSplit(rows, decoder, reader, name) for name, rows in source.splits.items()}
    empty = [name for name, split in available.items() if not len(split)]
    if empty:
        raise InputError(f"{recipe.dataset}: a split without images", found=", ".join(empty))
    stream = None
    if source.stream is not None:
        rows, columns, skipped = source.stream.rows, source.stream.columns, source.stream.skipped
        stream = StreamedSplit(rows, columns, skipped, decoder, reader, recipe.shuffle_buffer_images)
    splits = choose_splits(available, recipe) if stream is None else available
    used = {find_split(list(available), split, name) for split, name in recipe.split_names.items()}
    unused = [name for name in available if name not in used] if stream is None and len(available) > 1 else []
    return SegmentationData(splits, classes, (source.found, *source.notes, *describe_splits(splits, unused)), stream)


def require_splits(data: SegmentationData, channels: int = 3) -> None:
    """Refuse a data set without images to train on or to choose the best checkpoint by, and colours for channels.

    Raises:
        InputError: If train or validation is missing, or images are in colour where other channels were asked for.
    """
    needed = ("train", "validation") if data.stream is None else ("validation",)
    for name in needed:
        if name not in data.splits:
            raise InputError(
                f"data: no {name} split",
                found=", ".join(data.splits),
                fix=f"set data.{name}_split" + (" or data.validation_share: 0.3" if name == "validation" else ""),
            )
    if channels != 3 and isinstance(data.splits["validation"].image(0), Image.Image):
        raise InputError("data.channels: these images are in colour", found=channels, allowed=3)


def build_section(section: DataRecipe | Mapping[str, Any]) -> DataRecipe:
    """Return the data section as the dataclass, checked."""
    return section if isinstance(section, DataRecipe) else build_dataclass(DataRecipe, section, "data", "data section")


def read_source(section: DataRecipe) -> Source:
    """Return the table of pairs of each split, and what the layout knows.

    Raises:
        InputError: If the path does not exist, or its layout is not recognised.
    """
    name = expand_path(section.dataset, "data.dataset")
    path = Path(name)
    exists = os.path.exists(name)  # False of a name that no file can have
    looks_like_path = (
        name != section.dataset
        or path.is_absolute()
        or name.startswith((".", "~"))
        or name.count("/") != 1
        or os.path.isdir(path.parts[0])  # and the owner of no repository
    )
    if section.layout == "hub" or (section.layout == "auto" and not exists and not looks_like_path):
        return read_hub(name, section)
    if not exists:
        raise InputError("data.dataset: no such folder or file", found=name, fix=_suggest_beside(path))
    if section.layout != "auto":
        source = _read_layout(section.layout, path, section)
        return _name_left_out(section.layout, path, source, section)
    found = find_layout(path, section)
    try:
        source = _read_layout(found.layout, found.root, replace(section, **found.keys))
    except OpenChoiceError as choice:
        choice.keys = choice.keys and {**choice.keys, "dataset": str(found.root)}  # where what is named lies
        raise
    inside = found.root.relative_to(path)
    folders = {key: (inside / value).as_posix() for key, value in found.keys.items() if key in ("images", "masks")}
    source.settled = {**source.settled, **found.keys, **folders}
    if found.root != path:
        source.top = path
        source.notes.insert(0, f"in {inside}, the folder below that holds pairs")
    return _name_left_out(found.layout, path, source, section)


def _name_left_out(layout: str, path: Path, source: Source, section: DataRecipe) -> Source:
    """Name the folders that were not read.

    Raises:
        InputError: If one of them holds pairs, and the recipe says neither the layout nor where images or masks lie.
    """
    if layout not in IN_FOLDERS or section.images is not None or section.annotations is not None:
        return source
    left_out = find_left_out(path, source, section)
    if section.layout == "auto" and section.masks is None:
        left_out.refuse_pairs(str(path), list(source.splits))
    source.notes += left_out.describe()
    return source


def _suggest_beside(path: Path) -> str:
    """Return what to do about a path that is not there: the nearest name in its folder, where one is near."""
    beside = [entry.name for entry in path.parent.iterdir()] if os.path.isdir(path.parent) else []
    near = suggest(path.name, beside) if beside else ""
    return (
        f"{near} Or give a Hub id: owner/name"
        if near.startswith("did")
        else "correct the path, or give a Hub id: owner/name"
    )


def _read_layout(layout: str, path: Path, section: DataRecipe) -> Source:
    name = str(path)
    if "." in layout:
        source = import_object(layout, "data.layout")(path, section)
        if not isinstance(source, Source):
            raise InputError(f"data.layout: {layout} gives no Source", found=type(source).__name__)
        return source
    if layout == "hub":
        return read_hub(name, section)
    if section.streaming:
        raise InputError(
            "data.streaming: only what the `datasets` library loads can be streamed: the Hub and Parquet files",
            found=f"layout {layout}",
            fix="set data.streaming: false; files on a disk are read one at a time anyway",
        )
    if layout != "run_lengths" and path.is_file() != (layout in _LISTS):
        raise InputError(
            f"data.layout: {layout} is {'a file that lists pairs' if layout in _LISTS else 'a folder'}",
            found=f"{name}, {'a file' if path.is_file() else 'a folder'}",
            fix="correct data.dataset, or set data.layout: auto",
        )
    source = _READERS[layout](path, section)
    settle_unmasked(source, section)
    return divide_by_lists(source) if layout in IN_FOLDERS else source

"""What a saved model is scored on: data in any form, a split of them, and whether both fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from segplus.data import SegmentationData, SegmentationSplit, check_split, load_segmentation_dataset
from segplus.data.loading import build_section
from segplus.errors import InputError, suggest
from segplus.inference.checkpoint import Checkpoint
from segplus.inference.scoring import join_processes
from segplus.recipe import DataRecipe, EvaluationRecipe
from segplus.reporting.results import name_dataset

DataSource = SegmentationData | DataRecipe | Mapping[str, Any] | str
PREFERRED_SPLITS = ("test", "validation", "train")


def open_split(
    checkpoints: Sequence[Checkpoint],
    data: DataSource,
    split: str | None,
    *,
    progress: bool = True,
    preferred: Sequence[str] = PREFERRED_SPLITS,
) -> tuple[SegmentationData, str, SegmentationSplit]:
    """Return the data, and the name and the images of a split that the checkpoints can be scored on.

    Every mask is read once before, and a split that passed is remembered; data that come loaded are taken as checked.

    Raises:
        InputError: If the data cannot be read, their classes are not the checkpoints', or the split is missing or empty
            or holds a pair that is damaged, of two sizes, or of values outside the classes.
    """
    with join_processes().main_process_first():
        loaded = load_data(data, checkpoints)
        name, chosen = choose_split(loaded, split, preferred)
        for checkpoint in checkpoints:
            checkpoint.refuse_other_classes(loaded.classes)
        if loaded is not data:
            check_split(chosen, progress=progress)
    return loaded, name, chosen


def load_data(data: DataSource, checkpoints: Sequence[Checkpoint] = ()) -> SegmentationData:
    """Return the data that a data section, a folder or a Hub id stands for, read as the checkpoints take images.

    Raises:
        InputError: If the data cannot be read, or the checkpoints take images with other channels.
    """
    if isinstance(data, SegmentationData):
        return data
    section = build_section({"dataset": data} if isinstance(data, str) else data)
    fitted = [checkpoint.fit_section(section) for checkpoint in checkpoints] or [section]
    for other in fitted[1:]:
        if other != fitted[0]:
            raise InputError(
                "the checkpoints take images of different channels or ranges",
                found=" and ".join(f"{one.channels} channels, range {one.image_range}" for one in (fitted[0], other)),
                fix="compare models that were trained on the same channels and data.image_range",
            )
    return load_segmentation_dataset(fitted[0])


def name_data(data: DataSource) -> str:
    """Return what metrics.json and the report call the data."""
    if isinstance(data, SegmentationData):
        return ""
    return name_dataset(str(_list_data_settings(data).get("dataset", "")))


def list_input_files(data: DataSource) -> list[str]:
    """Return the files that a data section names; no result may be written over them."""
    if isinstance(data, SegmentationData):
        return []
    settings = _list_data_settings(data)
    named = (settings.get(key) for key in ("dataset", "annotations", "classes", "colors"))
    return [value for value in named if isinstance(value, str)]


def format_settings(data: DataSource, recipe: EvaluationRecipe) -> str:
    """Return the data and evaluation sections as YAML; data that come loaded have no section."""
    sections = {"evaluation": dataclasses.asdict(recipe)}
    if not isinstance(data, SegmentationData):
        sections = {"data": _list_data_settings(data), **sections}
    return str(yaml.safe_dump(sections, sort_keys=False, allow_unicode=True))


def _list_data_settings(data: DataRecipe | Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(data, DataRecipe):
        return dataclasses.asdict(data)
    return {"dataset": data} if isinstance(data, str) else dict(data)


def choose_split(
    data: SegmentationData, name: str | None, preferred: Sequence[str] = PREFERRED_SPLITS
) -> tuple[str, SegmentationSplit]:
    """Return the name and the images of the split asked for, or of the first of the preferred ones that there is.

    Raises:
        InputError: If there is no such split or it is empty.
    """
    chosen = name or next((known for known in preferred if known in data.splits), next(iter(data.splits), ""))
    if chosen not in data.splits:
        raise InputError(f"the data have no split '{chosen}'", fix=suggest(chosen, data.splits))
    split = data.splits[chosen]
    if not len(split):
        raise InputError(f"the split '{chosen}' holds no images", allowed="1 and more")
    return chosen, split

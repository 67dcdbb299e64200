"""The images of a data set of the `datasets` library, for `segplus predict`: a saved folder, or name:split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from segplus.commands.prediction_inputs import is_data_set
from segplus.errors import InputError, suggest


def open_rows(source: str, column: str | None) -> tuple[list[str], datasets.Dataset]:
    """Return the file name of each image, and the rows, whose column `image` holds {"bytes", "path"}.

    Args:
        source: A folder that save_to_disk wrote, with `:split` behind it where it has several; or `name:split`, a Hub
            id or a folder that load_dataset takes.
        column: Of the images; None for the one column of images that there is, or the one that is called image.
    Raises:
        InputError: If the data set cannot be opened, or has no such split or column.
    """
    name, _, split = (source, "", "") if Path(source).exists() else source.rpartition(":")
    loaded = _load_saved(name) if is_data_set(name) else _load_repository(name, split)
    if isinstance(loaded, dict):
        if split not in loaded:
            raise InputError(
                f"{name}: which split?",
                found=split or None,
                allowed=", ".join(loaded),
                fix=f"{name}:{next(iter(loaded))}",
            )
        loaded = loaded[split]
    chosen = _find_column(loaded.features, column, name)
    rows = loaded.select_columns([chosen]).cast_column(chosen, datasets.Image(decode=False))
    return _name_rows(rows, chosen), rows.rename_column(chosen, "image") if chosen != "image" else rows


def _load_saved(folder: str) -> Any:
    try:
        return datasets.load_from_disk(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a folder that save_to_disk wrote", found=str(error)) from None


def _load_repository(name: str, split: str) -> Any:
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen types here: missing repository, split, network, builder
        raise InputError(
            f"{name}: no file, and no data set that could be opened",
            found=f"{type(error).__name__}: {error}",
            fix="correct the path, or name the data set and its split, such as name:test",
        ) from None


def _find_column(features: Any, column: str | None, name: str) -> str:
    images = [key for key, feature in features.items() if isinstance(feature, datasets.Image)]
    if column is not None:
        if column not in images:
            raise InputError(
                f"--image-column: no column of images in {name}", found=column, fix=suggest(column, images)
            )
        return column
    usual = [key for key in images if key == "image"] or images
    if len(usual) != 1:
        raise InputError(
            f"{name}: which column holds the images?", found=", ".join(features), fix="name it: --image-column COLUMN"
        )
    return str(usual[0])


def _name_rows(rows: datasets.Dataset, column: str) -> list[str]:
    """Return the images' own file names where each has one and they differ, or numbers."""
    names = [Path(path or "").name for path in rows.flatten()[f"{column}.path"]]
    if all(names) and len({Path(name).stem for name in names}) == len(names):
        return names
    return [f"{index:06}.png" for index in range(len(rows))]

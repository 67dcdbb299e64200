"""Label maps as images, and scores as tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.files import write_whole
from segplus.images import DecodedImage, show_as_rgb
from segplus.reporting.drawing import draw_overlay

MASK_FORMATS = ("ids", "palette", "overlay")
TABLE_SUFFIXES = (".csv", ".parquet")


def check_mask_format(mask_format: str, num_classes: int) -> None:
    """Refuse a mask format that there is not, or that cannot hold the classes.

    Raises:
        InputError: If so.
    """
    if mask_format not in MASK_FORMATS:
        raise InputError("mask format of the predictions", found=mask_format, allowed=", ".join(MASK_FORMATS))
    if mask_format == "palette" and num_classes > 256:
        raise InputError("a palette PNG holds 256 classes", found=num_classes, fix="write ids, as 16-bit PNG")


def draw_labels(labels: npt.NDArray[Any], image: DecodedImage, classes: ClassMap, mask_format: str) -> Image.Image:
    """Return class ids as an image.

    Args:
        labels: Class ids, shape (H, W).
        image: What they were predicted from; only `overlay` shows it.
        classes: Colours, for `palette` and `overlay`.
        mask_format: `ids` gives grey values, 8 bits up to 256 classes and 16 above; `palette` 8-bit ids with a colour
            table; `overlay` the colours over the image.
    """
    if mask_format == "overlay":
        return draw_overlay(show_as_rgb(image), labels, classes)
    if mask_format == "palette":
        drawn = Image.fromarray(labels.astype(np.uint8))
        drawn.putpalette([channel for color in classes.colors for channel in color])
        return drawn
    return Image.fromarray(labels.astype(np.uint8 if classes.num_classes <= 256 else np.uint16))


def write_labels(
    path: Path, labels: npt.NDArray[Any], image: DecodedImage, classes: ClassMap, mask_format: str
) -> None:
    """Write class ids as a PNG; see `draw_labels`."""
    with write_whole(path) as temporary:
        draw_labels(labels, image, classes, mask_format).save(temporary, "PNG")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, or as Parquet where the file is named so.

    Raises:
        InputError: If the file is named otherwise.
    """
    _check_suffix(path)
    columns = list(rows[0]) if rows else []
    with write_whole(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), temporary)
            return
        with temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            # An absent number is an empty cell.
            writer.writerows(["" if row[c] != row[c] else row[c] for c in columns] for row in rows)


def check_table_name(path: Path) -> None:
    """Refuse a table that is neither CSV nor Parquet, or not inside the folder of results.

    Raises:
        InputError: If so.
    """
    _check_suffix(path)
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"per_image {path}: outside of the folder of results", allowed="a name inside it")


def _check_suffix(path: Path) -> None:
    if path.suffix not in TABLE_SUFFIXES:
        raise InputError(f"{path}: not a table", found=path.suffix or "no suffix", allowed=", ".join(TABLE_SUFFIXES))

"""What a label map measures: the area of each class, and each of its objects."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segplus.inference.postprocessing.components import number_objects

Labels = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
# What a pixel of an outline adds to its length, by how many of its neighbours lie on the outline, and where.
_NEIGHBOURS = np.array([[10, 2, 10], [2, 1, 2], [10, 2, 10]], dtype=np.float32)
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
_COARSE_MM2 = 99.9  # a pixel of a centimetre, but for rounding: from there on areas are m2
_LENGTHS = np.zeros(50)
_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1
_LENGTHS[[21, 33]] = math.sqrt(2)
_LENGTHS[[13, 23]] = (1 + math.sqrt(2)) / 2


def measure_classes(
    labels: Labels, class_names: Sequence[str], pixel_size_mm: tuple[float, float] | None = None
) -> dict[str, dict[str, float]]:
    """Return area and share of each class of an image.

    Args:
        labels: Class ids, shape (H, W); other ids belong to no class.
        class_names: Position is the class id.
        pixel_size_mm: Height and width of a pixel in millimetres.
    Returns:
        Class name -> area_px, share (of all pixels, in [0, 1]), and area_mm2 where the size of a pixel is known.
    """
    areas = np.bincount(labels.ravel(), minlength=len(class_names))
    measured: dict[str, dict[str, float]] = {}
    for name, area in zip(class_names, areas.tolist(), strict=False):
        measured[name] = {"area_px": area, "share": area / labels.size}
        if pixel_size_mm is not None:
            measured[name]["area_mm2"] = _trim(area * math.prod(pixel_size_mm))
    return measured


def measure_objects(
    labels: Labels,
    class_names: Sequence[str],
    confidence: npt.NDArray[np.float32] | None = None,
    pixel_size_mm: tuple[float, float] | None = None,
    *,
    among: Sequence[str] | None = None,
    with_contours: bool = False,
) -> list[dict[str, Any]]:
    """Return the figures of each object, a region of a class whose pixels touch by an edge or a corner.

    They are those of scikit-image's regionprops, computed for all objects of a class at once.

    Args:
        labels: Class ids, shape (H, W).
        class_names: Position is the class id.
        confidence: Probability of each pixel's class, shape (H, W); None leaves the mean out.
        pixel_size_mm: Height and width of a pixel in millimetres.
        among: The classes whose objects are listed; None for all of them.
        with_contours: Also list the outlines of each object.
    Returns:
        By class and from the top: class, area_px, area_mm2 where the size of a pixel is known, top_px, left_px,
        height_px and width_px of the box, centroid_y_px and centroid_x_px, perimeter_px, the axes of the ellipse of the
        same moments, its angle to the vertical, mean_confidence, and contours: from `trace_contours`.
    """
    objects: list[dict[str, Any]] = []
    for class_id in np.unique(labels[labels < len(class_names)]).tolist():
        if among is not None and class_names[class_id] not in among:
            continue
        numbers, boxes = number_objects(labels == class_id)
        shapes = _measure_shapes(numbers, len(boxes))
        if confidence is not None:
            sums = np.bincount(numbers.ravel(), confidence.ravel(), minlength=len(boxes))
            shapes["mean_confidence"] = sums[1:] / boxes[1:, 4]
        for position, (left, top, width, height, area) in enumerate(boxes[1:].tolist()):
            one: dict[str, Any] = {"class": class_names[class_id], "area_px": area}
            if pixel_size_mm is not None:
                one["area_mm2"] = _trim(area * math.prod(pixel_size_mm))
            one |= {"top_px": top, "left_px": left, "height_px": height, "width_px": width}
            one |= {name: values[position] for name, values in shapes.items()}
            one = {key: value if key == "area_mm2" else _round(value) for key, value in one.items()}
            if with_contours:
                box = slice(top, top + height), slice(left, left + width)
                one["contours"] = trace_contours(numbers[box] == position + 1, left, top)
            objects.append(one)
    return objects


def trace_contours(mask: npt.NDArray[np.bool_], left: int = 0, top: int = 0) -> list[list[list[int]]]:
    """Return the outline of an object, and of each hole in it: [x, y] of the pixels where it turns, in pixels.

    Args:
        mask: The object's pixels in its box, shape (H, W).
        left: Column of the box in the image.
        top: Row of the box in the image.
    Reference:
        Suzuki and Abe, Topological structural analysis of digitized binary images by border following, 1985.
    """
    outlines, parents = cv2.findContours(
        mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top)
    )
    outer_first = np.argsort(parents[0, :, 3] >= 0, kind="stable")
    return [outlines[position][:, 0].tolist() for position in outer_first]


def _measure_shapes(numbers: npt.NDArray[np.int32], count: int) -> dict[str, Floats]:
    """Return figure -> its value for each object, shape (count - 1,), of objects that do not touch.

    Args:
        numbers: Of each pixel's object, 0 outside, shape (H, W).
        count: Objects, and what lies outside.
    Reference:
        Perimeter: Benkrid, Crookes and Benkrid, Design and FPGA implementation of a perimeter estimator, 2000.
    """
    rows, columns = np.divmod(np.flatnonzero(numbers), numbers.shape[1])
    own = numbers[rows, columns]
    area = np.bincount(own, minlength=count)[1:].astype(np.float64)

    def average(values: Floats) -> Floats:
        return np.asarray(np.bincount(own, values, minlength=count)[1:] / area)

    middle_y, middle_x = average(rows.astype(np.float64)), average(columns.astype(np.float64))
    down, right = rows - middle_y[own - 1], columns - middle_x[own - 1]
    tall, wide, both = average(down**2), average(right**2), average(down * right)
    spread = np.sqrt(4 * both**2 + (tall - wide) ** 2)
    angle = np.where(tall == wide, np.where(both > 0, np.pi / 4, -np.pi / 4), np.arctan2(2 * both, tall - wide) / 2)
    mask = (numbers > 0).view(np.uint8)
    outline = mask - cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    around = cv2.filter2D(outline, cv2.CV_8U, _NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
    return {
        "centroid_y_px": middle_y,
        "centroid_x_px": middle_x,
        "perimeter_px": np.bincount(own, _LENGTHS[around[rows, columns]], minlength=count)[1:],
        "major_axis_px": 4 * np.sqrt((tall + wide + spread) / 2),
        "minor_axis_px": 4 * np.sqrt(np.maximum(tall + wide - spread, 0) / 2),
        "orientation_rad": angle,
    }


def _trim(area: float) -> float:
    """Return an area to nine digits, wherever its point is: pixels of a microscope have millionths of a mm2."""
    return float(f"{area:.9g}")


def _round(value: Any) -> Any:
    """Return a number of a measurement with what a table needs of its digits."""
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


def state_areas(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the records with areas in m2 where every pixel is a centimetre wide or more, otherwise as they are.

    Args:
        records: classes (from `measure_classes`) and perhaps objects (from `measure_objects`) of each image.
    """
    areas = [entry for record in records for entry in record["classes"].values()]
    pixels_mm2 = [entry["area_mm2"] / entry["area_px"] for entry in areas if "area_mm2" in entry and entry["area_px"]]
    if not pixels_mm2 or min(pixels_mm2) < _COARSE_MM2:
        return [dict(record) for record in records]
    return [
        {
            **record,
            "classes": {name: _turn_to_m2(entry) for name, entry in record["classes"].items()},
            **({"objects": [_turn_to_m2(one) for one in record["objects"]]} if "objects" in record else {}),
        }
        for record in records
    ]


def _turn_to_m2(entry: Mapping[str, Any]) -> dict[str, Any]:
    turned = {"area_m2" if key == "area_mm2" else key: value for key, value in entry.items()}
    return turned | {"area_m2": _trim(turned["area_m2"] / 1e6)} if "area_m2" in turned else turned


def tabulate_images(
    records: Sequence[Mapping[str, Any]], class_names: Sequence[str], among: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row an image: its name and size, and area, share and number of objects of each class.

    Args:
        records: image, height_px, width_px, classes (from `measure_classes`) and objects (from `measure_objects`).
        class_names: Position is the class id.
        among: The classes whose objects were counted.
    """
    stated = {key for record in records for entry in record["classes"].values() for key in entry}
    unit = next((key for key in ("area_m2", "area_mm2") if key in stated), None)
    rows = []
    for record in records:
        row = {key: record[key] for key in ("image", "height_px", "width_px")}
        for name in class_names:
            measured = record["classes"][name]
            row |= {f"area_px/{name}": measured["area_px"], f"share/{name}": measured["share"]}
            if unit is not None:
                row[f"{unit}/{name}"] = measured.get(unit, math.nan)
            if name in among:
                row[f"objects/{name}"] = sum(one["class"] == name for one in record["objects"])
        rows.append(row)
    return rows


def tabulate_objects(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row an object, with the name of its image; contours are text, as JSON writes them."""
    rows = [{"image": record["image"], **one} for record in records for one in record["objects"]]
    return [row | {"contours": json.dumps(row["contours"])} if "contours" in row else row for row in rows]

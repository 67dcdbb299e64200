"""Polygons and run lengths as masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw


def draw_annotation(annotation: dict[str, Any]) -> npt.NDArray[np.int32]:
    """Return the raw values of a mask that is stored as shapes.

    Args:
        annotation: {"size": [H, W], "background": value, "shapes": [...]}. A shape has a "value" and one of "polygons"
            ([[x, y, x, y, ...], ...], drawn as COCO does), "rle" ({"size", "counts"}), "points" ([[x, y], ...], drawn
            as labelme does) and "circle" ([centre, point on the edge]). Later shapes lie on top.

    Returns:
        Raw values, int32, shape (H, W).
    """
    height, width = annotation["size"]
    raw = np.full((height, width), annotation["background"], dtype=np.int32)
    for shape in annotation["shapes"]:
        if "points" in shape:
            inside = _fill_points(shape["points"], height, width)
        elif "circle" in shape:
            inside = _fill_circle(shape["circle"], height, width)
        else:
            inside = _fill_coco(shape, height, width)
        raw[inside] = shape["value"]
    return raw


def _fill_points(points: list[list[float]], height: int, width: int) -> npt.NDArray[np.bool_]:
    plane = Image.new("1", (width, height))
    ImageDraw.Draw(plane).polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(plane)


def _fill_circle(points: list[list[float]], height: int, width: int) -> npt.NDArray[np.bool_]:
    (x, y), (edge_x, edge_y) = points
    rows, columns = np.ogrid[:height, :width]
    inside: npt.NDArray[np.bool_] = (columns - x) ** 2 + (rows - y) ** 2 <= (edge_x - x) ** 2 + (edge_y - y) ** 2
    return inside


def _fill_coco(shape: dict[str, Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    if "rle" in shape:
        rle = shape["rle"]
        if list(rle["size"]) != [height, width]:
            raise ValueError(f"run lengths for {rle['size']}, image of {[height, width]}")
        counts = rle["counts"] if isinstance(rle["counts"], list) else unpack_counts(rle["counts"])
        return expand_runs(counts, height, width)
    from pycocotools import mask as coco_mask  # loaded for data sets with polygons only

    parts = [part for part in shape["polygons"] if len(part) >= 6]
    if not parts:
        return np.zeros((height, width), dtype=np.bool_)
    merged = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    return expand_runs(unpack_counts(merged["counts"].decode()), height, width)


def expand_runs(counts: list[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the mask of run lengths, which alternate from outside and go down the columns.

    Raises:
        ValueError: If they do not add up to the image.
    """
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"run lengths of {sum(counts)} pixels, image of {height * width}")
    inside = np.arange(len(counts)) % 2 == 1
    drawn: npt.NDArray[np.bool_] = np.repeat(inside, counts).reshape(width, height).T
    return drawn


def unpack_counts(packed: str) -> list[int]:
    """Return the run lengths of COCO's text form: 5 bits a character, low bits first, later runs as differences.

    Reference:
        COCO API, maskApi.c, rleFrString. https://github.com/cocodataset/cocoapi
    """
    counts: list[int] = []
    value = shift = 0
    for character in packed:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift  # negative: extend the sign
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts

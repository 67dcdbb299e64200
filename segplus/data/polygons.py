"""Polygons and run lengths as masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw


def draw_annotation(annotation: dict[str, Any]) -> npt.NDArray[np.int32]:
    """Return the raw values of a mask that is stored as shapes.

    Args:
        annotation: {"size": [H, W], "background": value, "shapes": [{"value": value, and one of "polygons" ([[x, y, x, y, ...], ...],
            rasterised as COCO does), "rle" ({"size", "counts"}), "points" (pixel-centre polygon, drawn as labelme does)}]};
            later shapes lie on top.

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
    from pycocotools import mask as coco_mask  # loaded for data sets with run lengths and polygons only

    if "rle" in shape:
        rle = shape["rle"]
        packed = coco_mask.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else dict(rle)
        if isinstance(packed["counts"], str):
            packed["counts"] = packed["counts"].encode()
        if list(packed["size"]) != [height, width]:
            raise ValueError(f"run lengths for {packed['size']}, image of {[height, width]}")
    else:
        parts = [part for part in shape["polygons"] if len(part) >= 6]
        if not parts:
            return np.zeros((height, width), dtype=np.bool_)
        packed = coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    drawn: npt.NDArray[np.bool_] = coco_mask.decode(packed).astype(np.bool_)
    return drawn

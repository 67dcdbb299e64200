"""Polygons and run lengths as masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from segplus.data.decoding.stored import LOSSY_FORMATS, open_with_pillow, report_damage
from segplus.errors import InputError


def draw_annotation(annotation: dict[str, Any]) -> npt.NDArray[np.int32]:
    """Return the raw values of a mask that is stored as shapes.

    Args:
        annotation: {"size": [H, W], "background": value, "shapes": [...]}. A shape has a "value" and one of "polygons"
            ([[x, y, x, y, ...], ...], drawn as COCO does), "rle" ({"size", "counts"}), "points" ([[x, y], ...], drawn
            as labelme does), "circle" ([centre, point on the edge]), "runs" ("start length start length ...", down the
            columns from 1) and "file" (path of a mask of this shape alone). Later shapes lie on top, unless "disjoint"
            says that two of different values may not share a pixel.

    Returns:
        Raw values, int32, shape (H, W).
    Raises:
        InputError: If shapes that should be disjoint overlap, or a file cannot be read.
    """
    height, width = annotation["size"]
    raw = np.full((height, width), annotation["background"], dtype=np.int32)
    for shape in annotation["shapes"]:
        if "file" in shape:
            inside = read_plane(shape["file"], height, width)
        elif "runs" in shape:
            inside = fill_runs(shape["runs"], height, width, along_rows=shape.get("order") == "rows")
        elif "points" in shape:
            inside = _fill_points(shape["points"], height, width)
        elif "circle" in shape:
            inside = _fill_circle(shape["circle"], height, width)
        else:
            inside = _fill_coco(shape, height, width)
        if annotation.get("disjoint"):
            _refuse_overlap(raw[inside], annotation["background"], shape)
        raw[inside] = shape["value"]
    return raw


def _refuse_overlap(covered: npt.NDArray[np.int32], background: int, shape: dict[str, Any]) -> None:
    shared = int(((covered != background) & (covered != shape["value"])).sum())
    if shared:
        raise InputError(
            f"{shape.get('file', 'a mask')}: pixels of two classes",
            found=f"{shared} pixels are another class's, too",
            fix="list data.classes in the order in which they are drawn: a later class lies on top",
        )


def read_plane(path: str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return where a mask file of one object or class is not 0, or nearer to 255 in a lossy file, shape (H, W).

    Raises:
        InputError: If the file is damaged or of another size.
    """
    with report_damage(path), open_with_pillow(path) as image:
        is_lossy = image.format in LOSSY_FORMATS
        deep = image.mode.startswith(("I", "F"))
        plane = np.asarray(image if deep or image.mode in ("1", "L") else image.convert("L"))
    if plane.shape != (height, width):
        found = f"{plane.shape[1]} x {plane.shape[0]} px, the image {width} x {height}"
        raise InputError(f"{path}: not of its image's size", found=found, fix="export the mask again")
    inside: npt.NDArray[np.bool_] = plane >= 128 if is_lossy else plane > 0
    return inside


def fill_runs(runs: str, height: int, width: int, along_rows: bool = False) -> npt.NDArray[np.bool_]:
    """Return the mask of runs (start, length), which go down the columns or along the rows from pixel 1, shape (H, W).

    Raises:
        ValueError: If they are no such pairs, or leave the image.
    """
    numbers = np.array(runs.split(), dtype=np.int64)
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    if len(numbers) % 2 or (numbers < 1).any() or (starts + lengths > height * width).any():
        raise ValueError(f"run lengths that are no pairs of start and length inside {width} x {height} px: {runs[:40]}")
    steps = np.zeros(height * width + 1, dtype=np.int32)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + lengths, -1)
    covered: npt.NDArray[np.bool_] = steps[:-1].cumsum() > 0
    return covered.reshape(height, width) if along_rows else covered.reshape(width, height).T


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
        return decode_runs(rle["counts"], height, width)
    polygons = [polygon for polygon in shape["polygons"] if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), dtype=np.bool_)
    coco_mask = _load_coco_mask()
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return np.asarray(coco_mask.decode(merged), dtype=np.bool_)


def _load_coco_mask() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        fix = "pip install 'segplus[coco]'"
        raise InputError("polygons and compressed run lengths need pycocotools", fix=fix) from None
    return mask


def decode_runs(counts: list[int] | str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the mask of run lengths, which alternate from outside and go down the columns.

    Args:
        counts: The lengths, as numbers or in COCO's text form.
        height: Rows of the image.
        width: Columns of the image.
    Raises:
        ValueError: If they do not add up to the image.
    """
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts, default=0) < 0:
            raise ValueError(f"run lengths of {sum(counts)} pixels, image of {height * width}")
        rle = _load_coco_mask().frPyObjects({"size": [height, width], "counts": counts}, height, width)
    elif _ends_early(counts, height * width):
        raise ValueError(f"run lengths of less than the {height * width} pixels of the image")
    else:
        rle = {"size": [height, width], "counts": counts}
    return np.asarray(_load_coco_mask().decode(rle), dtype=np.bool_)


def _ends_early(counts: str, pixels: int) -> bool:
    """Return whether runs do not cover an image; pycocotools refuses only longer ones, and leaves the rest unset."""
    if not counts or ord(counts[-1]) - 48 & 0x20:  # in the middle of a number: it would read on behind the text
        return True
    try:
        _load_coco_mask().decode({"size": [pixels - 1, 1], "counts": counts})
    except ValueError:
        return False  # they do not fit into one pixel less
    return True

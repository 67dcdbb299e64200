"""Which part of an image becomes a training picture, and how it is cut out: image and mask by the same rectangle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Size = tuple[int, int]
_SHARE_STRIDE = 4  # every 4th pixel a side is enough to know a class's share


@dataclass(frozen=True)
class Cut:
    """Two rectangles (top, left, height, width), whole pixels: of the image, and of the picture that it fills."""

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]


class ServedSize:
    """The size to which the image processor resizes an image, asked of the processor itself.

    Args:
        image_processor: The processor that is saved with the model.
    """

    def __init__(self, image_processor: Any) -> None:
        self.settings = image_processor.to_dict()
        self.image_processor = image_processor
        self._known: dict[Size, Size] = {}

    def find(self, height_px: int, width_px: int) -> Size:
        """Return (height, width) after the processor's resize of an image of this size."""
        if not self.settings.get("do_resize", False):
            return height_px, width_px
        if (height_px, width_px) not in self._known:
            blank = Image.new("RGB", (width_px, height_px))
            flags = ("do_rescale", "do_normalize", "do_center_crop", "do_pad")
            off = {key: False for key in flags if key in self.settings}
            answer = self.image_processor([blank], return_tensors="np", **off)["pixel_values"][0]
            self._known[(height_px, width_px)] = (int(answer.shape[-2]), int(answer.shape[-1]))
        return self._known[(height_px, width_px)]

    def find_crop(self) -> Size | None:
        """Return the crop that suits the processor: its fixed size, a square of its shortest edge, or None."""
        size = dict(self.settings.get("size") or {})
        if not self.settings.get("do_resize", False):
            return None
        if size.get("height") and size.get("width"):
            return int(size["height"]), int(size["width"])
        edge = size.get("shortest_edge")
        return (int(edge), int(edge)) if edge else None


def draw_cut(rng: np.random.Generator, image: Size, scaled: Size, crop: Size, focus: tuple[int, int] | None) -> Cut:
    """Return a random cut of a crop from an image that is thought of as resized.

    Args:
        rng: Draws the place.
        image: (height, width) of the image.
        scaled: (height, width) to which the whole image would be resized.
        crop: (height, width) of the picture; where it is larger than `scaled`, the rest stays empty.
        focus: (row, column) of the image that the cut must hold.
    """
    rows = _draw_span(rng, image[0], scaled[0], crop[0], None if focus is None else focus[0])
    columns = _draw_span(rng, image[1], scaled[1], crop[1], None if focus is None else focus[1])
    return Cut((rows[0], columns[0], rows[1], columns[1]), (rows[2], columns[2], rows[3], columns[3]))


def _draw_span(
    rng: np.random.Generator, side: int, scaled: int, crop: int, focus: int | None
) -> tuple[int, int, int, int]:
    """Return start and length in the image, start and length in the picture, along one axis."""
    filled = min(scaled, crop)
    taken = min(max(round(filled * side / scaled), 1), side)
    low, high = 0, side - taken
    if focus is not None:
        low, high = max(low, focus - taken + 1), min(high, focus)
    return int(rng.integers(low, high + 1)), taken, int(rng.integers(0, crop - filled + 1)), filled


def measure_class_share(label: npt.NDArray[Any], cut: Cut, ignore_index: int) -> float:
    """Return the largest share that one class has of a cut's pixels, ignored ones left out; 0 where all are ignored."""
    top, left, height, width = cut.source
    sparse = label[top : top + height : _SHARE_STRIDE, left : left + width : _SHARE_STRIDE]
    counts = np.bincount(sparse.ravel(), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    total = int(counts.sum())
    return float(counts.max() / total) if total else 0.0


def cut_image(
    image: Image.Image | npt.NDArray[np.uint8], cut: Cut, crop: Size, fill: tuple[int, ...], resample: int
) -> npt.NDArray[np.uint8]:
    """Return the picture, uint8, shape (*crop, C): the cut resized, the rest filled.

    Shrinking uses the image processor's own filter, which averages; bilinear enlarging gives the same in either library
    to a rounding, and OpenCV is faster at it.
    """
    top, left, height, width = cut.source
    size = cut.target[2:]
    if size == (height, width):
        piece = _take(image, cut)
    elif size[0] >= height and size[1] >= width and resample == Image.Resampling.BILINEAR:
        enlarged = cv2.resize(_take(image, cut), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        piece = enlarged.astype(np.uint8, copy=False).reshape(*size, -1)  # OpenCV drops an axis of one channel
    elif isinstance(image, Image.Image):
        box = (left, top, left + width, top + height)
        piece = np.asarray(image.resize((size[1], size[0]), Image.Resampling(resample), box=box))
    else:
        bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(_take(image, cut), 2, 0)]
        piece = np.stack([np.asarray(b.resize((size[1], size[0]), Image.Resampling(resample))) for b in bands], axis=2)
    if size == crop:
        return np.array(piece, np.uint8, order="C")  # a copy: the steps may write, the caller's pixels stay
    picture: npt.NDArray[np.uint8] = _draw_blank(crop, fill).copy()
    picture[cut.target[0] : cut.target[0] + size[0], cut.target[1] : cut.target[1] + size[1]] = piece
    return picture


@lru_cache(maxsize=8)
def _draw_blank(size: Size, fill: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return a picture of one colour; copying it is ten times faster than filling a new one."""
    return np.tile(np.array(fill, np.uint8), (*size, 1))


def _take(image: Image.Image | npt.NDArray[np.uint8], cut: Cut) -> npt.NDArray[np.uint8]:
    top, left, height, width = cut.source
    if isinstance(image, Image.Image):
        return np.asarray(image.crop((left, top, left + width, top + height)))
    part: npt.NDArray[np.uint8] = image[top : top + height, left : left + width]
    return part


def cut_label(label: npt.NDArray[Any], cut: Cut, crop: Size, ignore_index: int) -> npt.NDArray[Any]:
    """Return the class ids of the picture, shape `crop`: the cut by nearest neighbour, the rest ignored."""
    top, left, height, width = cut.source
    down, right, rows, columns = cut.target
    piece = label[top : top + height, left : left + width]
    if (rows, columns) != (height, width):
        piece = piece.take(_find_nearest(rows, height), axis=0).take(_find_nearest(columns, width), axis=1)
    if (rows, columns) == crop:
        return np.array(piece, order="C")
    picture = np.full(crop, ignore_index, label.dtype)
    picture[down : down + rows, right : right + columns] = piece
    return picture


def _find_nearest(length: int, source: int) -> npt.NDArray[np.int64]:
    """Return the source pixel whose area holds the middle of each of `length` new pixels."""
    return ((2 * np.arange(length) + 1) * source) // (2 * length)

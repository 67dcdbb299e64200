"""Which rectangle of an image becomes a training image, and how it is cut out, of image and mask alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.images import Box

Size = tuple[int, int]
_SHARE_STRIDE = 4  # every 4th pixel a side is enough to know a class's share
# How far each of Pillow's filters sees, in pixels of the smaller image; newer ones see 4.5 pixels far at most.
_SUPPORT_PX = {
    Image.Resampling.NEAREST: 0.5,
    Image.Resampling.BOX: 0.5,
    Image.Resampling.BILINEAR: 1.0,
    Image.Resampling.HAMMING: 1.0,
    Image.Resampling.BICUBIC: 2.0,
    Image.Resampling.LANCZOS: 3.0,
}
_MOST_SUPPORT_PX = 5.0


@dataclass(frozen=True)
class Cut:
    """Two rectangles: of the image, and of the crop that it fills."""

    source: Box
    target: Box


class ServedSize:
    """The size to which the image processor resizes an image, asked of the processor itself.

    Args:
        image_processor: The processor that is saved with the model.
    """

    def __init__(self, image_processor: Any) -> None:
        self.settings = image_processor.to_dict()
        self.image_processor = image_processor
        self._known: dict[tuple[Any, ...], Size] = {}

    def find(self, height_px: int, width_px: int, size: Mapping[str, int] | None = None) -> Size:
        """Return (height, width) after the processor's resize of an image of this size.

        Args:
            height_px: Height of the image.
            width_px: Width of the image.
            size: Replaces the processor's own `size`.
        """
        if not self.settings.get("do_resize", False):
            return height_px, width_px
        key = (height_px, width_px, *(size or {}).items())
        if key not in self._known:
            blank = Image.new("RGB", (width_px, height_px))
            flags = ("do_rescale", "do_normalize", "do_center_crop", "do_pad", "do_split_image")
            changes: dict[str, Any] = {flag: False for flag in flags if flag in self.settings}
            changes |= {} if size is None else {"size": dict(size)}
            answer = self.image_processor([blank], return_tensors="np", **changes)["pixel_values"][0]
            self._known[key] = (int(answer.shape[-2]), int(answer.shape[-1]))
        return self._known[key]

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
        rng: Draws the position.
        image: (height, width) of the image.
        scaled: (height, width) to which the whole image would be resized.
        crop: (height, width) of the crop; where it is larger than `scaled`, the rest stays empty.
        focus: (row, column) of the image that the cut must hold.
    """
    rows = _draw_span(rng, image[0], scaled[0], crop[0], None if focus is None else focus[0])
    columns = _draw_span(rng, image[1], scaled[1], crop[1], None if focus is None else focus[1])
    return Cut((rows[0], columns[0], rows[1], columns[1]), (rows[2], columns[2], rows[3], columns[3]))


def _draw_span(
    rng: np.random.Generator, side: int, scaled: int, crop: int, focus: int | None
) -> tuple[int, int, int, int]:
    """Return start and length in the image, start and length in the crop, along one axis."""
    filled = min(scaled, crop)
    taken = min(max(round(filled * side / scaled), 1), side)
    low, high = 0, side - taken
    if focus is not None:
        low, high = max(low, focus - taken + 1), min(high, focus)
    return int(rng.integers(low, high + 1)), taken, int(rng.integers(0, crop - filled + 1)), filled


def find_resample(settings: Mapping[str, Any]) -> int:
    """Return the filter of an image processor's resize, as PIL numbers it."""
    resample = settings.get("resample")
    return int(Image.Resampling.BILINEAR if resample is None else resample)


def resize_channels(
    image: npt.NDArray[Any], size: Size, resample: int, region: tuple[int, int, int, int] | None = None
) -> npt.NDArray[Any]:
    """Return an image of any number of channels, shape (H, W, C), at (height, width), each channel as PIL resizes grey.

    uint8 stays uint8; every other type becomes float32.

    `region` is the (left, top, right, bottom) to resize alone.
    """
    narrow = image if image.dtype == np.uint8 else image.astype(np.float32, copy=False)
    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(narrow, 2, 0)]
    filter_ = Image.Resampling(resample)
    resized = [channel.resize((size[1], size[0]), filter_, box=region) for channel in channels]
    return np.stack([np.asarray(channel) for channel in resized], axis=2)


def measure_class_share(label: npt.NDArray[Any], ignore_index: int) -> float:
    """Return the largest share that one class has of a cut's pixels, ignored ones left out; 0 where all are ignored."""
    sparse = label[::_SHARE_STRIDE, ::_SHARE_STRIDE]
    counts = np.bincount(sparse.ravel(), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    total = int(counts.sum())
    return float(counts.max() / total) if total else 0.0


def find_box(cut: Cut, image: Size, resample: int) -> Box:
    """Return the rectangle of an image of this (height, width) that `cut_image` needs.

    It is the cut and, where it is resized by Pillow's filter, what the filter sees around it.
    """
    top, left, height, width = cut.source
    if cut.target[2:] == (height, width) or _is_enlarged(cut, resample):
        return cut.source
    support = _SUPPORT_PX.get(Image.Resampling(resample), _MOST_SUPPORT_PX)
    rows, columns = (
        math.ceil(support * max(source / target, 1.0)) + 1
        for source, target in ((height, cut.target[2]), (width, cut.target[3]))
    )
    first_row, first_column = max(top - rows, 0), max(left - columns, 0)
    end_row, end_column = min(top + height + rows, image[0]), min(left + width + columns, image[1])
    return first_row, first_column, end_row - first_row, end_column - first_column


def cut_image(
    pixels: npt.NDArray[Any], box: Box, cut: Cut, crop: Size, fill: tuple[int, ...], resample: int
) -> npt.NDArray[Any]:
    """Return the crop in the pixels' own type, shape (*crop, C): the cut resized, the rest filled.

    Shrinking uses the image processor's own filter, which averages; bilinear enlarging gives the same in either library
    to a rounding, and OpenCV is faster at it.

    Args:
        pixels: The image's pixels inside `box`, uint8 or float32, shape (h, w, C).
        box: From `find_box`.
        cut: From `draw_cut`.
        crop: (height, width) of the crop.
        fill: One value a channel.
        resample: Pillow's number of the image processor's filter.
    """
    size = cut.target[2:]
    if size == cut.source[2:]:
        resized = pixels
    elif _is_enlarged(cut, resample):
        enlarged = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        resized = np.asarray(enlarged).reshape(*size, -1)  # OpenCV drops an axis of one channel
    else:
        resized = _resize_inside(pixels, box, cut, resample)
    if size == crop:
        return np.array(resized, pixels.dtype, order="C")  # a copy: the steps may write, the caller's pixels stay
    image: npt.NDArray[Any] = _draw_blank(crop, fill).astype(pixels.dtype)
    image[cut.target[0] : cut.target[0] + size[0], cut.target[1] : cut.target[1] + size[1]] = resized
    return image


def _is_enlarged(cut: Cut, resample: int) -> bool:
    (height, width), (rows, columns) = cut.source[2:], cut.target[2:]
    return rows >= height and columns >= width and resample == Image.Resampling.BILINEAR


def _resize_inside(pixels: npt.NDArray[Any], box: Box, cut: Cut, resample: int) -> npt.NDArray[Any]:
    top, left = cut.source[0] - box[0], cut.source[1] - box[1]
    region = (left, top, left + cut.source[3], top + cut.source[2])
    if pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        return resize_channels(pixels, (cut.target[2], cut.target[3]), resample, region)
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((cut.target[3], cut.target[2]), Image.Resampling(resample), box=region))


@lru_cache(maxsize=8)
def _draw_blank(size: Size, fill: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return an image of one colour; copying it is ten times faster than filling a new one."""
    return np.tile(np.array(fill, np.uint8), (*size, 1))


def cut_label(label: npt.NDArray[Any], cut: Cut, crop: Size, ignore_index: int) -> npt.NDArray[Any]:
    """Return the class ids of the crop, shape `crop`: the cut by nearest neighbour, the rest ignored.

    Args:
        label: The mask inside `cut.source`.
        cut: From `draw_cut`.
        crop: (height, width) of the crop.
        ignore_index: Fills the rest.
    """
    height, width = label.shape
    down, right, rows, columns = cut.target
    if (rows, columns) != (height, width):
        label = label.take(_find_nearest(rows, height), axis=0).take(_find_nearest(columns, width), axis=1)
    if (rows, columns) == crop:
        return np.array(label, order="C")
    labels = np.full(crop, ignore_index, label.dtype)
    labels[down : down + rows, right : right + columns] = label
    return labels


def _find_nearest(length: int, source: int) -> npt.NDArray[np.int64]:
    """Return the source pixel whose area holds the middle of each of `length` new pixels."""
    return ((2 * np.arange(length) + 1) * source) // (2 * length)

"""Rectangles of images and masks: read without decoding the whole where the format allows, pixels as of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.data.decoding.arrays import is_mapped, map_array
from segplus.data.decoding.depth import is_cut_to_bytes
from segplus.data.decoding.headers import find_plain_jpeg_size, shorten_jpeg, shorten_png
from segplus.data.decoding.image_reader import ImageReader, find_orientation, has_many_channels
from segplus.data.decoding.masks import MaskDecoder, refuse_mask_pages
from segplus.data.decoding.quick_decoders import decode_jpeg
from segplus.data.decoding.stored import (
    Stored,
    find_suffix,
    open_with_pillow,
    read_content,
    refuse_large,
    report_damage,
)
from segplus.data.decoding.tiff import find_plain_layout, read_layout, read_tiff_box
from segplus.images import Box, OpenPair, take_box

Pixels = npt.NDArray[Any]
_MOST_ROWS = 0.85  # of a JPEG; where more are needed, OpenCV decodes all sooner than Pillow these
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", "")  # images in a table may come without a name
_TIFF_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class Regions:
    """One image or mask, of which rectangles are read.

    Args:
        size_px: (height, width) of the whole.
        source: Name for messages.
        take: Box -> pixels, shape (height, width, ...).
    """

    size_px: tuple[int, int]
    source: str
    take: Callable[[Box], Pixels]

    def read(self, box: Box) -> Pixels:
        """Return the pixels inside (top, left, height, width).

        Raises:
            InputError: If the file is damaged there, or holds a value outside the classes.
        """
        with report_damage(self.source):
            return self.take(box)


def open_arrays(image: Pixels, label: Pixels) -> OpenPair:
    """Return the pair of an image (H, W, channels) and a mask (H, W) that are in memory, or mapped into it."""
    return OpenPair((label.shape[0], label.shape[1]), partial(take_box, image), partial(take_box, label))


def open_image(reader: ImageReader, stored: Stored, source: str) -> Regions:
    """Return an image of which rectangles are read, with the pixels of `reader.read`.

    Of .npy files, and of TIFF files by strips and tiles, only the rectangle is read; JPEG and PNG images are decoded
    down to its last row. Every other format is decoded here, whole.

    Raises:
        InputError: If the file is missing, damaged, or has another number of channels.
    """
    with report_damage(source):
        if is_mapped(stored):
            channels = reader.arrange_channels(map_array(stored), source)
            size = int(channels.shape[0]), int(channels.shape[1])
            return Regions(size, source, lambda box: reader.fit_values(take_box(channels, box), source))
        if find_suffix(stored) in _TIFF_SUFFIXES:
            return _open_tiff(reader, stored, source) or _open_whole(reader, stored, source)
        if reader.channels == 3 and find_suffix(stored) in _IMAGE_SUFFIXES:
            return _open_jpeg_or_png(reader, stored, source)
        return _open_whole(reader, stored, source)


def open_label(
    decoder: MaskDecoder, stored: Stored, source: str, check_size: Callable[[tuple[int, int]], None] | None = None
) -> Regions:
    """Return a mask of which rectangles of class ids are read, with the ids of `decoder.read`.

    Of .npy files, and of TIFF files of ids or colours by strips and tiles, only the rectangle is read. Every other
    format is decoded here, whole.

    Raises:
        InputError: If the file is missing, damaged, or of another encoding.
    """
    with report_damage(source):
        values = None if decoder.encoding == "one_hot" else _open_values(decoder, stored, source)
        if values is None:
            label = decoder.read(stored, source, check_size)
            return Regions((label.shape[0], label.shape[1]), source, partial(take_box, label))
        size, take = values
        return Regions(size, source, lambda box: decoder.decode_values(take(box), source))


def _open_values(
    decoder: MaskDecoder, stored: Stored, source: str
) -> tuple[tuple[int, int], Callable[[Box], Pixels]] | None:
    """Return the size of a mask, and box -> stored values, where a rectangle of it can be read."""
    if is_mapped(stored):
        array = map_array(stored)
        return ((array.shape[0], array.shape[1]), partial(take_box, array)) if array.ndim in (2, 3) else None
    if find_suffix(stored) not in _TIFF_SUFFIXES:
        return None
    layout = find_plain_layout(stored)
    if layout is None or layout.channels != (3 if decoder.classes.legend else 1):
        return None
    if not layout.is_alone:
        with open_with_pillow(stored) as image:
            refuse_mask_pages(image, source)
    whole = partial(read_tiff_box, layout)
    return layout.size_px, whole if decoder.classes.legend else lambda box: whole(box)[..., 0]


def _open_whole(reader: ImageReader, stored: Stored, source: str) -> Regions:
    """Return an image that is decoded now."""
    image = reader.read(stored, source)
    if isinstance(image, Image.Image):
        return Regions((image.height, image.width), source, partial(_crop, image))
    return Regions((image.shape[0], image.shape[1]), source, partial(take_box, image))


def _crop(image: Image.Image, box: Box) -> Pixels:
    top, left, height, width = box
    whole = box == (0, 0, image.height, image.width)
    cropped = image if whole else image.crop((left, top, left + width, top + height))
    return np.asarray(cropped if cropped.mode == "RGB" else cropped.convert("RGB"))


def _open_tiff(reader: ImageReader, stored: Stored, source: str) -> Regions | None:
    """Return a TIFF image of the types that are read by strips and tiles, or None."""
    layout = find_plain_layout(stored)
    is_grey = layout is not None and layout.channels == 1  # its channels may be its pages
    if layout is None or layout.dtype != np.uint8 or (is_grey and not layout.is_alone):
        if not has_many_channels(stored):
            return None
        layout = read_layout(stored)
    elif layout.channels != reader.channels:
        return None
    elif reader.channels == 3:
        return Regions(layout.size_px, source, partial(read_tiff_box, layout))
    reader.check_shape((*layout.size_px, layout.channels), source)

    def take(box: Box) -> Pixels:
        return reader.fit_values(read_tiff_box(layout, box), source)

    return Regions(layout.size_px, source, take)


def _open_jpeg_or_png(reader: ImageReader, stored: Stored, source: str) -> Regions:
    """Return an image that is decoded down to the row that is needed, or, of other types, now and whole."""
    content = read_content(stored)
    size = find_plain_jpeg_size(content)
    if size is not None:
        refuse_large(size, reader.max_pixels)
        return Regions(size, source, partial(_take_from_jpeg, content, size))
    with open_with_pillow({"bytes": content}, reader.max_pixels) as image:
        plain = image.mode in ("RGB", "L") and not is_cut_to_bytes(image) and find_orientation(image) == 1
        plain_png = image.format == "PNG" and not image.info.keys() & {"transparency", "interlace"}
        size = image.height, image.width
    if plain and image.format == "JPEG":
        return Regions(size, source, partial(_take_from_jpeg, content, size))
    if plain and plain_png:
        return Regions(size, source, partial(_take_rows, content, shorten_png))
    return _open_whole(reader, {"bytes": content, "path": None}, source)


def _take_from_jpeg(content: bytes, size: tuple[int, int], box: Box) -> Pixels:
    """Return the rectangle from the whole where most of it is needed, or else from the rows down to its last one."""
    if box[0] + box[2] > _MOST_ROWS * size[0]:
        whole = decode_jpeg(content)
        if whole is not None and whole.shape[:2] == size:
            return take_box(whole, box)
    return _take_rows(content, shorten_jpeg, box)


def _take_rows(content: bytes, shorten: Callable[[bytes, int], bytes], box: Box) -> Pixels:
    with open_with_pillow({"bytes": shorten(content, box[0] + box[2])}) as image:
        return _crop(image, box)

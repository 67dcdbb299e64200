"""TIFF files read by strips and tiles with tifffile: rectangles of them, and more channels than Pillow takes."""

from __future__ import annotations

import io
import mmap
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from segplus.data.decoding.stored import Stored, find_path, is_in_table, map_content
from segplus.images import Box

_NO_COMPRESSION = 1
_BYTE_COMPRESSIONS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})  # LZW, Deflate, PackBits, LZMA, ZSTD
_PREDICTORS = (1, 2, 3)
_PLAIN = {(1, 1, "u1"), (1, 1, "u2"), (2, 3, "u1")}  # photometric interpretation, samples, type
_PLANES_APART = 2
_MOST_BLOCKS_PX = 1 << 26  # of one strip or tile: it is decoded whole


@dataclass(frozen=True)
class TiffLayout:
    """Where the samples of a TIFF's first page lie.

    Args:
        page: The page, as tifffile describes it.
        content: The file.
        is_alone: The file has no other page.
        size_px: (height, width).
        block_px: (height, width) of a strip or tile.
        channels: Samples of a pixel.
        planes: Sets of strips or tiles: one, or one a channel.
        dtype: Type of a sample, in the machine's byte order.
    """

    page: Any
    content: bytes | mmap.mmap
    is_alone: bool
    size_px: tuple[int, int]
    block_px: tuple[int, int]
    channels: int
    planes: int
    dtype: np.dtype[Any]


def read_layout(stored: Stored) -> TiffLayout:
    """Return where the samples of the first page lie.

    Raises:
        ValueError: If it is no TIFF, or of a type that is not read.
    """
    try:
        content = map_content(stored)
        with tifffile.TiffFile(io.BytesIO(content[:]) if is_in_table(stored) else find_path(stored)) as file:
            page: Any = file.pages.first
            is_alone = len(file.pages) == 1
        size = height, width = int(page.imagelength), int(page.imagewidth)
        strip = max(min(height, int(page.rowsperstrip)), 1), width
        block = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else strip
        channels = int(page.samplesperpixel)
        planes = channels if page.planarconfig == _PLANES_APART else 1
        blocks = planes * -(-height // block[0]) * -(-width // block[1])
    except (IndexError, KeyError, TypeError, ZeroDivisionError, struct.error) as error:
        raise ValueError(f"not a TIFF file, or a damaged one ({type(error).__name__}: {error})") from None
    dtype = np.dtype(page.dtype)
    if page.dtype is None or page.bitspersample != 8 * dtype.itemsize or dtype.kind not in "uif":
        raise ValueError(f"channels of {page.bitspersample} bits; 8, 16, 32 or 64 bits are read")
    if page.predictor not in _PREDICTORS:
        raise ValueError(f"predictor {page.predictor} is not read, save without it")
    if page.is_tiled and block[0] * block[1] > _MOST_BLOCKS_PX:
        raise ValueError(f"tiles of {block} pixels are not read")
    if len(page.dataoffsets) != blocks or len(page.databytecounts) != blocks:
        raise ValueError(f"{len(page.dataoffsets)} strips or tiles where {blocks} belong")
    return TiffLayout(page, content, is_alone, size, block, channels, planes, dtype)


def find_plain_layout(stored: Stored) -> TiffLayout | None:
    """Return the layout of a TIFF whose samples are its pixels and whose blocks can be read one by one, or None.

    These are unsigned greys of 8 or 16 bits and RGB of 8, upright and not premultiplied.
    """
    try:
        layout = read_layout(stored)
    except ValueError:
        return None  # Pillow reads more types, and tells what is damaged
    page = layout.page
    is_upright = (page.tags.valueof(274, 1), page.fillorder) == (1, 1)
    is_plain = (int(page.photometric), layout.channels, layout.dtype.str[1:]) in _PLAIN
    return layout if is_upright and is_plain and page.compression in _BYTE_COMPRESSIONS else None


def read_tiff_box(layout: TiffLayout, box: Box) -> npt.NDArray[Any]:
    """Return the pixels inside (top, left, height, width), shape (height, width, channels), in native byte order.

    Only the strips or tiles that hold the rectangle are read.

    Raises:
        ValueError: If the file is damaged.
    """
    samples = layout.channels // layout.planes
    pixels = np.empty((layout.planes, *box[2:], samples), layout.dtype)
    is_raw = layout.page.compression == _NO_COMPRESSION and layout.page.predictor == 1 and not layout.page.is_tiled
    read = _read_rows if is_raw else _read_blocks
    for plane in range(layout.planes):
        read(layout, plane, box, pixels[plane])
    return np.moveaxis(pixels[..., 0], 0, -1) if layout.planes > 1 else pixels[0]


def _read_rows(layout: TiffLayout, plane: int, box: Box, pixels: npt.NDArray[Any]) -> None:
    """Fill in a rectangle of uncompressed strips, of which only its bytes are read."""
    (top, left, height, width), strip_rows = box, layout.block_px[0]
    dtype = layout.dtype.newbyteorder(layout.page.parent.byteorder)
    row_values = layout.size_px[1] * pixels.shape[-1]
    first = plane * -(-layout.size_px[0] // strip_rows)
    for strip in range(top // strip_rows, -(-(top + height) // strip_rows)):
        start, end = max(top, strip * strip_rows), min(top + height, (strip + 1) * strip_rows)
        offset = layout.page.dataoffsets[first + strip] + (start - strip * strip_rows) * row_values * dtype.itemsize
        values = np.frombuffer(layout.content, dtype, (end - start) * row_values, offset)
        pixels[start - top : end - top] = values.reshape(end - start, -1, pixels.shape[-1])[:, left : left + width]


def _read_blocks(layout: TiffLayout, plane: int, box: Box, pixels: npt.NDArray[Any]) -> None:
    """Fill in a rectangle from the strips or tiles that it touches."""
    (top, left, height, width), page = box, layout.page
    block_height, block_width = layout.block_px
    down, across = (-(-a // b) for a, b in zip(layout.size_px, layout.block_px, strict=True))
    for row in range(top // block_height, -(-(top + height) // block_height)):
        for column in range(left // block_width, -(-(left + width) // block_width)):
            index = (plane * down + row) * across + column
            start, count = page.dataoffsets[index], page.databytecounts[index]
            found = page.decode(layout.content[start : start + count], index)[0]
            if found is None:
                raise ValueError(f"strip or tile {index} is empty")
            y, x, block = row * block_height - top, column * block_width - left, found[0]
            rows = slice(max(y, 0), min(y + block.shape[0], height))
            columns = slice(max(x, 0), min(x + block.shape[1], width))
            pixels[rows, columns] = block[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]

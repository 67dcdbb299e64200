"""TIFF files of more channels than image libraries take: strips or tiles, interleaved or plane by plane.

The compressed bytes of each plane are wrapped in a header that calls them 8-bit grey, so that Pillow's own decoders
(LZW, Deflate, PackBits, ZSTD, ...) undo the compression; only the sample layout is undone here.
"""

from __future__ import annotations

import io
import mmap
import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.images import Box

_TYPES = {1: "B", 3: "H", 4: "I"}  # the integer types of TIFF that sizes and offsets are written in
_FORMATS = {1: "u", 2: "i", 3: "f"}  # sample formats
_NO_COMPRESSION = 1
_BYTE_COMPRESSIONS = frozenset({1, 5, 8, 32946, 32773, 34925, 50000})  # LZW, Deflate, PackBits, LZMA, ZSTD
_PLAIN = {(1, 1, 8), (1, 1, 16), (2, 3, 8)}  # photometric interpretation, samples, bits

Content = bytes | mmap.mmap


@dataclass(frozen=True)
class TiffLayout:
    """Where the samples of a TIFF's first page lie.

    Args:
        size_px: (height, width).
        channels: Samples per pixel.
        dtype: Type of a sample, in the file's byte order.
        compression: TIFF's code of the compression.
        planes_apart: Each channel has strips or tiles of its own.
        predictor: 1 none, 2 differences along the row.
        block_px: (height, width) of a strip or tile.
        tiled: Blocks are tiles.
        offsets: Position of each block.
        counts: Bytes of each block.
        is_alone: The file has no other page.
        is_plain: Unsigned grey of 8 or 16 bits, or RGB of 8, upright and not premultiplied: the samples are the pixels.
    """

    size_px: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    compression: int
    planes_apart: bool
    predictor: int
    block_px: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    is_alone: bool
    is_plain: bool


def read_layout(content: Content) -> TiffLayout:
    """Return where the samples of the first page lie.

    Raises:
        ValueError: If it is no TIFF, or of a type that is not read.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        raise ValueError("not a classic TIFF file; BigTIFF is not read, convert it or save .npy")
    tags, following = _read_tags(content, order)
    bits, formats = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    if len(bits) != 1 or len(formats) != 1 or next(iter(bits)) not in (8, 16, 32, 64) or not formats <= _FORMATS.keys():
        raise ValueError(
            f"channels of {sorted(bits)} bits and sample formats {sorted(formats)}; 8, 16, 32 or 64 bits are read"
        )
    predictor = tags.get(317, (1,))[0]
    if predictor not in (1, 2):
        raise ValueError(f"predictor {predictor} is not read, save without it")
    height, width = tags[257][0], tags[256][0]
    tiled = 324 in tags
    sample_format, depth, channels = formats.pop(), bits.pop(), tags.get(277, (1,))[0]
    upright = tags.get(274, (1,))[0] == 1 and tags.get(266, (1,))[0] == 1
    return TiffLayout(
        size_px=(height, width),
        channels=channels,
        dtype=np.dtype(f"{order}{_FORMATS[sample_format]}{depth // 8}"),
        compression=tags.get(259, (1,))[0],
        planes_apart=tags.get(284, (1,))[0] == 2,
        predictor=predictor,
        block_px=(tags[323][0], tags[322][0]) if tiled else (min(height, tags.get(278, (height,))[0]), width),
        tiled=tiled,
        offsets=tags[324] if tiled else tags[273],
        counts=tags[325] if tiled else tags[279],
        is_alone=not following,
        is_plain=upright and sample_format == 1 and (tags.get(262, (0,))[0], channels, depth) in _PLAIN,
    )


def find_plain_layout(content: Content) -> TiffLayout | None:
    """Return the layout of a TIFF whose samples are its pixels and whose blocks can be read one by one, or None."""
    try:
        layout = read_layout(content)
    except (ValueError, KeyError, struct.error):
        return None  # Pillow reads more types, and tells what is damaged
    return layout if layout.is_plain and layout.compression in _BYTE_COMPRESSIONS else None


def _read_tags(content: Content, order: str) -> tuple[dict[int, tuple[int, ...]], int]:
    """Return the tags of the first page, and the position of the next one, 0 where there is none."""
    position = struct.unpack_from(f"{order}I", content, 4)[0]
    tags = {}
    count_of_tags = struct.unpack_from(f"{order}H", content, position)[0]
    for number in range(count_of_tags):
        tag, type_code, count = struct.unpack_from(f"{order}HHI", content, position + 2 + 12 * number)
        if type_code not in _TYPES:
            continue
        form = f"{order}{count}{_TYPES[type_code]}"
        size = struct.calcsize(form)
        if size > len(content):
            raise ValueError(f"tag {tag} is longer than the file")
        value = position + 10 + 12 * number
        tags[tag] = struct.unpack_from(
            form, content, value if size <= 4 else struct.unpack_from(f"{order}I", content, value)[0]
        )
    return tags, struct.unpack_from(f"{order}I", content, position + 2 + 12 * count_of_tags)[0]


def read_tiff_channels(content: Content) -> npt.NDArray[Any]:
    """Return all channels of the first page, shape (H, W, channels), in the machine's byte order.

    Raises:
        ValueError: If the file is of a type that is not read, or damaged.
    """
    layout = read_layout(content)
    return read_tiff_box(content, layout, (0, 0, *layout.size_px))


def read_tiff_box(content: Content, layout: TiffLayout, box: Box) -> npt.NDArray[Any]:
    """Return the pixels inside (top, left, height, width), shape (height, width, channels), in native byte order.

    Only the strips or tiles that hold the rectangle are read.

    Raises:
        ValueError: If the file is damaged.
    """
    groups = layout.channels if layout.planes_apart else 1
    if len(layout.offsets) % groups:
        raise ValueError(f"{len(layout.offsets)} blocks for {groups} planes")
    per_group = len(layout.offsets) // groups
    planes = [_read_group(content, layout, first, box) for first in range(0, per_group * groups, per_group)]
    joined = np.concatenate(planes, axis=-1) if groups > 1 else planes[0]
    return joined.astype(layout.dtype.newbyteorder("="), copy=False)


def _read_group(content: Content, layout: TiffLayout, first: int, box: Box) -> npt.NDArray[Any]:
    """Return the samples of one set of blocks inside a rectangle, (height, width, channels), or (height, width, 1)."""
    samples = 1 if layout.planes_apart else layout.channels
    if layout.compression == _NO_COMPRESSION and layout.predictor == 1 and not layout.tiled:
        return _read_rows(content, layout, first, box)
    (height, width), (block_height, block_width) = layout.size_px, layout.block_px
    top, left = box[0] // block_height * block_height, box[1] // block_width * block_width
    rows = range(box[0] // block_height, -(-(box[0] + box[2]) // block_height))
    columns = range(box[1] // block_width, -(-(box[1] + box[3]) // block_width))
    across = -(-width // block_width)
    blocks = [first + row * across + column for row in rows for column in columns]
    size = min(rows.stop * block_height, height) - top, min(columns.stop * block_width, width) - left
    with Image.open(io.BytesIO(_wrap_as_grey(content, layout, blocks, size, samples))) as image:
        plain = np.asarray(image)
    pixels = np.ascontiguousarray(plain).view(layout.dtype).reshape(*size, samples)
    if layout.predictor == 2:
        pixels = _undo_differences(pixels, block_width)
    return pixels[box[0] - top : box[0] - top + box[2], box[1] - left : box[1] - left + box[3]]


def _read_rows(content: Content, layout: TiffLayout, first: int, box: Box) -> npt.NDArray[Any]:
    """Return the samples of a rectangle of uncompressed strips, of which only its bytes are read."""
    samples = 1 if layout.planes_apart else layout.channels
    pixel_bytes = samples * layout.dtype.itemsize
    rows = []
    for row in range(box[0], box[0] + box[2]):
        strip, below = divmod(row, layout.block_px[0])
        start = layout.offsets[first + strip] + (below * layout.size_px[1] + box[1]) * pixel_bytes
        rows.append(content[start : start + box[3] * pixel_bytes])
    return np.frombuffer(b"".join(rows), layout.dtype).reshape(box[2], box[3], samples)


def _undo_differences(pixels: npt.NDArray[Any], block_width: int) -> npt.NDArray[Any]:
    """Return samples from differences along the rows, which start anew in each tile; sums wrap as the file's do."""
    dtype = pixels.dtype.newbyteorder("=")
    sums = [
        np.cumsum(pixels[:, left : left + block_width], axis=1, dtype=dtype)
        for left in range(0, pixels.shape[1], block_width)
    ]
    return np.concatenate(sums, axis=1)


def _wrap_as_grey(
    content: Content, layout: TiffLayout, blocks: list[int], size: tuple[int, int], samples: int
) -> bytes:
    """Return a TIFF of 8-bit grey, as many columns wide as a row has bytes, of these blocks of the file alone."""
    pixel_bytes = samples * layout.dtype.itemsize
    order = "<" if layout.dtype.str[0] in "<|" else ">"
    counts = [layout.counts[block] for block in blocks]
    block_height, block_width = layout.block_px
    entries: dict[int, tuple[int, ...]] = {
        256: (size[1] * pixel_bytes,),
        257: (size[0],),
        258: (8,),
        259: (layout.compression,),
        262: (1,),
        277: (1,),
    }
    entries |= {322: (block_width * pixel_bytes,), 323: (block_height,)} if layout.tiled else {278: (block_height,)}
    start = 8 + 2 + 12 * (len(entries) + 2) + 4 + 8 * len(blocks)
    offsets = tuple(start + sum_before for sum_before in accumulate(counts[:-1], initial=0))
    entries |= dict(zip((324, 325) if layout.tiled else (273, 279), (offsets, tuple(counts)), strict=True))
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    tail, position = b"", 8 + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            tail += packed
            packed = struct.pack(f"{order}I", position + len(tail) - len(packed))
        head += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    compressed = [content[layout.offsets[block] : layout.offsets[block] + layout.counts[block]] for block in blocks]
    return b"".join(((head + struct.pack(f"{order}I", 0) + tail).ljust(start, b"\0"), *compressed))

"""TIFF files of more bands than picture libraries take: strips or tiles, interleaved or plane by plane.

The compressed bytes of each plane are wrapped in a header that calls them 8-bit grey, so that Pillow's own decoders
(LZW, Deflate, PackBits, ZSTD, ...) undo the compression; only the sample layout is undone here.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_TYPES = {1: "B", 3: "H", 4: "I"}  # the integer types of TIFF that sizes and offsets are written in
_KINDS = {1: "u", 2: "i", 3: "f"}  # sample formats


@dataclass(frozen=True)
class TiffLayout:
    """Where the samples of a TIFF's first page lie.

    Args:
        size_px: (height, width).
        bands: Samples per pixel.
        dtype: Type of a sample, in the file's byte order.
        compression: TIFF's code of the compression.
        planes_apart: Each band has strips or tiles of its own.
        predictor: 1 none, 2 differences along the row.
        block_px: (height, width) of a strip or tile.
        tiled: Blocks are tiles.
        offsets: Position of each block.
        counts: Bytes of each block.
    """

    size_px: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    compression: int
    planes_apart: bool
    predictor: int
    block_px: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]


def read_layout(content: bytes) -> TiffLayout:
    """Return where the samples of the first page lie.

    Raises:
        ValueError: If it is no TIFF, or of a kind that is not read.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        raise ValueError("not a classic TIFF file; BigTIFF is not read, convert it or save .npy")
    tags = _read_tags(content, order)
    bits, kinds = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    if len(bits) != 1 or len(kinds) != 1 or next(iter(bits)) not in (8, 16, 32, 64) or not kinds <= _KINDS.keys():
        raise ValueError(
            f"bands of {sorted(bits)} bits and sample formats {sorted(kinds)}; 8, 16, 32 or 64 bits are read"
        )
    predictor = tags.get(317, (1,))[0]
    if predictor not in (1, 2):
        raise ValueError(f"predictor {predictor} is not read, save without it")
    height, width = tags[257][0], tags[256][0]
    tiled = 324 in tags
    return TiffLayout(
        size_px=(height, width),
        bands=tags.get(277, (1,))[0],
        dtype=np.dtype(f"{order}{_KINDS[kinds.pop()]}{bits.pop() // 8}"),
        compression=tags.get(259, (1,))[0],
        planes_apart=tags.get(284, (1,))[0] == 2,
        predictor=predictor,
        block_px=(tags[323][0], tags[322][0]) if tiled else (min(height, tags.get(278, (height,))[0]), width),
        tiled=tiled,
        offsets=tags[324] if tiled else tags[273],
        counts=tags[325] if tiled else tags[279],
    )


def _read_tags(content: bytes, order: str) -> dict[int, tuple[int, ...]]:
    place = struct.unpack_from(f"{order}I", content, 4)[0]
    tags = {}
    for number in range(struct.unpack_from(f"{order}H", content, place)[0]):
        tag, kind, count = struct.unpack_from(f"{order}HHI", content, place + 2 + 12 * number)
        if kind not in _TYPES:
            continue
        form = f"{order}{count}{_TYPES[kind]}"
        size = struct.calcsize(form)
        if size > len(content):
            raise ValueError(f"tag {tag} is longer than the file")
        value = place + 10 + 12 * number
        tags[tag] = struct.unpack_from(
            form, content, value if size <= 4 else struct.unpack_from(f"{order}I", content, value)[0]
        )
    return tags


def read_tiff_bands(content: bytes) -> npt.NDArray[Any]:
    """Return all bands of the first page, shape (H, W, bands), in the machine's byte order.

    Raises:
        ValueError: If the file is of a kind that is not read, or damaged.
    """
    layout = read_layout(content)
    groups = layout.bands if layout.planes_apart else 1
    if len(layout.offsets) % groups:
        raise ValueError(f"{len(layout.offsets)} blocks for {groups} planes")
    per_group = len(layout.offsets) // groups
    planes = [_read_group(content, layout, slice(i * per_group, (i + 1) * per_group)) for i in range(groups)]
    joined = np.concatenate(planes, axis=-1) if groups > 1 else planes[0]
    return joined.astype(layout.dtype.newbyteorder("="), copy=False)


def _read_group(content: bytes, layout: TiffLayout, blocks: slice) -> npt.NDArray[Any]:
    """Return the samples of one set of blocks, shape (H, W, bands) or (H, W, 1) for a plane of its own."""
    samples = 1 if layout.planes_apart else layout.bands
    pixel_bytes = samples * layout.dtype.itemsize
    height, width = layout.size_px
    grey = _wrap_as_grey(content, layout, blocks, pixel_bytes)
    with Image.open(io.BytesIO(grey)) as picture:
        plain = np.asarray(picture)
    rows = np.ascontiguousarray(plain).view(layout.dtype).reshape(height, width, samples)
    if layout.predictor == 1:
        return rows
    step = layout.block_px[1]
    # Differences start anew in each tile; unsigned sums wrap as the file's do.
    parts = [
        np.cumsum(rows[:, left : left + step], axis=1, dtype=layout.dtype.newbyteorder("="))
        for left in range(0, width, step)
    ]
    undone: npt.NDArray[Any] = np.concatenate(parts, axis=1)
    return undone


def _wrap_as_grey(content: bytes, layout: TiffLayout, blocks: slice, pixel_bytes: int) -> bytes:
    """Return a TIFF of 8-bit grey, as many columns wide as a row has bytes, whose blocks are those of the file."""
    order = "<" if layout.dtype.str[0] in "<|" else ">"
    offsets, counts = layout.offsets[blocks], layout.counts[blocks]
    block_height, block_width = layout.block_px
    entries: dict[int, tuple[int, ...]] = {
        256: (layout.size_px[1] * pixel_bytes,),
        257: (layout.size_px[0],),
        258: (8,),
        259: (layout.compression,),
        262: (1,),
        277: (1,),
    }
    entries |= {322: (block_width * pixel_bytes,), 323: (block_height,)} if layout.tiled else {278: (block_height,)}
    start = 8 + 2 + 12 * (len(entries) + 2) + 4 + 8 * len(offsets)
    entries |= dict(
        zip((324, 325) if layout.tiled else (273, 279), (tuple(o + start for o in offsets), counts), strict=True)
    )
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(entries))
    tail, place = b"", 8 + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            tail += packed
            packed = struct.pack(f"{order}I", place + len(tail) - len(packed))
        head += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    return (head + struct.pack(f"{order}I", 0) + tail).ljust(start, b"\0") + content

"""JPEG and PNG files by their headers: what a decoder need not be asked, and files that it leaves early.

A decoder of either format goes through the image from top to bottom and stops at the height that the header states.
A smaller height in the header therefore saves the work below it, and the rows above stay what they were, bit by bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO

_PNG_START = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
_JPEG_START = b"\xff\xd8\xff"
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential, progressive
_START_OF_SCAN = 0xDA
_APPENDED = (0xE1, 0xE2)  # segments of metadata: EXIF and XMP turn an image, MPF has more than one
_METADATA = (b"Exif", b"http", b"MPF")
_BLOCK_ROWS = 8


def has_late_text(file: IO[bytes]) -> bool:
    """Return whether an open PNG file has text or EXIF behind its pixels; nothing is decoded, the position stays."""
    before = file.tell()
    file.seek(len(_PNG_START))
    chunks = []
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        chunks.append(head[4:])
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    file.seek(before)
    return b"IDAT" in chunks and not _TEXT_CHUNKS.isdisjoint(chunks[chunks.index(b"IDAT") :])


def shorten_png(content: bytes, rows: int) -> bytes:
    """Return a PNG file, not interlaced, that ends after `rows` rows; the bytes of the rest stay and are not read."""
    header = bytearray(content[12:29])  # the chunk's name, width, height, depth, colour, compression, filter, interlace
    if int.from_bytes(header[8:12], "big") <= rows:
        return content
    header[8:12] = rows.to_bytes(4, "big")
    return b"".join((content[:12], header, zlib.crc32(header).to_bytes(4, "big"), content[33:]))


def find_plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Return (height, width) of an 8-bit JPEG, grey or of three components, that has no EXIF; None of all others."""
    if not content.startswith(_JPEG_START):
        return None
    frame = 0
    for marker, start in _list_jpeg_segments(content):
        if marker in _HUFFMAN_FRAMES:
            frame = start
        elif marker in _APPENDED and content.startswith(_METADATA, start + 4):
            return None
    if not frame or content[frame + 4] != 8 or content[frame + 9] not in (1, 3):
        return None
    height, width = (int.from_bytes(content[start : start + 2], "big") for start in (frame + 5, frame + 7))
    return (height, width) if height and width else None


def shorten_jpeg(content: bytes, rows: int) -> bytes:
    """Return a JPEG file that ends soon after `rows` rows; the bytes of the rest stay and are not decoded.

    One row of blocks more is kept, which the upsampling of the chroma looks at. A file of a type that is not known to
    decode so (arithmetic coding, lossless) stays as it is.
    """
    for marker, start in _list_jpeg_segments(content):
        if marker in _HUFFMAN_FRAMES:
            return _lower_frame(content, start, rows)
    return content


def _list_jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and the position of each segment before the pixels."""
    start = 2
    while start + 10 < len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == 0xFF:  # padding
            start += 1
            continue
        if marker == _START_OF_SCAN:
            return
        yield marker, start
        start += 2 + int.from_bytes(content[start + 2 : start + 4], "big")


def _lower_frame(content: bytes, frame: int, rows: int) -> bytes:
    """Write a smaller height into the frame header that lies at `frame`."""
    height = int.from_bytes(content[frame + 5 : frame + 7], "big")
    components = content[frame + 9]
    block_rows = _BLOCK_ROWS * max((content[frame + 11 + 3 * i] & 15 for i in range(components)), default=1)
    kept = (-(-rows // block_rows) + 1) * block_rows
    if not block_rows or kept >= height:
        return content
    return b"".join((content[: frame + 5], kept.to_bytes(2, "big"), content[frame + 7 :]))

"""Whole files decoded by OpenCV and imagecodecs, where they give Pillow's pixels in less time, or tell more."""

from __future__ import annotations

import io
import zlib
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

_END_OF_JPEG = b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_CHUNKS_BEHIND = (b"eXIf", b"iTXt", b"tEXt", b"tIME", b"zTXt")  # that may lie behind the pixels
# By depth and colour type, at byte 24; samples of fewer bits would be spread, and those of other types changed.
_TYPES = {b"\x08\0": "grey", b"\x10\0": "grey", b"\x08\2": "colors", b"\x08\6": "colors", b"\x08\3": "palette"}


def decode_jpeg(content: bytes) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of an RGB or grey JPEG, not turned, shape (H, W, 3).

    Both libraries decode with libjpeg-turbo. OpenCV fills what is missing of a truncated file with grey, and says no
    word: a file that does not end as it should is left to Pillow.

    Returns:
        None where Pillow is to decode it, or to tell what is wrong.
    """
    if not content.endswith(_END_OF_JPEG):
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded: npt.NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(content, np.uint8), flags)  # type: ignore[assignment]
    return decoded


def find_bare_type(content: bytes) -> str:
    """Return "grey", "colors" or "palette" of a PNG of pixels and palette alone, both headers whole; "" of all others.

    One with a text, which may turn it, or a transparent value is left to Pillow.
    """
    start = _find_pixels(content)
    is_bare = (
        content.startswith(_PNG_START) and content[start + 4 : start + 8] == b"IDAT" and content.endswith(_PNG_END)
    )
    heads = [(12, 29), (37, start - 4)][: 1 + (start > 33)]
    is_whole = all(zlib.crc32(content[a:b]) == int.from_bytes(content[b : b + 4], "big") for a, b in heads)
    is_alone = is_bare and is_whole and not any(name in content for name in _CHUNKS_BEHIND)
    return _TYPES.get(content[24:26], "") if is_alone else ""


def _find_pixels(content: bytes) -> int:
    """Return where the chunk behind the header lies, or behind the palette that follows it."""
    return 45 + int.from_bytes(content[33:37], "big") if content[37:41] == b"PLTE" else 33


def decode_bare_png(content: bytes) -> npt.NDArray[Any]:
    """Return the samples of a PNG that has a bare type; of a palette the indices, which are read as if they were grey.

    Raises:
        imagecodecs.PngError: If pixels are damaged or missing.
    """
    if _TYPES[content[24:26]] != "palette":
        return decode_png(content)
    header = content[12:25] + b"\0" + content[26:29]
    check_sum = zlib.crc32(header).to_bytes(4, "big")
    return decode_png(b"".join((content[:12], header, check_sum, content[_find_pixels(content) :])))


def check_png(content: bytes) -> None:
    """Raise the error of a PNG with a damaged chunk, or without its last; decoders pass over the sums of the pixels."""
    Image.open(io.BytesIO(content)).verify()
    if _PNG_END not in content:
        raise ValueError("the file ends before its last chunk")


def read_png_size(content: bytes) -> tuple[int, int]:
    """Return the (height, width) that a PNG file's header states."""
    return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")


def decode_png(content: bytes) -> npt.NDArray[Any]:
    """Return the samples of a PNG, colours in place of a palette's indices; each check sum of the pixels is checked.

    Other decoders fill rows that are missing with zeros, and say no word.

    Raises:
        imagecodecs.PngError: If pixels are damaged or missing.
    """
    samples: npt.NDArray[Any] = imagecodecs.png_decode(content)
    return samples

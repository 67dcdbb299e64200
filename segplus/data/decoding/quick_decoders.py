"""Whole files decoded by OpenCV, where it gives Pillow's pixels in less time."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_END_OF_JPEG = b"\xff\xd9"
BARE_PNG = frozenset({b"IHDR", b"IDAT", b"IEND"})
_GREY_OF_8_BITS = b"\x08\x00"  # depth and colour type, at byte 24


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


def decode_grey_png(content: bytes, chunks: frozenset[bytes]) -> npt.NDArray[np.uint8] | None:
    """Return the values of an 8-bit grey PNG, shape (H, W).

    Args:
        content: The file.
        chunks: Types of its chunks, from `check_png`; one with more than pixels is left to Pillow.

    Returns:
        None where Pillow is to decode it, or to tell what is wrong.
    """
    if chunks != BARE_PNG or content[24:26] != _GREY_OF_8_BITS:
        return None
    decoded: npt.NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # type: ignore[assignment]
    return decoded

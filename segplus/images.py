"""Pictures in memory, of PIL or as arrays: their size, and rectangles of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = Image.Image | npt.NDArray[Any]  # RGB, or an array (H, W, channels)
Box = tuple[int, int, int, int]  # top, left, height, width, whole pixels


def measure_picture(picture: Picture) -> tuple[int, int]:
    """Return (height, width)."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return int(picture.shape[0]), int(picture.shape[1])


def take_box(picture: Picture, box: Box) -> npt.NDArray[Any]:
    """Return the pixels inside a rectangle, shape (height, width, ...); of an array a view."""
    top, left, height, width = box
    if isinstance(picture, Image.Image):
        return np.asarray(picture.crop((left, top, left + width, top + height)))
    part: npt.NDArray[Any] = picture[top : top + height, left : left + width]
    return part

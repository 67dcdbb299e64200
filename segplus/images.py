"""Images in memory, of PIL or as arrays: their size, and rectangles of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

DecodedImage = Image.Image | npt.NDArray[Any]  # RGB, or an array (H, W, channels)
Box = tuple[int, int, int, int]  # top, left, height, width, whole pixels
_SEEN = (1.0, 99.0)  # percentiles of a channel that are drawn black and white


def measure_image(image: DecodedImage) -> tuple[int, int]:
    """Return (height, width)."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return int(image.shape[0]), int(image.shape[1])


def take_box(image: DecodedImage, box: Box) -> npt.NDArray[Any]:
    """Return the pixels inside a rectangle, shape (height, width, ...); of an array a view."""
    top, left, height, width = box
    if isinstance(image, Image.Image):
        return np.asarray(image.crop((left, top, left + width, top + height)))
    pixels: npt.NDArray[Any] = image[top : top + height, left : left + width]
    return pixels


def show_as_rgb(image: DecodedImage) -> Image.Image:
    """Return what the eye sees: of many channels the first three, of one or two the first as grey, each stretched."""
    if isinstance(image, Image.Image):
        return image
    channels = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    shown = channels.astype(np.float32)
    low, high = np.percentile(shown, _SEEN, axis=(0, 1)).astype(np.float32)
    stretched = (shown - low) / np.maximum(high - low, 1e-9)
    return Image.fromarray(np.rint(stretched.clip(0, 1) * 255).astype(np.uint8))


@dataclass(frozen=True)
class OpenPair:
    """An image with its mask, of one size, of which rectangles (top, left, height, width) are read.

    Args:
        size_px: (height, width).
        image: Box -> pixels, shape (height, width, channels).
        label: Box -> class ids, shape (height, width).
    """

    size_px: tuple[int, int]
    image: Callable[[Box], npt.NDArray[Any]]
    label: Callable[[Box], npt.NDArray[Any]]

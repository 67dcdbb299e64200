"""Images that Pillow would change without a word: colours of 16 bits, and channels kept as the pages of a TIFF."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from segplus.errors import InputError


def is_cut_to_bytes(image: Image.Image) -> bool:
    """Return whether Pillow drops the lower 8 of the 16 bits of an image's samples, as it does with colours."""
    tiles: list[Any] = getattr(image, "tile", [])  # which Pillow types for files alone
    if not tiles or image.mode not in ("RGB", "RGBA", "RGBX", "CMYK"):
        return False
    arguments = tiles[0][3]
    raw_mode = arguments[0] if isinstance(arguments, tuple) else arguments
    return ";16" in str(raw_mode)


def lay_on_white(colors: npt.NDArray[np.uint16], white: float) -> npt.NDArray[np.uint16]:
    """Return colours with transparency, shape (H, W, 4), on a ground of this value, uint16, shape (H, W, 3)."""
    share = colors[..., 3:].astype(np.float64) / 65535
    return np.rint(colors[..., :3] * share + white * (1 - share)).astype(np.uint16)


def refuse_stack(image: Image.Image, source: str) -> None:
    """Refuse a TIFF of several equal pages of one channel where a colour image is asked for: they are its channels.

    Raises:
        InputError: If so.
    """
    pages = count_equal_pages(image) if len(image.getbands()) == 1 else 1
    if pages > 1:
        raise InputError(
            f"{source}: not an image of 3 channels",
            found=f"{pages} pages of one channel",
            fix=f"set data.channels to the number of channels ({pages}?)",
        )


def count_equal_pages(image: Image.Image) -> int:
    """Return the number of pages of a TIFF that are all of one size; 1 of all others: they are smaller copies."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.n_frames == 1:
        return 1
    sizes = set()
    for page in range(image.n_frames):
        image.seek(page)
        sizes.add(image.size)
    image.seek(0)
    return image.n_frames if len(sizes) == 1 else 1

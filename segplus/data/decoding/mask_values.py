"""What a mask file holds before anybody has said what it means, and whether its values number things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.data.decoding.arrays import load_array
from segplus.data.decoding.mask_channels import LOSSY_GREY, is_grey
from segplus.data.decoding.masks import is_image_file
from segplus.data.decoding.stored import LOSSY_FORMATS, MAX_PIXELS, Stored, open_with_pillow, report_damage
from segplus.errors import InputError

_MOST_TRACED = 40  # values of a file whose pieces are counted
_FEW = 8  # different values up to which a set of masks may well be one of classes
_VARIED = 3  # numbers of things that occur in images, from which on so few values cannot be classes


class StoredMask(NamedTuple):
    """The values of a mask as they lie in its file.

    values: ids or indices (H, W), or colours (H, W, 3). palette: colours of the indices, shape (256, 3), or None.
    is_lossy: saved so that values are not those that were drawn.
    """

    values: npt.NDArray[Any]
    palette: npt.NDArray[np.uint8] | None
    is_lossy: bool


class Numbering(NamedTuple):
    """How the values of a mask are used.

    different: values but 0. most: the largest one. whole: share of the values that are one connected piece.
    """

    different: int
    most: int
    whole: float


def read_stored_mask(stored: Stored, source: str, max_pixels: int = MAX_PIXELS) -> StoredMask:
    """Return the values of a mask file, channels that hold the same joined into one.

    Raises:
        InputError: If it is damaged, holds no whole numbers, or has other channels than ids or colours.
    """
    with report_damage(source):
        palette, is_lossy = None, False
        if isinstance(stored, list):
            values = np.asarray(stored)
        elif is_image_file(stored):
            with open_with_pillow(stored, max_pixels) as image:
                is_lossy = image.format in LOSSY_FORMATS
                values, palette = _read_image(image, is_lossy)
        else:
            values = load_array(stored, 4 * max_pixels)
    if values.ndim == 3 and is_grey(values, LOSSY_GREY if is_lossy else 0):
        values = values[..., 0]
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer) or values.ndim > 3 or (values.ndim == 3 and values.shape[-1] < 3):
        raise InputError(f"{source}: not ids and not colours", found=f"{values.dtype}, shape {values.shape}")
    return StoredMask(values[..., :3] if values.ndim == 3 else values, palette, is_lossy)


def _read_image(image: Image.Image, is_lossy: bool) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    if image.mode in ("P", "PA"):
        colors = np.zeros((256, 3), dtype=np.uint8)
        table = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        colors[: len(table)] = table
        return np.asarray(image if image.mode == "P" else image.getchannel("P")), colors
    if is_lossy and image.mode == "RGB" and is_grey(np.asarray(image), LOSSY_GREY):
        return np.asarray(image.convert("L")), None
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(image.convert("RGB")), None
    return np.asarray(image), None


def describe_numbering(values: npt.NDArray[Any]) -> Numbering:
    """Return how the values of a mask, shape (H, W), are used; the pieces of a few of them are counted."""
    found = np.unique(values)
    found = found[found > 0]
    if not len(found):
        return Numbering(0, 0, 1.0)
    traced = found[np.linspace(0, len(found) - 1, min(len(found), _MOST_TRACED)).round().astype(int)]
    pieces = [cv2.connectedComponents((values == value).astype(np.uint8), connectivity=8)[0] - 1 for value in traced]
    return Numbering(len(found), int(found[-1]), float(np.mean(np.array(pieces) == 1)))


def look_like_numbers(masks: Sequence[Numbering], is_deep: bool) -> bool:
    """Return whether the values of masks number things: 1, 2, 3, ... without gaps, one connected piece each.

    Up to eight values may be classes: they are numbers where no mask has a gap, and masks end at three values or more.

    Args:
        masks: One entry a file.
        is_deep: The files have 16 bits and more, as tools write that number things.
    """
    held = [mask for mask in masks if mask.different]
    most = max((mask.different for mask in held), default=0)
    if most <= (2 if is_deep else _FEW):
        ends = {mask.most for mask in held}
        return may_be_numbers(masks) and len(ends) >= _VARIED and max(ends) > _VARIED
    several = [mask for mask in held if mask.different > 1] or held
    dense = [mask.most <= 1.5 * mask.different + 2 for mask in several]
    return float(np.mean(dense)) >= 0.8 and float(np.mean([mask.whole for mask in several])) >= 0.9


def may_be_numbers(masks: Sequence[Numbering]) -> bool:
    """Return whether values are without gaps in every mask, one connected piece each, and not equally many in all."""
    held = [mask for mask in masks if mask.different]
    is_dense = all(mask.most == mask.different for mask in held)
    return is_dense and len({mask.most for mask in held}) > 1 and float(np.mean([mask.whole for mask in held])) >= 0.9

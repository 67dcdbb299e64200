"""From the channels of a mask to one value a pixel: the one that holds ids, a plane a class, colours of a legend."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.classes import pack_colors, unpack_color
from segplus.errors import InputError

Raw = npt.NDArray[Any]
LOSSY_GREY = 32  # how far the channels of a grey mask lie apart once it was saved as a JPEG of colours
_SHOWN = 4


def is_grey(values: Raw, tolerance: int = 0) -> bool:
    """Return whether the colour channels of a mask, shape (H, W, C), hold the same; of 2 and 4 the last is alpha."""
    colors = values[..., : {2: 1, 4: 3}.get(values.shape[-1], values.shape[-1])]
    if not tolerance:
        return bool((colors == colors[..., :1]).all())
    return bool((colors.max(axis=-1).astype(np.int32) - colors.min(axis=-1)).max(initial=0) <= tolerance)


def choose_channel(values: Raw, asked: int | None, source: str) -> Raw:
    """Return the channel that holds the ids of a mask, shape (H, W): any where all hold the same, or the one asked for.

    Args:
        values: Shape (H, W, C).
        asked: The recipe's data.mask_channel.
        source: Name for messages.
    Raises:
        InputError: If the channels differ and none is asked for, or the one asked for is that of a colour.
    """
    channels = values.shape[-1]
    if asked is not None and not 0 <= asked < channels:
        raise InputError(f"{source}: no channel {asked}", found=f"{channels} channels")
    if channels > 4 and asked is None:
        raise InputError(
            f"{source}: not a mask of one channel", found=f"shape {values.shape}", fix="set data.encoding: one_hot?"
        )
    if is_grey(values):
        return values[..., asked or 0]
    if asked is None:
        raise InputError(
            f"{source}: a colour mask where ids were promised",
            found=describe_colors(values),
            fix="give each colour its class in data.colors; segplus inspect lists them",
        )
    if channels >= 3 and not all(_looks_like_ids(values[..., channel]) for channel in range(channels)):
        raise InputError(
            f"{source}: data.mask_channel takes one channel of a colour, and colours that share its value become one",
            found=describe_colors(values),
            fix="remove data.mask_channel, and give each colour its class in data.colors; segplus inspect lists them",
        )
    return values[..., asked]


def _looks_like_ids(channel: Raw) -> bool:
    """Return whether values are small, or many of a range, as ids and instance numbers are and shades are not."""
    found = np.unique(channel)
    found = found[found != 255]
    return len(found) == 0 or int(found[-1]) < max(4 * len(found), 32)


def describe_colors(values: Raw) -> str:
    """Return how many channels and colours a mask has, and the most frequent ones."""
    if values.shape[-1] < 3 or values.dtype != np.uint8:
        return f"{values.shape[-1]} channels that differ"
    found, counts = np.unique(pack_colors(values), return_counts=True)
    shown = ", ".join(str(unpack_color(int(value))) for value in found[counts.argsort()[::-1]][:_SHOWN])
    return f"{len(found)} colours: {shown}" + (", ..." if len(found) > _SHOWN else "")


def join_planes(stack: Raw, planes: int, ignore_index: int, source: str) -> npt.NDArray[np.int32]:
    """Return the plane that marks each pixel, or the ignore index, int32, shape (H, W).

    Args:
        stack: One plane a class, shape (planes, H, W) or (H, W, planes).
        planes: The number of classes.
        ignore_index: Of pixels that no plane marks.
        source: Name for messages.
    Raises:
        InputError: If there is another number of planes, or two mark one pixel.
    """
    axes = [axis for axis in (0, 2) if stack.ndim == 3 and stack.shape[axis] == planes]
    if len(axes) != 1:
        raise InputError(
            f"{source}: not a stack of {planes} planes, one a class",
            found=f"shape {stack.shape}",
            allowed=f"({planes}, H, W) or (H, W, {planes})",
            fix="set data.encoding to what the masks hold, or correct the file",
        )
    marked = np.moveaxis(stack, axes[0], 0) != 0  # (planes, H, W)
    hits = marked.sum(axis=0)
    if (hits > 1).any():
        raise InputError(
            f"{source}: pixels of two classes in a one-hot stack",
            found=f"{int((hits > 1).sum())} pixels",
            fix="make planes disjoint",
        )
    return np.where(hits == 0, ignore_index, marked.argmax(axis=0)).astype(np.int32)


def measure_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Return the largest difference of a channel between packed colours, shapes (N,) and (M,): shape (N, M)."""
    left, right = (np.asarray(colors, np.int32)[:, None] >> np.array([16, 8, 0]) & 255 for colors in (first, second))
    distance: npt.NDArray[np.int32] = np.abs(left[:, None] - right[None]).max(axis=-1)
    return distance


def snap_colors(packed: npt.NDArray[np.int32], legend: npt.ArrayLike, tolerance: int) -> npt.NDArray[np.int32]:
    """Return packed colours, those within the tolerance of the legend's nearest one replaced by it.

    Args:
        packed: Packed colours, shape (H, W).
        legend: Packed colours of the classes.
        tolerance: Largest distance per channel.
    """
    known = np.sort(np.asarray(legend, dtype=np.int32))
    found, inverse = np.unique(packed, return_inverse=True)
    farthest = measure_distance(found, known)
    nearest = farthest.argmin(axis=1)
    near = farthest[np.arange(len(found)), nearest] <= tolerance
    snapped: npt.NDArray[np.int32] = (
        np.where(near, known[nearest], found)[inverse].reshape(packed.shape).astype(np.int32)
    )
    return snapped

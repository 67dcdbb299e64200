"""Images as pixels: RGB images, or arrays where an image has other than three channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from segplus.data.decoding.arrays import load_array, read_header
from segplus.data.decoding.depth import is_cut_to_bytes, lay_on_white, read_deep_colors, refuse_stack
from segplus.data.decoding.headers import has_late_text
from segplus.data.decoding.stored import (
    MAX_PIXELS,
    ORIENTATION_TAG,
    Stored,
    find_array,
    find_suffix,
    map_content,
    open_with_pillow,
    read_content,
    refuse_large,
    report_damage,
)
from segplus.data.decoding.tiff import read_layout, read_tiff_channels
from segplus.errors import InputError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".npy", ".npz"}
)


@dataclass(frozen=True)
class ImageReader:
    """How image files become pixels.

    Args:
        channels: 3 gives PIL images in RGB; any other number gives arrays of shape (H, W, channels).
        value_range: Values that become 0 and 255 for samples deeper than 8 bits; None takes the type's whole range.
        max_pixels: Largest image that is decoded at once.
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    max_pixels: int = MAX_PIXELS

    def read(self, stored: Stored, source: str) -> Image.Image | npt.NDArray[Any]:
        """Return the image, upright.

        Args:
            stored: Path, or {"bytes", "path"}.
            source: Name for messages.

        Returns:
            PIL image in RGB, or an array (H, W, channels) of the file's own type; uint8 where a range is given.

        Raises:
            InputError: If the file is missing, damaged, or has another number of channels.
        """
        with report_damage(source):
            if find_suffix(stored) in (".npy", ".npz"):
                most_values = self.max_pixels * max(self.channels, 4)
                return self._shape_array(load_array(find_array(stored), most_values), source)
            if has_many_channels(stored):
                return self._read_many_channels(stored, source)
            with open_with_pillow(stored, self.max_pixels) as image:
                if is_cut_to_bytes(image):
                    return self._shape_array(self._read_deep_colors(image, stored), source)
                if self.channels != 3:
                    self.check_shape((image.height, image.width, count_pages(image)), source)
                    return self._shape_array(read_channels(image), source)
                refuse_stack(image, source)
                return convert_to_rgb(image, self.value_range)

    def _read_many_channels(self, stored: Stored, source: str) -> Image.Image | npt.NDArray[Any]:
        content = map_content(stored)
        layout = read_layout(content)
        refuse_large(layout.size_px, self.max_pixels)
        self.check_shape((*layout.size_px, layout.channels), source)
        return self._shape_array(read_tiff_channels(content), source)

    def check_shape(self, shape: tuple[int, ...], source: str) -> None:
        """Raise InputError unless arrays of this shape, one of a single channel apart, are images of the channels."""
        if shape[-1] > 1:
            self.arrange_channels(np.broadcast_to(np.zeros(()), shape), source)

    def _read_deep_colors(self, image: Image.Image, stored: Stored) -> npt.NDArray[np.uint16]:
        if find_orientation(image) != 1:
            raise ValueError("16-bit colours with an EXIF orientation; save the image upright")
        colors = read_deep_colors(read_content(stored))
        if self.channels == 3 and colors.shape[2] == 4:
            return lay_on_white(colors, 65535 if self.value_range is None else min(self.value_range[1], 65535))
        return colors

    def _shape_array(self, array: npt.NDArray[Any], source: str) -> Image.Image | npt.NDArray[Any]:
        channels = self.scale_channels(self.arrange_channels(array, source), source)
        return Image.fromarray(channels) if self.channels == 3 else channels

    def arrange_channels(self, array: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
        """Return an array as (H, W, channels), a view of it.

        Raises:
            InputError: If it has another number of channels.
        """
        channels = array[..., None] if array.ndim == 2 else array
        if channels.ndim == 3 and channels.shape[-1] != self.channels and channels.shape[0] == self.channels:
            channels = np.moveaxis(channels, 0, -1)  # (channels, H, W) -> (H, W, channels)
        if channels.ndim != 3 or channels.shape[-1] != self.channels:
            raise InputError(
                f"{source}: not an image of {self.channels} channels",
                found=f"shape {tuple(array.shape)}",
                fix=f"set data.channels to the number of channels ({channels.shape[-1]}?)",
            )
        return channels

    def scale_channels(self, channels: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
        """Return channels as `read` gives them: 8-bit where there are three or a range is given, or else as they are.

        Raises:
            InputError: If values are not finite.
        """
        if not np.isfinite(channels).all():
            raise InputError(
                f"{source}: values that are not finite", found=f"{int((~np.isfinite(channels)).sum())} values"
            )
        return scale_to_bytes(channels, self.value_range) if self.channels == 3 or self.value_range else channels


def read_size(stored: Stored, source: str) -> tuple[int, int]:
    """Return (height, width) of the upright image, from its header only.

    Raises:
        InputError: If the file is missing or is no image.
    """
    with report_damage(source):
        if find_suffix(stored) in (".npy", ".npz"):
            shape = read_header(find_array(stored)).shape
            # (H, W), (H, W, C) or (C, H, W): the two long axes.
            return (shape[1], shape[2]) if len(shape) == 3 and shape[0] < min(shape[1:]) else (shape[0], shape[1])
        if has_many_channels(stored):
            return read_layout(map_content(stored)).size_px
        with open_with_pillow(stored) as image:
            width, height = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # some versions of Pillow give the upright size
                width, height = image.tag_v2[256], image.tag_v2[257]
            return (width, height) if find_orientation(image) in (5, 6, 7, 8) else (height, width)


def find_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image that was just opened, 1 where it is upright; nothing is decoded."""
    # Pillow decodes a PNG to look for EXIF behind the pixels.
    file = image.fp if isinstance(image, PngImagePlugin.PngImageFile) else None
    plain = file is not None and not has_late_text(file)
    exif = Image.Image.getexif(image) if plain else image.getexif()
    return int(exif.get(ORIENTATION_TAG, 1))


def describe_file(stored: Stored, source: str) -> str:
    """Return the format and mode of a stored image, or the type and shape of an array."""
    if isinstance(stored, list):
        return "rows of values"
    if isinstance(stored, str) and stored.startswith("{"):
        return "shapes"
    with report_damage(source):
        if find_suffix(stored) in (".npy", ".npz"):
            array = read_header(find_array(stored))
            return f"NumPy {array.dtype}, {array.ndim} axes"
        if has_many_channels(stored):
            layout = read_layout(map_content(stored))
            return f"TIFF {layout.dtype.name}, {layout.channels} channels"
        with open_with_pillow(stored) as image:
            return f"{image.format} {image.mode}"


def has_many_channels(stored: Stored) -> bool:
    """Return whether a stored file is a TIFF of several channels that Pillow does not open, or cuts to 8 bits."""
    if find_suffix(stored) not in (".tif", ".tiff"):
        return False
    try:
        with open_with_pillow(stored) as image:
            return is_cut_to_bytes(image)
    except UnidentifiedImageError:
        return read_layout(map_content(stored)).channels > 1


def convert_to_rgb(image: Image.Image, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Return the upright image in RGB; transparency lies on white, deep greys are scaled, never clipped."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return Image.fromarray(scale_to_bytes(np.asarray(upright), value_range)).convert("RGB")
    if upright.mode == "RGB":
        upright.load()
        return upright if upright is not image else image.copy()
    if "A" in upright.mode or "transparency" in upright.info:
        layered = upright.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return upright.convert("RGB")


def scale_to_bytes(values: npt.NDArray[Any], value_range: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Return values mapped from `value_range` (or the integer type's range) to 0..255.

    Raises:
        ValueError: If values lie outside the range, which would clip them, or a float image comes without a range.
    """
    if values.dtype == np.uint8 and value_range is None:
        return values
    if value_range is None and values.dtype == np.bool_:
        return np.where(values, 255, 0).astype(np.uint8)
    if value_range is None:
        if values.dtype != np.uint16 and not (values.dtype == np.int32 and values.min() >= 0 and values.max() <= 65535):
            raise ValueError(f"samples of type {values.dtype} need data.image_range")
        value_range = (0.0, 65535.0)
    low, high = value_range
    least, most = float(values.min()), float(values.max())
    if least < low or most > high:
        raise ValueError(f"values {least:g}..{most:g} outside data.image_range {low:g}..{high:g} would be clipped")
    scaled = (values.astype(np.float32) - low) * (255.0 / (high - low))
    rounded: npt.NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return rounded


def count_pages(image: Image.Image) -> int:
    """Return the number of pages of a TIFF; 1 of every other format."""
    return image.n_frames if isinstance(image, TiffImagePlugin.TiffImageFile) else 1


def read_channels(image: Image.Image) -> npt.NDArray[Any]:
    """Return all channels of an image, of one page or one a page, shape (H, W, channels).

    Raises:
        ValueError: If pages differ in size.
    """
    if count_pages(image) > 1:
        return np.stack(read_pages(image), axis=-1)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("1", "P"):  # what the bits and the palette stand for
        colors = np.asarray(upright.convert("RGB"))
        return colors[..., :1] if (colors == colors[..., :1]).all() else colors
    array = np.asarray(upright)
    return array[..., None] if array.ndim == 2 else array


def read_pages(image: Image.Image) -> list[npt.NDArray[Any]]:
    """Return the pages of a TIFF, each (H, W) or (H, W, channels).

    Raises:
        ValueError: If they differ in size.
    """
    size, planes = image.size, []
    for page in range(count_pages(image)):
        image.seek(page)
        if image.size != size:
            raise ValueError("pages of several sizes")
        planes.append(np.array(image))
    return planes

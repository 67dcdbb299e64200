"""Images as pixels: RGB images, or arrays where an image has other than three channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from segplus.data.decoding.arrays import load_array, read_header
from segplus.data.decoding.depth import count_equal_pages, is_cut_to_bytes, lay_on_white, refuse_stack
from segplus.data.decoding.headers import has_late_text
from segplus.data.decoding.quick_decoders import decode_png
from segplus.data.decoding.stored import (
    MAX_PIXELS,
    ORIENTATION_TAG,
    Stored,
    find_suffix,
    is_unmasked,
    open_with_pillow,
    read_content,
    refuse_large,
    report_damage,
)
from segplus.data.decoding.tiff import read_layout, read_tiff_box
from segplus.errors import InputError
from segplus.images import DEEP_COLORS, ImageRange, RangeError

_PHOTOMETRIC_TAG, _SAMPLES_TAG, _EXTRA_TAG, _GEO_KEYS_TAG = 262, 277, 338, 34735
_OF_COLORS, _TRANSPARENCY = 2, {1, 2}  # photometric interpretation; kinds of extra samples
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".npy", ".npz"}
)


@dataclass(frozen=True)
class ImageReader:
    """How image files become pixels.

    Args:
        channels: 3 gives PIL images in RGB; any other number gives arrays of shape (H, W, channels).
        value_range: What samples deeper than 8 bits are to lie in; None takes 16 bits of three channels whole.
        max_pixels: Largest image that is decoded at once.
    """

    channels: int = 3
    value_range: ImageRange | None = None
    max_pixels: int = MAX_PIXELS

    def read(self, stored: Stored, source: str) -> Image.Image | npt.NDArray[Any]:
        """Return the image, upright.

        Args:
            stored: Path, or {"bytes", "path"}.
            source: Name for messages.

        Returns:
            PIL image in RGB, or an array (H, W, channels) of the file's own type where it is deeper than 8 bits or has
            other channels. Where the range rounds, both are 8-bit.

        Raises:
            InputError: If the file is missing, damaged, or has another number of channels.
        """
        with report_damage(source):
            if find_suffix(stored) in (".npy", ".npz"):
                most_values = self.max_pixels * max(self.channels, 4)
                return self._shape_array(load_array(stored, most_values), source)
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
        layout = read_layout(stored)
        refuse_large(layout.size_px, self.max_pixels)
        self.check_shape((*layout.size_px, layout.channels), source)
        return self._shape_array(read_tiff_box(layout, (0, 0, *layout.size_px)), source)

    def check_shape(self, shape: tuple[int, ...], source: str) -> None:
        """Raise InputError unless arrays of this shape, one of a single channel apart, are images of the channels."""
        if shape[-1] > 1:
            self.arrange_channels(np.broadcast_to(np.zeros(()), shape), source)

    def _read_deep_colors(self, image: Image.Image, stored: Stored) -> npt.NDArray[np.uint16]:
        if find_orientation(image) != 1:
            raise ValueError("16-bit colours with an EXIF orientation; save the image upright")
        if image.format != "PNG":
            raise ValueError("16-bit colours that are not read; save it as TIFF or .npy")
        colors = decode_png(read_content(stored))
        if self.channels == 3 and colors.shape[2] == 4:
            return lay_on_white(colors, min((self.value_range or DEEP_COLORS).high, 65535))
        return colors

    def _shape_array(self, array: npt.NDArray[Any], source: str) -> Image.Image | npt.NDArray[Any]:
        channels = self.fit_values(self.arrange_channels(array, source), source)
        return Image.fromarray(channels) if self.channels == 3 and channels.dtype == np.uint8 else channels

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

    def fit_values(self, channels: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
        """Return channels of any type as `read` gives them.

        Raises:
            InputError: If values are not finite.
            RangeError: If values lie outside the range, or none says what they mean.
        """
        if not np.isfinite(channels).all():
            raise InputError(
                f"{source}: values that are not finite", found=f"{int((~np.isfinite(channels)).sum())} values"
            )
        return fit_depth(channels, self.value_range) if self.channels == 3 or self.value_range else channels


def read_size(stored: Stored, source: str) -> tuple[int, int]:
    """Return (height, width) of the upright image, from its header only.

    Raises:
        InputError: If the file is missing or is no image.
    """
    with report_damage(source):
        if find_suffix(stored) in (".npy", ".npz"):
            shape = read_header(stored).shape
            # (H, W), (H, W, C) or (C, H, W): the two long axes.
            return (shape[1], shape[2]) if len(shape) == 3 and shape[0] < min(shape[1:]) else (shape[0], shape[1])
        if has_many_channels(stored):
            return read_layout(stored).size_px
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
    """Return the format and mode of a stored image, the type and shape of an array, or "none" for a missing mask."""
    if isinstance(stored, list):
        return "rows of values"
    if isinstance(stored, str) and stored.startswith("{"):
        return "none" if is_unmasked(stored) else "shapes"
    with report_damage(source):
        if find_suffix(stored) in (".npy", ".npz"):
            array = read_header(stored)
            return f"NumPy {array.dtype}, {array.ndim} axes"
        if has_many_channels(stored):
            layout = read_layout(stored)
            return f"{'Geo' * layout.page.is_geotiff}TIFF {layout.dtype.name}, {layout.channels} channels"
        with open_with_pillow(stored) as image:
            is_mapped = isinstance(image, TiffImagePlugin.TiffImageFile) and _GEO_KEYS_TAG in image.tag_v2
            return f"{'Geo' * is_mapped}{image.format} {image.mode}"


def count_image_channels(stored: Stored, source: str) -> int:
    """Return the channels of a stored image as a recipe states them: 3 of every picture in colour or in grey.

    Raises:
        InputError: If the file is missing or is no image.
    """
    with report_damage(source):
        if find_suffix(stored) in (".npy", ".npz"):
            shape = read_header(stored).shape
            return min(shape[0], shape[-1]) if len(shape) == 3 else 1
        if has_many_channels(stored):
            return read_layout(stored).channels
        with open_with_pillow(stored) as image:
            pages = count_equal_pages(image) if len(image.getbands()) == 1 else 1
            return pages if pages > 1 else 3


def has_many_channels(stored: Stored) -> bool:
    """Return whether a stored file is a TIFF of channels that Pillow does not open, cuts to 8 bits, or takes few of."""
    if find_suffix(stored) not in (".tif", ".tiff"):
        return False
    try:
        with open_with_pillow(stored) as image:
            tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
            is_first_alone = len(image.getbands()) == 1 and tags.get(_SAMPLES_TAG, 1) > 1  # of planes that lie apart
            is_color = tags.get(_PHOTOMETRIC_TAG) == _OF_COLORS and not set(tags.get(_EXTRA_TAG, ())) & _TRANSPARENCY
            has_bands = is_color and tags.get(_SAMPLES_TAG, 1) > 3  # near infrared, say, behind red, green and blue
            return is_first_alone or has_bands or is_cut_to_bytes(image)
    except UnidentifiedImageError:
        return read_layout(stored).channels > 1


def convert_to_rgb(image: Image.Image, value_range: ImageRange | None = None) -> Image.Image | npt.NDArray[Any]:
    """Return the upright image in RGB, transparency on white; deep greys as an array, shape (H, W, 3)."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        grey = fit_depth(np.asarray(upright), value_range)
        colors = np.repeat(grey[..., None], 3, axis=2)
        return Image.fromarray(colors) if colors.dtype == np.uint8 else colors
    if upright.mode == "RGB":
        upright.load()
        return upright if upright is not image else image.copy()
    if "A" in upright.mode or "transparency" in upright.info:
        layered = upright.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return upright.convert("RGB")


def fit_depth(values: npt.NDArray[Any], value_range: ImageRange | None) -> npt.NDArray[Any]:
    """Return values as their own type if it is deeper than 8 bits, uint8 only where 0 to 255 are meant already.

    Values of 8 bits that a range is to scale become uint16; where the range rounds, all become uint8.

    Raises:
        RangeError: If values lie outside the range, which would clip them, or no range says what they mean.
    """
    if value_range is None:
        if values.dtype == np.bool_:
            return np.where(values, 255, 0).astype(np.uint8)
        if values.dtype == np.int32 and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)  # as Pillow gives some 16-bit greys
        if values.dtype not in (np.uint8, np.uint16):
            raise RangeError(
                f"values of type {values.dtype}, and nothing says which become 0 and 255",
                f"values {values.min():g} to {values.max():g}",
                "set data.image_range: [low, high], the values that become 0 and 255 in every image",
            )
        return values
    value_range.refuse_outside(values)
    if value_range.round:
        return np.rint(value_range.scale(values)).astype(np.uint8)
    return values.astype(np.uint16) if values.dtype in (np.uint8, np.bool_) else values


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

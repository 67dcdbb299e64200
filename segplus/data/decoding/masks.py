"""Masks as raw values: whatever a file holds becomes one integer a pixel, for the ClassMap to look up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from segplus.classes import ClassMap, pack_colors
from segplus.data.decoding.arrays import load_array, read_header
from segplus.data.decoding.depth import count_equal_pages
from segplus.data.decoding.image_reader import count_pages, read_pages, read_size
from segplus.data.decoding.mask_channels import LOSSY_GREY, choose_channel, is_grey, join_planes, snap_colors
from segplus.data.decoding.polygons import draw_annotation
from segplus.data.decoding.quick_decoders import check_png, decode_bare_png, decode_png, find_bare_type, read_png_size
from segplus.data.decoding.stored import (
    LOSSY_FORMATS,
    MAX_PIXELS,
    Stored,
    find_suffix,
    is_unmasked,
    map_content,
    open_with_pillow,
    read_content,
    refuse_large,
    report_damage,
)
from segplus.errors import InputError

Raw = npt.NDArray[Any]
DEFAULT_THRESHOLD = 128  # of a binary mask
_LOSSY_NOISE = 32  # a value that the noise of a JPEG mask hardly reaches in what was drawn as 0


@dataclass(frozen=True)
class MaskDecoder:
    """How mask files become class ids.

    Args:
        classes: The look-up table.
        encoding: "auto", "ids", "palette", "colors", "binary", "instances" or "one_hot".
        threshold: Smallest foreground value of a binary mask.
        color_tolerance: Largest distance per channel to a colour of the legend.
        instance_divisor: value // this is the class of an instance mask; a smaller value that is a class's is itself.
        mask_channel: The channel that holds the ids of a mask with several.
        planes: Number of planes of a one-hot stack.
        states_void: The recipe says that 255 is ignored; otherwise it is so only where no class has it.
        states_threshold: The recipe states the threshold.
        presumed: The benchmark whose usual class names were taken because its folders were recognised, or "".
        max_pixels: Largest mask that is decoded at once.
    """

    classes: ClassMap
    encoding: str = "auto"
    threshold: int = DEFAULT_THRESHOLD
    color_tolerance: int = 0
    instance_divisor: int = 1000
    mask_channel: int | None = None
    planes: int = 0
    states_void: bool = False
    states_threshold: bool = False
    presumed: str = ""
    max_pixels: int = MAX_PIXELS

    def read(
        self, stored: Stored, source: str, check_size: Callable[[tuple[int, int]], None] | None = None
    ) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the class ids of a mask, shape (H, W).

        Args:
            stored: The mask as it lies in the table.
            source: Name for messages.
            check_size: Called with the (height, width) that the file states, before it is decoded.

        Raises:
            InputError: If the file is damaged, of another encoding, or holds a value outside the classes.
        """
        return self.classes.decode(self.read_raw(stored, source, check_size), source)

    def read_raw(self, stored: Stored, source: str, check_size: Callable[[tuple[int, int]], None] | None = None) -> Raw:
        """Return the raw values (ids, or packed colours) of a mask, any integer type, shape (H, W)."""

        def admit(height: int, width: int) -> None:
            refuse_large((height, width), self.max_pixels)
            if check_size is not None:
                check_size((height, width))

        with report_damage(source):
            if isinstance(stored, list):
                return self._read_values(np.asarray(stored), source)
            if is_unmasked(stored):
                size = read_size(json.loads(str(stored))["unmasked"], source)
                admit(*size)
                return np.full(size, min(raw for raw, id_ in self.classes.raw_to_class.items() if id_ == 0), np.int32)
            if isinstance(stored, str) and stored.startswith("{"):
                annotation = json.loads(stored)
                admit(*annotation["size"])
                return draw_annotation(annotation)
            if find_suffix(stored) in (".npy", ".npz"):
                return self._read_array(stored, source, admit)
            if find_suffix(stored) in (".png", ""):  # images in a table may come without a name
                stored = {"bytes": read_content(stored), "path": None}
                if self._takes_samples(stored["bytes"]):
                    admit(*read_png_size(stored["bytes"]))
                    return self._read_values(decode_bare_png(stored["bytes"]), source)
            return self._read_with_pillow(stored, source, admit)

    def _takes_samples(self, content: bytes) -> bool:
        """Return whether a file's samples are the values, so that it is decoded without Pillow."""
        kind = find_bare_type(content)
        if kind == "palette" and self.encoding not in ("auto", "palette"):
            return False
        return kind == "colors" or (kind != "" and not self.classes.legend)

    def _read_with_pillow(self, stored: Stored, source: str, admit: Callable[[int, int], None]) -> Raw:
        with open_with_pillow(stored, self.max_pixels) as image:
            if image.format == "PNG":
                check_png(read_content(stored))
            if image.getexif().get(0x0112, 1) == 1:
                admit(image.height, image.width)
            return self._read_image(image, source)

    def _read_array(self, stored: Stored, source: str, admit: Callable[[int, int], None]) -> Raw:
        shape = read_header(stored).shape
        if len(shape) == 2:
            admit(*shape)
        return self._read_values(load_array(stored, self.max_pixels * max(self.planes, 4)), source)

    def decode_values(self, values: Raw, source: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Return the class ids of a rectangle of a mask, shape (H, W), from its values as they are stored.

        Args:
            values: Ids (H, W), or colours (H, W, 3) where the classes have a legend.
            source: Name for messages.

        Raises:
            InputError: If a value is outside the classes.
        """
        return self.classes.decode(self._read_values(values, source), source)

    def check(self, stored: Stored, source: str) -> None:
        """Raise InputError if a PNG mask has fewer pixels than its header promises, and reading it does not tell."""
        if is_image_file(stored):
            with report_damage(source):
                content = map_content(stored)
                if content[:4] == b"\x89PNG" and not self._takes_samples(content[:]):
                    decode_png(content[:])

    def holds_faint_values(self, stored: Stored, source: str) -> bool:
        """Return whether a binary mask has values below the threshold that no noise makes, and none from it on."""
        with report_damage(source):
            is_lossy = False
            if is_image_file(stored):
                with open_with_pillow(stored) as image:
                    is_lossy = image.format in LOSSY_FORMATS
        floor = _LOSSY_NOISE if is_lossy else 1
        if floor >= self.threshold or self.read_raw(stored, source).any():
            return False
        return bool(replace(self, threshold=floor).read_raw(stored, source).any())

    def read_palette(self, stored: Stored, source: str) -> bytes | None:
        """Return the palette (r, g, b, r, ...) of a mask that is read by index; None for every other mask."""
        if self.classes.legend or self.encoding not in ("auto", "palette") or not is_image_file(stored):
            return None
        with report_damage(source), open_with_pillow(stored) as image:
            return bytes(image.getpalette("RGB") or b"") if image.mode == "P" else None

    def _read_image(self, image: Image.Image, source: str) -> Raw:
        if self.encoding == "one_hot":
            return self._read_planes(image, source)
        refuse_mask_pages(image, source)
        if image.format in LOSSY_FORMATS and self.encoding != "binary" and not self.color_tolerance:
            raise InputError(
                f"{source}: JPEG masks hold values that were never drawn",
                found=image.format,
                fix="set data.encoding: binary for masks of two classes, or data.colors with a data.color_tolerance",
            )
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if self.classes.legend:
            return self._snap_colors(pack_colors(np.asarray(_flatten_alpha(image, source))))
        if image.format in LOSSY_FORMATS and image.mode == "RGB" and is_grey(np.asarray(image), LOSSY_GREY):
            image = image.convert("L")
        if image.mode in ("P", "PA"):
            return self._read_palette(image, source)
        return self._read_values(np.asarray(image), source)

    def _read_palette(self, image: Image.Image, source: str) -> Raw:
        if self.encoding == "binary":
            return self._read_values(np.asarray(image.convert("L")), source)
        if self.encoding in ("ids", "instances"):
            raise InputError(
                f"{source}: a palette mask where ids were promised",
                found=f"mode {image.mode}",
                fix="set data.encoding: palette to take the index, or data.encoding: colors with data.colors",
            )
        return np.asarray(image if image.mode == "P" else image.getchannel("P"))

    def _read_values(self, values: Raw, source: str) -> Raw:
        if self.encoding == "one_hot":
            return join_planes(values, self.planes, self.classes.ignore_index, source)
        if self.classes.legend and values.ndim == 3:
            return self._snap_colors(pack_colors(values[..., :3]))
        if values.ndim == 3:
            values = choose_channel(values, self.mask_channel, source)
        if values.ndim != 2:
            raise InputError(f"{source}: not a mask of one channel", found=f"shape {values.shape}")
        if values.dtype == np.bool_:
            return values.astype(np.uint8)
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"{source}: mask values are not integers", found=values.dtype, fix="store the ids as integers"
            )
        if self.encoding == "binary":
            return (values >= self.threshold).astype(np.uint8)
        if self.encoding == "instances":
            # Below the divisor a class's value is itself, as in Cityscapes; others number the things of class 0.
            itself = (values < self.instance_divisor) & np.isin(values, list(self.classes.raw_to_class))
            return np.where(itself, values, values // self.instance_divisor)
        return values

    def _snap_colors(self, packed: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        if not self.color_tolerance:
            return packed
        return snap_colors(packed, [value for value in self.classes.raw_to_class if value >= 0], self.color_tolerance)

    def _read_planes(self, image: Image.Image, source: str) -> Raw:
        if count_pages(image) not in (1, self.planes):
            raise InputError(f"{source}: not a stack of {self.planes} planes, one a class", found=count_pages(image))
        planes = read_pages(image)
        stack = planes[0] if len(planes) == 1 else np.stack(planes)  # (planes, H, W)
        return join_planes(stack, self.planes, self.classes.ignore_index, source)


def refuse_mask_pages(image: Image.Image, source: str) -> None:
    """Refuse a mask of several equal pages, of which one alone would be read.

    Raises:
        InputError: If so.
    """
    pages = count_equal_pages(image)
    if pages > 1:
        raise InputError(
            f"{source}: a mask of several pages",
            found=f"{pages} pages of one size",
            fix="set data.encoding: one_hot where each page is a class, or save one page of ids",
        )


def _flatten_alpha(image: Image.Image, source: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode in ("F", "CMYK"):
        raise InputError(f"{source}: not a colour mask", found=f"mode {image.mode}", fix="set data.encoding: ids")
    return image.convert("RGB") if image.mode != "RGB" else image


def is_image_file(stored: Stored) -> bool:
    """Return whether a stored mask is an image file, and neither shapes nor an array of values."""
    if isinstance(stored, list) or (isinstance(stored, str) and stored.startswith("{")):
        return False
    return find_suffix(stored) not in (".npy", ".npz")

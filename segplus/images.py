"""Images in memory, of PIL or as arrays: their size, and rectangles of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

DecodedImage = Image.Image | npt.NDArray[Any]  # RGB, or an array (H, W, channels)
Box = tuple[int, int, int, int]  # top, left, height, width, whole pixels
_SEEN = (1.0, 99.0)  # percentiles of a channel that are drawn black and white


class RangeError(ValueError):
    """Values of an image that no range gives a meaning.

    Args:
        what: What is wrong.
        found: The values.
        fix: What to do about it.
    """

    def __init__(self, what: str, found: str, fix: str) -> None:
        super().__init__(f"{what} ({found}); {fix}")
        self.what, self.found, self.fix = what, found, fix


@dataclass(frozen=True)
class ImageRange:
    """The values that become 0 and 255 in images deeper than 8 bits.

    Args:
        low: Becomes 0.
        high: Becomes 255.
        clip: Values outside become 0 or 255; otherwise they are refused.
        round: Images become 8-bit when they are read, as models that were trained so take them; otherwise they keep
            their type up to the crop, and become float32.
    """

    low: float
    high: float
    clip: bool = False
    round: bool = False

    @classmethod
    def parse(cls, stated: Sequence[float] | Mapping[str, Any]) -> ImageRange:
        """Return the range that a recipe or an image processor states: [low, high], or those two and more by name.

        Raises:
            ValueError: If it is none.
        """
        named: dict[str, Any] = (
            dict(stated) if isinstance(stated, Mapping) else dict(zip(("low", "high"), stated, strict=True))
        )
        switches = {key: named.pop(key) for key in ("clip", "round") if key in named}
        if set(named) != {"low", "high"} or not all(isinstance(value, bool) for value in switches.values()):
            raise ValueError("not a range")
        low, high = float(named["low"]), float(named["high"])
        if not -math.inf < low < high < math.inf:
            raise ValueError("not a range")
        return cls(low, high, **switches)

    def state(self) -> list[float] | dict[str, float | bool]:
        """Return the range as a recipe states it."""
        switches = {name: True for name, is_on in (("clip", self.clip), ("round", self.round)) if is_on}
        return {"low": self.low, "high": self.high, **switches} if switches else [self.low, self.high]

    def scale(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return values of any type as float32, 0 to 255."""
        exact = np.float64 if values.dtype.itemsize > 2 and values.dtype != np.float32 else np.float32
        scaled = (values.astype(exact) - exact(self.low)) * exact(255.0 / (self.high - self.low))
        whole: npt.NDArray[np.float32] = (scaled.clip(0, 255) if self.clip else scaled).astype(np.float32, copy=False)
        return whole

    def refuse_outside(self, values: npt.NDArray[Any]) -> None:
        """Raise RangeError if values lie outside the range, which would clip them, and nobody asked for that."""
        least, most = float(values.min()), float(values.max())
        if not self.clip and (least < self.low or most > self.high):
            raise RangeError(
                f"values outside data.image_range {self.low:g}..{self.high:g} would be clipped",
                f"values {least:g}..{most:g}",
                f"if they mean nothing, set data.image_range: {{low: {self.low:g}, high: {self.high:g}, clip: true}}",
            )


# Keys of an image processor's file, which is the one file that travels with the weights wherever they go. Without the
# second the model was trained on images that were rounded to 8 bits.
RANGE_KEY, PRECISION_KEY = "image_range", "image_precision"


def read_image_range(settings: Mapping[str, Any]) -> ImageRange | None:
    """Return the range that an image processor's settings state; it rounds where the model was trained on 8 bits.

    Raises:
        ValueError: If it is none.
    """
    stated = settings.get(RANGE_KEY)
    if stated is None:
        return None
    return replace(ImageRange.parse(stated), round=settings.get(PRECISION_KEY) != "float32")


def describe_range(image_range: ImageRange | None) -> dict[str, Any]:
    """Return the settings that `read_image_range` reads."""
    if image_range is None:
        return {}
    stated = replace(image_range, round=False).state()
    return {RANGE_KEY: stated, **({} if image_range.round else {PRECISION_KEY: "float32"})}


DEEP_COLORS = ImageRange(0.0, 65535.0)  # of 16-bit images of three channels where no range is stated


def fills_type(least: float, most: float) -> bool:
    """Return whether 16-bit colours fill a quarter of their type's range, so that it may stand for a stated one."""
    return most - least >= (DEEP_COLORS.high - DEEP_COLORS.low) / 4


def is_deep(image: DecodedImage) -> bool:
    """Return whether an image has values beyond 8 bits, which a range is to scale."""
    return isinstance(image, np.ndarray) and image.dtype != np.uint8


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

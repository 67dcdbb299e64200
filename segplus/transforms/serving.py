"""The pixel values that a model is served: what its image processor makes of an image of any number of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segplus.errors import InputError
from segplus.images import DEEP_COLORS, DecodedImage, RangeError, read_image_range
from segplus.transforms.geometry import ServedSize, find_resample, resize_channels

_NARROW_PX = 4  # a colour image with a side of so few pixels would be taken for a channels-first array


class ServedPixels:
    """Hands images to the image processor that is saved with a model.

    Evaluation while training, `segplus evaluate` and `segplus predict` all come through here. A colour image goes to
    the processor whole, as transformers' pipeline hands it over. The processor resizes through PIL, which holds no
    image of two or five channels, or of 16 bits; those are resized channel by channel, deep ones as float32, to the
    size that the processor gives a colour image, by its own filter, and the processor does the rest.

    Args:
        image_processor: The processor that is saved with the model.
        channels: Number of channels that the model takes; None leaves it to the model to refuse others.
    """

    def __init__(self, image_processor: Any, channels: int | None = None) -> None:
        self.image_processor, self.channels = image_processor, channels
        self.served_size = ServedSize(image_processor)
        self.settings: dict[str, Any] = self.served_size.settings
        self.image_range = read_image_range(self.settings)

    def __call__(self, image: DecodedImage, **changes: Any) -> torch.Tensor:
        """Return pixel values (1, C, h', w').

        Args:
            image: PIL image, or an array of any type, shape (H, W, C).
            changes: Settings of the processor that count for this image only, such as `do_resize` or `size`.
        Raises:
            InputError: If the image has another number of channels than the model takes, or is deeper than 8 bits and
                nothing says what its values mean.
        """
        if isinstance(image, Image.Image) and self.channels in (3, None):
            return self._process(image, changes, is_array=min(image.size) <= _NARROW_PX)
        pixels = np.asarray(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        self._refuse_others(pixels)
        pixels = self._scale(pixels)
        if pixels.shape[2] == 3 and pixels.dtype == np.uint8:
            return self._process(Image.fromarray(pixels), changes, is_array=min(pixels.shape[:2]) <= _NARROW_PX)
        if changes.get("do_resize", self.settings.get("do_resize")):
            height_px, width_px = pixels.shape[:2]
            size = self.served_size.find(height_px, width_px, changes.pop("size", None))
            pixels = resize_channels(pixels, size, find_resample(self.settings))
            changes["do_resize"] = False
        return self._process(pixels, changes, is_array=True)

    def _process(self, image: DecodedImage, changes: dict[str, Any], is_array: bool) -> torch.Tensor:
        layout = {"input_data_format": "channels_last"} if is_array else {}
        if self.settings.get("do_split_image"):  # the model's scores are made of patches where they are made
            changes["do_split_image"] = False
        answer = self.image_processor(images=[image], return_tensors="pt", **layout, **changes)
        pixel_values: torch.Tensor = answer["pixel_values"]
        return pixel_values

    def _refuse_others(self, pixels: npt.NDArray[Any]) -> None:
        if pixels.ndim != 3 or self.channels not in (pixels.shape[2], None):
            raise InputError(
                "image: not the number of channels that the model takes",
                found=f"shape {pixels.shape}",
                allowed=f"(height, width, {self.channels or 'channels'})",
                fix="set data.channels to their number, or give the image in the channels of the training data",
            )

    def _scale(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return pixels as uint8, or as float32 from 0 to 255 where the model was trained on such."""
        if pixels.dtype == np.uint8:
            return pixels
        is_colour = pixels.dtype == np.uint16 and pixels.shape[2] == 3
        image_range = self.image_range or (replace(DEEP_COLORS, round=True) if is_colour else None)
        if image_range is None:
            raise InputError(
                "image: not 8-bit, and no range is stated",
                found=f"{pixels.dtype}, values {pixels.min():g}..{pixels.max():g}",
                fix="set data.image_range: [low, high], the values that become 0 and 255 in every image",
            )
        try:
            image_range.refuse_outside(pixels)
        except RangeError as error:
            raise InputError(f"image: {error.what}", found=error.found, fix=error.fix) from None
        scaled = image_range.scale(pixels)
        return np.rint(scaled.clip(0, 255)).astype(np.uint8) if image_range.round else scaled


def try_image_processor(image_processor: Any, channels: int, key: str) -> None:
    """Serve a black image, so that values that the processor cannot work with are told before any image is read.

    Args:
        image_processor: The processor that is saved with a model.
        channels: Number of channels that the model takes.
        key: What the message begins with.
    Raises:
        InputError: If the processor fails.
    """
    blank = np.zeros((48, 64, channels), np.uint8)
    try:
        ServedPixels(image_processor, channels)(Image.fromarray(blank) if channels == 3 else blank)
    except InputError:
        raise
    except Exception as error:  # what a wrong value breaks is the processor's own affair
        raise InputError(
            f"{key}: the image processor does not work with these values",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:400]}",
            fix="give size, resample, image_mean and image_std, such as size: {height: 512, width: 512}",
        ) from error

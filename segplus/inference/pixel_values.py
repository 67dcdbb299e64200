"""Pixel values of an image, whole or window by window, through the model's own image processor."""

from __future__ import annotations

import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from segplus.errors import InputError
from segplus.images import DecodedImage, measure_image
from segplus.transforms.geometry import resize_channels
from segplus.transforms.serving import ServedPixels

# The steps of an image processor that change an image's geometry.
_GEOMETRY = ("do_resize", "do_center_crop", "do_pad")


def scale_image(image: DecodedImage, scale: float) -> DecodedImage:
    """Return the image at `scale` times its size, at least one pixel a side."""
    height, width = (max(1, round(side * scale)) for side in measure_image(image))
    if isinstance(image, Image.Image):
        return image.resize((width, height), Image.Resampling.BILINEAR)
    return resize_channels(image, (height, width), Image.Resampling.BILINEAR)


class PixelReader:
    """Hands images to an image processor.

    Args:
        image_processor: The processor that is saved with the model.
        channels: Number of channels that the model takes; None leaves it to the model to refuse others.
    """

    def __init__(self, image_processor: BaseImageProcessor, channels: int | None = None) -> None:
        self.served_pixels = ServedPixels(image_processor, channels)
        self.settings = self.served_pixels.settings

    def read_served(self, image: DecodedImage, scale: float = 1.0) -> Tensor:
        """Return pixel values (1, C, h', w') as transformers' pipeline forms them, or at `scale` times that size.

        Raises:
            InputError: If a scale other than 1 is asked of a processor that has no size.
        """
        if scale == 1.0:
            return self.served_pixels(image)
        size = self.settings.get("size")
        if not isinstance(size, dict) or not self.settings.get("do_resize"):
            raise InputError(
                "evaluation.protocol.scales: the image processor has no size to scale",
                found=f"size: {size}",
                fix="use the protocol original or sliding",
            )
        return self.served_pixels(image, size={key: max(1, round(side * scale)) for key, side in size.items()})

    def read_window(self, image: DecodedImage, top: int, left: int, height: int, width: int) -> Tensor:
        """Return pixel values (1, C, height, width) of a window; beyond the image its border is repeated."""
        full_height, full_width = measure_image(image)
        bottom, right = min(top + height, full_height), min(left + width, full_width)
        if isinstance(image, Image.Image):
            window: DecodedImage = image.crop((left, top, right, bottom))
        else:
            window = image[top:bottom, left:right]
        off = {key: False for key in _GEOMETRY if key in self.settings}
        pixel_values = self.served_pixels(window, **off)
        missing = (0, width - (right - left), 0, height - (bottom - top))
        return F.pad(pixel_values, missing, mode="replicate") if any(missing) else pixel_values

"""The pixel values that a model is served: what its image processor makes of a picture of any number of bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segplus.errors import InputError
from segplus.images import Picture
from segplus.transforms.geometry import ServedSize, find_resample, resize_bands

_NARROW_PX = 4  # a colour picture with a side of so few pixels would be taken for a channels-first array


class ServedPixels:
    """Hands pictures to the image processor that is saved with a model.

    Evaluation while training, `segplus evaluate` and `segplus predict` all come through here. A colour picture goes to
    the processor whole, as transformers' pipeline hands it over. The processor resizes through PIL, which holds no
    picture of two or five bands; those are resized band by band to the size that the processor gives a colour picture,
    by its own filter, and the processor does the rest.

    Args:
        image_processor: The processor that is saved with the model.
        channels: Number of channels that the model takes; None leaves it to the model to refuse others.
    """

    def __init__(self, image_processor: Any, channels: int | None = None) -> None:
        self.image_processor, self.channels = image_processor, channels
        self.served_size = ServedSize(image_processor)
        self.settings: dict[str, Any] = self.served_size.settings

    def __call__(self, picture: Picture, **changes: Any) -> torch.Tensor:
        """Return pixel values (1, C, h', w').

        Args:
            picture: PIL picture, or an array, uint8, shape (H, W, C).
            changes: Settings of the processor that count for this picture only, such as `do_resize` or `size`.
        Raises:
            InputError: If the picture has another number of channels than the model takes, or is not 8-bit.
        """
        if isinstance(picture, Image.Image) and self.channels in (3, None):
            return self._process(picture, changes, is_array=min(picture.size) <= _NARROW_PX)
        bands = np.asarray(picture)
        bands = bands[..., None] if bands.ndim == 2 else bands
        self._refuse_others(bands)
        if bands.shape[2] == 3:
            return self._process(Image.fromarray(bands), changes, is_array=min(bands.shape[:2]) <= _NARROW_PX)
        if changes.get("do_resize", self.settings.get("do_resize")):
            size = self.served_size.find(*bands.shape[:2], size=changes.pop("size", None))
            bands = resize_bands(bands, size, find_resample(self.settings))
            changes["do_resize"] = False
        return self._process(bands, changes, is_array=True)

    def _process(self, picture: Picture, changes: dict[str, Any], is_array: bool) -> torch.Tensor:
        layout = {"input_data_format": "channels_last"} if is_array else {}
        answer = self.image_processor(images=[picture], return_tensors="pt", **layout, **changes)
        pixel_values: torch.Tensor = answer["pixel_values"]
        return pixel_values

    def _refuse_others(self, bands: npt.NDArray[Any]) -> None:
        if bands.ndim != 3 or self.channels not in (bands.shape[2], None):
            raise InputError(
                "picture: not the number of channels that the model takes",
                found=f"shape {bands.shape}",
                allowed=f"(height, width, {self.channels or 'channels'})",
                fix="set data.channels to the number of bands, or give the picture in the bands of the training data",
            )
        if bands.dtype != np.uint8:
            raise InputError(
                "picture: not 8-bit, and no range is stated",
                found=f"{bands.dtype}, values {bands.min():g}..{bands.max():g}",
                fix="set data.image_range: [low, high], the values that become 0 and 255 in every image",
            )

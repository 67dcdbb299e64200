"""Pixel values of a picture, whole or window by window, through the model's own image processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from segplus.errors import InputError

Picture = Image.Image | npt.NDArray[Any]
# The steps of an image processor that change a picture's geometry.
_GEOMETRY = ("do_resize", "do_center_crop", "do_pad")


def measure_picture(picture: Picture) -> tuple[int, int]:
    """Return (height, width) of a PIL picture or an array (H, W, channels)."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return int(picture.shape[0]), int(picture.shape[1])


def scale_picture(picture: Picture, scale: float) -> Picture:
    """Return the picture at `scale` times its size, at least one pixel a side."""
    height, width = (max(1, round(side * scale)) for side in measure_picture(picture))
    if isinstance(picture, Image.Image):
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].double()
    resized = F.interpolate(values, size=(height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return (resized.round() if np.issubdtype(picture.dtype, np.integer) else resized).astype(picture.dtype)


class PictureReader:
    """Hands pictures to an image processor.

    Args:
        image_processor: The processor that is saved with the model.
    """

    def __init__(self, image_processor: BaseImageProcessor) -> None:
        self.image_processor = image_processor
        self.settings: dict[str, Any] = image_processor.to_dict()

    def read_served(self, picture: Picture, scale: float = 1.0) -> Tensor:
        """Return pixel values (1, C, h', w') as transformers' pipeline forms them, or at `scale` times that size.

        Raises:
            InputError: If a scale other than 1 is asked of a processor that has no size.
        """
        if scale == 1.0:
            return self._process(picture)
        size = self.settings.get("size")
        if not isinstance(size, dict) or not self.settings.get("do_resize"):
            raise InputError(
                "evaluation.protocol.scales: the image processor has no size to scale",
                found=f"size: {size}",
                fix="use the protocol original or sliding",
            )
        return self._process(picture, size={key: max(1, round(side * scale)) for key, side in size.items()})

    def read_window(self, picture: Picture, top: int, left: int, height: int, width: int) -> Tensor:
        """Return pixel values (1, C, height, width) of a window; beyond the picture its border is repeated."""
        full_height, full_width = measure_picture(picture)
        bottom, right = min(top + height, full_height), min(left + width, full_width)
        if isinstance(picture, Image.Image):
            part: Picture = picture.crop((left, top, right, bottom))
        else:
            part = picture[top:bottom, left:right]
        off = {key: False for key in _GEOMETRY if key in self.settings}
        pixel_values = self._process(part, **off)
        missing = (0, width - (right - left), 0, height - (bottom - top))
        return F.pad(pixel_values, missing, mode="replicate") if any(missing) else pixel_values

    def _process(self, picture: Picture, **changes: Any) -> Tensor:
        # A picture one or three pixels high would otherwise be taken for a channels-first array.
        if isinstance(picture, np.ndarray) or min(measure_picture(picture)) <= 4:
            changes["input_data_format"] = "channels_last"
        pixel_values: Tensor = self.image_processor(images=[picture], return_tensors="pt", **changes)["pixel_values"]
        return pixel_values

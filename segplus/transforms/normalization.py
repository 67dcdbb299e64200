"""Normalisation exactly as the image processor does it, from a table that the processor itself fills."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from segplus.errors import InputError


class Normalization:
    """What the image processor makes of each of the 256 values of each channel.

    The table is the processor's own answer to the values 0..255, so training pixels have the very bits of served ones.

    Args:
        image_processor: Any image processor that rescales and normalises each channel by itself.
        channels: Number of image channels.
    """

    def __init__(self, image_processor: Any, channels: int = 3) -> None:
        values = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), channels, axis=2)
        off = {key: False for key in ("do_resize", "do_center_crop", "do_pad") if key in image_processor.to_dict()}
        answer = image_processor([values], input_data_format="channels_last", return_tensors="np", **off)[
            "pixel_values"
        ][0]
        self.table: npt.NDArray[np.float32] = np.ascontiguousarray(answer.reshape(channels, 256), dtype=np.float32)
        # The value nearest to 0 after normalisation, so that padding is neither dark nor bright to the model.
        self.fill: tuple[int, ...] = tuple(int(value) for value in np.abs(self.table).argmin(axis=1))

    def apply(self, image: npt.NDArray[Any]) -> torch.Tensor:
        """Return pixel values, float32, shape (C, H, W), of an image, uint8 or float32 from 0 to 255, (H, W, C).

        Raises:
            InputError: If the image is of another type or has another number of channels.
        """
        if image.dtype == np.float32 and image.ndim == 3 and image.shape[2] == len(self.table):
            channels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))
            return self.apply_to_batch(channels[None])[0]
        self._refuse_others(image)
        pixel_values = np.empty((len(self.table), *image.shape[:2]), np.float32)
        for channel, values in enumerate(cv2.split(image)):
            cv2.LUT(values, self.table[channel], dst=pixel_values[channel])
        return torch.from_numpy(pixel_values)

    def split_channels(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return pixel values that are not normalised yet, uint8, shape (C, H, W), for `apply_to_batch`.

        Raises:
            InputError: If the image is not 8-bit or has another number of channels.
        """
        self._refuse_others(image)
        channels = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
        cv2.split(image, list(channels))
        return torch.from_numpy(channels)

    def _refuse_others(self, image: npt.NDArray[np.uint8]) -> None:
        channels = len(self.table)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            fix = "set data.channels to the images' number of channels"
            raise InputError(
                "image", found=f"{image.dtype} {image.shape}", allowed=f"uint8 (H, W, {channels})", fix=fix
            )

    def apply_to_batch(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return float32 pixel values of 8-bit ones, shape (N, C, H, W), computed on the device where they lie.

        Two passes of multiply and add instead of a table look-up; they agree to float32's rounding.
        """
        table = torch.from_numpy(self.table[:, [0, 255]]).to(pixel_values.device)
        low, high = table.view(1, -1, 1, 2).unbind(-1)  # (1, C, 1) each
        step = (high - low) / 255
        return pixel_values.float().mul_(step[..., None]).add_(low[..., None])

"""One image with its mask: augmented for training, or untouched through the image processor for evaluation."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segplus.classes import IGNORE_INDEX
from segplus.errors import InputError
from segplus.images import Box, DecodedImage, OpenPair, measure_image, read_image_range, take_box
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.transforms.geometry import (
    Cut,
    ServedSize,
    Size,
    cut_image,
    cut_label,
    draw_cut,
    find_box,
    find_resample,
    measure_class_share,
)
from segplus.transforms.normalization import Normalization
from segplus.transforms.presets import PRESETS
from segplus.transforms.serving import ServedPixels
from segplus.transforms.steps import build_steps, find_unfit_steps, merge_steps

_CROP_ATTEMPTS = 10


@dataclass(frozen=True)
class WholePair:
    """An image and a mask that are in memory already.

    Args:
        pixels: RGB PIL image, or array, shape (H, W, C).
        labels: Class ids, shape (H, W).
    """

    pixels: DecodedImage
    labels: npt.NDArray[Any]

    @property
    def size_px(self) -> Size:
        """Return (height, width).

        Raises:
            InputError: If image and mask differ in size.
        """
        size = measure_image(self.pixels)
        if self.labels.shape != size:
            raise InputError("image and mask differ in size", found=f"mask {self.labels.shape}", allowed=size)
        return size

    def image(self, box: Box) -> npt.NDArray[Any]:
        """Return the image's pixels inside (top, left, height, width), shape (height, width, C)."""
        return take_box(self.pixels, box)

    def label(self, box: Box) -> npt.NDArray[Any]:
        """Return the class ids inside (top, left, height, width), shape (height, width)."""
        return take_box(self.labels, box)


class TrainingTransform:
    """Cut, change and normalise an image with its mask.

    The image is seen at the size at which the model is served, times a random factor; one resize does both.

    Args:
        image_processor: The processor that is saved with the model: its resize and its normalisation are used.
        recipe: The `transforms:` section.
        ignore_index: The label that is ignored; it fills every mask.
        channels: Number of image channels.
        normalize: False gives 8-bit pixel values, for `normalization.apply_to_batch` on the device.
        deep: Images may have more than 8 bits: they become float32, in 0..255, once the crop is cut out, and the steps
            are tried on such images.
    Raises:
        InputError: If the recipe's steps are wrong, or no crop size can be found.
    """

    def __init__(
        self,
        image_processor: Any,
        recipe: TransformsRecipe,
        ignore_index: int = IGNORE_INDEX,
        channels: int = 3,
        normalize: bool = True,
        deep: bool = False,
    ) -> None:
        preset = PRESETS[recipe.preset]
        self.served_size = ServedSize(image_processor)
        self.normalization = Normalization(image_processor, channels)
        self.ignore_index, self.normalize, self.deep = ignore_index, normalize, deep
        self.image_range = read_image_range(self.served_size.settings)
        self.resample = find_resample(self.served_size.settings)
        low, high = preset.scale if recipe.scale is None else recipe.scale
        self.scale = (low, high)
        self.max_class_share = preset.max_class_share if recipe.max_class_share is None else recipe.max_class_share
        self.crop_size_px = _choose_crop(recipe, self.served_size)
        steps = merge_steps(preset.steps, recipe.steps)
        chosen = ignore_index, self.normalization.fill, self.crop_size_px
        # Steps that a person asks for are refused where they do not fit; those of a preset are left out.
        own = {name: step for name, step in steps.items() if name not in recipe.steps}
        self.left_out = tuple(find_unfit_steps(own, *chosen, deep)) if channels != 3 or deep else ()
        self.steps = build_steps({name: steps[name] for name in steps if name not in self.left_out}, *chosen, deep)

    def __call__(
        self,
        image: DecodedImage,
        label: npt.NDArray[Any],
        rng: np.random.Generator | None = None,
        focus: tuple[int, int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return a training sample.

        Args:
            image: RGB PIL image, or array, shape (H, W, C).
            label: Class ids and the ignore index, shape (H, W).
            rng: Draws everything; the same state gives the same sample. None draws anew.
            focus: (row, column) that the crop must hold.
        Returns:
            pixel_values: float32 (uint8 without normalisation), shape (C, h, w); labels: uint8 (int32 above 255
            classes), shape (h, w).
        Raises:
            InputError: If image and mask differ in size, or the image is deeper than 8 bits where none should be.
        """
        return self.read_sample(WholePair(image, label), np.random.default_rng() if rng is None else rng, focus)

    def read_sample(
        self, pair: OpenPair | WholePair, rng: np.random.Generator, focus: tuple[int, int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the same training sample as a call, from a pair of which only what the crop needs is read."""
        cut, label = self._draw_cut(rng, pair, focus)
        box = find_box(cut, pair.size_px, self.resample)
        pixels = pair.image(box)
        if self.deep or pixels.dtype != np.uint8:
            pixels = self._scale(pixels)
        image = cut_image(pixels, box, cut, self.crop_size_px, self.normalization.fill, self.resample)
        labels = cut_label(label, cut, self.crop_size_px, self.ignore_index)
        if self.steps is not None:
            image, labels = _change(self.steps, rng, image, labels)
        return {"pixel_values": self._finish(image), "labels": wrap_label(labels)}

    def _draw_cut(
        self, rng: np.random.Generator, pair: OpenPair | WholePair, focus: tuple[int, int] | None
    ) -> tuple[Cut, npt.NDArray[Any]]:
        """Return a cut and the mask inside it."""
        image = pair.size_px
        served = self.served_size.find(*image)
        factor = float(rng.uniform(self.scale[0], self.scale[1]))
        scaled = max(round(served[0] * factor), 1), max(round(served[1] * factor), 1)
        for _ in range(_CROP_ATTEMPTS):
            cut = draw_cut(rng, image, scaled, self.crop_size_px, focus)
            label = pair.label(cut.source)
            if self.max_class_share >= 1 or measure_class_share(label, self.ignore_index) <= self.max_class_share:
                break
        return cut, label

    def _scale(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the pixels of a crop as float32, 0 to 255, before any resize rounds them."""
        if pixels.dtype == np.uint8:
            return pixels.astype(np.float32)
        if not self.deep or self.image_range is None:
            fix = "state data.image_range, the values that become 0 and 255"
            raise InputError("image is not 8-bit", found=pixels.dtype, allowed="uint8", fix=fix)
        return self.image_range.scale(pixels)

    def _finish(self, image: npt.NDArray[Any]) -> torch.Tensor:
        if self.normalize or self.deep:
            return self.normalization.apply(image)
        return self.normalization.split_channels(image)


class EvaluationTransform:
    """Hand an image to the saved image processor, as transformers' pipeline does; leave the mask alone.

    Args:
        image_processor: The processor that is saved with the model.
        channels: Number of image channels; None takes any.
    """

    def __init__(self, image_processor: Any, channels: int | None = None) -> None:
        self.served_pixels = ServedPixels(image_processor, channels)

    def serves_one_size(self) -> bool:
        """Return whether images of every size and shape are served at one size, so that any of them share a batch."""
        served_size = self.served_pixels.served_size
        return len({served_size.find(*size) for size in ((96, 96), (96, 192), (192, 96), (160, 128))}) == 1

    def __call__(self, image: DecodedImage, label: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
        """Return pixel_values (C, h', w') as served, labels (H, W) at the original size, sizes, int64, (2,).

        Raises:
            InputError: If image and mask differ in size, or the image is not 8-bit or has other channels.
        """
        if label.shape != measure_image(image):
            raise InputError("image and mask differ in size", found=f"mask {label.shape}", allowed=measure_image(image))
        pixel_values = self.served_pixels(image)[0]
        return {"pixel_values": pixel_values, "labels": wrap_label(label), "sizes": torch.tensor(label.shape)}


def wrap_label(label: npt.NDArray[Any]) -> torch.Tensor:
    """Return a mask as a tensor in the narrowest type that torch computes with: uint8, or int32 for wider ids."""
    narrow = label if label.dtype == np.uint8 else label.astype(np.int32)
    # torch warns of arrays that it must not write to, such as views of a PIL image or of a cache file.
    return torch.from_numpy(np.ascontiguousarray(narrow) if narrow.flags.writeable else narrow.copy())


def _change(
    steps: Any, rng: np.random.Generator, image: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    # set_random_seed would give every step the same seed, hence the same draws: all flips at once or none.
    steps.set_random_state(rng, random.Random(int(rng.integers(1 << 62))))
    if image.dtype == np.uint8:
        changed = steps(image=image, mask=labels)
        return changed["image"], changed["mask"]
    changed = steps(image=image / np.float32(255), mask=labels)  # albumentations has floats from 0 to 1
    return changed["image"] * np.float32(255), changed["mask"]


def _choose_crop(recipe: TransformsRecipe, served_size: ServedSize) -> Size:
    if recipe.crop_size_px is not None:
        return recipe.crop_size_px[0], recipe.crop_size_px[1]
    crop = served_size.find_crop()
    if crop is None:
        raise InputError(
            "transforms.crop_size_px: not given, and the image processor serves images at their own size",
            fix="set transforms.crop_size_px: [height, width]",
        )
    return crop

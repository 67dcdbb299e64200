"""The `transforms:` section of a recipe: how training images are cut, changed, mixed and drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from segplus.errors import InputError

Preset = Literal["none", "light", "standard", "strong", "medical", "aerial", "driving", "industrial"]
Sampling = Literal["uniform", "class_balanced", "repeat_factor"]


@dataclass
class TransformsRecipe:
    """Training augmentation; evaluation and serving never see it.

    Args:
        preset: The steps to start from; docs/augmentation.md lists them.
        crop_size_px: Height and width of a training image. None takes the size to which the image processor resizes, or
            a square of its shortest edge.
        scale: Smallest and largest factor on the size to which the image processor resizes; None takes the preset's.
        max_class_share: A crop in which one class has a larger share is drawn again, up to ten times; with 1 no crop
            is; None takes the preset's.
        steps: Transforms of albumentations by name, with their arguments, that change those of the preset: a step of
            the preset is replaced in its place, or removed with `null`; a new one is appended.
        rare_class_crop: Probability that a crop is laid over a pixel of one of the rarer classes in the image.
        sampling: How images are drawn: uniform; class_balanced, a class first and then an image that holds it; or
            repeat_factor, which repeats images with rare classes (LVIS).
        repeat_threshold: Share of images below which a class is rare, for repeat_factor.
        mixup: Probability that a batch is mixed by MixUp.
        cutmix: Probability that a batch is mixed by CutMix.
        classmix: Probability that a batch is mixed by ClassMix.
        mosaic: Probability that a batch is mixed by mosaic.
    """

    preset: Preset = "standard"
    crop_size_px: list[int] | None = None
    scale: list[float] | None = None
    max_class_share: float | None = None
    steps: dict[str, Any] = field(default_factory=dict)
    rare_class_crop: float = 0.0
    sampling: Sampling = "uniform"
    repeat_threshold: float = 0.01
    mixup: float = 0.0
    cutmix: float = 0.0
    classmix: float = 0.0
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        """Refuse sizes and probabilities that mean nothing; the steps are checked where they are built."""
        if self.crop_size_px is not None and (len(self.crop_size_px) != 2 or min(self.crop_size_px) < 1):
            raise InputError(
                "transforms.crop_size_px: not a size", found=self.crop_size_px, allowed="[height, width] in pixels"
            )
        if self.scale is not None and (len(self.scale) != 2 or not 0.01 <= self.scale[0] <= self.scale[1] <= 100):
            allowed = "[low, high], 0.01 <= low <= high <= 100"
            raise InputError("transforms.scale: not a range", found=self.scale, allowed=allowed)
        for key, share in (("max_class_share", self.max_class_share), ("repeat_threshold", self.repeat_threshold)):
            if share is not None and not 0 < share <= 1:
                raise InputError(f"transforms.{key}: not a share", found=share, allowed="above 0, up to 1")
        self._check_probabilities()

    def _check_probabilities(self) -> None:
        mixes = {"mixup": self.mixup, "cutmix": self.cutmix, "classmix": self.classmix, "mosaic": self.mosaic}
        for key, value in {"rare_class_crop": self.rare_class_crop, **mixes}.items():
            if not 0 <= value <= 1:
                raise InputError(f"transforms.{key}: not a probability", found=value, allowed="0 to 1")
        if sum(mixes.values()) > 1 + 1e-9:
            raise InputError(
                "transforms: a batch is mixed in one way at most",
                found=mixes,
                allowed="probabilities whose sum is 1 or less",
            )

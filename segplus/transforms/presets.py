"""The augmentation presets: what each does, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Steps = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """One preset.

    Args:
        scale: Range of the random factor on the size at which the model is served.
        max_class_share: A crop with a larger share of one class is drawn again; 1 never.
        steps: albumentations transforms by name, with their arguments, in order.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    max_class_share: float = 1.0
    steps: Steps = field(default_factory=dict)


_PHOTOMETRIC: Steps = {
    "RandomBrightnessContrast": {"brightness_limit": 0.125, "contrast_limit": 0.4, "p": 0.5},
    "HueSaturationValue": {"hue_shift_limit": 9, "sat_shift_limit": 40, "val_shift_limit": 15, "p": 0.5},
}

PRESETS: dict[str, Preset] = {
    "none": Preset(),
    "light": Preset(
        scale=(0.8, 1.25),
        steps={
            "HorizontalFlip": {"p": 0.5},
            "RandomBrightnessContrast": {"brightness_limit": 0.1, "contrast_limit": 0.1, "p": 0.5},
        },
    ),
    # Random scale, a crop that no class may fill, flip, photometric distortion: the recipe of most published results.
    "standard": Preset(scale=(0.5, 2.0), max_class_share=0.75, steps={"HorizontalFlip": {"p": 0.5}, **_PHOTOMETRIC}),
    "strong": Preset(
        scale=(0.4, 2.5),
        max_class_share=0.75,
        steps={
            "HorizontalFlip": {"p": 0.5},
            "Affine": {"rotate": (-10, 10), "shear": (-5, 5), "p": 0.3},
            "RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.5, "p": 0.7},
            "HueSaturationValue": {"hue_shift_limit": 18, "sat_shift_limit": 60, "val_shift_limit": 20, "p": 0.7},
            "ToGray": {"p": 0.05},
            "GaussianBlur": {"sigma_limit": (0.3, 1.5), "p": 0.2},
            "GaussNoise": {"std_range": (0.02, 0.08), "noise_scale_factor": 0.5, "p": 0.2},
            "CoarseDropout": {
                "num_holes_range": (1, 4),
                "hole_height_range": (0.05, 0.15),
                "hole_width_range": (0.05, 0.15),
                "p": 0.2,
            },
        },
    ),
    # No flip: a body's left and right differ. Add one where they do not.
    "medical": Preset(
        scale=(0.9, 1.1),
        steps={
            "Affine": {"rotate": (-15, 15), "translate_percent": (-0.05, 0.05), "p": 0.7},
            "ElasticTransform": {"alpha": 60, "sigma": 8, "p": 0.3},
            "GridDistortion": {"num_steps": 5, "distort_limit": (-0.2, 0.2), "p": 0.3},
            "RandomGamma": {"gamma_limit": (70, 140), "p": 0.5},
        },
    ),
    # Seen from above there is no up: all eight flips and quarter turns.
    "aerial": Preset(
        scale=(0.75, 1.5),
        max_class_share=0.95,
        steps={
            "D4": {"p": 1.0},
            "RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5},
            "HueSaturationValue": {"hue_shift_limit": 6, "sat_shift_limit": 25, "val_shift_limit": 10, "p": 0.4},
            "RandomGamma": {"gamma_limit": (80, 125), "p": 0.3},
        },
    ),
    "driving": Preset(
        scale=(0.5, 2.0),
        max_class_share=0.75,
        steps={
            "HorizontalFlip": {"p": 0.5},
            "Perspective": {"scale": (0.02, 0.06), "p": 0.2},
            **_PHOTOMETRIC,
            "RandomGamma": {"gamma_limit": (70, 140), "p": 0.3},
            "RandomShadow": {"shadow_intensity_range": (0.3, 0.6), "p": 0.15},
            "MotionBlur": {"blur_limit": (3, 7), "p": 0.1},
            "GaussNoise": {"std_range": (0.02, 0.06), "noise_scale_factor": 0.5, "p": 0.15},
        },
    ),
    # A fixed camera over a product: small movements, changing light, defects that a blur would wipe out.
    "industrial": Preset(
        scale=(0.9, 1.1),
        steps={
            "HorizontalFlip": {"p": 0.5},
            "VerticalFlip": {"p": 0.5},
            "Affine": {"rotate": (-5, 5), "translate_percent": (-0.05, 0.05), "p": 0.5},
            "RandomBrightnessContrast": {"brightness_limit": 0.15, "contrast_limit": 0.15, "p": 0.5},
            "Illumination": {"intensity_range": (0.02, 0.15), "p": 0.3},
            "GaussNoise": {"std_range": (0.01, 0.04), "noise_scale_factor": 0.5, "p": 0.3},
        },
    ),
}

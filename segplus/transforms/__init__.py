"""Images and masks on their way into a batch: augmentation for training, the image processor for evaluation."""

from __future__ import annotations

from segplus.transforms.mixing import BatchMixing
from segplus.transforms.normalization import Normalization
from segplus.transforms.pair_transforms import EvaluationTransform, TrainingTransform, WholePair
from segplus.transforms.presets import PRESETS

__all__ = [
    "PRESETS",
    "BatchMixing",
    "EvaluationTransform",
    "Normalization",
    "TrainingTransform",
    "WholePair",
]

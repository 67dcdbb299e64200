"""Images and masks on their way into a batch: augmentation for training, the image processor for evaluation."""

from __future__ import annotations

from segplus.transforms.mixing import BatchMixing
from segplus.transforms.normalization import Normalization
from segplus.transforms.pair_transforms import EvaluationTransform, TrainingTransform, WholePair
from segplus.transforms.presets import PRESETS
from segplus.transforms.sets import EvaluationSet, TrainingSet

__all__ = [
    "PRESETS",
    "BatchMixing",
    "EvaluationSet",
    "EvaluationTransform",
    "Normalization",
    "TrainingSet",
    "TrainingTransform",
    "WholePair",
]

"""segplus: fine-tune semantic-segmentation models on your own masks.

The steps are packages of their own: `segplus.recipe`, `segplus.data`, `segplus.transforms`, `segplus.models`,
`segplus.losses`, `segplus.metrics`, `segplus.reporting`, `segplus.training`, `segplus.inference`,
`segplus.inspection`, `segplus.export`, and `segplus.commands`, which puts them together. What stands here comes from
them, and is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segplus.classes import IGNORE_INDEX, ClassMap
    from segplus.data import SegmentationData, SegmentationSplit, load_segmentation_dataset
    from segplus.errors import InputError
    from segplus.inference import Predictor, evaluate_split
    from segplus.inspection import inspect_dataset
    from segplus.losses import LOSSES, Criterion, build_criterion
    from segplus.metrics import ConfusionMatrix, label_map, label_maps
    from segplus.models import load_image_processor, load_model
    from segplus.recipe import Recipe, load_recipe
    from segplus.training import SegmentationTrainer

    __version__: str

_HOMES = {
    "IGNORE_INDEX": "classes",
    "LOSSES": "losses",
    "ClassMap": "classes",
    "ConfusionMatrix": "metrics",
    "Criterion": "losses",
    "InputError": "errors",
    "Predictor": "inference",
    "Recipe": "recipe",
    "SegmentationData": "data",
    "SegmentationSplit": "data",
    "SegmentationTrainer": "training",
    "build_criterion": "losses",
    "evaluate_split": "inference",
    "inspect_dataset": "inspection",
    "label_map": "metrics",
    "label_maps": "metrics",
    "load_image_processor": "models",
    "load_model": "models",
    "load_recipe": "recipe",
    "load_segmentation_dataset": "data",
}

__all__ = [
    "IGNORE_INDEX",
    "LOSSES",
    "ClassMap",
    "ConfusionMatrix",
    "Criterion",
    "InputError",
    "Predictor",
    "Recipe",
    "SegmentationData",
    "SegmentationSplit",
    "SegmentationTrainer",
    "__version__",
    "build_criterion",
    "evaluate_split",
    "inspect_dataset",
    "label_map",
    "label_maps",
    "load_image_processor",
    "load_model",
    "load_recipe",
    "load_segmentation_dataset",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("segplus")
    if name not in _HOMES:
        raise AttributeError(f"module 'segplus' has no attribute '{name}'")
    return getattr(importlib.import_module(f"segplus.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

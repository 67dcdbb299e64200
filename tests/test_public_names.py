"""What may be imported from where: a name that goes missing breaks somebody's loop."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "segplus": [
        *["IGNORE_INDEX", "LOSSES", "ClassMap", "ConfusionMatrix", "Criterion", "InputError", "Predictor", "Recipe"],
        *["SegmentationData", "SegmentationSplit", "SegmentationTrainer", "__version__", "build_criterion"],
        *["evaluate_split", "inspect_dataset", "label_map", "label_maps", "load_image_processor", "load_model"],
        *["load_recipe", "load_segmentation_dataset"],
    ],
    "segplus.data": ["SegmentationData", "SegmentationSplit", "check_split", "load_segmentation_dataset"],
    "segplus.metrics": ["ConfusionMatrix", "compute_scores", "confusion_matrices", "label_map", "label_maps"],
    "segplus.inference": ["Predictor", "evaluate_split"],
    "segplus.inspection": ["Audit", "inspect_dataset"],
    "segplus.losses": ["LOSSES", "Criterion", "build_criterion"],
    "segplus.models": ["load_image_processor", "load_model", "load_segmentation_checkpoint"],
    "segplus.recipe": ["Recipe", "load_recipe", "save_recipe"],
    "segplus.training": ["SegmentationTrainer", "TrainingSet", "build_trainer", "build_training_arguments"],
    "segplus.transforms": ["EvaluationTransform", "TrainingTransform"],
}


@pytest.mark.parametrize("module_name", PUBLIC)
def test_public_names_are_exported_and_sorted(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert set(PUBLIC[module_name]) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    groups = [
        [n for n in module.__all__ if n.isupper()],
        [n for n in module.__all__ if n[0].isupper() and not n.isupper()],
    ]
    groups.append([n for n in module.__all__ if not n[0].isupper()])
    assert module.__all__ == [name for group in groups for name in sorted(group)]


def test_the_package_itself_gives_these_names_and_no_other() -> None:
    assert importlib.import_module("segplus").__all__ == PUBLIC["segplus"]
    with pytest.raises(ImportError, match="cannot import name 'segmentation_trainer' from 'segplus'"):
        exec("from segplus import segmentation_trainer")

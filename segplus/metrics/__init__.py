"""From logits and labels to scores: label maps, confusion matrices, metrics, all streamed."""

from typing import Any

from segplus.metrics.bootstrap import PairedDifference, compare_counts, compute_intervals
from segplus.metrics.borders import BoundaryIoU, SurfaceDistances, TrimapIoU
from segplus.metrics.calibration import CalibrationError
from segplus.metrics.confusion import ConfusionMatrix, compute_scores, confusion_matrices, score_counts
from segplus.metrics.evaluator import Evaluator, ImageScores
from segplus.metrics.found_objects import ObjectScores
from segplus.metrics.labels import label_map, label_maps

__all__ = [
    "BoundaryIoU",
    "CalibrationError",
    "ConfusionMatrix",
    "Evaluator",
    "ImageScores",
    "MeanIoU",
    "ObjectScores",
    "PairedDifference",
    "SurfaceDistances",
    "TrimapIoU",
    "compare_counts",
    "compute_intervals",
    "compute_scores",
    "confusion_matrices",
    "label_map",
    "label_maps",
    "score_counts",
]


def __getattr__(name: str) -> Any:
    """Import MeanIoU when it is asked for: only it needs the evaluate library."""
    if name != "MeanIoU":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segplus.metrics.mean_iou import MeanIoU

    return MeanIoU

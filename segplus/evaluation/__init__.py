"""From logits and labels to scores: label maps, confusion matrices, metrics, all streamed."""

from segplus.evaluation.bootstrap import PairedDifference, compare_counts, compute_intervals, score_counts
from segplus.evaluation.borders import BoundaryIoU, SurfaceDistances, TrimapIoU
from segplus.evaluation.calibration import CalibrationError
from segplus.evaluation.confusion import ConfusionMatrix, compute_scores, confusion_matrices
from segplus.evaluation.evaluator import Evaluator, ImageScores
from segplus.evaluation.labels import label_map, label_maps

__all__ = [
    "BoundaryIoU",
    "CalibrationError",
    "ConfusionMatrix",
    "Evaluator",
    "ImageScores",
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

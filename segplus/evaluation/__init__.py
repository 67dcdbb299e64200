"""From logits and labels to scores: label maps, confusion matrices, metrics, all streamed."""

from segplus.evaluation.confusion import ConfusionMatrix, compute_scores, confusion_matrices
from segplus.evaluation.label_maps import label_map, label_maps

__all__ = ["ConfusionMatrix", "compute_scores", "confusion_matrices", "label_map", "label_maps"]

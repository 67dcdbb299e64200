"""The scores of one evaluation: one confusion matrix, and what people measure beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from transformers import EvalPrediction

from segplus.classes import ClassMap
from segplus.metrics import compute_scores
from segplus.metrics.label_map_store import LabelMaps
from segplus.metrics.user_metrics import EvaluateModule, MetricFunction, StreamedMetric, name_classes, waits_for_all

Array = npt.NDArray[Any]
_MEANS = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_dice", "frequency_weighted_iou")


class Scorekeeper:
    """Sums confusion matrices batch by batch, and gives strangers' metrics the label maps that they ask for.

    Args:
        classes: The classes.
        metrics: From `load_metrics`.
        split: What the images are called in a model card.
        keeps_maps: Keep label maps and labels, for `predict`.
    """

    def __init__(
        self,
        classes: ClassMap,
        metrics: Sequence[MetricFunction],
        split: str = "validation",
        *,
        keeps_maps: bool = False,
    ) -> None:
        self.classes, self.split = classes, split
        self.matrix = torch.zeros(classes.num_classes, classes.num_classes, dtype=torch.int64)
        self.images = 0
        self.predictions, self.labels = LabelMaps(), LabelMaps()
        self._batched = [metric for metric in metrics if not waits_for_all(metric)]
        self._final = [metric for metric in metrics if waits_for_all(metric)]
        for metric in self._batched:
            if isinstance(metric, EvaluateModule | StreamedMetric):
                metric.forget()
        self._keeps_maps = keeps_maps or bool(self._final)
        self._others: dict[str, Any] = {}

    @property
    def wants_maps(self) -> bool:
        """Whether label maps are asked for; else they need not be gathered from other processes."""
        return self._keeps_maps or bool(self._batched)

    def add_matrices(self, matrices: torch.Tensor) -> None:
        """Count a batch, shape (N, C, C)."""
        self.matrix = self.matrix.to(matrices.device) + matrices.sum(0)
        self.images += len(matrices)

    def add_maps(self, predictions: Sequence[Array], labels: Sequence[Array] | None, *, is_last: bool) -> None:
        """Take a batch's label maps and labels, (H, W) each; or what replaces the former for metrics."""
        if self._keeps_maps:
            for prediction in predictions:
                self.predictions.append(prediction)
            for label in labels or ():
                self.labels.append(label)
        if labels is not None:
            batch = EvalPrediction(predictions=predictions, label_ids=labels)
            for metric in self._batched:
                self._others |= metric(batch, compute_result=is_last)

    def compute(self) -> dict[str, Any]:
        """Return our means and the IoU of each class that occurs, and what the others measured, whose names win."""
        scores = compute_scores(self.matrix)
        own = {name: scores[name] for name in _MEANS} | {
            f"iou/{name}": value
            for name, value in zip(self.classes.names, scores["per_category_iou"], strict=True)
            if value == value  # an absent class has no IoU
        }
        for metric in self._final:
            self._others |= metric(EvalPrediction(predictions=self.predictions, label_ids=self.labels))
        return own | name_classes(self._others, self.classes)

    def describe(self) -> dict[str, Any]:
        """Return every score of the confusion matrix, for a model card."""
        return {**compute_scores(self.matrix), "images": self.images}

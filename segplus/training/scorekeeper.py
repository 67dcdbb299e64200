"""The scores of one evaluation: one confusion matrix, and what people measure beside it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import EvalPrediction

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.metrics import BoundaryIoU, ObjectScores, SurfaceDistances, TrimapIoU, compute_scores
from segplus.training.label_map_store import LabelMaps

Array = npt.NDArray[Any]
UserMetric = Callable[..., dict[str, Any]] | str | Any  # Any: evaluate's modules, where it is installed
# Metrics of label maps, that stream over images and may be given as they are.
_STREAMED = (BoundaryIoU, ObjectScores, SurfaceDistances, TrimapIoU)
_MEANS = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_dice", "frequency_weighted_iou")


class Scorekeeper:
    """Sums confusion matrices batch by batch, and gives strangers' metrics the label maps that they ask for.

    Args:
        classes: The classes.
        metrics: Functions of an EvalPrediction, metrics such as ObjectScores, modules of `evaluate`, or their names.
        split: What the images are called in a model card.
        keeps_maps: Keep label maps and labels, for `predict`.
    """

    def __init__(
        self, classes: ClassMap, metrics: Sequence[UserMetric], split: str = "validation", *, keeps_maps: bool = False
    ) -> None:
        self.classes, self.split = classes, split
        self.matrix = torch.zeros(classes.num_classes, classes.num_classes, dtype=torch.int64)
        self.images = 0
        self.predictions, self.labels = LabelMaps(), LabelMaps()
        self._batched = [_open_metric(metric, classes) for metric in metrics if not _waits_for_all(metric)]
        self._final = [metric for metric in metrics if _waits_for_all(metric)]
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
        return own | _name_classes(self._others, self.classes)

    def describe(self) -> dict[str, Any]:
        """Return every score of the confusion matrix, for a model card."""
        return {**compute_scores(self.matrix), "images": self.images}


def list_metrics(compute_metrics: UserMetric | Sequence[UserMetric] | None) -> list[UserMetric]:
    """Return the metrics that a trainer was given; names and paths are loaded by `evaluate`."""
    if compute_metrics is None:
        return []
    listed = compute_metrics if isinstance(compute_metrics, list | tuple) else [compute_metrics]
    return [load_evaluate_module(metric) if isinstance(metric, str) else metric for metric in listed]


def load_evaluate_module(name: str) -> Any:
    """Return a metric of the `evaluate` library by its name or the path of its script; mean_iou is our own.

    Raises:
        InputError: If `evaluate` is not installed, or finds no such metric.
    """
    try:
        import evaluate
    except ImportError as error:
        raise InputError(
            f"metrics: '{name}' needs the evaluate library", found=error, fix="pip install evaluate"
        ) from None
    if name == "mean_iou":
        from segplus.metrics import MeanIoU

        return MeanIoU()
    try:
        return evaluate.load(name)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"metrics: evaluate cannot load '{name}'",
            found=str(error).splitlines()[0],
            fix="check the name or the path",
        ) from None


def _waits_for_all(metric: UserMetric) -> bool:
    return (
        not isinstance(metric, _STREAMED)
        and callable(metric)
        and "compute_result" not in inspect.signature(metric).parameters
    )


def _open_metric(metric: UserMetric, classes: ClassMap) -> Callable[..., dict[str, Any]]:
    """Return a function of a batch and compute_result, as Trainer asks for with batch_eval_metrics."""
    if isinstance(metric, _STREAMED):
        return _stream(copy.deepcopy(metric))
    if callable(metric):
        return metric
    known = inspect.signature(metric._compute).parameters
    given = {"num_labels": classes.num_classes, "ignore_index": classes.ignore_index}
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    takes_pixels = type(features["predictions"]).__name__ == "Value"

    def measure(batch: EvalPrediction, compute_result: bool) -> dict[str, Any]:
        pairs = list(zip(batch.predictions, batch.label_ids, strict=True))
        if takes_pixels:
            pairs = [
                (guess[truth != classes.ignore_index], truth[truth != classes.ignore_index]) for guess, truth in pairs
            ]
            guesses, truths = (np.concatenate(column) for column in zip(*pairs, strict=True))
        else:
            guesses, truths = (list(column) for column in zip(*pairs, strict=True))
        metric.add_batch(predictions=guesses, references=truths)
        if not compute_result:
            return {}
        return metric.compute(**{name: value for name, value in given.items() if name in known}) or {}

    return measure


def _stream(metric: Any) -> Callable[..., dict[str, Any]]:
    """Return one of segplus' metrics of label maps as a function of a batch; of its scores those that are numbers."""

    def measure(batch: EvalPrediction, compute_result: bool) -> dict[str, Any]:
        for guess, truth in zip(batch.predictions, batch.label_ids, strict=True):
            metric.update(guess, truth)
        return {k: v for k, v in metric.compute().items() if not isinstance(v, dict)} if compute_result else {}

    return measure


def _name_classes(scores: Mapping[str, Any], classes: ClassMap) -> dict[str, Any]:
    """Give an array of one number a class one entry a class, so that every score is a number that can be logged."""
    named: dict[str, Any] = {}
    for key, value in scores.items():
        if np.ndim(value) == 1 and len(value) == classes.num_classes:
            named |= {f"{key}/{name}": float(one) for name, one in zip(classes.names, value, strict=True)}
        else:
            named[key] = value
    return named

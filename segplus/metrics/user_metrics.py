"""Metrics that people bring: functions, modules of the `evaluate` library, and the names of either."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import EvalPrediction

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.metrics.borders import BoundaryIoU, SurfaceDistances, TrimapIoU
from segplus.metrics.found_objects import ObjectScores
from segplus.metrics.label_map_store import LabelMaps
from segplus.recipe.evaluation_section import OWN_METRICS
from segplus.recipe.imports import import_object

Streamed = BoundaryIoU | ObjectScores | SurfaceDistances | TrimapIoU
Array = npt.NDArray[Any]
Scores = dict[str, Any]
MetricFunction = Callable[..., Scores]
UserMetric = MetricFunction | str | Mapping[str, Mapping[str, Any]] | Any  # Any: evaluate's own modules
_DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_KEY = "evaluation.metrics"
_BATCH = 8  # images that a metric is fed at once


class EvaluateModule:
    """A metric of the `evaluate` library as a function of a batch and compute_result, the way of Trainer.

    Args:
        module: What `evaluate.load` returns.
        classes: The classes; num_labels and ignore_index go to a metric that asks for them.
        arguments: Further arguments of its `compute`.
    """

    def __init__(self, module: Any, classes: ClassMap, arguments: Mapping[str, Any]) -> None:
        self._module, self._classes = module, classes
        known = inspect.signature(module._compute).parameters
        given = {"num_labels": classes.num_classes, "ignore_index": classes.ignore_index}
        self._arguments = {name: value for name, value in given.items() if name in known} | dict(arguments)
        features = module.features[0] if isinstance(module.features, list) else module.features
        self._takes_pixels = type(features["predictions"]).__name__ == "Value"
        self._holds_images = False

    def __call__(self, batch: EvalPrediction, compute_result: bool) -> Scores:
        """Add a batch: label maps where the metric takes images, valid pixels where it takes numbers."""
        pairs: list[tuple[Array, Array]] = list(zip(batch.predictions, batch.label_ids, strict=True))
        if self._takes_pixels:
            masks = [truth != self._classes.ignore_index for _, truth in pairs]
            pairs = [(guess[kept], truth[kept]) for (guess, truth), kept in zip(pairs, masks, strict=True)]
            guesses, truths = (np.concatenate(column) for column in zip(*pairs, strict=True))
            self._module.add_batch(predictions=guesses, references=truths)
        else:
            self._module.add_batch(predictions=[guess for guess, _ in pairs], references=[truth for _, truth in pairs])
        self._holds_images = True
        return self._compute() if compute_result else {}

    def forget(self) -> None:
        """Drop the images of an evaluation that was interrupted."""
        if self._holds_images:
            self._compute()

    def _compute(self) -> Scores:
        self._holds_images = False
        return self._module.compute(**self._arguments) or {}


class StreamedMetric:
    """One of segplus' metrics of label maps as a function of a batch and compute_result; it is left as it was given.

    Args:
        metric: Such as ObjectScores.
    """

    def __init__(self, metric: Streamed) -> None:
        self._empty = metric
        self.forget()

    def __call__(self, batch: EvalPrediction, compute_result: bool) -> Scores:
        """Add a batch; return those of the scores that are numbers or one number a class."""
        for guess, truth in zip(batch.predictions, batch.label_ids, strict=True):
            self._metric.update(guess, truth)
        if not compute_result:
            return {}
        scores = {name: value for name, value in self._metric.compute().items() if not isinstance(value, dict)}
        self.forget()
        return scores

    def forget(self) -> None:
        """Drop the images that were added."""
        self._metric = copy.deepcopy(self._empty)


class UserMetrics:
    """What the metrics that a recipe brings measure of a stream of label maps, which are kept until the end.

    Args:
        entries: Names, or name -> arguments, of what `load_metrics` finds.
        classes: The classes.
    Raises:
        InputError: If a metric cannot be loaded, or fails on a perfect prediction of all classes.
    """

    def __init__(self, entries: Sequence[str | Mapping[str, Mapping[str, Any]]], classes: ClassMap) -> None:
        self._entries, self._classes = list(entries), classes
        self._predictions, self._labels = LabelMaps(), LabelMaps()
        for entry in self._entries:
            _try_metric(entry, classes)

    def update(self, prediction: Array, label: Array) -> None:
        """Keep one image; class ids, shape (H, W) each."""
        ids = self._classes.label_dtype
        self._predictions.append(prediction.astype(ids))
        self._labels.append(label.astype(ids))

    def merge(self, other: UserMetrics) -> None:
        """Take the images that another process kept."""
        for prediction, label in zip(other._predictions, other._labels, strict=True):
            self.update(prediction, label)

    def compute(self) -> Scores:
        """Return user_metrics: what each metric measured, under the names that it gives."""
        found: Scores = {}
        for metric in load_metrics(self._entries, self._classes, _KEY):
            found |= _measure(metric, self._predictions, self._labels)
        return {"user_metrics": name_classes(found, self._classes)}


def _measure(metric: MetricFunction, predictions: Sequence[Array], labels: Sequence[Array]) -> Scores:
    # EvalPrediction names arrays and tuples of them; what it is handed here is read in the same way.
    if waits_for_all(metric):
        return metric(EvalPrediction(predictions=predictions, label_ids=labels))  # type: ignore[arg-type]
    scores: Scores = {}
    for start in range(0, len(predictions), _BATCH):
        rows = slice(start, start + _BATCH)
        batch = EvalPrediction(predictions=predictions[rows], label_ids=labels[rows])  # type: ignore[arg-type]
        scores = metric(batch, compute_result=rows.stop >= len(predictions))
    return scores


def _try_metric(entry: str | Mapping[str, Mapping[str, Any]], classes: ClassMap) -> None:
    """Measure a perfect prediction, so that what a metric lacks is told before anything is computed."""
    truth = [np.arange(classes.num_classes, dtype=classes.label_dtype)[:, None].repeat(2, axis=1)]
    name = entry if isinstance(entry, str) else next(iter(entry))
    for metric in load_metrics(entry, classes, _KEY):
        try:
            _measure(metric, truth, truth)
        except Exception as error:  # what a stranger's metric cannot do is its own affair
            raise InputError(
                f"{_KEY}: '{name}' fails on a perfect prediction of all classes",
                found=f"{type(error).__name__}: {error}",
                fix=f"give the arguments that it needs, - {name}: {{argument: value}}, or mend it",
            ) from error


def load_metrics(
    metrics: UserMetric | Sequence[UserMetric] | None, classes: ClassMap, key: str = "compute_metrics"
) -> list[MetricFunction]:
    """Return metrics as functions of an EvalPrediction, or of a batch and compute_result.

    Args:
        metrics: A metric or a list of them: functions, modules of `evaluate`, names, or name -> arguments. A name is a
            dotted path, or what `evaluate.load` takes: a metric of the Hub, or the path of a script.
        classes: The classes.
        key: What names them, for messages.
    Raises:
        InputError: If there is no such metric, or it refuses its arguments.
    """
    if metrics is None:
        return []
    loaded: list[MetricFunction] = []
    for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
        if isinstance(metric, str | Mapping):
            named: Mapping[str, Mapping[str, Any]] = {metric: {}} if isinstance(metric, str) else metric
            loaded += [_load_metric(name, classes, arguments, key) for name, arguments in named.items()]
        else:
            loaded.append(_wrap(metric, classes))
    return loaded


def _load_metric(name: str, classes: ClassMap, arguments: Mapping[str, Any], key: str) -> MetricFunction:
    if not _DOTTED_PATH.fullmatch(name) or name.endswith(".py") or Path(name).exists():
        return EvaluateModule(load_evaluate_module(name, key), classes, arguments)
    found = import_object(name, key)
    try:
        metric = found(**arguments) if isinstance(found, type) else partial(found, **arguments)
    except TypeError as error:
        raise InputError(f"{key}: cannot make '{name}'", found=error) from None
    return _wrap(metric, classes)


def _wrap(metric: Any, classes: ClassMap) -> MetricFunction:
    if isinstance(metric, Streamed):
        return StreamedMetric(metric)
    return metric if callable(metric) else EvaluateModule(metric, classes, {})


def load_evaluate_module(name: str, key: str) -> Any:
    """Return a metric of the `evaluate` library by its name or the path of its script; mean_iou is our own.

    Raises:
        InputError: If `evaluate` is not installed, or finds no such metric.
    """
    try:
        import evaluate
    except ImportError as error:
        raise InputError(
            f"{key}: '{name}' needs the evaluate library", found=error, fix="pip install evaluate"
        ) from None
    if name == "mean_iou":
        from segplus.metrics.mean_iou import MeanIoU

        return MeanIoU()
    ours = f"{', '.join(OWN_METRICS)}, " if key == _KEY else ""
    try:
        return evaluate.load(name)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"{key}: evaluate cannot load '{name}'",
            found=str(error).splitlines()[0],
            allowed=f"{ours}a metric of the Hub, the path of a script, package.module.name",
            fix="check the name; without a network only what evaluate loaded before is found",
        ) from None


def waits_for_all(metric: MetricFunction) -> bool:
    """Return whether a metric is called once, with all images, and not batch by batch."""
    return "compute_result" not in inspect.signature(metric).parameters


def name_classes(scores: Mapping[str, Any], classes: ClassMap) -> Scores:
    """Give an array of one number a class one entry a class, so that every score is a number that can be logged."""
    named: Scores = {}
    for key, value in scores.items():
        if np.ndim(value) == 1 and len(value) == classes.num_classes:
            named |= {f"{key}/{name}": float(one) for name, one in zip(classes.names, value, strict=True)}
        else:
            named[key] = value
    return named

"""evaluate's mean_iou with its inputs and outputs, offline: pairs of values are counted, no mask is stored."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
import numpy.typing as npt

from segplus.metrics.confusion import average, divide
from segplus.metrics.pair_counts import BYTE_PAIRS, add_byte_pairs, count_pairs

_DESCRIPTION = "Mean intersection over union of label maps, with the names and formulas of evaluate's mean_iou."
_INPUTS = """
Args:
    predictions: Label maps, each of shape (height, width).
    references: The truth, likewise.
    num_labels: Number of classes.
    ignore_index: The label that is ignored.
    nan_to_num: Number that stands for NaN, where one is given.
    label_map: Old label -> new label, before anything else.
    reduce_labels: Label 0 becomes 255, every other is lowered by one.
Returns:
    mean_iou, mean_accuracy, overall_accuracy, and per_category_iou and per_category_accuracy, shape (num_labels,).
"""


class MeanIoU(evaluate.Metric):  # type: ignore[misc]
    """Drop-in for `evaluate.load("mean_iou")`; see its inputs_description."""

    def _info(self) -> Any:
        image = datasets.Image()
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": image, "references": image}),
        )

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._counts: list[npt.NDArray[np.int64]] = []
        self._byte_counts = np.zeros(BYTE_PAIRS, np.int64)  # at 256 * label + prediction

    def add(self, *, prediction: Any = None, reference: Any = None, **_: Any) -> None:
        """Count one image.

        Raises:
            ValueError: If the shapes differ, or a value is negative.
        """
        guess, truth = np.asarray(prediction), np.asarray(reference)
        if guess.shape != truth.shape:
            raise ValueError(f"prediction {guess.shape} and reference {truth.shape} differ in shape")
        if guess.dtype == truth.dtype == np.uint8 and truth.size:
            add_byte_pairs(self._byte_counts, truth.ravel(), guess.ravel())
        else:
            self._counts.append(count_pairs(truth.ravel().astype(np.int64), guess.ravel().astype(np.int64)))

    def add_batch(self, *, predictions: Any = None, references: Any = None, **_: Any) -> None:
        """Count images."""
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def compute(self, *, predictions: Any = None, references: Any = None, **settings: Any) -> dict[str, Any]:
        """Return the scores of the images given here and added before, and forget them; see the class."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        found = np.flatnonzero(self._byte_counts)
        counts = [*self._counts, np.stack([found & 255, found >> 8, self._byte_counts[found]])]
        self._counts = []
        self._byte_counts[:] = 0
        return self._compute(*np.concatenate(counts, axis=1), **settings)

    def _compute(
        self,
        predictions: npt.NDArray[np.int64],
        references: npt.NDArray[np.int64],
        pixels: npt.NDArray[np.int64],
        num_labels: int,
        ignore_index: int,
        nan_to_num: float | None = None,
        label_map: dict[int, int] | None = None,
        reduce_labels: bool = False,
    ) -> dict[str, Any]:
        truth = references.copy()
        for old, new in (label_map or {}).items():
            truth[references == old] = new
        if reduce_labels:
            truth = np.where(truth == 0, 255, truth) - 1
            truth[truth == 254] = 255
        valid = truth != ignore_index
        guess, truth, pixels = predictions[valid], truth[valid], pixels[valid]

        def count(values: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            inside = (values >= 0) & (values < num_labels)
            return np.bincount(values[inside], weights[inside], minlength=num_labels).astype(np.float64)

        same = guess == truth
        hits, predicted, actual = count(guess[same], pixels[same]), count(guess, pixels), count(truth, pixels)
        iou, accuracy = divide(hits, predicted + actual - hits), divide(hits, actual)
        scores: dict[str, Any] = {
            "mean_iou": average(iou),
            "mean_accuracy": average(accuracy),
            "overall_accuracy": float(divide(hits.sum(keepdims=True), actual.sum(keepdims=True))[0]),
            "per_category_iou": iou,
            "per_category_accuracy": accuracy,
        }
        if nan_to_num is None:
            return scores
        return {name: np.nan_to_num(np.asarray(value), nan=nan_to_num) for name, value in scores.items()}

"""Confusion matrices and the scores that follow from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segplus.classes import IGNORE_INDEX
from segplus.metrics.pair_counts import BYTE_PAIRS, add_byte_pairs

Floats = npt.NDArray[np.float64]
_PIXELS_AT_ONCE = 1 << 22


def confusion_matrices(
    predictions: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[Tensor],
    num_classes: int,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """One confusion matrix per image, counted on the device of the predictions.

    Args:
        predictions: Class ids, any integer type, shape (N, H, W), or N tensors of shapes (h, w).
        labels: Class ids, the same shapes. Beside a list of predictions they may be padded at the right and the bottom,
            shape (N, H, W), with ignore_index.
        num_classes: C.
        ignore_index: The label that is ignored.
    Returns:
        int64, shape (N, C, C): rows are the truth, columns the prediction.
    Raises:
        ValueError: If a label is outside [0, C) and not ignore_index, a prediction is outside [0, C) where the label
            is not ignored, or the shapes do not fit.
    """
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions but {len(labels)} labels")
    if isinstance(predictions, Tensor) and isinstance(labels, Tensor) and predictions.shape != labels.shape:
        raise ValueError(f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} differ in shape")
    if len(predictions) == 0:
        return torch.zeros(0, num_classes, num_classes, dtype=torch.int64)
    pairs = zip(predictions, labels, strict=True)
    return torch.stack([_count_image(prediction, label, num_classes, ignore_index) for prediction, label in pairs])


def _crop_padding(label: Tensor, height: int, width: int, ignore_index: int) -> Tensor:
    if label.shape == (height, width):
        return label
    if label.ndim != 2 or label.shape[0] < height or label.shape[1] < width:
        raise ValueError(f"labels {tuple(label.shape)} are smaller than the prediction ({height}, {width})")
    if (label[height:] != ignore_index).any() or (label[:, width:] != ignore_index).any():
        raise ValueError(f"labels {tuple(label.shape)} hold classes outside the prediction ({height}, {width})")
    return label[:height, :width]


def _count_image(prediction: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    height, width = prediction.shape
    label = _crop_padding(label, height, width, ignore_index).to(prediction.device)
    if fits_bytes(prediction, num_classes, ignore_index) and label.numel():
        return _count_bytes(prediction, label, num_classes)
    # Ignored pixels are counted in a first row, which is cut off.
    counts = torch.zeros((num_classes + 1) * num_classes, dtype=torch.int64, device=prediction.device)
    rows = max(1, _PIXELS_AT_ONCE // max(width, 1))
    for guess, truth in zip(torch.split(prediction, rows), torch.split(label, rows), strict=True):
        if guess.numel():
            index = _number_rows(truth, num_classes, ignore_index)
            guess = _check_predictions(guess, index, num_classes)
            counts += torch.bincount(index.mul_(num_classes).add_(guess).flatten(), minlength=len(counts))
    return counts.view(num_classes + 1, num_classes)[1:]


def fits_bytes(prediction: Tensor, num_classes: int, ignore_index: int) -> bool:
    """Whether class ids are counted as bytes on the CPU; any other tensor is counted where it lies."""
    is_byte = prediction.device.type == "cpu" and prediction.dtype == torch.uint8
    return is_byte and num_classes <= ignore_index == IGNORE_INDEX


def _count_bytes(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    if label.dtype != torch.uint8:
        _refuse_outside("labels", label, IGNORE_INDEX)
    pairs = np.zeros(BYTE_PAIRS, np.int64)
    add_byte_pairs(pairs, label.to(torch.uint8).numpy().ravel(), prediction.numpy().ravel())
    counts = pairs.reshape(256, 256)
    if counts[num_classes:IGNORE_INDEX].any():
        raise ValueError(_describe_labels(label, num_classes, IGNORE_INDEX))
    if counts[:num_classes, num_classes:].any():
        _refuse_outside("predictions", prediction[label < num_classes], num_classes - 1)
    return torch.from_numpy(counts[:num_classes, :num_classes].copy())


def _number_rows(truth: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return 0 for ignored pixels and class id + 1 for the others, in a type that holds every index of the matrix."""
    wide = torch.int32 if (num_classes + 1) * num_classes < 2**31 else torch.int64
    if ignore_index == IGNORE_INDEX and truth.dtype != torch.uint8 and num_classes < IGNORE_INDEX:
        _refuse_outside("labels", truth, IGNORE_INDEX)
        truth = truth.to(torch.uint8)
    if truth.dtype == torch.uint8 and ignore_index == IGNORE_INDEX:
        # In eight bits 255 + 1 is 0: no comparison, no second tensor.
        row = truth + 1
        if int(row.max()) > num_classes:
            raise ValueError(_describe_labels(truth, num_classes, ignore_index))
        return row.to(wide)
    ignored = truth == ignore_index
    kept = torch.where(ignored, 0, truth)
    if int(kept.min()) < 0 or int(kept.max()) >= num_classes:
        raise ValueError(_describe_labels(truth, num_classes, ignore_index))
    return torch.where(ignored, 0, kept.to(wide) + 1)


def _check_predictions(guess: Tensor, rows: Tensor, num_classes: int) -> Tensor:
    """Return the predictions; where the truth is ignored (row 0) they may be anything, and become class 0."""
    low, high = (int(value) for value in guess.aminmax())
    if low >= 0 and high < num_classes:
        return guess
    counted = guess[rows > 0]
    if counted.numel():
        _refuse_outside("predictions", counted, num_classes - 1)
    return torch.where(rows > 0, guess, 0)


def _refuse_outside(what: str, ids: Tensor, highest: int) -> None:
    low, high = (int(value) for value in ids.aminmax())
    if low < 0 or high > highest:
        raise ValueError(f"{what} must be in [0, {highest}], found {high if high > highest else low}")


def _describe_labels(truth: Tensor, num_classes: int, ignore_index: int) -> str:
    return f"labels must be in [0, {num_classes}) or {ignore_index}, found {torch.unique(truth).tolist()}"


class ConfusionMatrix:
    """Counts of (truth, prediction) over any number of images, in constant memory.

    Args:
        num_classes: C.
        ignore_index: The label that is ignored.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, predictions: Tensor | Sequence[Tensor], labels: Tensor | Sequence[Tensor]) -> Tensor:
        """Count a batch.

        Args:
            predictions: Class ids, shape (N, H, W) or (H, W), or N tensors of shapes (h, w); any device.
            labels: Class ids, likewise.
        Returns:
            The batch's own matrices, int64, shape (N, C, C).
        Raises:
            ValueError: If an id is outside [0, C) and not ignore_index, or the shapes differ.
        """
        if isinstance(predictions, Tensor) and isinstance(labels, Tensor) and predictions.ndim == labels.ndim == 2:
            predictions, labels = predictions[None], labels[None]
        matrices = confusion_matrices(predictions, labels, self.num_classes, self.ignore_index)
        self.matrix = self.matrix.to(matrices.device) + matrices.sum(0)
        return matrices

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add the counts of other images, and return this matrix.

        Raises:
            ValueError: If the other counts another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.matrix = self.matrix + other.matrix.to(self.matrix.device)
        return self

    def compute(self) -> dict[str, Any]:
        """Return the scores of everything counted so far; see `compute_scores`."""
        return compute_scores(self.matrix)


def divide(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotients, NaN where the denominator is 0."""
    undefined = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def average(values: Floats) -> float:
    """Return the mean of what is not NaN; NaN of nothing."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def average_rows(values: Floats) -> Floats:
    """Return the means of the last axis without NaN; NaN of none."""
    present = ~np.isnan(values)
    return divide(np.where(present, values, 0.0).sum(-1), present.sum(-1).astype(np.float64))


def score_each(counts: npt.NDArray[Any]) -> dict[str, Floats]:
    """Scores of every class: iou, accuracy, precision, precision_with_missed and dice, shape (..., C) each.

    Args:
        counts: Hits, pixels of the truth and pixels of the prediction per class, shape (..., 3, C).
    """
    hits, truth, predicted = np.moveaxis(counts.astype(np.float64), -2, 0)
    precision = divide(hits, predicted)
    return {
        "iou": divide(hits, truth + predicted - hits),
        "accuracy": divide(hits, truth),
        "precision": precision,
        "precision_with_missed": np.where((predicted == 0) & (truth > 0), 0.0, precision),
        "dice": divide(2 * hits, truth + predicted),
    }


def _apply_formulas(
    counts: npt.NDArray[Any], mean: Callable[[Floats], Any]
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Return means, shape (...), and scores per class, shape (..., C), of counts, shape (..., 3, C)."""
    each = score_each(counts)
    hits, truth = counts[..., 0, :].astype(np.float64).sum(-1), counts[..., 1, :].astype(np.float64)
    total = truth.sum(-1)
    means = {
        "mean_iou": mean(each["iou"]),
        "mean_accuracy": mean(each["accuracy"]),
        "overall_accuracy": divide(hits, total),
        "mean_precision": mean(each["precision"]),
        "mean_precision_with_missed": mean(each["precision_with_missed"]),
        "mean_dice": mean(each["dice"]),
        "frequency_weighted_iou": divide((truth * np.nan_to_num(each["iou"])).sum(-1), total),
    }
    kept = ("iou", "accuracy", "precision", "dice")
    return means, {f"per_category_{name}": each[name] for name in kept}


def score_counts(counts: npt.NDArray[Any]) -> dict[str, Floats]:
    """Scores of any number of counts at once.

    Args:
        counts: Hits, pixels of the truth and pixels of the prediction per class, shape (..., 3, C).
    Returns:
        mean_iou, mean_accuracy, overall_accuracy, mean_precision, mean_precision_with_missed, mean_dice,
        frequency_weighted_iou, shape (...), and per_category_iou, shape (..., C); NaN where a score is not defined.
    """
    means, per_class = _apply_formulas(counts, average_rows)
    return {**means, "per_category_iou": per_class["per_category_iou"]}


def compute_scores(matrix: Tensor | npt.NDArray[Any]) -> dict[str, Any]:
    """Scores of a confusion matrix, with evaluate's names and formulas, and ours.

    A class that occurs neither in the truth nor in the prediction has IoU and Dice NaN, one that the truth does not
    hold has accuracy NaN, one that is never predicted has precision NaN; means are over the classes that have a number.
    In mean_precision_with_missed a class that the truth holds and that is never predicted counts 0.

    Args:
        matrix: Counts, shape (C, C), rows the truth, columns the prediction.
    Returns:
        mean_iou, mean_accuracy, overall_accuracy, per_category_iou, per_category_accuracy (recall), mean_precision,
        mean_precision_with_missed, per_category_precision, mean_dice, per_category_dice (F1), frequency_weighted_iou,
        all in [0, 1]; and classes_present, the number of classes that mean_iou is the mean of.
    """
    counts = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else np.asarray(matrix)
    counts = np.stack([counts.diagonal(), counts.sum(1), counts.sum(0)])
    # One row's mean leaves NaN out before it adds; zeros in its place could change the last bit.
    means, per_class = _apply_formulas(counts, average)
    return {
        **{name: float(value) for name, value in means.items()},
        "classes_present": int((~np.isnan(per_class["per_category_iou"])).sum()),
        **{name: values.tolist() for name, values in per_class.items()},
    }

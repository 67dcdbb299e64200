"""The evaluator: images in, one dict of scores out, in memory that does not grow with their pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segplus.classes import IGNORE_INDEX
from segplus.data.splits import find_groups
from segplus.metrics.bootstrap import compute_intervals
from segplus.metrics.borders import SurfaceDistances
from segplus.metrics.calibration import CalibrationError
from segplus.metrics.confusion import ConfusionMatrix, compute_scores, score_counts
from segplus.metrics.found_objects import ObjectScores
from segplus.metrics.rows import Rows


class BorderMetric(Protocol):
    """A metric of label maps that streams over images, as those in `borders`."""

    def update(self, prediction: npt.NDArray[Any], label: npt.NDArray[Any], /) -> object:
        """Count one image; class ids, shape (H, W) each."""

    def merge(self, other: Any, /) -> None:
        """Add what another metric counted."""

    def compute(self) -> dict[str, Any]:
        """Return the scores."""


@dataclass(frozen=True)
class ImageScores:
    """What is kept of one image.

    Args:
        index: Position in the split.
        name: File name.
        counts: Hits, pixels of the truth and pixels of the prediction per class, int64, shape (3, C).
    """

    index: int
    name: str
    counts: npt.NDArray[np.int64]

    def compute(self) -> dict[str, Any]:
        """Return this image's own means and per_category_iou; see `score_counts`."""
        return {name: value.tolist() for name, value in score_counts(self.counts).items()}


class Evaluator:
    """Confusion matrix, scores per image and any further metrics over a stream of images.

    Each of several processes evaluates a share of the images, and one merges all evaluators; no image may go to two.

    Args:
        num_classes: C.
        ignore_index: The label that is ignored.
        metrics: Further metrics of label maps, name -> metric.
        calibration: Takes confidences; whoever predicts updates it.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = IGNORE_INDEX,
        metrics: Mapping[str, BorderMetric] | None = None,
        calibration: CalibrationError | None = None,
    ) -> None:
        self.confusion = ConfusionMatrix(num_classes, ignore_index)
        self.metrics = dict(metrics or {})
        self.calibration = calibration
        self.open_pixels = 0
        self._names: list[tuple[int, str]] = []
        self._counts = Rows((3, num_classes), np.int64)

    def update(self, prediction: Tensor, label: Tensor, index: int, name: str) -> ImageScores:
        """Count one image.

        Args:
            prediction: Class ids, shape (H, W), any device; a pixel that holds ignore_index is left open: it counts in
                `coverage` and nowhere else.
            label: Class ids, shape (H, W).
            index: Position of the image in the split.
            name: Its name.
        Returns:
            The image's own scores.
        Raises:
            ValueError: If an id is outside [0, C) and not ignore_index, or the shapes differ.
        """
        ignored = self.confusion.ignore_index
        left_open = prediction == ignored
        if left_open.any():
            self.open_pixels += int((left_open & (label != ignored)).sum())
            prediction = torch.where(left_open, 0, prediction)
            label = torch.where(left_open, ignored, label)
        matrix = self.confusion.update(prediction, label)[0]
        counts = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]).cpu().numpy()
        self._names.append((index, name))
        self._counts.append(counts)
        if self.metrics:
            arrays = prediction.cpu().numpy(), label.cpu().numpy()
            for metric in self.metrics.values():
                metric.update(*arrays)
        return ImageScores(index, name, counts)

    @property
    def images(self) -> list[ImageScores]:
        """What is kept of each image, in the order of the split."""
        counts = self._counts.stack()
        images = [ImageScores(index, name, row) for (index, name), row in zip(self._names, counts, strict=True)]
        return sorted(images, key=lambda image: image.index)

    def merge(self, other: Evaluator) -> Evaluator:
        """Add what another evaluator saw, and return this one."""
        self.confusion.merge(other.confusion)
        self.open_pixels += other.open_pixels
        self._names += other._names
        self._counts.extend(other._counts)
        for name, metric in self.metrics.items():
            metric.merge(other.metrics[name])
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)
        return self

    def stack_counts(self) -> npt.NDArray[np.int64]:
        """Return the counts of all images in the order of the split, shape (N, 3, C)."""
        order = np.argsort([index for index, _ in self._names], kind="stable")
        return np.asarray(self._counts.stack()[order.astype(np.int64)])

    def list_image_columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return what metrics keep of each image and class, name -> shape (N, C), in the order of the split."""
        order = np.argsort([index for index, _ in self._names], kind="stable").astype(np.int64)
        kept = (SurfaceDistances, ObjectScores)
        columns = [metric.list_image_columns() for metric in self.metrics.values() if isinstance(metric, kept)]
        return {name: values[order] for found in columns for name, values in found.items()}

    def find_groups(self, pattern: str | None) -> list[str] | None:
        """Return the group of each image in the order of the split; None without a pattern.

        Args:
            pattern: Regular expression on an image's name; its first group names the image's group.
        Raises:
            InputError: If a name does not match.
        """
        if pattern is None:
            return None
        names = [name for _, name in sorted(self._names, key=lambda entry: entry[0])]
        return find_groups(names, pattern, "evaluation.bootstrap_group_pattern")

    def compute(self, resamples: int = 0, seed: int = 0, group_pattern: str | None = None) -> dict[str, Any]:
        """Return all scores.

        Args:
            resamples: Resamples of the images for the intervals; 0 for none.
            seed: Another seed draws other resamples.
            group_pattern: Groups of images that are drawn whole; see `find_groups`. None draws images.
        Returns:
            `compute_scores`, images, confusion_matrix, per_image_mean_iou (mean over images that have one),
            per_category_images (whose truth holds the class), intervals, the scores of the further metrics, and
            coverage, the share of valid pixels that were not left open, where any were.
        Raises:
            InputError: If an image's name has no group.
        """
        counts = self.stack_counts()
        own = score_counts(counts)["mean_iou"]
        known = own[~np.isnan(own)]
        scores = {
            **compute_scores(self.confusion.matrix),
            "images": len(counts),
            "confusion_matrix": self.confusion.matrix.tolist(),
            "per_image_mean_iou": float(known.mean()) if known.size else float("nan"),
            "per_category_images": (counts[:, 1] > 0).sum(0).tolist(),
        }
        if self.open_pixels:
            decided = int(self.confusion.matrix.sum())
            scores["coverage"] = decided / (decided + self.open_pixels)
        if resamples:
            groups = self.find_groups(group_pattern)
            scores["intervals"] = compute_intervals(counts, resamples, seed, groups)
            if groups is not None:
                scores["groups"] = len(set(groups))
        for metric in self.metrics.values():
            scores |= metric.compute()
        return scores | (self.calibration.compute() if self.calibration is not None else {})

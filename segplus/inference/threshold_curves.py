"""What each threshold of a class would find and miss, by pixel and by object, counted over a split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segplus.images import DecodedImage, measure_image
from segplus.inference.decisions import choose_classes
from segplus.inference.predictor import Predictor
from segplus.metrics.found_objects import FALSE, FOUND, MISSED, ObjectScores

STEPS = 1000  # pixel thresholds are multiples of 1 / STEPS
OBJECT_THRESHOLDS = tuple(step / 20 for step in range(1, 20))
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Hits, false alarms and misses of one class at every threshold.

    Args:
        thresholds: Ascending, shape (T,).
        hits: Pixels, or objects of the truth, that are found; shape (T,).
        false: Pixels, or objects, that are found and are not there.
        missed: Pixels, or objects of the truth, that are not found.
    """

    thresholds: Counts
    hits: Counts
    false: Counts
    missed: Counts

    @property
    def recall(self) -> Counts:
        """Share of the truth that is found; NaN where there is none."""
        return _divide(self.hits, self.hits + self.missed)

    @property
    def precision(self) -> Counts:
        """Share of what is found that is true; NaN where nothing is found."""
        return _divide(self.hits, self.hits + self.false)

    def score_f(self, beta: float) -> Counts:
        """Return the F-beta score: recall counts `beta` times as much as precision; 0 where nothing is found."""
        weight = beta**2
        return _divide((1 + weight) * self.hits, (1 + weight) * self.hits + weight * self.missed + self.false)

    def weigh_cost(self, miss: float) -> Counts:
        """Return the cost where a miss costs so many times as much as a false alarm."""
        return miss * self.missed + self.false

    def describe(self, position: int) -> dict[str, float]:
        """Return the figures of one threshold."""
        figures = {"precision": self.precision, "recall": self.recall, "f1": self.score_f(1)}
        counts = {"hits": self.hits, "false": self.false, "missed": self.missed}
        return {name: float(values[position]) for name, values in (figures | counts).items()}


class ThresholdCounts:
    """Counts images of a split for the curves of some classes.

    A pixel curve says what a threshold alone would do. The label maps of an object curve are whole decisions: the other
    classes keep their thresholds, and the steps on the label map follow.

    Args:
        predictor: Forms the probabilities.
        class_ids: The classes that have curves.
        ignore_index: The label that is ignored.
        overlap: IoU above which an object is found.
    """

    def __init__(self, predictor: Predictor, class_ids: list[int], ignore_index: int, overlap: float = 0.5) -> None:
        self.predictor, self.class_ids, self.ignore_index = predictor, class_ids, ignore_index
        self.pixels = np.zeros((len(class_ids), 2, STEPS + 1), dtype=np.int64)  # not the class, the class
        self.objects = {
            class_id: [ObjectScores(2, ignore_index, overlap, ()) for _ in OBJECT_THRESHOLDS] for class_id in class_ids
        }

    def update(self, image: DecodedImage, label: Tensor) -> None:
        """Count one image; its label map has class ids, shape (H, W)."""
        maker = self.predictor.label_maker
        passes = self.predictor.start_passes(image)
        size, classes = measure_image(image), len(passes[0].held)
        dtype = torch.uint8 if classes <= 255 else torch.int32
        maps = {
            class_id: torch.empty(len(OBJECT_THRESHOLDS), *size, dtype=dtype, device=label.device)
            for class_id in self.class_ids
        }
        for top, probabilities in maker.list_rows(passes, image):
            bottom = min(top + len(probabilities), size[0])
            rows = probabilities[: bottom - top]
            for position, class_id in enumerate(self.class_ids):
                self._count_pixels(position, rows[..., class_id], label[top:bottom] == class_id, label[top:bottom])
                for number, threshold in enumerate(OBJECT_THRESHOLDS):
                    limits = maker.rule.thresholds.clone()
                    limits[class_id] = threshold
                    chosen = choose_classes(rows, replace(maker.rule, thresholds=limits))
                    maps[class_id][number, top:bottom] = chosen.to(dtype)
        self._count_objects(maps, label, classes)

    def _count_pixels(self, position: int, probability: Tensor, truth: Tensor, label: Tensor) -> None:
        valid = label != self.ignore_index
        bins = (probability[valid] * STEPS).long().clamp_(0, STEPS)
        counted = torch.bincount(bins + truth[valid] * (STEPS + 1), minlength=2 * (STEPS + 1))
        self.pixels[position] += counted.view(2, STEPS + 1).cpu().numpy()

    def _count_objects(self, maps: dict[int, Tensor], label: Tensor, classes: int) -> None:
        truth = label.cpu().numpy()
        for class_id, made in maps.items():
            one = np.where(truth == self.ignore_index, self.ignore_index, truth == class_id)
            for scores, labels in zip(self.objects[class_id], made, strict=True):
                changed = self.predictor.label_maker.change_labels(labels, classes).cpu().numpy()
                scores.update((changed == class_id).astype(np.uint8), one)

    def merge(self, other: ThresholdCounts) -> None:
        """Add what another process counted."""
        self.pixels += other.pixels
        for class_id, scores in self.objects.items():
            for mine, others in zip(scores, other.objects[class_id], strict=True):
                mine.merge(others)

    def draw(self, class_id: int) -> dict[str, Curve]:
        """Return the curves of a class: "pixels" and "objects"."""
        apart, there = self.pixels[self.class_ids.index(class_id)].astype(np.float64)
        # Pixels from a threshold on: the sum of the bins above it.
        false, hits = (bins[::-1].cumsum()[::-1][1:] for bins in (apart, there))
        by_pixel = Curve(np.arange(1, STEPS + 1) / STEPS, hits, false, there.sum() - hits)
        counts = np.stack([scores.counts.sum(1)[:, 1] for scores in self.objects[class_id]]).astype(np.float64)
        by_object = Curve(np.array(OBJECT_THRESHOLDS), counts[:, FOUND], counts[:, FALSE], counts[:, MISSED])
        return {"pixels": by_pixel, "objects": by_object}


def find_threshold(curve: Curve, rule: str, value: float) -> int | None:
    """Return the position of the threshold that a rule chooses, None where none meets it.

    Args:
        curve: Of a class.
        rule: `recall` takes the highest threshold whose recall is at least `value`; `f_beta` the one with the best
            F-beta score, `cost` the one with the least cost where a miss costs `value` false alarms. Of equal ones the
            middle one: it is furthest from both sides.
        value: See above.
    """
    if not (curve.hits + curve.missed).any():
        return None
    if rule == "recall":
        enough = np.flatnonzero(curve.recall >= value)
        return int(enough[-1]) if len(enough) else None
    merit = curve.score_f(value) if rule == "f_beta" else -curve.weigh_cost(value)
    best = np.flatnonzero(merit >= np.nanmax(merit))
    return int(best[len(best) // 2])


def list_rows(curves: dict[str, dict[str, Curve]]) -> list[dict[str, Any]]:
    """Return a row for each class, kind of curve and threshold.

    Args:
        curves: Class name -> curves, from `ThresholdCounts.draw`.
    """
    return [
        {"class": name, "by": kind, "threshold": float(threshold), **curve.describe(position)}
        for name, kinds in curves.items()
        for kind, curve in kinds.items()
        for position, threshold in enumerate(curve.thresholds)
        if not math.isnan(curve.recall[position])
    ]


def _divide(part: Counts, whole: Counts) -> Counts:
    shares: Counts = np.divide(part, whole, out=np.full(part.shape, math.nan), where=whole > 0)
    return shares

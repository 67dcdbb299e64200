"""Scores of objects: connected regions of a class that are found, missed, or found where there are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label as number_regions

from segplus.classes import IGNORE_INDEX
from segplus.metrics.confusion import Floats, average, divide
from segplus.metrics.rows import Rows

Labels = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

# Columns of the counts: objects of the truth that are found and that are missed, predicted objects that match none.
FOUND, MISSED, FALSE = range(3)
# IoUs are added as whole multiples of this: the sum does not depend on the order of images or processes.
_UNIT = 2.0**-30


class ObjectScores:
    """Objects found, missed and false, by class and size, with F1 and the panoptic quality of each class.

    An object is a region of one class whose pixels touch by an edge or a corner. One of the truth is found where a
    predicted object of its class overlaps it with an IoU above the threshold; from 0.5 on no object can have two such
    partners. Below, pairs are formed by falling IoU, each object once. Ignored pixels belong to no object and part
    what they lie between, in the truth and in the prediction; the rest of a predicted object that lies mostly on them
    is not false.

    Args:
        num_classes: C.
        ignore_index: The label that is ignored.
        overlap: IoU above which two objects are one; 0.5 as in panoptic quality.
        size_limits_px: Limits between the sizes that are counted apart, ascending, in pixels: objects of the truth by
            their own area, false ones by theirs.
        background: Whether class 0 has objects.

    Reference:
        Kirillov et al., Panoptic Segmentation, 2019, equation 1. https://arxiv.org/abs/1801.00868
        Sizes: Lin et al., Microsoft COCO, 2014 (32 x 32 and 96 x 96 pixels).
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = IGNORE_INDEX,
        overlap: float = 0.5,
        size_limits_px: Sequence[int] = (1024, 9216),
        background: bool = False,
    ) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.overlap, self.size_limits_px, self.background = overlap, tuple(size_limits_px), background
        shape = (3, len(self.size_limits_px) + 1, num_classes)
        self.counts: Ints = np.zeros(shape, dtype=np.int64)
        self.iou_units: Ints = np.zeros(num_classes, dtype=np.int64)
        self._images = Rows((3, num_classes), np.int64)

    def update(self, prediction: Labels, label: Labels) -> None:
        """Count one image; class ids, shape (H, W) each."""
        if prediction.shape != label.shape:
            raise ValueError(f"prediction {prediction.shape} and labels {label.shape} differ in shape")
        before = self.counts.sum(1)
        valid = label != self.ignore_index
        held = np.union1d(label[valid], prediction[valid]).astype(np.int64)
        for class_id in held[held >= (0 if self.background else 1)].tolist():
            self._count_class((label == class_id) & valid, prediction == class_id, valid, class_id)
        self._images.append(self.counts.sum(1) - before)

    def _count_class(
        self, truth: npt.NDArray[np.bool_], guess: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_], class_id: int
    ) -> None:
        true_ids, true_areas = _number_objects(truth)
        ids, areas = _number_objects(guess & valid)
        both = (true_ids > 0) & (ids > 0)
        pairs, shared = np.unique(np.stack([true_ids[both], ids[both]]), axis=1, return_counts=True)
        ious = shared / (true_areas[pairs[0]] + areas[pairs[1]] - shared)
        matched = _match(pairs, ious, self.overlap)
        found, right = np.zeros(len(true_areas), dtype=bool), np.zeros(len(areas), dtype=bool)
        found[pairs[0, matched]] = right[pairs[1, matched]] = True
        self.iou_units[class_id] += int(np.rint(ious[matched] / _UNIT).astype(np.int64).sum())
        real = np.arange(len(true_areas)) > 0
        false = ~right & (areas > 0) & _lies_mostly_on(valid, guess, ids, len(areas))
        for column, chosen, sizes in ((FOUND, real & found, true_areas), (MISSED, real & ~found, true_areas),
                                      (FALSE, false, areas)):  # fmt: skip
            bins = np.searchsorted(self.size_limits_px, sizes[chosen], side="right")
            self.counts[column, :, class_id] += np.bincount(bins, minlength=self.counts.shape[1])

    def merge(self, other: ObjectScores) -> None:
        """Add the counts of other images."""
        self.counts += other.counts
        self.iou_units += other.iou_units
        self._images.extend(other._images)

    def list_image_columns(self) -> dict[str, Floats]:
        """Return objects_found, objects_missed and objects_false of every image, shape (N, C), NaN without objects."""
        counts = self._images.stack().astype(np.float64)  # (N, 3, C)
        counts[np.broadcast_to(counts.sum(1, keepdims=True) == 0, counts.shape)] = math.nan
        names = ("objects_found", "objects_missed", "objects_false")
        return {name: counts[:, column] for column, name in enumerate(names)}

    def compute(self) -> dict[str, Any]:
        """Return the scores.

        Returns:
            mean_object_f1, mean_object_quality and per_category_ of both (panoptic quality; NaN for a class without
            objects); per_category_objects_found, _missed and _false; objects_by_size: a size such as "1024 to 9216 px"
            -> found, missed and false by class.
        """
        found, missed, false = self.counts.sum(1).astype(np.float64)
        weight = found + (missed + false) / 2
        f1, quality = divide(found, weight), divide(np.asarray(self.iou_units * _UNIT, dtype=np.float64), weight)
        names = ("found", "missed", "false")
        totals = zip(names, self.counts.sum(1).tolist(), strict=True)
        by_size = {
            title: {name: self.counts[column, size].tolist() for column, name in enumerate(names)}
            for size, title in enumerate(_name_sizes(self.size_limits_px))
        }
        return {
            "mean_object_f1": average(f1),
            "mean_object_quality": average(quality),
            "per_category_object_f1": f1.tolist(),
            "per_category_object_quality": quality.tolist(),
            **{f"per_category_objects_{name}": row for name, row in totals},
            "objects_by_size": by_size,
        }


def _number_objects(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], Ints]:
    """Return the number of each pixel's object, 0 outside, and the area of each number; 0 for number 0."""
    ids, count = number_regions(mask, np.ones((3, 3), dtype=np.int8))
    areas = np.bincount(ids.ravel(), minlength=count + 1).astype(np.int64)
    areas[0] = 0
    return ids, areas


def _lies_mostly_on(
    valid: npt.NDArray[np.bool_], guess: npt.NDArray[np.bool_], ids: npt.NDArray[Any], count: int
) -> npt.NDArray[np.bool_]:
    """Return for each numbered piece whether half of the whole object that it is a piece of is valid."""
    whole_ids, whole_areas = _number_objects(guess)
    counted = np.bincount(whole_ids[valid], minlength=len(whole_areas))
    whole_of = np.zeros(count, dtype=np.int64)
    whole_of[ids] = whole_ids
    return np.asarray(2 * counted[whole_of] >= whole_areas[whole_of])


def _match(pairs: npt.NDArray[Any], ious: Floats, overlap: float) -> Ints:
    """Return the positions of the pairs (2, P) that are matches: by falling IoU, each object once."""
    taken: tuple[set[int], set[int]] = (set(), set())
    chosen = []
    for position in np.lexsort((pairs[1], pairs[0], -ious)).tolist():
        one, two = (int(number) for number in pairs[:, position])
        if ious[position] > overlap and one not in taken[0] and two not in taken[1]:
            taken[0].add(one)
            taken[1].add(two)
            chosen.append(position)
    return np.asarray(chosen, dtype=np.int64)


def _name_sizes(limits: Sequence[int]) -> list[str]:
    if not limits:
        return ["all sizes"]
    between = [f"{low} to {high - 1} px" for low, high in pairwise(limits)]
    return [f"below {limits[0]} px", *between, f"{limits[-1]} px and more"]

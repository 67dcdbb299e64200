"""Scores of the borders between classes: boundary IoU, trimap IoU, Hausdorff distance 95 and normalised surface Dice.

Each streams over images: `update` takes one image, `merge` adds those of another, `compute` gives the scores.
Pixels that the truth ignores belong to no class, in the truth and in the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

from segplus.classes import IGNORE_INDEX
from segplus.metrics.confusion import Floats, average, compute_scores, divide
from segplus.metrics.rows import Rows

Labels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
_NO_CLASS = -1
_OUTSIDE = -2


def _mask_ignored(labels: Labels, truth: Labels, ignore_index: int) -> npt.NDArray[np.int32]:
    if labels.shape != truth.shape:
        raise ValueError(f"prediction {labels.shape} and labels {truth.shape} differ in shape")
    return np.where(truth == ignore_index, _NO_CLASS, labels.astype(np.int32))


def find_inner_boundary(labels: Labels, width_px: int) -> npt.NDArray[np.bool_]:
    """Pixels at most `width_px` (chessboard distance) from another class or the outside, shape (H, W)."""
    size = 2 * width_px + 1
    lowest = minimum_filter(labels, size, mode="constant", cval=_OUTSIDE)
    return np.asarray(lowest != maximum_filter(labels, size, mode="constant", cval=_OUTSIDE))


class BoundaryIoU:
    """IoU of the classes' inner boundary regions, summed over images.

    Args:
        num_classes: C.
        ignore_index: The label that is ignored.
        share: Width of the region as a share of the image's diagonal; at least one pixel.

    Reference:
        Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, 2021, equation 4.
        https://arxiv.org/abs/2103.16562
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX, share: float = 0.02) -> None:
        self.num_classes, self.ignore_index, self.share = num_classes, ignore_index, share
        self.counts = np.zeros((3, num_classes), dtype=np.int64)  # both, truth, prediction

    def update(self, prediction: Labels, label: Labels) -> None:
        """Count one image; class ids, shape (H, W) each."""
        truth = _mask_ignored(label, label, self.ignore_index)
        guess = _mask_ignored(prediction, label, self.ignore_index)
        width_px = max(1, round(self.share * math.hypot(*truth.shape)))
        of_truth, of_guess = find_inner_boundary(truth, width_px), find_inner_boundary(guess, width_px)
        regions = (truth[of_truth & of_guess & (truth == guess)], truth[of_truth], guess[of_guess])
        for row, region in zip(self.counts, regions, strict=True):
            row += np.bincount(region[region >= 0], minlength=self.num_classes)

    def merge(self, other: BoundaryIoU) -> None:
        """Add the counts of other images."""
        self.counts += other.counts

    def compute(self) -> dict[str, Any]:
        """Return mean_boundary_iou, over the classes that have a boundary, and per_category_boundary_iou."""
        both, truth, guess = self.counts.astype(np.float64)
        values = divide(both, truth + guess - both)
        return {"mean_boundary_iou": average(values), "per_category_boundary_iou": values.tolist()}


class TrimapIoU:
    """Mean IoU over the pixels near a border of the truth, at several widths.

    Args:
        num_classes: C.
        ignore_index: The label that is ignored; a border with it is none.
        widths_px: Largest chessboard distance to a pixel of another class.

    Reference:
        Kohli, Ladicky, Torr, Robust Higher Order Potentials for Enforcing Label Consistency, 2009, section 5.
    """

    def __init__(
        self, num_classes: int, ignore_index: int = IGNORE_INDEX, widths_px: Sequence[int] = (1, 3, 5, 10)
    ) -> None:
        self.num_classes, self.ignore_index, self.widths_px = num_classes, ignore_index, tuple(widths_px)
        self.matrices = np.zeros((len(self.widths_px), num_classes, num_classes), dtype=np.int64)

    def update(self, prediction: Labels, label: Labels) -> None:
        """Count one image; class ids, shape (H, W) each."""
        truth = _mask_ignored(label, label, self.ignore_index)
        pairs = truth.astype(np.int64) * self.num_classes + prediction
        highest = np.where(truth == _NO_CLASS, self.num_classes, truth)
        for matrix, width_px in zip(self.matrices, self.widths_px, strict=True):
            size = 2 * width_px + 1
            # Void is the greatest of all to the minimum and the least of all to the maximum, so it makes no border.
            near_border = minimum_filter(highest, size, mode="nearest") < maximum_filter(truth, size, mode="nearest")
            counted = np.bincount(pairs[near_border & (truth != _NO_CLASS)], minlength=matrix.size)
            matrix += counted.reshape(matrix.shape)

    def merge(self, other: TrimapIoU) -> None:
        """Add the counts of other images."""
        self.matrices += other.matrices

    def compute(self) -> dict[str, Any]:
        """Return trimap_iou: width in pixels -> mean IoU; NaN where no pixel lies near a border."""
        scores = (compute_scores(matrix)["mean_iou"] for matrix in self.matrices)
        return {"trimap_iou": dict(zip(map(str, self.widths_px), scores, strict=True))}


def find_edges(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels with a neighbour (of four) of another class or outside the image, shape (H, W)."""
    framed = np.pad(labels, 1, constant_values=_OUTSIDE)
    neighbours = framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]
    return np.asarray(np.logical_or.reduce([labels != neighbour for neighbour in neighbours]))


def measure_surfels(region: Mask, spacing: Floats) -> Floats:
    """Return the length of a region's border between each four neighbouring pixels' centres, shape (H + 1, W + 1).

    Args:
        region: Shape (H, W); outside of it is nothing.
        spacing: Height and width of a pixel.
    """
    height, width = (float(side) for side in spacing)
    slant = math.hypot(height, width) / 2
    # By which of the four are in, as 8 upper left + 4 upper right + 2 lower left + 1 lower right.
    table = np.full(16, slant)
    table[[0, 15]] = 0.0
    table[[3, 12]] = width
    table[[5, 10]] = height
    table[[6, 9]] = 2 * slant
    framed = np.pad(region, 1).astype(np.uint8)
    code = 8 * framed[:-1, :-1] + 4 * framed[:-1, 1:] + 2 * framed[1:, :-1] + framed[1:, 1:]
    return np.asarray(table[code])


class SurfaceDistances:
    """Hausdorff distance 95 and normalised surface Dice per class, means over the images that hold the class.

    The border of a class is, with `border="pixels"`, its pixels with a neighbour (of four) of another class or outside
    the image, each counted once, as in MONAI; with "surfels" the pieces of line between the centres of four pixels that
    are not all in or all out, weighed by their length, as in DeepMind's surface-distance. Outside lies no class.

    A class that only one of truth and prediction holds has surface Dice 0 and no finite Hausdorff distance: such images
    are left out of its mean and counted.

    Args:
        num_classes: C.
        ignore_index: The label that is ignored.
        tolerance: Distance up to which borders count as equal, in units of spacing.
        spacing: Height and width of a pixel.
        border: `pixels` or `surfels`.

    Reference:
        Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy, 2018
        (surface Dice, surfels); Huttenlocher et al., Comparing images using the Hausdorff distance, 1993.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = IGNORE_INDEX,
        tolerance: float = 2.0,
        spacing: Sequence[float] = (1.0, 1.0),
        border: Literal["pixels", "surfels"] = "pixels",
    ) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.tolerance, self.spacing = tolerance, np.asarray(spacing, dtype=np.float64)
        self.border = border
        # Per image and class, added in the end: sums of floats would depend on the order of images.
        self.values = Rows((2, num_classes), np.float64)

    def update(self, prediction: Labels, label: Labels) -> Floats:
        """Measure one image; class ids, shape (H, W) each.

        Returns:
            Hausdorff distance 95 and surface Dice per class, shape (2, C); NaN where neither holds the class, and
            infinity and 0 where one does.
        """
        truth = _mask_ignored(label, label, self.ignore_index)
        guess = _mask_ignored(prediction, label, self.ignore_index)
        edges = (find_edges(truth), find_edges(guess)) if self.border == "pixels" else None
        measured = np.full((2, self.num_classes), np.nan)
        for class_id in range(self.num_classes):
            regions = truth == class_id, guess == class_id
            if regions[0].any() and regions[1].any():
                if edges is not None:
                    measured[:, class_id] = self._compare(*_crop_together(regions[0] & edges[0], regions[1] & edges[1]))
                else:
                    measured[:, class_id] = self._compare_surfels(*_crop_together(*regions))
            elif regions[0].any() or regions[1].any():
                measured[:, class_id] = np.inf, 0.0
        self.values.append(measured)
        return measured

    def _compare(self, truth: Mask, guess: Mask) -> tuple[float, float]:
        # Distance maps, not search trees: scipy's cKDTree crashed in a process that had trained before.
        from_guess: Floats = distance_transform_edt(~truth, sampling=self.spacing)[guess]
        from_truth: Floats = distance_transform_edt(~guess, sampling=self.spacing)[truth]
        hausdorff = max(np.quantile(from_guess, 0.95), np.quantile(from_truth, 0.95))
        near = np.sum(from_guess <= self.tolerance) + np.sum(from_truth <= self.tolerance)
        return float(hausdorff), float(near / (len(from_guess) + len(from_truth)))

    def _compare_surfels(self, truth: Mask, guess: Mask) -> tuple[float, float]:
        lengths = [measure_surfels(region, self.spacing) for region in (truth, guess)]
        borders = [length > 0 for length in lengths]
        hausdorff, near, total = 0.0, 0.0, 0.0
        for own, other in ((0, 1), (1, 0)):
            distances: Floats = distance_transform_edt(~borders[other], sampling=self.spacing)[borders[own]]
            weights = lengths[own][borders[own]]
            order = distances.argsort(kind="stable")
            share = weights[order].cumsum() / weights.sum()
            position = min(int(np.searchsorted(share, 0.95)), len(order) - 1)
            hausdorff = max(hausdorff, float(distances[order[position]]))
            near, total = near + float(weights[distances <= self.tolerance].sum()), total + float(weights.sum())
        return hausdorff, near / total

    def list_image_columns(self) -> dict[str, Floats]:
        """Return hausdorff_95 and surface_dice of every image, shape (N, C), in the order of the updates."""
        values = self.values.stack()
        return {"hausdorff_95": values[:, 0], "surface_dice": values[:, 1]}

    def merge(self, other: SurfaceDistances) -> None:
        """Add the distances of other images."""
        self.values.extend(other.values)

    def compute(self) -> dict[str, Any]:
        """Return means per class and over classes, and how often a class stood in only one of truth and prediction."""
        values = self.values.stack()
        distances, dice = values[:, 0], values[:, 1]
        per_class = [average_exactly(column[np.isfinite(column)]) for column in distances.T]
        per_class_dice = [average_exactly(column[~np.isnan(column)]) for column in dice.T]
        return {
            "hausdorff_95": average(np.array(per_class)),
            "per_category_hausdorff_95": per_class,
            "per_category_hausdorff_95_undefined": np.isinf(distances).sum(0).tolist(),
            "surface_dice": average(np.array(per_class_dice)),
            "per_category_surface_dice": per_class_dice,
        }


def _crop_together(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Return both masks on the smallest rectangle that holds every pixel of either."""
    either = first | second
    rows, columns = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return first[box], second[box]


def average_exactly(values: Floats) -> float:
    """Return the mean, the same for any order of values; NaN of none."""
    return math.fsum(values) / len(values) if len(values) else math.nan

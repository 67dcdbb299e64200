"""Objects of one class that touch, parted by a line."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from segplus.inference.postprocessing.components import find_surroundings, number_objects


def split_touching(labels: npt.NDArray[Any], class_id: int, distance_px: int, num_classes: int) -> npt.NDArray[Any]:
    """Return the label map with a line of one pixel between the objects of a class that touch.

    Every object is flooded from the pixels that lie deepest in it (watershed of the distance to the outline); where two
    floods meet the pixel gets the class that touches most of the outline. An object that fills the image stays whole.

    Args:
        labels: Class ids, shape (H, W).
        class_id: The class.
        distance_px: Middles that lie no further apart are those of one object.
        num_classes: C.
    Reference:
        Beucher and Lantuejoul, Use of watersheds in contour detection, 1979.
    """
    mask = labels == class_id
    if not mask.any() or mask.all():
        return labels
    numbers, boxes = number_objects(mask)
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    lines: dict[int, tuple[tuple[slice, slice], npt.NDArray[np.bool_]]] = {}
    for number, (left, top, width, height, _) in enumerate(boxes[1:].tolist(), start=1):
        box = slice(top, top + height), slice(left, left + width)
        own = numbers[box] == number
        line = _find_line(np.where(own, depth[box], 0), own, distance_px)
        if line is not None:
            lines[number] = box, line
    parted = np.isin(np.arange(len(boxes)), list(lines))
    target = find_surroundings(labels, numbers, parted, num_classes)
    split: npt.NDArray[Any] = labels.copy()
    for number, (box, line) in lines.items():
        if target[number] >= 0:
            split[box][line] = target[number]
    return split


def _find_line(
    depth: npt.NDArray[np.float32], own: npt.NDArray[np.bool_], distance_px: int
) -> npt.NDArray[np.bool_] | None:
    """Return the pixels where the floods of one object's middles meet; None where it has one middle."""
    peaks = peak_local_max(depth, min_distance=max(1, distance_px), exclude_border=False)
    if len(peaks) < 2:
        return None
    seeds = np.zeros(own.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    flooded = watershed(-depth, seeds, connectivity=2, mask=own, watershed_line=True)
    return np.asarray(own & (flooded == 0))

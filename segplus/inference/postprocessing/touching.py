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
    peaks = peak_local_max(depth, min_distance=max(1, distance_px), labels=numbers, exclude_border=False)
    per_object = np.bincount(numbers[tuple(peaks.T)], minlength=len(boxes))
    target = find_surroundings(labels, numbers, per_object > 1, num_classes)
    parted = (per_object > 1) & (target >= 0)
    split: npt.NDArray[Any] = labels.copy()
    for number in np.flatnonzero(parted):
        left, top, width, height, _ = boxes[number]
        box = slice(top, top + height), slice(left, left + width)
        own = numbers[box] == number
        seeds = np.zeros(own.shape, dtype=np.int32)
        inside = peaks[numbers[tuple(peaks.T)] == number] - (top, left)
        seeds[tuple(inside.T)] = np.arange(1, len(inside) + 1)
        flooded = watershed(-depth[box], seeds, connectivity=2, mask=own, watershed_line=True)
        split[box][own & (flooded == 0)] = target[number]
    return split

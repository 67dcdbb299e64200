"""Objects of one class that touch, parted by a line."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from skimage.segmentation import watershed

from segplus.inference.postprocessing.components import find_surroundings, number_objects

_AROUND = np.ones((3, 3), dtype=np.uint8)


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
    middles, owners = _find_middles(depth, numbers, boxes, max(1, distance_px))
    parted = np.bincount(owners, minlength=len(boxes)) > 1
    if not parted.any():
        return labels
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(middles.T)] = np.arange(1, len(middles) + 1)
    inside = parted[numbers]
    # Its own watershed_line queues a pixel again for each neighbour: a third of a second for 55 x 55 pixels.
    flooded = watershed(-depth, seeds, connectivity=2, mask=inside)
    nearest = np.where(inside, flooded, len(middles) + 1).astype(np.float32)  # for erode; exact up to 2**24
    line = np.flatnonzero(inside & (cv2.erode(nearest, _AROUND) < nearest))
    target = find_surroundings(labels, numbers, parted, num_classes)[numbers.ravel()[line]]
    split: npt.NDArray[Any] = labels.copy()
    split.ravel()[line[target >= 0]] = target[target >= 0]
    return split


def _find_middles(
    depth: npt.NDArray[np.float32], numbers: npt.NDArray[np.int32], boxes: npt.NDArray[np.int32], distance_px: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where objects are deepest, shape (M, 2), and whose each middle is, shape (M,).

    A middle is no less deep than any pixel of its object in the square that reaches `distance_px` around it; of equal
    ones in a square the upper and left one. An object of one depth throughout, which fills its box, has none.
    """
    square = np.ones((2 * distance_px + 1,) * 2, dtype=np.uint8)
    found = []
    for number, (left, top, width, height, _) in enumerate(boxes[1:].tolist(), start=1):
        box = slice(top, top + height), slice(left, left + width)
        own = np.where(numbers[box] == number, depth[box], 0)
        y, x = np.nonzero((own == cv2.dilate(own, square)) & (own > own.min()))
        found.append(np.stack([y + top, x + left, np.full(len(y), number)], axis=1))
    places = np.concatenate(found)
    places = places[np.argsort(-depth[places[:, 0], places[:, 1]], kind="stable")]
    # Objects lie apart in the third direction, so that only those of one object are near one another.
    apart = places * np.array([1, 1, 2 * distance_px + 2])
    near = cKDTree(apart).query_ball_point(apart, distance_px, p=np.inf) if len(places) else []
    kept = np.ones(len(places), dtype=bool)
    for position, others in enumerate(near):
        if kept[position]:
            kept[others] = False
            kept[position] = True
    return places[kept, :2], places[kept, 2]

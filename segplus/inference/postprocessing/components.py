"""Objects of a label map by their area and number, and the holes in them."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def number_objects(mask: Mask, connectivity: int = 8) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the number of each pixel's object, 0 outside, and their boxes with areas.

    Args:
        mask: Pixels that belong to objects, shape (H, W).
        connectivity: 8 joins pixels that touch by a corner, 4 only those that touch by an edge.
    Returns:
        int32 (H, W), and int32 (objects + 1, 5): left, top, width, height, area; row 0 is what lies outside.
    """
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), None, None, None, connectivity)
    return np.asarray(numbers, dtype=np.int32), np.asarray(boxes, dtype=np.int32)


def remove_by_area(
    labels: Labels, class_id: int, num_classes: int, least_px: float = 0, most_px: float = math.inf
) -> Labels:
    """Return the label map without the objects of a class that are smaller than `least_px` or larger than `most_px`.

    Each becomes the class that touches most of its outline; one that nothing else touches stays.

    Args:
        labels: Class ids, shape (H, W); ids from `num_classes` on are no class.
        class_id: The class.
        num_classes: C.
        least_px: Smallest area that stays, in pixels.
        most_px: Largest area that stays, in pixels.
    """
    numbers, boxes = number_objects(labels == class_id)
    areas = boxes[:, 4]
    return _give_away(labels, numbers, (areas < least_px) | (areas > most_px), num_classes)


def keep_largest(labels: Labels, class_id: int, num_classes: int, count: int) -> Labels:
    """Return the label map with the `count` largest objects of a class; of equal ones the upper and left ones stay.

    Args:
        labels: Class ids, shape (H, W).
        class_id: The class.
        num_classes: C.
        count: Objects that stay; 0 keeps none.
    """
    numbers, boxes = number_objects(labels == class_id)
    removed = np.ones(len(boxes), dtype=bool)
    removed[1 + np.argsort(-boxes[1:, 4], kind="stable")[:count]] = False
    return _give_away(labels, numbers, removed, num_classes)


def fill_holes(labels: Labels, class_id: int, most_px: float) -> Labels:
    """Return the label map with the holes of a class filled.

    A hole is what the class encloses, of whatever other classes, and what does not touch the image's border; its pixels
    touch by an edge.

    Args:
        labels: Class ids, shape (H, W).
        class_id: The class.
        most_px: Largest area that is filled, in pixels.
    """
    height, width = labels.shape
    numbers, boxes = number_objects(labels != class_id, 4)
    left, top, across, down, area = boxes.T
    inside = (left > 0) & (top > 0) & (left + across < width) & (top + down < height) & (area <= most_px)
    inside[0] = False  # the class itself
    if not inside.any():
        return labels
    filled: Labels = labels.copy()
    filled[inside[numbers]] = class_id
    return filled


def find_surroundings(
    labels: Labels, numbers: npt.NDArray[np.int32], chosen: Mask, num_classes: int
) -> npt.NDArray[np.int64]:
    """Return the class that touches most of each chosen object's outline, -1 where no class does; shape (objects + 1,).

    Args:
        labels: Class ids, shape (H, W).
        numbers: Of objects, shape (H, W), from `number_objects`.
        chosen: Which objects, shape (objects + 1,).
        num_classes: Ids from there on are no class.
    """
    return _count_neighbours(labels, numbers, np.flatnonzero(chosen[numbers]), len(chosen), num_classes)


def _count_neighbours(
    labels: Labels, numbers: npt.NDArray[np.int32], places: npt.NDArray[np.int64], count: int, num_classes: int
) -> npt.NDArray[np.int64]:
    """Return what `find_surroundings` does, from the flat places of the objects' pixels."""
    height, width = labels.shape
    flat_labels, flat_numbers = labels.ravel(), numbers.ravel()
    own, columns = flat_numbers[places], places % width
    touched = np.zeros(count * num_classes, dtype=np.int64)
    inside = {-width: places >= width, width: places < (height - 1) * width, -1: columns > 0, 1: columns < width - 1}
    for step, is_inside in inside.items():
        neighbours, number = (places + step)[is_inside], own[is_inside]
        outside = flat_numbers[neighbours] != number
        found, number = flat_labels[neighbours[outside]], number[outside]
        known = found < num_classes
        touched += np.bincount(number[known].astype(np.int64) * num_classes + found[known], minlength=len(touched))
    by_class = touched.reshape(count, num_classes)
    return np.where(by_class.any(1), by_class.argmax(1), -1)


def _give_away(labels: Labels, numbers: npt.NDArray[np.int32], removed: Mask, num_classes: int) -> Labels:
    """Give the removed objects to what surrounds them."""
    removed = removed.copy()
    removed[0] = False
    if not removed.any():
        return labels
    places = np.flatnonzero(removed[numbers])
    target = _count_neighbours(labels, numbers, places, len(removed), num_classes)[numbers.ravel()[places]]
    cleaned: Labels = labels.copy()
    cleaned.ravel()[places[target >= 0]] = target[target >= 0]
    return cleaned

"""Label maps as annotations that other tools read: COCO run lengths, and labelme polygons to correct by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segplus.inference.postprocessing.components import number_objects

Labels = npt.NDArray[Any]
_LABELME_VERSION = "5.5.0"  # of the program whose files these are


def annotate_coco(labels: Labels, num_classes: int) -> list[dict[str, Any]]:
    """Return COCO annotations of an image: one an object, with its exact pixels as uncompressed run lengths.

    Args:
        labels: Class ids, shape (H, W); other ids belong to no class.
        num_classes: C; the category of class 0 is 1.
    """
    height, width = labels.shape
    annotations = []
    for class_id in np.unique(labels[labels < num_classes]).tolist():
        numbers, boxes = number_objects(labels == class_id)
        for number, (left, top, across, down, area) in enumerate(boxes[1:].tolist(), start=1):
            box = numbers[top : top + down, left : left + across] == number
            counts = _count_runs(box, top, left, (height, width))
            annotations.append(
                {
                    "category_id": class_id + 1,
                    "bbox": [left, top, across, down],
                    "area": area,
                    "iscrowd": 1,  # what says that the segmentation is run lengths
                    "segmentation": {"size": [height, width], "counts": counts},
                }
            )
    return annotations


def _count_runs(box: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> list[int]:
    """Return COCO's run lengths, down the columns, of a mask that is True inside a box at most."""
    height, width = size
    columns = np.zeros((box.shape[1], height), dtype=np.int8)
    columns[:, top : top + box.shape[0]] = box.T
    # Where a run begins: the mask's edges, of which there are as many up as down.
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + left * height
    return [int(run) for run in np.diff([0, *edges.tolist(), height * width])]


def build_coco(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Sequence[Mapping[str, Any]]], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return a COCO file of several images.

    Args:
        images: image (its name), height_px and width_px.
        annotations: Those of each image, from `annotate_coco`.
        class_names: Position is the class id.
    """
    numbered = [{"image_id": number, **one} for number, listed in enumerate(annotations, start=1) for one in listed]
    return {
        "images": [
            {"id": number, "file_name": one["image"], "height": one["height_px"], "width": one["width_px"]}
            for number, one in enumerate(images, start=1)
        ],
        "annotations": [{"id": number, **one} for number, one in enumerate(numbered, start=1)],
        "categories": [{"id": class_id, "name": name} for class_id, name in enumerate(class_names, start=1)],
    }


def format_labelme(labels: Labels, class_names: Sequence[str], image_path: str) -> str:
    """Return a labelme file: the outer outline of every object, large ones first, so that smaller ones lie on top.

    Args:
        labels: Class ids, shape (H, W); other ids belong to no class and get no shape.
        class_names: Position is the class id.
        image_path: The image as the file names it, relative to the file's folder.
    """
    shapes: list[tuple[float, dict[str, Any]]] = []
    for class_id in np.unique(labels[labels < len(class_names)]).tolist():
        mask = (labels == class_id).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for outline in outlines:
            points = outline[:, 0].astype(float)
            if len(points) < 3:  # a point or a line: a rectangle around its pixels
                left, top, width, height = cv2.boundingRect(outline)
                right, bottom = left + max(width - 1, 1), top + max(height - 1, 1)
                points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=float)
            shape = {
                "label": class_names[class_id],
                "points": points.tolist(),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            shapes.append((float(cv2.contourArea(outline)), shape))
    shapes.sort(key=lambda entry: -entry[0])
    height, width = labels.shape
    content = {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": [shape for _, shape in shapes],
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"

"""Pairs of a few pixels with exact counts, for the tests of layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segplus.data import load_segmentation_dataset

GROUND, THING, VOID = 0, 1, 255


def draw_ids(things: int, voids: int = 0, size_px: tuple[int, int] = (4, 6)) -> np.ndarray:
    """Return ids with so many pixels of class 1 and of void, all others 0."""
    flat = np.zeros(size_px[0] * size_px[1], dtype=np.uint8)
    flat[:things] = THING
    flat[things : things + voids] = VOID
    return flat.reshape(size_px)


def save_image(path: Path, size_px: tuple[int, int] = (4, 6), value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size_px, 3), value, dtype=np.uint8)).save(path)


def save_mask(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def save_palette(path: Path, ids: np.ndarray, palette: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids).convert("L")
    image.putpalette(palette + [0] * (768 - len(palette)))
    image.save(path)


def count(section: dict[str, Any], split: str = "train") -> list[int]:
    """Return the pixels of each class and of void in a split."""
    data = load_segmentation_dataset(section)
    width = data.classes.num_classes
    total = np.zeros(width + 1, dtype=int)
    for pair in data.splits[split]:
        label = pair["label"]
        assert pair["image"].size == label.shape[::-1]
        total[:width] += np.bincount(label[label < width], minlength=width)
        total[-1] += (label == data.classes.ignore_index).sum()
    return total.tolist()


def whole(root: Path, **more: Any) -> dict[str, Any]:
    """Return a data section that makes no splits."""
    return {"dataset": str(root), "classes": ["ground", "thing"], "validation_share": 0.0, **more}


def build_coco(first_id: int) -> dict[str, Any]:
    square = [[0.0, 0.0, 3.0, 0.0, 3.0, 2.0, 0.0, 2.0]]  # 3 x 2 pixels
    rle = {"size": [4, 6], "counts": [20, 4]}  # the last column
    return {
        "images": [
            {"id": 9, "file_name": "a.jpg", "height": 4, "width": 6},
            {"id": 8, "file_name": "b.jpg", "height": 4, "width": 6},
        ],
        "categories": [{"id": first_id, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": first_id, "segmentation": square, "area": 6, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 90, "segmentation": rle, "area": 4, "iscrowd": 1},
        ],
    }

"""Small drawn photographs whose things have colours of their own, and counts of masks: for generated folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

STREET = {  # what draw_street draws, in the order of its indices: the colour in the photograph
    "sky": (150, 180, 215), "building": (125, 105, 95), "tree": (60, 95, 50), "road": (85, 85, 90),
    "sidewalk": (155, 145, 135), "car": (150, 40, 45), "pole": (195, 190, 170), "other": (105, 85, 135),
}  # fmt: skip


def count(masks: Iterable[np.ndarray], names: Sequence[str] | None = None) -> dict[str | int, int]:
    """Pixels of each value, by the value or by its name."""
    values, pixels = np.unique(np.concatenate([mask.ravel() for mask in masks]), return_counts=True)
    return {names[value] if names else int(value): int(number) for value, number in zip(values, pixels, strict=True)}


def save(array: np.ndarray, path: Path, **options: object) -> None:
    """Write the array as an image, and make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def blob(rng: np.random.Generator, shape: tuple[int, int], center: Sequence[float], radius: float) -> np.ndarray:
    """Draw a bumpy disc, bool (H, W)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    angle = np.arctan2(rows - center[0], columns - center[1]) + rng.uniform(0, 2 * np.pi)
    edge = radius * (1 + 0.16 * np.sin(3 * angle) + 0.08 * np.sin(5 * angle + 1))
    return np.hypot(rows - center[0], columns - center[1]) < edge


def paint(
    rng: np.random.Generator, labels: np.ndarray, colors: Iterable[Sequence[int]], noise: float = 7
) -> np.ndarray:
    """Photograph labels: their colours, unevenly lit, with noise; uint8 (H, W, 3)."""
    height, width = labels.shape
    light = Image.fromarray(rng.normal(0, 9, (4, 5)).astype(np.float32))
    light = np.asarray(light.resize((width, height), Image.Resampling.BICUBIC))
    image = np.array(list(colors), float)[labels] * rng.uniform(0.9, 1.1) + light[..., None]
    return np.clip(image + rng.normal(0, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def draw_street(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw indices into STREET and the numbers of cars (0: none), both uint8 (H, W)."""
    rows, columns = np.mgrid[:height, :width]
    labels, cars = np.zeros((2, height, width), np.uint8)
    horizon = int(height * rng.uniform(0.4, 0.5))
    for beside in (columns, width - 1 - columns):
        labels[(rows > height * rng.uniform(0.05, 0.2)) & (beside < width * rng.uniform(0.2, 0.35))] = 1
    for _ in range(2):
        center = (horizon - height * 0.1, rng.uniform(0.1, 0.9) * width)
        labels[blob(rng, labels.shape, center, height * rng.uniform(0.12, 0.2))] = 2
    labels[rows >= horizon] = 4
    reach = (rows - horizon + 4) * width / height * rng.uniform(0.6, 0.8)
    labels[(rows >= horizon) & (np.abs(columns - rng.uniform(0.4, 0.6) * width) < reach)] = 3
    patch, pole = rng.integers(5, width - 15, 2)
    labels[horizon : horizon + 5, patch : patch + 8] = 7
    labels[horizon - height // 3 : horizon + 5, pole : pole + 2] = 6
    for number, third in enumerate(rng.permutation(3)[: rng.integers(1, 4)], 1):
        top, left = horizon + rng.integers(1, height // 5), int((third + rng.uniform(0.1, 0.5)) * width / 3)
        box = np.s_[top : top + height // 7, left : left + width // 8]
        labels[box], cars[box] = 5, number
    return labels, cars

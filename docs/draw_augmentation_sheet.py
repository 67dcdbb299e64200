"""Draw docs/images/augmentation.jpg: every preset, and every way of mixing a batch, on drawn scenes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.data.synthetic.scenes import CLASS_COLORS, SyntheticScenes
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.transforms import PRESETS, BatchMixing, TrainingTransform

CROP_PX = 144
COLUMNS = 4
MIXES = ("mixup", "cutmix", "classmix", "mosaic")


def paint(pixel_values: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Return image and classes one above the other; ignored pixels are white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(CLASS_COLORS)] = CLASS_COLORS
    return np.concatenate([pixel_values.numpy().transpose(1, 2, 0), table[labels.numpy()]])


def draw_samples(scenes: SyntheticScenes, recipe: TransformsRecipe, row: int) -> list[dict[str, torch.Tensor]]:
    """Return the augmented samples of one row."""
    transform = TrainingTransform(SegformerImageProcessorPil(do_resize=False), recipe, normalize=False)
    samples = []
    for column in range(COLUMNS):
        image, label = scenes.draw(column)
        samples.append(transform(Image.fromarray(image), label, np.random.default_rng([row, column])))
    return samples


def name_row(height_px: int, name: str) -> np.ndarray:
    """Return a white strip with the row's name."""
    strip = np.full((height_px, 110, 3), 255, np.uint8)
    cv2.putText(strip, name, (6, height_px // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def draw_sheet() -> np.ndarray:
    """Return the whole sheet, RGB."""
    scenes = SyntheticScenes(COLUMNS, (192, 256), seed=0)
    rows = []
    for row, preset in enumerate(PRESETS):
        samples = draw_samples(scenes, TransformsRecipe(preset=preset, crop_size_px=[CROP_PX, CROP_PX]), row)
        rows.append((preset, [paint(s["pixel_values"], s["labels"]) for s in samples]))
    for row, mix in enumerate(MIXES):
        options: dict[str, Any] = {mix: 1.0}
        recipe = TransformsRecipe(preset="light", crop_size_px=[CROP_PX, CROP_PX], **options)
        samples = draw_samples(scenes, recipe, 100)
        stacked = (torch.stack([s[key] for s in samples]) for key in ("pixel_values", "labels"))
        mixed = BatchMixing(recipe, 255)(*stacked, np.random.default_rng(row + 1))
        rows.append((mix, [paint(pixels, labels) for pixels, labels in zip(*mixed, strict=True)]))
    lines = [np.concatenate([name_row(2 * CROP_PX, name), *images], axis=1) for name, images in rows]
    lines = [np.concatenate([line, np.full((6, line.shape[1], 3), 255, np.uint8)]) for line in lines]
    half = len(lines) // 2
    return np.concatenate([np.concatenate(lines[:half]), np.concatenate(lines[half:])], axis=1)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images" / "augmentation.jpg"
    Image.fromarray(draw_sheet()).save(target, quality=85)
    print(target)

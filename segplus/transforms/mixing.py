"""MixUp, CutMix, ClassMix and mosaic on whole batches, with labels that stay hard."""

from __future__ import annotations

import numpy as np
import torch

from segplus.recipe.transforms_section import TransformsRecipe

Batch = tuple[torch.Tensor, torch.Tensor]  # pixel values and labels

# Under this weight the stronger image of a MixUp does not decide where the two disagree: such pixels are ignored.
_CLEAR_WEIGHT = 2 / 3


class BatchMixing:
    """Mix a batch in one way, or not at all, as the recipe's probabilities say.

    Args:
        recipe: The `transforms:` section.
        ignore_index: The label that is ignored.
    """

    def __init__(self, recipe: TransformsRecipe, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        self.probabilities = {
            mix_up: recipe.mixup,
            cut_mix: recipe.cutmix,
            class_mix: recipe.classmix,
            make_mosaic: recipe.mosaic,
        }

    def __call__(self, pixel_values: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator) -> Batch:
        """Return pixel values (N, C, H, W) and labels (N, H, W), mixed or as they were; a batch of one stays."""
        draw, passed = rng.random(), 0.0
        for mix, probability in self.probabilities.items():
            passed += probability
            if draw < passed and len(labels) > 1:
                return mix(pixel_values, labels, rng, self.ignore_index)
        return pixel_values, labels


def mix_up(pixel_values: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator, ignore_index: int) -> Batch:
    """Return each image blended with another, with hard labels.

    The weight is the larger share of a Beta(0.4, 0.4) draw. A pixel keeps the stronger image's label; where the two
    labels differ and the weight is under 2/3, it is ignored, as neither label would be true.

    Args:
        pixel_values: Shape (N, C, H, W).
        labels: Class ids, shape (N, H, W).
        rng: Draws partner and weight.
        ignore_index: The label that is ignored.
    Reference:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, eq. 1; the hard labels are segplus' own.
    """
    order = _draw_partners(len(labels), rng)
    share = float(rng.beta(0.4, 0.4))
    weight = max(share, 1 - share)
    blended = _blend(pixel_values, pixel_values[order], weight)
    if weight >= _CLEAR_WEIGHT:
        return blended, labels
    return blended, torch.where(labels == labels[order], labels, ignore_index)


def _blend(first: torch.Tensor, second: torch.Tensor, weight: float) -> torch.Tensor:
    blended = first.float() * weight + second.float() * (1 - weight)
    return blended.round().to(first.dtype) if first.dtype == torch.uint8 else blended.to(first.dtype)


def cut_mix(pixel_values: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator, ignore_index: int) -> Batch:  # noqa: ARG001 - the four ways have one signature
    """Return each image with a rectangle of another, pixels and labels.

    Args:
        pixel_values: Shape (N, C, H, W).
        labels: Class ids, shape (N, H, W).
        rng: Draws partner and rectangle.
        ignore_index: Not used: no label is made.
    Reference:
        French et al., Semi-supervised semantic segmentation needs strong, varied perturbations, 2020, section 3.
    """
    order = _draw_partners(len(labels), rng)
    height, width = labels.shape[-2:]
    side = float(np.sqrt(rng.beta(1.0, 1.0)))
    rows, columns = max(round(height * side), 1), max(round(width * side), 1)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    inside = torch.zeros((height, width), dtype=torch.bool)
    inside[top : top + rows, left : left + columns] = True
    return _paste(pixel_values, labels, order, inside.expand(len(labels), -1, -1))


def class_mix(pixel_values: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator, ignore_index: int) -> Batch:
    """Return each image with the pixels of half the classes of another pasted over it.

    Args:
        pixel_values: Shape (N, C, H, W).
        labels: Class ids, shape (N, H, W).
        rng: Draws partner and classes.
        ignore_index: The label that is ignored; its pixels are never pasted.
    Reference:
        Olsson et al., ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning, 2021, algorithm 1.
    """
    order = _draw_partners(len(labels), rng)
    inside = torch.zeros(labels.shape, dtype=torch.bool)
    for row, partner in enumerate(order.tolist()):
        present = np.unique(labels[partner].numpy())
        present = present[present != ignore_index]
        chosen = rng.permutation(present)[: (len(present) + 1) // 2]
        inside[row] = torch.isin(labels[partner], torch.from_numpy(chosen.astype(np.int64)).to(labels.dtype))
    return _paste(pixel_values, labels, order, inside)


def make_mosaic(pixel_values: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator, ignore_index: int) -> Batch:  # noqa: ARG001 - the four ways have one signature
    """Return images of four crops around a random point, each cut without resizing from one image of the batch.

    Args:
        pixel_values: Shape (N, C, H, W).
        labels: Class ids, shape (N, H, W).
        rng: Draws the images, the point and the crops.
        ignore_index: Not used: no label is made.
    Reference:
        Bochkovskiy et al., YOLOv4, 2020, section 3.3; cut instead of shrunk, so that objects keep their size.
    """
    count, height, width = labels.shape
    mixed, mixed_labels = pixel_values.clone(), labels.clone()
    for row in range(count):
        middle_y, middle_x = (
            int(rng.integers(height // 4, height - height // 4)),
            int(rng.integers(width // 4, width - width // 4)),
        )
        others = [row, *rng.integers(0, count, 3).tolist()]
        corners = [
            (0, middle_y, 0, middle_x),
            (0, middle_y, middle_x, width),
            (middle_y, height, 0, middle_x),
            (middle_y, height, middle_x, width),
        ]
        for other, (top, bottom, left, right) in zip(others, corners, strict=True):
            y, x = int(rng.integers(height - (bottom - top) + 1)), int(rng.integers(width - (right - left) + 1))
            rows, columns = slice(y, y + bottom - top), slice(x, x + right - left)
            mixed[row, :, top:bottom, left:right] = pixel_values[other][:, rows, columns]
            mixed_labels[row, top:bottom, left:right] = labels[other][rows, columns]
    return mixed, mixed_labels


def _draw_partners(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Return a partner for each image of a batch, never itself."""
    return (torch.arange(count) + int(rng.integers(1, count))) % count


def _paste(pixel_values: torch.Tensor, labels: torch.Tensor, order: torch.Tensor, inside: torch.Tensor) -> Batch:
    mixed = torch.where(inside[:, None], pixel_values[order], pixel_values)
    return mixed, torch.where(inside, labels[order], labels)

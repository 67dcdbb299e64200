"""A fully connected conditional random field whose pairs reach over a window, solved by mean field."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segplus.recipe.postprocess_section import CrfRecipe

# Values of one tile of probabilities: what stays in a processor's cache while a window passes over it.
_TILE_VALUES = 1 << 17


def refine_probabilities(probabilities: Tensor, image: Tensor, recipe: CrfRecipe) -> Tensor:
    """Return the probabilities after some steps of mean field.

    Every step adds to the log-probability of a class at pixel i the sum over the pixels j of the window around it of
    k_ij Q_j(class), and normalises; Q are the last step's probabilities, and with distance d and difference of colour c

        k_ij = w_color / z_color exp(-d^2 / 2 s_color^2 - c^2 / 2 t^2) + w_distance / z_distance exp(-d^2 / 2 s^2)

    where z is the sum of the exponential of the distance over the window: weights do not depend on its size. The
    compatibility is Potts'. Pixels beyond the image say nothing.

    Args:
        probabilities: Float, shape (C, H, W).
        image: Channels, 0 to 255, float, shape (channels, H, W), on the same device.
        recipe: Steps, window and weights.
    Returns:
        float32, shape (C, H, W).
    Reference:
        Kraehenbuehl and Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials, 2011,
        algorithm 1. https://arxiv.org/abs/1210.5644 The window follows Teichmann and Cipolla, Convolutional CRFs for
        semantic segmentation, 2018. https://arxiv.org/abs/1805.04777
    """
    # As the library's callers do, a probability of 0 is kept from minus infinity.
    scores = probabilities.float().clamp_min(1e-7).log()
    # One scale for all colours: their squared difference is then the exponent.
    colors = image.float() / (recipe.color_sigma * 2**0.5)
    offsets = list(_weigh_offsets(recipe))
    current = scores.softmax(0)
    for _ in range(recipe.iterations):
        current = _add_messages(current, colors, offsets).add_(scores).softmax(0)
    return current


def _weigh_offsets(recipe: CrfRecipe) -> Iterator[tuple[int, int, float, float]]:
    """Yield (down, right, weight beside the colour, weight alone) of half the window; the other half mirrors it."""
    radius = recipe.radius_px
    reach = torch.arange(-radius, radius + 1, dtype=torch.float64)
    squares = reach[:, None] ** 2 + reach**2
    beside = torch.exp(-squares / (2 * recipe.color_distance_px**2))
    alone = torch.exp(-squares / (2 * recipe.distance_px**2))
    for weights in (beside, alone):
        weights[radius, radius] = 0
        weights /= weights.sum()
    for down in range(radius + 1):
        for right in range(-radius if down else 1, radius + 1):
            place = radius + down, radius + right
            yield down, right, recipe.color_weight * float(beside[place]), recipe.distance_weight * float(alone[place])


def _add_messages(current: Tensor, colors: Tensor, offsets: list[tuple[int, int, float, float]]) -> Tensor:
    """Return what the neighbours say, shape (C, H, W)."""
    classes, height, width = current.shape
    total = torch.zeros_like(current)
    rows = max(1, _TILE_VALUES // (classes * width)) if current.device.type == "cpu" else height
    for top in range(0, height, rows):
        for down, right, beside, alone in offsets:
            bottom = min(top + rows, height - down)
            across = width - abs(right)
            if bottom <= top or across < 1:
                continue
            here = slice(top, bottom), slice(max(0, -right), max(0, -right) + across)
            there = slice(top + down, bottom + down), slice(max(0, right), max(0, right) + across)
            kernel = (colors[:, here[0], here[1]] - colors[:, there[0], there[1]]).square_().sum(0)
            kernel = kernel.neg_().exp_().mul_(beside).add_(alone)  # (n, m)
            total[:, here[0], here[1]].addcmul_(current[:, there[0], there[1]], kernel)
            total[:, there[0], there[1]].addcmul_(current[:, here[0], here[1]], kernel)
    return total

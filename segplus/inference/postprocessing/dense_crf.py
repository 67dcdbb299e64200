"""A fully connected conditional random field, solved by mean field, over windows or the whole image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segplus.inference.postprocessing.permutohedral import build_lattice
from segplus.recipe.postprocess_section import CrfRecipe

# Values of one tile of probabilities: what stays in a processor's cache while a window passes over it.
_TILE_VALUES = 1 << 17
# Weights of pairs that are kept from one step to the next, 256 MiB; of larger images they are computed anew.
_KEPT_VALUES = 1 << 26

SumPairs = Callable[[Tensor], Tensor]  # probabilities (C, H, W) -> sums over a pixel's neighbours, (C, H, W)


def refine_probabilities(probabilities: Tensor, image: Tensor, recipe: CrfRecipe) -> Tensor:
    """Return the probabilities after some steps of mean field.

    Every step adds to the log-probability of a class at pixel i the sum over the other pixels j of k_ij Q_j(class), and
    normalises; Q are the last step's probabilities, and with distance d and difference of colour c

        k_ij = w_color / z_color exp(-d^2 / 2 s_color^2 - c^2 / 2 t^2) + w_distance / z_distance exp(-d^2 / 2 s^2)

    where z is the sum of the exponential of the distance over all j, were the image endless: weights do not depend on
    how far the sums reach. The compatibility is Potts'. Pixels beyond the image say nothing.

    The filter `window` sums over the pixels of a window exactly, `permutohedral` over all pixels approximately.

    Args:
        probabilities: Float, shape (C, H, W).
        image: Channels, 0 to 255, float, shape (channels, H, W), on the same device.
        recipe: Steps, filter and weights.
    Returns:
        float32, shape (C, H, W).
    Raises:
        InputError: If the permutohedral filter cannot number its lattice.
    Reference:
        Kraehenbuehl and Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials, 2011,
        algorithm 1. https://arxiv.org/abs/1210.5644 The window follows Teichmann and Cipolla, Convolutional CRFs for
        semantic segmentation, 2018. https://arxiv.org/abs/1805.04777
    """
    # As the library's callers do, a probability of 0 is kept from minus infinity.
    scores = probabilities.float().clamp_min(1e-7).log()
    sum_pairs = _FILTERS[recipe.filter](scores.shape, image.float(), recipe)
    current = scores.softmax(0)
    for _ in range(recipe.iterations):
        current = sum_pairs(current).add_(scores).softmax(0)
    return current


def _connect_window(shape: torch.Size, image: Tensor, recipe: CrfRecipe) -> SumPairs:
    """Return what sums over the window around each pixel."""
    # One scale for all colours: their squared difference is then the exponent.
    colors = image / (recipe.color_sigma * 2**0.5)
    pairs = list(_place_pairs(shape, list(_weigh_offsets(recipe)), image.device))
    keeps = sum(pair.here[1].stop - pair.here[1].start for pair in pairs) * shape[2] <= _KEPT_VALUES
    kernels = [_weigh_pairs(colors, pair) for pair in pairs] if keeps else None

    def sum_pairs(current: Tensor) -> Tensor:
        total = torch.zeros_like(current)
        for number, pair in enumerate(pairs):
            kernel = kernels[number] if kernels else _weigh_pairs(colors, pair)  # (n, m)
            total[pair.here].addcmul_(current[pair.there], kernel)
            total[pair.there].addcmul_(current[pair.here], kernel)
        return total

    return sum_pairs


def _connect_image(shape: torch.Size, image: Tensor, recipe: CrfRecipe) -> SumPairs:
    """Return what sums over all pixels, on the processor wherever the probabilities lie."""
    places = np.indices(shape[1:]).reshape(2, -1).T  # (H W, 2)
    colors = image.flatten(1).T.cpu().numpy() / recipe.color_sigma  # (H W, channels)
    beside = np.concatenate([places / recipe.color_distance_px, colors], 1)
    lattices = [
        (build_lattice(features), weight / _sum_distances(sigma_px))
        for features, weight, sigma_px in (
            (beside, recipe.color_weight, recipe.color_distance_px),
            (places / recipe.distance_px, recipe.distance_weight, recipe.distance_px),
        )
        if weight
    ]

    def sum_pairs(current: Tensor) -> Tensor:
        values = np.ascontiguousarray(current.flatten(1).T.cpu().numpy())  # (H W, C)
        total = np.zeros_like(values)
        for lattice, weight in lattices:
            total += np.float32(weight) * (lattice.sum_values(values) - values)
        return torch.from_numpy(total.T).reshape(shape).to(current.device)

    return sum_pairs


def _sum_distances(sigma_px: float) -> float:
    """Return the sum of exp(-d^2 / 2 s^2) over all pixels around one, itself left out."""
    reach = np.arange(1, 8 * sigma_px + 2)
    return float((1 + 2 * np.exp(-np.square(reach / sigma_px) / 2).sum()) ** 2 - 1)


_FILTERS: dict[str, Callable[[torch.Size, Tensor, CrfRecipe], SumPairs]] = {
    "window": _connect_window,
    "permutohedral": _connect_image,
}


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


@dataclass(frozen=True)
class _Pairs:
    """Pixels of a few rows and their neighbours at one offset, as indices of (C, H, W), and their two weights."""

    here: tuple[slice, slice, slice]
    there: tuple[slice, slice, slice]
    beside: float
    alone: float


def _place_pairs(
    shape: torch.Size, offsets: list[tuple[int, int, float, float]], device: torch.device
) -> Iterator[_Pairs]:
    """Yield the pairs of an image, (C, H, W), tile by tile and, within one, offset by offset."""
    classes, height, width = shape
    rows = max(1, _TILE_VALUES // (classes * width)) if device.type == "cpu" else height
    for top in range(0, height, rows):
        for down, right, beside, alone in offsets:
            bottom, across = min(top + rows, height - down), width - abs(right)
            if bottom > top and across > 0:
                left = max(0, -right)
                here = slice(None), slice(top, bottom), slice(left, left + across)
                there = slice(None), slice(top + down, bottom + down), slice(left + right, left + right + across)
                yield _Pairs(here, there, beside, alone)


def _weigh_pairs(colors: Tensor, pair: _Pairs) -> Tensor:
    """Return k_ij of the pairs, shape (n, m)."""
    squared = (colors[pair.here] - colors[pair.there]).square_().sum(0)
    return squared.neg_().exp_().mul_(pair.beside).add_(pair.alone)

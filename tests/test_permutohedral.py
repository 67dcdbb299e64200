"""The permutohedral lattice beside brute force, alone and as the filter of the random field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from segplus.errors import InputError
from segplus.inference.postprocessing.dense_crf import refine_probabilities
from segplus.inference.postprocessing.permutohedral import _locate, build_lattice
from segplus.recipe import build_dataclass
from segplus.recipe.postprocess_section import CrfRecipe, DecisionRecipe, PostprocessRecipe

SIDE = 48


def draw_scene(seed: int, noise: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, (3, 48, 48), of three blurred regions of one colour each with noise, and their numbers."""
    rng = np.random.default_rng(seed)
    heights = gaussian_filter(rng.normal(size=(3, SIDE, SIDE)), (0, 7, 7))
    regions = heights.argmax(0)
    image = rng.uniform(40, 215, (3, 3))[regions].transpose(2, 0, 1) + rng.normal(0, noise, (3, SIDE, SIDE))
    return image.clip(0, 255).astype(np.float32), regions


def doubt(regions: np.ndarray, seed: int, wrong: float = 0.25) -> np.ndarray:
    """Return probabilities, (3, 48, 48), of which a share prefers another class, each with a strength of its own."""
    rng = np.random.default_rng(seed + 100)
    said = np.where(rng.random(regions.shape) < wrong, rng.integers(0, 3, regions.shape), regions)
    scores = np.eye(3)[said] * rng.uniform(0.5, 2.0, (*regions.shape, 1)) + rng.normal(0, 0.3, (*regions.shape, 3))
    shares = np.exp(scores)
    return (shares / shares.sum(-1, keepdims=True)).transpose(2, 0, 1).astype(np.float32)


def refine_by_all_pairs(probabilities: np.ndarray, image: np.ndarray, recipe: CrfRecipe) -> np.ndarray:
    """Mean field as its equations say, over every pair of pixels, in float64."""
    places = np.indices(image.shape[1:]).reshape(2, -1).T.astype(np.float64)
    squares, colors = cdist(places, places, "sqeuclidean"), image.reshape(3, -1).T.astype(np.float64)
    kernel = np.zeros_like(squares)
    for weight, sigma, difference in (
        (recipe.color_weight, recipe.color_distance_px, cdist(colors, colors, "sqeuclidean") / recipe.color_sigma**2),
        (recipe.distance_weight, recipe.distance_px, 0),
    ):
        whole = np.exp(-(np.arange(-400, 401) ** 2) / (2 * sigma**2)).sum() ** 2 - 1
        kernel += weight / whole * np.exp(-(squares / sigma**2 + difference) / 2)
    np.fill_diagonal(kernel, 0)
    scores = np.log(np.maximum(probabilities.reshape(3, -1).astype(np.float64), 1e-7))
    current = np.exp(scores) / np.exp(scores).sum(0)
    for _ in range(recipe.iterations):
        current = np.exp(scores + current @ kernel - (scores + current @ kernel).max(0))
        current /= current.sum(0)
    return current.reshape(probabilities.shape)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_every_point_lies_in_its_simplex(seed: int, dimensions: int) -> None:
    features = np.random.default_rng(seed).normal(0, 5, (200, dimensions))
    nearest, rank, shares = _locate(features)
    corners = dimensions + 1
    np.testing.assert_array_equal(np.sort(rank, 1), np.tile(np.arange(corners), (200, 1)))
    np.testing.assert_array_equal(nearest.sum(1), 0)
    assert shares.min() > -1e-9
    remainders = np.arange(corners)[:, None, None]
    vertices = nearest + remainders - corners * (rank > dimensions - remainders)  # (d + 1, N, d + 1)
    lifted = (shares.T[..., None] * vertices).sum(0)
    np.testing.assert_array_equal(vertices.sum(-1), 0)
    # The mean of the vertices by these weights is the point itself, whose distances the lattice keeps, scaled.
    apart = np.linalg.norm(features[:100] - features[100:], axis=1)
    np.testing.assert_allclose(
        np.linalg.norm(lifted[:100] - lifted[100:], axis=1), apart * corners * np.sqrt(2 / 3), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("dimensions", "most"), [(1, 0.1), (2, 0.1), (3, 0.15), (5, 0.25)])
def test_sums_are_those_of_brute_force(dimensions: int, most: float) -> None:
    rng = np.random.default_rng(0)
    features, values = rng.normal(0, 1, (1500, dimensions)), rng.random((1500, 2)).astype(np.float32)
    expected = np.exp(-cdist(features, features, "sqeuclidean") / 2) @ values
    found = build_lattice(features).sum_values(values)
    assert (np.abs(found - expected) / expected).mean() < most
    assert abs(found.sum() / expected.sum() - 1) < 0.1


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"color_weight": 60.0, "color_distance_px": 30.0, "color_sigma": 20.0},
        {"color_weight": 0.0, "distance_weight": 6.0, "distance_px": 3.0},
    ],
)
def test_labels_are_those_of_all_pairs(values: dict[str, float], seed: int) -> None:
    image, regions = draw_scene(seed)
    probabilities = doubt(regions, seed)
    recipe = CrfRecipe(iterations=5, filter="permutohedral", **values)
    found = refine_probabilities(torch.from_numpy(probabilities), torch.from_numpy(image), recipe).argmax(0).numpy()
    expected = refine_by_all_pairs(probabilities, image, recipe).argmax(0)
    assert (found == expected).mean() > 0.99
    assert (expected != probabilities.argmax(0)).mean() > 0.05, "the field does something"
    assert (expected == regions).mean() > (probabilities.argmax(0) == regions).mean()


def test_what_lies_further_apart_than_a_window_comes_to_agree() -> None:
    image = torch.zeros(3, 20, 90)
    image[:, :, :20] = image[:, :, 70:] = 200.0
    probabilities = torch.full((2, 20, 90), 0.5)
    probabilities[0, :, :20] = 0.9
    probabilities[1] = 1 - probabilities[0]
    values = {"iterations": 3, "color_weight": 400.0, "color_distance_px": 50.0, "distance_weight": 0.0}
    near, far = (
        refine_probabilities(probabilities, image, CrfRecipe(filter=name, **values))[0, :, 70:].mean()
        for name in ("window", "permutohedral")
    )
    assert abs(near - 0.5) < 1e-6
    assert far > 0.9


def test_one_pixel_and_odd_channels_are_no_error() -> None:
    recipe = CrfRecipe(iterations=2, filter="permutohedral")
    single = torch.tensor([0.3, 0.7]).view(2, 1, 1)
    torch.testing.assert_close(refine_probabilities(single, torch.zeros(1, 1, 1), recipe), single, atol=1e-3, rtol=0)


def test_what_the_lattice_cannot_hold_is_one_message() -> None:
    with pytest.raises(InputError, match=r"distance_px: the permutohedral filter is too coarse.*\n.*0.5\n.*1 and more"):
        build_dataclass(PostprocessRecipe, {"crf": {"filter": "permutohedral", "distance_px": 0.5}}, "postprocess", "r")
    with pytest.raises(InputError, match=r"standard deviations apart.*\n.*\n  fix: choose a larger color_sigma"):
        build_lattice(np.random.default_rng(0).normal(0, 1e6, (50, 5)))
    decision = DecisionRecipe(postprocess=PostprocessRecipe(crf=CrfRecipe(iterations=3, filter="permutohedral")))
    assert decision.describe() == "crf iterations 3 filter permutohedral"

"""Steps on a label map and on probabilities: tables by hand, slow references, properties, time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.ndimage import gaussian_filter1d

from segplus.errors import InputError
from segplus.inference.postprocessing import apply_label_steps
from segplus.inference.postprocessing.components import fill_holes, keep_largest, number_objects, remove_by_area
from segplus.inference.postprocessing.dense_crf import refine_probabilities
from segplus.inference.postprocessing.outlines import close_class, open_class, smooth_rows, take_majority
from segplus.inference.postprocessing.touching import split_touching
from segplus.recipe import build_dataclass
from segplus.recipe.postprocess_section import CrfRecipe, DecisionRecipe, PostprocessRecipe

NAMES = ["ground", "crack", "rust"]


def read(text: str) -> np.ndarray:
    """Return the label map of rows of digits; u is a pixel without a class."""
    return np.array([[255 if one == "u" else int(one) for one in row] for row in text.split()], dtype=np.uint8)


def count_objects(mask: np.ndarray) -> int:
    return ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize(
    ("before", "least", "after"),
    [
        ("0000 0110 0010 0001", 4, "0000 0110 0010 0001"),  # joined by a corner: 4 pixels
        ("0000 0110 0010 0001", 5, "0000 0000 0000 0000"),
        ("0002 0012 0222 2222", 2, "0002 0002 0222 2222"),  # 0 and 2 touch it twice each: the lower id
        ("1111 1111", 99, "1111 1111"),  # nothing surrounds it
        ("1u uu", 2, "1u uu"),  # what is no class takes nothing
        ("1u 0u", 2, "0u 0u"),
    ],
)
def test_objects_below_an_area_go_to_what_surrounds_them(before, least, after):
    np.testing.assert_array_equal(remove_by_area(read(before), 1, 3, least_px=least), read(after))


def test_an_object_goes_to_the_class_that_touches_most_of_it():
    labels = read("00000 01120 00220 00000")
    np.testing.assert_array_equal(remove_by_area(labels, 1, 3, least_px=3), read("00000 00020 00220 00000"))
    labels = read("02220 21120 02220 00000")
    np.testing.assert_array_equal(remove_by_area(labels, 1, 3, least_px=3), read("02220 22220 02220 00000"))


def test_large_objects_and_all_but_the_largest():
    labels = read("1100110 1100000 0000001 1110001")
    np.testing.assert_array_equal(remove_by_area(labels, 1, 3, most_px=3), read("0000110 0000000 0000001 1110001"))
    np.testing.assert_array_equal(keep_largest(labels, 1, 3, 1), read("1100000 1100000 0000000 0000000"))
    np.testing.assert_array_equal(keep_largest(labels, 1, 3, 2), read("1100000 1100000 0000000 1110000"))
    # of two of the same size the upper one stays
    np.testing.assert_array_equal(keep_largest(labels, 1, 3, 3), read("1100110 1100000 0000000 1110000"))


def test_holes_are_enclosed_and_inside_the_image():
    labels = read("0000000 0111110 0101210 0111110 0000000 1100000 0100000")
    np.testing.assert_array_equal(
        fill_holes(labels, 1, 1), read("0000000 0111110 0111110 0111110 0000000 1100000 0100000")
    )
    ring = read("01110 01u10 01210 01110")
    np.testing.assert_array_equal(fill_holes(ring, 1, 2), read("01110 01110 01110 01110"))
    np.testing.assert_array_equal(fill_holes(ring, 1, 1), ring)
    corner = read("0111 1001 1001 1111")  # open at the corner for 8 neighbours, closed for the hole's own 4
    np.testing.assert_array_equal(fill_holes(corner, 1, 4), read("0111 1111 1111 1111"))


def take_majority_slowly(labels: np.ndarray, radius: int, count: int) -> np.ndarray:
    result = labels.copy()
    for y, x in np.ndindex(labels.shape):
        if labels[y, x] >= count:
            continue
        window = labels[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        votes = np.bincount(window[window < count], minlength=count)
        if votes[labels[y, x]] < votes.max():
            result[y, x] = votes.argmax()
    return result


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 12))
def test_the_majority_is_that_of_a_slow_count(seed, radius, count):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, rng.integers(1, 12, 2)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = 255
    np.testing.assert_array_equal(take_majority(labels, radius, count), take_majority_slowly(labels, radius, count))


def test_openings_and_closings():
    labels = np.zeros((20, 20), np.uint8)
    labels[4:14, 4:14] = 1
    labels[9, 14:19] = 1  # a hair
    labels[8, 8] = 2
    opened = open_class(labels, 1, 1, 3)
    assert not (opened[9, 14:19] == 1).any()
    assert (opened[5:8, 5:8] == 1).all()
    assert (opened != labels).sum() <= 5 + 8  # the hair, and what lies around the pixel of class 2
    closed = close_class(labels, 1, 1)
    assert closed[8, 8] == 1
    assert ((closed != labels) <= (closed == 1)).all()
    edge = np.zeros((8, 8), np.uint8)
    edge[:4] = 1  # cut by the image: an opening with a small disc changes nothing
    np.testing.assert_array_equal(open_class(edge, 1, 1, 3), edge)


def draw_discs(*discs: tuple[int, int, int], size: tuple[int, int] = (64, 96)) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return sum(((y - a) ** 2 + (x - b) ** 2 <= r * r) for a, b, r in discs).clip(0, 1).astype(np.uint8)


def test_touching_objects_are_parted_by_a_line():
    labels = draw_discs((30, 30, 15), (32, 54, 14))
    assert count_objects(labels == 1) == 1
    split = split_touching(labels, 1, 5, 2)
    assert count_objects(split == 1) == 2
    assert 0 < ((split != labels).sum()) < 40
    np.testing.assert_array_equal(split_touching(labels, 1, 40, 2), labels)
    alone = draw_discs((30, 30, 15))
    np.testing.assert_array_equal(split_touching(alone, 1, 5, 2), alone)
    full = np.ones((8, 8), np.uint8)
    assert split_touching(full, 1, 1, 2) is full


def test_many_touching_objects_are_parted_where_their_middles_are():
    """Pairs of discs on a grid: what a slow search finds in each pair alone, and nothing of the neighbours."""
    pairs = [(y, x, 9 + (y + x) // 24 % 5) for y in range(24, 200, 48) for x in range(24, 320, 72)]
    labels = draw_discs(*pairs, *((y, x + r + 8, 8) for y, x, r in pairs), size=(224, 360))
    labels[100:103, 340:] = 1  # a bar that reaches the image's border
    split = split_touching(labels, 1, 4, 2)
    assert count_objects(labels == 1) == len(pairs) + 1
    numbers, boxes = number_objects(labels == 1)
    depth = ndimage.distance_transform_edt(labels)
    expected = 0
    for number in range(1, len(boxes)):
        kept: list[tuple[int, int]] = []
        own = list(zip(*np.nonzero(numbers == number), strict=True))
        for y, x in sorted(own, key=lambda place: -depth[place].round(4)):
            around = slice(max(0, y - 4), y + 5), slice(max(0, x - 4), x + 5)
            is_deepest = depth[y, x] >= depth[around][numbers[around] == number].max() - 1e-4
            if is_deepest and all(max(abs(y - a), abs(x - b)) > 4 for a, b in kept):
                kept.append((y, x))
        expected += len(kept)
    assert count_objects(split == 1) == expected > len(pairs) + 1
    assert ((split != labels) <= (labels == 1)).all()


@pytest.mark.parametrize("chunks", [[17], [1] * 17, [4, 4, 4, 5], [16, 1]])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_scores_are_smoothed_in_pieces_as_a_whole(chunks, sigma):
    torch.manual_seed(0)
    whole = torch.rand(17, 23, 3).softmax(-1)
    tops = np.cumsum([0, *chunks])
    rows = ((int(top), whole[top : top + size]) for top, size in zip(tops, chunks, strict=False))
    found = list(smooth_rows(rows, sigma, 17))
    assert [top for top, _ in found] == list(np.cumsum([0, *(len(one) for _, one in found)])[:-1])
    radius = max(1, int(np.ceil(3 * sigma)))

    def blur(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = gaussian_filter1d(values, sigma, axis=axis, mode="constant", radius=radius)
        return values

    expected = blur(whole.double().numpy()) / blur(np.ones((17, 23, 1)))
    np.testing.assert_allclose(torch.cat([one for _, one in found]).numpy(), expected, atol=1e-6)


def refine_slowly(probabilities: np.ndarray, image: np.ndarray, recipe: CrfRecipe) -> np.ndarray:
    """Mean field as its equations say, pair by pair, in float64."""
    _, height, width = probabilities.shape
    reach, radius = {}, recipe.radius_px
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy or dx:
                squared = dy * dy + dx * dx
                reach[dy, dx] = [
                    np.exp(-squared / (2 * sigma**2)) for sigma in (recipe.color_distance_px, recipe.distance_px)
                ]
    sums = np.sum(list(reach.values()), axis=0)
    scores = np.log(np.maximum(probabilities.astype(np.float64), 1e-7))
    current = np.exp(scores) / np.exp(scores).sum(0)
    for _ in range(recipe.iterations):
        message = np.zeros_like(scores)
        for y, x in np.ndindex(height, width):
            for (dy, dx), (beside, alone) in reach.items():
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    color = ((image[:, y, x] - image[:, y + dy, x + dx]) ** 2).sum()
                    kernel = recipe.color_weight * beside / sums[0] * np.exp(-color / (2 * recipe.color_sigma**2))
                    message[:, y, x] += (kernel + recipe.distance_weight * alone / sums[1]) * current[:, y + dy, x + dx]
        current = np.exp(scores + message - (scores + message).max(0))
        current /= current.sum(0)
    return current


@pytest.mark.parametrize("size", [(32, 32), (3, 40), (5, 2)])
def test_the_random_field_is_that_of_its_equations(size, monkeypatch):
    monkeypatch.setattr("segplus.inference.postprocessing.dense_crf._TILE_VALUES", 500)  # many tiles
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size).transpose(2, 0, 1).astype(np.float32)
    image = rng.integers(0, 20, (3, *size)).astype(np.float32)
    recipe = CrfRecipe(iterations=2, radius_px=2, color_weight=9.0)
    found = refine_probabilities(torch.from_numpy(probabilities), torch.from_numpy(image), recipe)
    expected = refine_slowly(probabilities, image, recipe)
    assert np.abs(found.numpy() - expected).max() < 1e-5
    assert np.abs(expected - probabilities).max() > 0.1  # it does something


def test_the_random_field_follows_an_edge_of_colour():
    truth = np.zeros((24, 24), np.uint8)
    truth[:, 11:] = 1
    image = torch.from_numpy(np.repeat(truth[None] * 200.0, 3, 0))
    noisy = np.where(np.random.default_rng(0).random(truth.shape) < 0.2, 1 - truth, truth)
    probabilities = torch.from_numpy(np.stack([0.7 - 0.4 * noisy, 0.3 + 0.4 * noisy]))
    refined = refine_probabilities(probabilities, image, CrfRecipe(iterations=5)).argmax(0).numpy()
    assert (noisy != truth).mean() > 0.15
    assert (refined != truth).mean() < 0.01


def test_the_steps_of_a_recipe_in_their_order():
    labels = read("0000000 0111110 0101010 0111110 0000000 0001000 0000u11")
    steps = PostprocessRecipe(fill_holes_below_px=1, remove_below_px={"crack": 4}, keep_largest={"crack": 1})
    expected = read("0000000 0111110 0111110 0111110 0000000 0000000 0000u00")
    np.testing.assert_array_equal(apply_label_steps(labels, steps, NAMES), expected)
    physical = PostprocessRecipe(remove_below_mm2={"crack": 0.05}, pixel_size_mm=0.1)  # 5 pixels
    np.testing.assert_array_equal(
        apply_label_steps(labels, physical, NAMES), read("0000000 0111110 0101010 0111110 0000000 0000000 0000u00")
    )
    assert apply_label_steps(labels, PostprocessRecipe(), NAMES) is labels


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_step_makes_a_new_class_or_touches_what_has_none(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (6, 8)), 4, 0), 3, 1).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.05] = rng.integers(0, 3)
    labels[rng.random(labels.shape) < 0.03] = 255
    steps = PostprocessRecipe(
        majority_px=1, open_px={"crack": 1}, close_px={"rust": 1}, fill_holes_below_px=9, remove_below_px=4,
        remove_above_px={"rust": 200}, keep_largest={"crack": 2}, split_touching_px={"crack": 2},
    )  # fmt: skip
    found = apply_label_steps(labels, steps, NAMES)
    assert found.dtype == labels.dtype
    assert found.shape == labels.shape
    assert set(np.unique(found)) <= set(np.unique(labels))
    np.testing.assert_array_equal(found == 255, labels == 255)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"remove_below_px": {"crack": -1}}, r"postprocess.remove_below_px.crack\n  found: -1"),
        ({"remove_below_mm2": {"crack": 1.0}}, "an area in mm2 without the size of a pixel"),
        ({"majority": 1}, "unknown key 'postprocess.majority'.*\n.*majority_px"),
        ({"crf": {"iterations": 1, "radius_px": 0}}, "postprocess.crf.radius_px"),
        ({"crf": {"color_sigma": 0}}, "postprocess.crf.color_sigma"),
        ({"pixel_size_mm": 0}, "pixel_size_mm"),
        ({"open_px": 1000}, "postprocess.open_px\n"),
        ({"smooth_scores_px": -1}, "smooth_scores_px"),
    ],
)
def test_values_that_mean_nothing_are_one_message(values, message):
    with pytest.raises(InputError, match=message):
        build_dataclass(PostprocessRecipe, values, "postprocess", "recipe.yaml")


def test_classes_that_there_are_not_are_named():
    with pytest.raises(InputError, match=r"postprocess.keep_largest: no class 'crak'\n  fix: did you mean 'crack'"):
        PostprocessRecipe(keep_largest={"crak": 1}).check_classes(NAMES)
    with pytest.raises(InputError, match="threshold of crack\n  found: 1.5"):
        DecisionRecipe(thresholds={"crack": 1.5})

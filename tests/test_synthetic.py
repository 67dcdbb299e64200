"""The drawn street scenes: the same from the same seed, of any size, with every class in its share."""

from __future__ import annotations

import numpy as np
import pytest

from segplus.data.synthetic.canvas import Canvas, tint
from segplus.data.synthetic.scenes import CLASS_COLORS, CLASS_NAMES, SyntheticScenes
from segplus.errors import InputError


def test_scenes_repeat_whatever_was_drawn_before() -> None:
    first, second = SyntheticScenes(6, (96, 128), seed=3), SyntheticScenes(9, (96, 128), seed=3)
    second.draw(7)
    for index in (5, 0):
        for one, other in zip(first.draw(index), second.draw(index), strict=True):
            assert np.array_equal(one, other)
    assert not np.array_equal(first.draw(0)[0], first.draw(1)[0])
    assert not np.array_equal(first.draw(0)[0], SyntheticScenes(6, (96, 128), seed=4).draw(0)[0])


@pytest.mark.parametrize("size_px", [(16, 16), (33, 97), (97, 33), (360, 480)])
def test_any_size_is_drawn(size_px: tuple[int, int]) -> None:
    scenes = SyntheticScenes(3, size_px)
    for index in range(len(scenes)):
        image, ids = scenes.draw(index)
        assert image.shape == (*size_px, 3)
        assert image.dtype == np.uint8
        assert ids.shape == size_px
        assert ids.dtype == np.uint8
        assert set(np.unique(ids)) <= {*range(9), 255}


def test_shares_of_the_classes() -> None:
    scenes = SyntheticScenes(100, (192, 256), seed=0)
    counts = np.array([np.bincount(scenes.draw(index)[1].ravel(), minlength=256) for index in range(100)])
    share = counts.sum(axis=0) / counts.sum()
    present = (counts > 0).mean(axis=0)
    assert len(CLASS_NAMES) == len(CLASS_COLORS) == 9
    for rare in ("lane marking", "pedestrian", "pole"):
        class_id = CLASS_NAMES.index(rare)
        assert 0.001 < share[class_id] < 0.01, rare
        assert present[class_id] > 0.8, rare
    assert present[:9].min() > 0.75
    assert share[:2].min() > 0.1
    assert 0.01 < share[255] < 0.12
    assert present[255] == 1


def test_colour_alone_does_not_tell_the_class() -> None:
    """The best look-up table from coarse colour to class, fitted on other scenes, is wrong often."""
    scenes = SyntheticScenes(60, (48, 64), seed=1)
    table = np.zeros((8**3, 9), np.int64)
    hits = np.zeros((9, 2), np.int64)
    for index in range(60):
        image, ids = scenes.draw(index)
        code = (image // 32).astype(np.int64) @ np.array([64, 8, 1])
        known = ids < 9
        if index < 40:
            np.add.at(table, (code[known], ids[known]), 1)
            continue
        guess = table.argmax(axis=1)[code]
        hits[:, 0] += np.bincount(ids[known & (guess == ids)], minlength=9)
        hits[:, 1] += np.bincount(ids[known], minlength=9)
    assert (hits[:, 0] / hits[:, 1]).mean() < 0.35


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_labelled_is_painted(dtype: type) -> None:
    canvas = Canvas(20, 30, np.random.default_rng(0))
    mask = np.zeros((6, 9), np.uint8)
    mask[1:5, 2:8] = 1
    canvas.paint(mask, slice(10, 16), slice(4, 13), tint(np.full((6, 9), 2, dtype), (10, 20, 30)), 5, 7.0)
    painted = canvas.image.sum(axis=2) > 0
    assert painted.sum() == 24
    assert np.array_equal(painted, canvas.ids == 5)
    assert np.array_equal(painted, canvas.depth_m == 7)
    assert canvas.image[11, 6].tolist() == [20, 40, 60]


def test_trees_have_a_texture_of_their_own() -> None:
    """Leaves are rough and walls are smooth, in every light: a class is seen, not just labelled."""
    scenes = SyntheticScenes(40, (192, 256), seed=0)
    rough = {name: [] for name in ("sky", "building", "tree")}  # type: ignore[var-annotated]
    for index in range(40):
        image, ids = scenes.draw(index)
        grey = image.mean(axis=2)
        step = np.abs(np.diff(grey, axis=1))[:, :-1]
        for name, values in rough.items():
            inside = (ids[:, 1:-1] == CLASS_NAMES.index(name)) & (ids[:, :-2] == ids[:, 1:-1])
            if inside.sum() > 500:
                values.append(step[inside].mean() / (grey.mean() + 1))
    means = {name: np.mean(values) for name, values in rough.items()}
    assert means["tree"] > 2 * means["sky"]
    assert means["tree"] > 1.3 * means["building"]


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="16 pixels"):
        SyntheticScenes(1, (8, 64))
    with pytest.raises(InputError, match="negative"):
        SyntheticScenes(-1, (64, 64))
    with pytest.raises(IndexError, match="scene 2 of 2"):
        SyntheticScenes(2, (64, 64)).draw(2)

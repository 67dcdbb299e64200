"""The drawn street scenes: the same from the same seed, of any size, and a task that colour alone does not solve."""

from __future__ import annotations

import numpy as np
import pytest

from segplus.data.synthetic.scenes import CLASS_COLORS, CLASS_NAMES, SyntheticScenes
from segplus.errors import InputError

CLASSES = len(CLASS_NAMES)


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
        assert set(np.unique(ids)) <= {*range(CLASSES), 255}


def test_shares_of_the_classes() -> None:
    scenes = SyntheticScenes(60, (96, 128), seed=0)
    counts = np.array([np.bincount(scenes.draw(index)[1].ravel(), minlength=256) for index in range(60)])
    share = counts.sum(axis=0) / counts.sum()
    assert len(CLASS_NAMES) == len(CLASS_COLORS) == 7
    assert (counts > 0).mean(axis=0)[:CLASSES].min() > 0.95
    assert 0.01 < share[CLASS_NAMES.index("pole")] < 0.04
    assert np.delete(share[:CLASSES], CLASS_NAMES.index("pole")).min() > 0.05
    assert 0.03 < share[255] < 0.06


def test_poles_are_thin() -> None:
    """No pole is wider than a thirtieth of the image, nor narrower than two pixels at 192 x 256."""
    scenes = SyntheticScenes(20, (192, 256), seed=5)
    runs: list[int] = []
    for index in range(20):
        is_pole = np.pad(scenes.draw(index)[1] == CLASS_NAMES.index("pole"), ((0, 0), (1, 1))).astype(np.int8)
        steps = np.diff(is_pole, axis=1)
        runs += (np.argwhere(steps == -1)[:, 1] - np.argwhere(steps == 1)[:, 1]).tolist()
    assert 2 < np.median(runs) < 256 / 30


def test_the_nearest_mean_colour_does_not_tell_the_class() -> None:
    """A classifier by the classes' mean colours, measured on other scenes, stays far under mIoU 50 on the same."""
    scenes = SyntheticScenes(60, (96, 128), seed=1)
    drawn = [scenes.draw(index) for index in range(60)]
    fitted = [np.concatenate([image[ids == label] for image, ids in drawn[:40]]) for label in range(CLASSES)]
    means = np.array([pixels.mean(axis=0) for pixels in fitted])
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    for image, ids in drawn[40:]:
        known = ids < CLASSES
        distance = ((image[known][:, None].astype(np.float32) - means) ** 2).sum(axis=2)
        np.add.at(confusion, (ids[known], distance.argmin(axis=1)), 1)
    hits = confusion.diagonal()
    assert (hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)).mean() < 0.3


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="16 pixels"):
        SyntheticScenes(1, (8, 64))
    with pytest.raises(InputError, match="negative"):
        SyntheticScenes(-1, (64, 64))
    with pytest.raises(IndexError, match="scene 2 of 2"):
        SyntheticScenes(2, (64, 64)).draw(2)

"""Sampling: hand-computed weights, epochs of one length, points that hold the class they are said to hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplus.data.sampling import (
    ClassIndex,
    RepeatSampler,
    balance_classes,
    build_sampler,
    count_repeats,
    index_classes,
)

# Four images; class 0 in all, class 1 in one of them, class 2 in two, class 3 in none.
COUNTS = np.array([[9, 1, 0, 0], [5, 0, 5, 0], [10, 0, 0, 0], [7, 0, 3, 0]])


class Masks:
    def __init__(self, labels: list[np.ndarray]) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]


def make_masks() -> Masks:
    rng = np.random.default_rng(0)
    labels = [rng.choice([0, 1, 2, 255], size=(12, 17), p=(0.7, 0.02, 0.18, 0.1)).astype(np.uint8) for _ in range(6)]
    labels[3][:] = 255
    return Masks(labels)


def test_balance_by_hand() -> None:
    # Class 0 gives each image 1/4, class 1 gives image 0 all, class 2 images 1 and 3 a half; 4/3 draws each.
    assert balance_classes(COUNTS) == pytest.approx(np.array([1.25, 0.75, 0.25, 0.75]) * 4 / 3)
    assert balance_classes(np.zeros((2, 3), np.int64)).tolist() == [0, 0]


def test_repeat_factors_by_hand() -> None:
    assert count_repeats(COUNTS, 0.5) == pytest.approx([np.sqrt(0.5 / 0.25), 1, 1, 1])
    assert count_repeats(COUNTS, 0.01).tolist() == [1, 1, 1, 1]
    assert count_repeats(np.array([[0, 0], [1, 0]]), 1.0) == pytest.approx([1, np.sqrt(2)])


def test_an_epoch_has_one_length_and_the_expected_draws() -> None:
    repeats = np.array([0.25, 1.0, 2.5, 0.6, 3.2])
    sampler = RepeatSampler(repeats, seed=1)
    assert len(sampler) == 8
    drawn = np.zeros(5)
    for epoch in range(400):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == 8
        counts = np.bincount(order, minlength=5)
        assert (np.abs(counts - repeats * 8 / 7.55) < 1).all()
        drawn += counts
    assert drawn / 400 == pytest.approx(repeats * 8 / 7.55, abs=0.08)


def test_orders_repeat_from_seed_and_epoch() -> None:
    sampler = RepeatSampler(np.ones(20), seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(20))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(RepeatSampler(np.ones(20), seed=3)) == list(sampler) == first


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=30).filter(lambda r: sum(r) > 0.1), st.integers(0, 5))
def test_every_draw_is_an_image(repeats: list[float], epoch: int) -> None:
    sampler = RepeatSampler(np.array(repeats), seed=0)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert all(0 <= index < len(repeats) and repeats[index] > 0 for index in order)


def test_samplers_by_name() -> None:
    assert build_sampler("uniform", None, 0.01, 0) is None
    balanced = build_sampler("class_balanced", COUNTS, 0.01, 0)
    repeated = build_sampler("repeat_factor", np.repeat(COUNTS, 10, axis=0), 0.5, 0)
    assert balanced is not None
    assert repeated is not None
    assert len(balanced) == 4
    assert len(repeated) == round(10 * (np.sqrt(2) + 3))


def test_class_index_counts_and_points() -> None:
    masks = make_masks()
    index = index_classes(masks, 3, 255, points_per_class=4)
    for image, label in enumerate(masks.labels):
        for class_id in range(3):
            cell = image * 3 + class_id
            points = index.points[index.starts[cell] : index.starts[cell + 1]]
            assert index.counts[image, class_id] == (label == class_id).sum()
            assert len(points) == min(4, index.counts[image, class_id])
            assert len(np.unique(points, axis=0)) == len(points)
            assert (label[points[:, 0], points[:, 1]] == class_id).all()


def test_focus_prefers_the_rare_class() -> None:
    masks = make_masks()
    index = index_classes(masks, 3, 255)
    rng = np.random.default_rng(0)
    focus = [index.draw_focus(0, rng) for _ in range(300)]
    classes = np.bincount([masks.labels[0][point] for point in focus if point is not None], minlength=3) / 300
    rarity = 1 / index.counts.sum(axis=0)
    assert classes == pytest.approx(rarity / rarity.sum(), abs=0.08)
    assert index.draw_focus(3, rng) is None


def test_class_index_survives_the_disk_and_selection() -> None:
    index = index_classes(make_masks(), 3, 255)
    loaded: Any = ClassIndex.unpack(index.pack())
    chosen, wanted = loaded.select([4, 0]), index_classes(make_masks(), 3, 255)
    for name in ("counts", "starts", "points"):
        assert np.array_equal(getattr(loaded, name), getattr(index, name))
    assert np.array_equal(chosen.counts, wanted.counts[[4, 0]])
    for position, image in enumerate((4, 0)):
        for class_id in range(3):
            mine, theirs = position * 3 + class_id, image * 3 + class_id
            mine_points = chosen.points[chosen.starts[mine] : chosen.starts[mine + 1]]
            assert np.array_equal(mine_points, wanted.points[wanted.starts[theirs] : wanted.starts[theirs + 1]])

"""Sampling: hand-computed weights, epochs of one length, points that hold the class they are said to hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segplus.data.sampling import (
    RepeatSampler,
    balance_classes,
    build_sampler,
    count_repeats,
)
from segplus.data.statistics import SplitStatistics, choose_points, count_labels


def make_rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Four images; class 0 in all, class 1 in one of them, class 2 in two, class 3 in none.
COUNTS = np.array([[9, 1, 0, 0], [5, 0, 5, 0], [10, 0, 0, 0], [7, 0, 3, 0]])


def make_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    labels = [rng.choice([0, 1, 2, 255], size=(12, 17), p=(0.7, 0.02, 0.18, 0.1)).astype(np.uint8) for _ in range(6)]
    labels[3][:] = 255
    return labels


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


def test_points_by_class() -> None:
    masks = make_masks()
    for label in masks:
        counts = count_labels(label, 3)
        spans = choose_points(label, counts[:-1], np.random.default_rng(0), most=4)
        assert counts.tolist() == [*((label == class_id).sum() for class_id in range(3)), (label == 255).sum()]
        for class_id, points in enumerate(spans):
            assert len(points) == len(np.unique(points, axis=0)) == min(4, counts[class_id])
            assert (label[points[:, 0], points[:, 1]] == class_id).all()


def test_focus_prefers_the_rare_class() -> None:
    masks = make_masks()
    counts = np.stack([count_labels(label, 3) for label in masks])
    spans = [span for label in masks for span in choose_points(label, count_labels(label, 3)[:-1], make_rng())]
    starts = np.concatenate([[0], np.cumsum([len(span) for span in spans])])
    index = SplitStatistics(counts, starts, np.concatenate(spans))
    rng = np.random.default_rng(0)
    focus = [index.draw_focus(0, rng) for _ in range(300)]
    classes = np.bincount([masks[0][point] for point in focus if point is not None], minlength=3) / 300
    rarity = 1 / counts[:, :-1].sum(axis=0)
    assert classes == pytest.approx(rarity / rarity.sum(), abs=0.08)
    assert index.draw_focus(3, rng) is None

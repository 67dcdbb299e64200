"""Class weights from pixel counts, and schedules, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segplus.data.statistics import count_labels, sum_class_pixels
from segplus.errors import InputError
from segplus.losses.class_weights import FORMULAS, compute_class_weights, weigh_effective
from segplus.losses.schedules import read_schedule

MASKS = [np.array([[0, 0], [0, 1]], dtype=np.uint8), np.array([[0, 255], [255, 255]], dtype=np.uint8)]


def test_counts_by_hand():
    # Class 0: 4 pixels, in images with 4 + 1 valid pixels; class 1: 1 pixel in an image with 4; class 2: none.
    expected = [[4, 1, 0], [5, 4, 0]]
    counts = np.stack([count_labels(mask, 3) for mask in MASKS])
    assert counts.tolist() == [[3, 1, 0, 0], [1, 0, 0, 3]]
    assert sum_class_pixels(counts[:, :-1]).tolist() == expected


@pytest.mark.parametrize(
    ("formula", "raw"),
    [
        ("inverse_frequency", [5 / 4, 5 / 1]),
        ("median_frequency", [((4 / 5 + 1 / 4) / 2) / (4 / 5), ((4 / 5 + 1 / 4) / 2) / (1 / 4)]),
        ("enet", [1 / math.log(1.02 + 0.8), 1 / math.log(1.02 + 0.2)]),
    ],
)
def test_formulas_by_hand(formula, raw):
    counts = np.array([[4, 1, 0], [5, 4, 0]])
    mean = sum(raw) / 2
    assert compute_class_weights(counts, formula).tolist() == pytest.approx([raw[0] / mean, raw[1] / mean, 1.0])


def test_effective_number_by_hand():
    counts = np.array([[3000, 1000, 0], [0, 0, 0]])
    assert weigh_effective(counts, beta=0.5).tolist() == pytest.approx([0.5 / (1 - 0.5**3), 1.0, 0.0])


def test_no_pixel_at_all_weighs_one():
    for formula in FORMULAS:
        assert compute_class_weights(np.zeros((2, 3), dtype=np.int64), formula).tolist() == [1.0, 1.0, 1.0]


def test_unknown_formula_names_the_nearest():
    with pytest.raises(InputError, match="inverse_frequency"):
        compute_class_weights(np.ones((2, 3), dtype=np.int64), "inverse_freqency")


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"schedule": "constant", "to": 2}, [2, 2, 2, 2, 2]),
        ({"schedule": "linear", "from": 1, "to": 3}, [1, 1.5, 2, 2.5, 3]),
        ({"schedule": "linear", "to": 1, "start": 0.5}, [0, 0, 0, 0.5, 1]),
        ({"schedule": "cosine", "to": 1, "end": 0.5}, [0, 0.5, 1, 1, 1]),
        ({"schedule": "step", "from": 1, "to": 0, "end": 0.5}, [1, 1, 0, 0, 0]),
        ({"schedule": "warmup", "to": 4, "end": 0.5}, [0, 2, 4, 4, 4]),
    ],
)
def test_schedules_by_hand(given, values):
    schedule = read_schedule("weight", given)
    assert [schedule.evaluate(share / 4) for share in range(5)] == pytest.approx(values)

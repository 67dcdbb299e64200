"""MeanIoU is evaluate's mean_iou: its own example, its formulas on random maps, through evaluate's own calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segplus.metrics import MeanIoU

# The example of evaluate's page on mean_iou, and the figures printed there.
PREDICTED = [[[1, 2], [3, 4], [5, 255]], [[2, 7], [9, 2], [3, 6]], [[2, 2, 3], [8, 2, 4], [3, 255, 2]]]
ACTUAL = [[[0, 3], [5, 4], [6, 255]], [[1, 7], [9, 2], [3, 6]], [[1, 2, 2], [8, 2, 1], [3, 255, 1]]]


def score_plainly(
    predictions: Any, references: Any, num_labels: int, ignore_index: int, label_map: Any, reduce_labels: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return IoU, accuracy and overall accuracy by their definition, class by class."""
    hits, union, area = np.zeros((3, num_labels))
    for guess, given in zip(predictions, references, strict=True):
        truth = given.astype(int)
        if label_map:
            truth = np.vectorize(lambda value: label_map.get(value, value))(truth)
        if reduce_labels:
            truth = np.where(np.isin(truth, (0, 255)), 255, truth - 1)
        for c in range(num_labels):
            p, t = (guess == c) & (truth != ignore_index), (truth == c) & (truth != ignore_index)
            hits[c] += (p & t).sum()
            union[c] += (p | t).sum()
            area[c] += t.sum()
    with np.errstate(invalid="ignore"):
        return hits / union, hits / area, hits.sum() / area.sum()


def test_the_figures_of_evaluates_own_example() -> None:
    predicted, actual = [np.array(one) for one in PREDICTED], [np.array(one) for one in ACTUAL]
    results = MeanIoU().compute(
        predictions=predicted, references=actual, num_labels=10, ignore_index=255, reduce_labels=False
    )
    assert results["mean_iou"] == 0.47750000000000004
    assert results["mean_accuracy"] == pytest.approx(0.5916666666666666, abs=1e-15)
    assert results["overall_accuracy"] == 0.5263157894736842
    assert results["per_category_iou"].tolist() == [0.0, 0.0, 0.375, 0.4, 0.5, 0.0, 0.5, 1.0, 1.0, 1.0]
    assert results["per_category_accuracy"] == pytest.approx([0, 0, 0.75, 2 / 3, 1, 0, 0.5, 1, 1, 1])


@pytest.mark.parametrize("run", [1, 3, 40])
def test_maps_of_eight_bits_are_counted_as_those_of_more(run: int) -> None:
    """Long runs of equal pixels and short ones are counted in two ways."""
    rng = np.random.default_rng(run)
    maps = [rng.integers(0, 6, (2, 60)).repeat(run, 1).astype(np.uint8) for _ in range(4)]
    maps[1][0, :9] = 255
    metric, settings = MeanIoU(), {"num_labels": 6, "ignore_index": 255}
    found = metric.compute(predictions=maps[::2], references=maps[1::2], **settings)
    wide = [one.astype(np.int64) for one in maps]
    assert found["per_category_iou"].tolist() == (
        metric.compute(predictions=wide[::2], references=wide[1::2], **settings)["per_category_iou"].tolist()
    )
    assert found["overall_accuracy"] == score_plainly(maps[::2], maps[1::2], 6, 255, None, False)[2]


@pytest.mark.parametrize("most", [12, 4000])
@pytest.mark.parametrize("settings", [{}, {"reduce_labels": True}, {"label_map": {1: 2, 2: 255, 3: 1}}])
def test_batches_give_what_the_definition_gives(most: int, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    predictions, references = ([rng.integers(0, 9, (5, 4 + n)) for n in range(6)] for _ in range(2))
    references[0][0] = 255
    predictions[1][0] = most  # outside the classes
    metric = MeanIoU()
    for row in range(0, 6, 2):
        metric.add_batch(predictions=predictions[row : row + 2], references=references[row : row + 2])
    found = metric.compute(num_labels=10, ignore_index=255, **settings)
    plain = {"label_map": None, "reduce_labels": False} | settings
    iou, accuracy, overall = score_plainly(predictions, references, 10, 255, **plain)
    assert found["per_category_iou"] == pytest.approx(iou, nan_ok=True)
    assert found["per_category_accuracy"] == pytest.approx(accuracy, nan_ok=True)
    assert found["overall_accuracy"] == pytest.approx(overall)
    assert found["mean_iou"] == pytest.approx(np.nanmean(iou))
    one = [np.zeros((2, 2))]
    again = metric.compute(predictions=one, references=one, num_labels=2, ignore_index=255, nan_to_num=-1)
    assert again["per_category_iou"].tolist() == [1.0, -1.0]

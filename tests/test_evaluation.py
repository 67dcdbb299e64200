"""Confusion matrices, their scores, calibration and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
)

from segplus.errors import InputError
from segplus.metrics import (
    CalibrationError,
    ConfusionMatrix,
    Evaluator,
    TrimapIoU,
    compare_counts,
    compute_intervals,
    compute_scores,
    confusion_matrices,
    score_counts,
)

IGNORED = 255


def mean_iou_by_masks(predictions, labels, classes, ignore_index):
    """Compute evaluate's mean_iou, written out: areas per class over all images, nan for 0 / 0."""
    both, union, truth = (np.zeros(classes) for _ in range(3))
    for prediction, label in zip(predictions, labels, strict=True):
        valid = label != ignore_index
        for class_id in range(classes):
            p, t = (prediction == class_id) & valid, (label == class_id) & valid
            both[class_id] += (p & t).sum()
            union[class_id] += (p | t).sum()
            truth[class_id] += t.sum()
    with np.errstate(all="ignore"):
        iou, accuracy = both / union, both / truth
    return {
        "mean_iou": np.nanmean(iou),
        "mean_accuracy": np.nanmean(accuracy),
        "overall_accuracy": both.sum() / truth.sum(),
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


def draw_masks(classes, images=3, size=(17, 23), seed=0, right=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (images, *size))
    predictions = np.where(rng.random(labels.shape) < right, labels, rng.integers(0, classes, labels.shape))
    labels[rng.random(labels.shape) < 0.1] = IGNORED
    return predictions, labels


def test_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [1, IGNORED]]))
    assert matrix.matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    scores = matrix.compute()
    assert scores["per_category_iou"][:2] == [0.5, 0.5]
    assert math.isnan(scores["per_category_iou"][2])
    assert scores["mean_iou"] == 0.5
    assert scores["per_category_accuracy"][:2] == [1.0, 0.5]
    assert scores["mean_accuracy"] == 0.75
    assert scores["overall_accuracy"] == 2 / 3
    assert scores["per_category_precision"][:2] == [0.5, 1.0]
    assert scores["per_category_dice"][:2] == [2 / 3, 2 / 3]
    assert scores["frequency_weighted_iou"] == 0.5
    assert scores["classes_present"] == 2


@pytest.mark.parametrize("classes", [2, 12, 150])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_equals_the_formulas_of_evaluate(classes, dtype):
    predictions, labels = draw_masks(classes)
    expected = mean_iou_by_masks(predictions, labels, classes, IGNORED)
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.from_numpy(predictions).to(dtype), torch.from_numpy(labels).to(dtype))
    scores = matrix.compute()
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [3, 19])
def test_equals_torchmetrics(classes):
    predictions, labels = (torch.from_numpy(array) for array in draw_masks(classes))
    matrix = ConfusionMatrix(classes)
    matrix.update(predictions, labels)
    scores = matrix.compute()
    common = {"num_classes": classes, "average": "none", "ignore_index": IGNORED}
    for name, metric in {
        "per_category_iou": multiclass_jaccard_index,
        "per_category_accuracy": multiclass_accuracy,
        "per_category_precision": multiclass_precision,
        "per_category_dice": multiclass_f1_score,
    }.items():
        np.testing.assert_allclose(scores[name], metric(predictions, labels, **common).numpy(), atol=1e-6)


def test_perfect_is_one_and_empty_is_nan():
    labels = torch.tensor([[[0, 2], [IGNORED, 2]]])
    scores = ConfusionMatrix(4)
    scores.update(torch.tensor([[[0, 2], [1, 2]]]), labels)
    computed = scores.compute()
    for name in ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_precision", "mean_dice"):
        assert computed[name] == 1.0
    assert computed["frequency_weighted_iou"] == 1.0
    empty = ConfusionMatrix(3).compute()
    assert all(math.isnan(empty[name]) for name in ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_dice"))
    assert empty["classes_present"] == 0


def test_predicted_but_absent_class_counts_as_in_evaluate():
    scores = compute_scores(torch.tensor([[3, 1], [0, 0]]))
    assert scores["per_category_iou"] == [0.75, 0.0]
    assert scores["mean_iou"] == 0.375
    assert math.isnan(scores["per_category_accuracy"][1])


def test_one_matrix_per_image_and_padded_labels():
    predictions = [torch.tensor([[0, 1]]), torch.tensor([[1], [1], [0]])]
    padded = torch.full((2, 3, 2), IGNORED)
    padded[0, :1] = torch.tensor([[0, 1]])
    padded[1, :, :1] = torch.tensor([[1], [0], [0]])
    matrices = confusion_matrices(predictions, padded, 2)
    assert matrices.tolist() == [[[1, 0], [0, 1]], [[1, 1], [0, 1]]]
    assert matrices.dtype == torch.int64
    padded[0, 2, 0] = 1
    with pytest.raises(ValueError, match="outside the prediction"):
        confusion_matrices(predictions, padded, 2)


@pytest.mark.parametrize(
    ("prediction", "label", "match"),
    [
        (3, 0, "predictions must be in"),
        (-1, 0, "predictions must be in"),
        (0, 3, "found .3"),
        (0, -1, "found .?-1"),
        (0, 256, "found .?256"),
        (0, 254, "found .254"),
    ],
)
def test_ids_outside_are_refused(prediction, label, match):
    with pytest.raises(ValueError, match=match):
        confusion_matrices(torch.full((1, 2, 2), prediction), torch.full((1, 2, 2), label), 3)


@pytest.mark.parametrize("coarse", [1, 8], ids=["single pixels", "runs"])
@pytest.mark.parametrize("wide", [torch.int16, torch.int64])
def test_bytes_are_counted_as_wider_ids_are(coarse, wide):
    generator = torch.Generator().manual_seed(coarse)
    predictions, labels = torch.randint(0, 255, (2, 1, 24, 40), generator=generator, dtype=torch.uint8)
    labels[:, :, 30:] = IGNORED
    predictions, labels = (one.repeat_interleave(coarse, 2) for one in (predictions, labels))
    counted = confusion_matrices(predictions, labels, 255)
    assert int(counted.sum()) == int((labels != IGNORED).sum())
    torch.testing.assert_close(counted, confusion_matrices(predictions.to(wide), labels, 255), rtol=0, atol=0)
    torch.testing.assert_close(counted, confusion_matrices(predictions, labels.to(wide), 255), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("prediction", "label", "match"), [(3, 0, "found 3"), (0, 3, "found .3"), (0, 254, "found .254")]
)
def test_bytes_outside_are_refused(prediction, label, match):
    predictions, labels = (torch.full((1, 2, 2), value, dtype=torch.uint8) for value in (prediction, label))
    with pytest.raises(ValueError, match=match):
        confusion_matrices(predictions, labels, 3)
    assert int(confusion_matrices(predictions, torch.full_like(labels, IGNORED), 3).sum()) == 0


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrices(torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 3, dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="cannot merge"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


def test_more_than_255_classes():
    predictions, labels = torch.tensor([[299, 255]]), torch.tensor([[299, 65535]])
    matrix = ConfusionMatrix(300, ignore_index=65535)
    matrix.update(predictions, labels)
    assert int(matrix.matrix.sum()) == int(matrix.matrix[299, 299]) == 1


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(1, 8), seed=st.integers(0, 2**16), chunks=st.integers(1, 4))
def test_whole_is_the_sum_of_chunks(classes, seed, chunks):
    predictions, labels = (torch.from_numpy(array) for array in draw_masks(classes, images=4, seed=seed))
    whole = ConfusionMatrix(classes)
    whole.update(predictions, labels)
    merged = ConfusionMatrix(classes)
    for p, t in zip(predictions.chunk(chunks), labels.chunk(chunks), strict=True):
        chunk = ConfusionMatrix(classes)
        chunk.update(p, t)
        merged.merge(chunk)
    assert torch.equal(whole.matrix, merged.matrix)
    changed = torch.where(labels == IGNORED, 0, predictions)
    ignored = ConfusionMatrix(classes)
    ignored.update(changed, labels)
    assert torch.equal(whole.matrix, ignored.matrix)


def test_calibration_equals_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(4, 5, 30, 20, generator=generator).mul(2).softmax(1)
    labels = torch.randint(0, 5, (4, 30, 20), generator=generator)
    labels[0, :3] = IGNORED
    error = CalibrationError(bins=15)
    for image, label in zip(probabilities, labels, strict=True):
        confidence, prediction = image.max(0)
        error.update(confidence, prediction, label)
    expected = multiclass_calibration_error(probabilities, labels, 5, n_bins=15, norm="l1", ignore_index=IGNORED)
    assert error.compute()["expected_calibration_error"] == pytest.approx(float(expected), abs=1e-6)
    assert sum(error.compute()["calibration"]["pixels"]) == int((labels != IGNORED).sum())


def test_calibration_of_a_perfect_and_an_empty_set():
    error = CalibrationError()
    assert math.isnan(error.compute()["expected_calibration_error"])
    error.update(torch.ones(4), torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 2, IGNORED]))
    assert error.compute()["expected_calibration_error"] == 0.0


def build_evaluator(predictions, labels, classes, indices):
    evaluator = Evaluator(classes, metrics={"trimap": TrimapIoU(classes, widths_px=(2,))})
    for index in indices:
        evaluator.update(torch.from_numpy(predictions[index]), torch.from_numpy(labels[index]), index, f"{index}")
    return evaluator


def test_merged_evaluators_equal_one():
    predictions, labels = draw_masks(4, images=7)
    labels[5] = IGNORED
    whole = build_evaluator(predictions, labels, 4, range(7)).compute(resamples=50)
    even = build_evaluator(predictions, labels, 4, range(0, 7, 2))
    merged = even.merge(build_evaluator(predictions, labels, 4, range(1, 7, 2)))
    assert [image.index for image in merged.images] == list(range(7))
    assert str(merged.compute(resamples=50)) == str(whole)  # as text NaN equals itself
    assert whole["images"] == 7
    assert math.isnan(merged.images[5].compute()["mean_iou"])


def test_intervals_hold_the_score_and_shrink_to_it():
    predictions, labels = draw_masks(3, images=30)
    counts = build_evaluator(predictions, labels, 3, range(30)).stack_counts()
    score = build_evaluator(predictions, labels, 3, range(30)).compute()
    intervals = compute_intervals(counts, 500)
    for (low, high), value in zip(intervals.pop("per_category_iou"), score["per_category_iou"], strict=True):
        assert low < value < high
    for name, (low, high) in intervals.items():
        assert low < score[name] < high
    same = compute_intervals(np.repeat(counts[:1], 5, axis=0), 50)
    assert same["mean_iou"][0] == pytest.approx(same["mean_iou"][1], abs=1e-12)
    assert compute_intervals(counts[:0]) == {}


DRAWS = np.random.default_rng(0).integers(0, 20, size=(2000, 20))


def count_effective(counts):
    """Return Kish's effective number of images for each class."""
    truth = counts[:, 1].astype(float)
    return np.array([pixels.sum() ** 2 / (pixels**2).sum() if pixels.any() else np.nan for pixels in truth.T])


def find_tail(many):
    return norm.cdf(-math.sqrt(many / (many - 1)) * student.ppf(0.975, many - 1))


def test_intervals_equal_a_slow_bootstrap():
    predictions, labels = draw_masks(3, images=12)
    counts = build_evaluator(predictions, labels, 3, range(12)).stack_counts()
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 12, size=(40, 12))
    drawn = []
    for rows in chosen:
        hits, truth, guess = counts[rows].sum(0).astype(float)
        drawn.append(np.mean(hits / (truth + guess - hits)))
    many = count_effective(counts).min()
    assert 8 < many < 12
    tail = find_tail(many)
    assert 0.005 < tail < 0.025
    expected = np.quantile(drawn, (tail, 1 - tail))
    np.testing.assert_allclose(compute_intervals(counts, 40, seed=0)["mean_iou"], expected, atol=1e-12)


def test_intervals_are_wider_where_few_images_hold_most_pixels():
    hits, truth = np.tile([30, 45], 10), np.full(20, 50)
    scale = np.where(np.arange(20) < 4, 10, 1)

    def widen(scale):
        counts = make_counts(scale * hits, scale * truth, scale * hits)
        low, high = compute_intervals(counts, 2000)["per_category_iou"][1]
        return high - low

    assert widen(7) == pytest.approx(widen(1)), "the size of a pixel says nothing"
    plain = np.quantile([(s := scale[rows]) @ hits[rows] / (s @ truth[rows]) for rows in DRAWS], (0.025, 0.975))
    assert widen(scale) > 1.1 * (plain[1] - plain[0]) > 1.1 * widen(1)


def make_counts(hits, truth, guess):
    """Return counts of two classes, shape (N, 3, 2); the second class is as given, the first always right."""
    rows = np.array([hits, truth, guess]).T  # (N, 3)
    return np.stack([np.full_like(rows, 100), rows], axis=2)


def test_a_class_that_a_resample_misses_keeps_its_score():
    """A class in one of forty images, never found: without it, a third of the resamples would have a higher mean."""
    here = np.arange(40) == 3
    counts = make_counts(np.zeros(40, int), 50 * here, np.zeros(40, int))
    counts[:, 2, 0] += 50 * here
    intervals = compute_intervals(counts, 200)
    assert np.isnan(intervals["per_category_iou"][1]).all(), "one image gives no interval"
    assert np.isnan(intervals["mean_iou"]).all()
    assert intervals["overall_accuracy"][0] < intervals["overall_accuracy"][1] == 1.0
    rare = np.arange(40) < 5
    counts = make_counts(25 * rare, 50 * rare, 25 * rare)
    intervals = compute_intervals(counts, 500)
    np.testing.assert_allclose(intervals["per_category_iou"][1], [0.5, 0.5])
    assert intervals["mean_iou"][1] <= 0.75  # without the class a resample's mean would be 1


def test_one_image_gives_no_interval():
    intervals = compute_intervals(make_counts([25], [50], [40]), 50)
    assert set(intervals) >= {"mean_iou", "overall_accuracy", "per_image_mean_iou", "per_category_iou"}
    assert np.isnan(np.concatenate([np.ravel(value) for value in intervals.values()])).all()
    alone = compare_counts(make_counts([25], [50], [40]), make_counts([30], [50], [40]), 50)["mean_iou"]
    assert alone.difference > 0
    assert math.isnan(alone.low)
    assert math.isnan(alone.p_value)


def test_groups_are_drawn_whole():
    """Ten slices of each of eight patients: as uncertain as eight images, not as eighty."""
    rng = np.random.default_rng(0)
    hits = np.repeat(rng.integers(10, 40, 8), 10)
    counts = make_counts(hits, np.full(80, 50), hits)
    groups = [f"patient {index // 10}" for index in range(80)]
    whole = compute_intervals(counts, 200, groups=groups)
    summed = compute_intervals(counts.reshape(8, 10, 3, 2).sum(1), 200)
    assert whole["mean_iou"] == pytest.approx(summed["mean_iou"])
    assert whole["per_category_iou"][1] == pytest.approx(summed["per_category_iou"][1])
    low, high = compute_intervals(counts, 200)["mean_iou"]
    assert high - low < 0.5 * (whole["mean_iou"][1] - whole["mean_iou"][0])
    paired = compare_counts(counts, make_counts(hits + 1, np.full(80, 50), hits), 100, groups=groups)
    assert paired["mean_iou"].low > 0
    with pytest.raises(ValueError, match="3 groups for 80 images"):
        compute_intervals(counts, 10, groups=groups[:3])


def test_an_evaluators_groups_come_from_names():
    predictions, labels = draw_masks(3, images=4)
    evaluator = build_evaluator(predictions, labels, 3, range(4))
    assert evaluator.compute(20, 0, r"^(\d)")["groups"] == 4
    with pytest.raises(InputError, match="evaluation.bootstrap_group_pattern: an image has no group"):
        evaluator.compute(20, 0, "^(patient)")


def test_a_class_that_is_never_predicted_counts_0_beside_evaluates_rule():
    scores = compute_scores(np.array([[90, 0, 0], [10, 0, 0], [0, 0, 0]]))
    assert math.isnan(scores["per_category_precision"][1])
    assert scores["mean_precision"] == 0.9
    assert scores["mean_precision_with_missed"] == 0.45  # the third class is nowhere and counts nowhere


def test_counts_and_matrices_give_one_score():
    predictions, labels = draw_masks(5, images=4)
    labels[1] = IGNORED
    evaluator = build_evaluator(predictions, labels, 5, range(4))
    whole = compute_scores(evaluator.confusion.matrix)
    for name, value in score_counts(evaluator.stack_counts().sum(0)).items():
        np.testing.assert_allclose(value, whole[name], atol=1e-12)
    for image, row in zip(evaluator.images, evaluator.stack_counts(), strict=True):
        np.testing.assert_equal(image.compute()["mean_iou"], float(score_counts(row)["mean_iou"]))


def compare_slowly(first, second, classes, resamples, seed):
    """Draw the images again and again, score both models on each draw, and count the draws beyond zero."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(first), size=(resamples, len(first)))

    def score(counts):
        hits, truth, guess = counts.sum(0).astype(float)
        return [hits[c] / (truth[c] + guess[c] - hits[c]) if truth[c] + guess[c] else np.nan for c in range(classes)]

    own = np.subtract(score(second), score(first))
    drawn = np.array([np.subtract(score(second[rows]), score(first[rows])) for rows in chosen])
    means = np.array([np.nanmean(score(second[rows])) - np.nanmean(score(first[rows])) for rows in chosen])
    whole = np.nanmean(score(second)) - np.nanmean(score(first))
    found = []
    effective = count_effective(first)
    numbers = [np.nanmin(effective), *effective]
    for difference, values, many in zip([whole, *own], [means, *drawn.T], numbers, strict=True):
        kept = values[~np.isnan(values)]
        tail = find_tail(many)
        low, high = np.quantile(kept, (tail, 1 - tail)) if len(kept) else (np.nan, np.nan)
        tail = min((kept <= 0).sum(), (kept >= 0).sum())
        found.append((difference, low, high, min(1.0, 2 * (1 + tail) / (1 + len(kept))) if len(kept) else np.nan))
    return found


@pytest.mark.parametrize("gain", [0.0, 0.02, 0.1])
def test_paired_comparison_equals_a_slow_bootstrap(gain):
    classes, images = 5, 12
    predictions, labels = draw_masks(classes, images=images, right=0.5)
    labels[labels == 3] = 0  # class 3 is never true, nor predicted
    predictions[predictions == 3] = 2
    mended = (np.random.default_rng(2).random(labels.shape) < gain) & (labels != IGNORED)
    other = np.where(mended, labels, predictions)
    wrong = np.random.default_rng(3).random(labels.shape) < 0.02
    other = np.where(wrong, (other + 1) % 3, other)
    other[other == 3] = 2
    first, second = (build_evaluator(p, labels, classes, range(images)).stack_counts() for p in (predictions, other))
    found = compare_counts(first, second, resamples=64, seed=0)
    expected = compare_slowly(first, second, classes, 64, 0)
    for one, values in zip([found["mean_iou"], *found["per_category_iou"]], expected, strict=True):
        np.testing.assert_allclose((one.difference, one.low, one.high, one.p_value), values, atol=1e-12)
    assert 0 < found["mean_iou"].p_value <= 1


def test_p_values_are_as_often_small_as_they_say():
    """Two models that differ by chance alone: about one p-value in twenty is below 0.05."""
    rng = np.random.default_rng(0)
    small = []
    for seed in range(200):
        truth = np.full((60, 2), 500)
        hits = rng.binomial(500, 0.7, size=(2, 60, 2))
        guess = hits + (truth - hits)[:, :, ::-1]
        counts = np.stack([hits, np.broadcast_to(truth, hits.shape), guess], axis=2)
        small.append(compare_counts(*counts, resamples=199, seed=seed)["mean_iou"].p_value <= 0.05)
    assert 3 <= sum(small) <= 20


def test_paired_comparison():
    predictions, labels = draw_masks(3, images=20, right=0.6)
    better, _ = draw_masks(3, images=20, right=0.6)
    mended = np.random.default_rng(1).random(labels.shape) < 0.3
    better = np.where(mended, np.where(labels == IGNORED, 0, labels), better)
    first, second = (build_evaluator(p, labels, 3, range(20)).stack_counts() for p in (predictions, better))
    same = compare_counts(first, first, 100)["mean_iou"]
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    found = compare_counts(first, second, 199)
    assert found["mean_iou"].low > 0
    assert found["mean_iou"].p_value == 2 / 200
    assert len(found["per_category_iou"]) == 3
    back = compare_counts(second, first, 199)["mean_iou"]
    assert back.difference == -found["mean_iou"].difference
    with pytest.raises(ValueError, match="same images"):
        compare_counts(first, second[:3])

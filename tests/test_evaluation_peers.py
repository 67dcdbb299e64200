"""Scores beside other people's: evaluate, torchmetrics, scikit-learn, MONAI and written-out definitions, on real masks.

Each prediction is the mask of the frame after: real shapes, classes that come and go, and void pixels.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion, distance_transform_cdt
from sklearn.metrics import jaccard_score, precision_recall_fscore_support
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from segplus.data import load_segmentation_dataset
from segplus.metrics import (
    BoundaryIoU,
    ConfusionMatrix,
    Evaluator,
    SurfaceDistances,
    TrimapIoU,
    compute_scores,
    score_counts,
)

IGNORED, CLASSES = 255, 11
Mask = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def pairs(test_data: Path) -> list[tuple[Mask, Mask]]:
    """Three pairs of (prediction, truth), 360x480 each, from two streets."""
    section = {"dataset": str(test_data / "camvid"), "void": [11]}
    split = load_segmentation_dataset(section).splits["test"]
    chosen = [(split.label(index + 1), split.label(index)) for index in (0, 70, 200)]
    # A prediction has no void: what the next frame does not know becomes road.
    return [(np.where(guess == IGNORED, 3, guess).astype(np.uint8), truth) for guess, truth in chosen]


def score(pairs: list[tuple[Mask, Mask]]) -> dict:
    matrix = ConfusionMatrix(CLASSES)
    for guess, truth in pairs:
        matrix.update(torch.from_numpy(guess), torch.from_numpy(truth))
    return matrix.compute()


def test_evaluates_own_example() -> None:
    """The three pairs in the documentation of evaluate's mean_iou, and the figures it states for them."""
    predictions = [[[1, 2], [3, 4], [5, 255]], [[2, 7], [9, 2], [3, 6]], [[2, 2, 3], [8, 2, 4], [3, 255, 2]]]
    labels = [[[0, 3], [5, 4], [6, 255]], [[1, 7], [9, 2], [3, 6]], [[1, 2, 2], [8, 2, 1], [3, 255, 1]]]
    matrix = ConfusionMatrix(10)
    for prediction, label in zip(predictions, labels, strict=True):
        matrix.update(torch.tensor(prediction), torch.tensor(label))
    scores = matrix.compute()
    assert scores["mean_iou"] == pytest.approx(0.4775, abs=1e-12)
    assert scores["mean_accuracy"] == pytest.approx(0.5916666666666666, abs=1e-12)
    assert scores["overall_accuracy"] == pytest.approx(0.5263157894736842, abs=1e-12)
    assert scores["per_category_iou"] == [0.0, 0.0, 0.375, 0.4, 0.5, 0.0, 0.5, 1.0, 1.0, 1.0]
    assert scores["per_category_accuracy"] == [0.0, 0.0, 0.75, 2 / 3, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]


def test_a_prediction_outside_the_classes_is_refused_where_it_counts() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[255, 7], [1, 2]]), torch.tensor([[IGNORED, IGNORED], [1, 1]]))
    assert matrix.matrix.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"predictions must be in \[0, 2\], found 7"):
        matrix.update(torch.tensor([[255, 7], [1, 2]]), torch.tensor([[IGNORED, 0], [1, 1]]))


def test_evaluates_formulas_on_real_masks(pairs: list[tuple[Mask, Mask]]) -> None:
    areas = np.zeros((3, CLASSES))
    for guess, truth in pairs:
        guess, truth = guess[truth != IGNORED], truth[truth != IGNORED]
        for row, values in zip(areas, (guess[guess == truth], guess, truth), strict=True):
            row += np.histogram(values, bins=CLASSES, range=(0, CLASSES - 1))[0]
    both, guessed, true = areas
    with np.errstate(invalid="ignore"):
        iou, accuracy = both / (guessed + true - both), both / true
    scores = score(pairs)
    np.testing.assert_allclose(scores["per_category_iou"], iou, atol=1e-12)
    np.testing.assert_allclose(scores["per_category_accuracy"], accuracy, atol=1e-12)
    assert scores["mean_iou"] == pytest.approx(np.nanmean(iou), abs=1e-12)
    assert scores["overall_accuracy"] == pytest.approx(both.sum() / true.sum(), abs=1e-12)
    assert 0.2 < scores["mean_iou"] < 0.95


def test_torchmetrics_and_scikit_learn_on_real_masks(pairs: list[tuple[Mask, Mask]]) -> None:
    absent = []
    for guess, truth in pairs:
        scores = score([(guess, truth)])
        tensors = torch.from_numpy(guess).long(), torch.from_numpy(truth).long()
        counts = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORED)(*tensors)
        per_class = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=IGNORED)(*tensors).numpy()
        valid = truth != IGNORED
        sklearn_iou = jaccard_score(
            truth[valid], guess[valid], labels=list(range(CLASSES)), average=None, zero_division=0.0
        )
        precision, recall, dice, _ = precision_recall_fscore_support(
            truth[valid], guess[valid], labels=list(range(CLASSES)), zero_division=np.nan
        )
        matrix = ConfusionMatrix(CLASSES)
        matrix.update(*tensors)
        assert torch.equal(matrix.matrix, counts)
        # An absent class has no score here and 0 there; neither counts it in its mean.
        absent.append(int(np.isnan(scores["per_category_iou"]).sum()))
        np.testing.assert_allclose(np.nan_to_num(scores["per_category_iou"]), per_class, atol=1e-6)
        np.testing.assert_allclose(np.nan_to_num(scores["per_category_iou"]), sklearn_iou, atol=1e-12)
        np.testing.assert_allclose(
            np.nan_to_num(scores["per_category_precision"]), np.nan_to_num(precision), atol=1e-12
        )
        np.testing.assert_allclose(np.nan_to_num(scores["per_category_accuracy"]), np.nan_to_num(recall), atol=1e-12)
        np.testing.assert_allclose(np.nan_to_num(scores["per_category_dice"]), np.nan_to_num(dice), atol=1e-12)
        weighted = MulticlassJaccardIndex(CLASSES, average="weighted", ignore_index=IGNORED)(*tensors)
        assert scores["frequency_weighted_iou"] == pytest.approx(float(weighted), abs=1e-6)
        macro = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=IGNORED)(*tensors)
        assert scores["mean_iou"] == pytest.approx(float(macro), abs=1e-6)
    assert max(absent) > 0


def find_boundary(mask: npt.NDArray[np.bool_], width_px: int) -> npt.NDArray[np.bool_]:
    """Take what the paper takes: a mask minus its erosion by 3x3 ones, `width_px` times, empty outside the image."""
    return mask & ~binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width_px)[1:-1, 1:-1]


def test_boundary_iou_on_real_masks(pairs: list[tuple[Mask, Mask]]) -> None:
    metric, both, either = BoundaryIoU(CLASSES), np.zeros(CLASSES), np.zeros(CLASSES)
    for guess, truth in pairs:
        metric.update(guess, truth)
        valid = truth != IGNORED
        for class_id in range(CLASSES):
            one, two = (find_boundary((labels == class_id) & valid, 12) for labels in (guess, truth))  # 2 % of 600
            both[class_id] += (one & two).sum()
            either[class_id] += (one | two).sum()
    with np.errstate(invalid="ignore"):
        expected = both / either
    np.testing.assert_allclose(metric.compute()["per_category_boundary_iou"], expected, atol=1e-12)
    assert metric.compute()["mean_boundary_iou"] == pytest.approx(np.nanmean(expected), abs=1e-12)
    assert metric.compute()["mean_boundary_iou"] < score(pairs)["mean_iou"]


def test_trimap_iou_on_real_masks(pairs: list[tuple[Mask, Mask]]) -> None:
    widths = (1, 3, 10)
    metric, matrices = TrimapIoU(CLASSES, widths_px=widths), np.zeros((len(widths), CLASSES, CLASSES))
    for guess, truth in pairs:
        metric.update(guess, truth)
        for class_id in np.unique(truth[truth != IGNORED]):
            others = (truth != class_id) & (truth != IGNORED)
            distance = distance_transform_cdt(~others, "chessboard") if others.any() else np.full(truth.shape, 10**6)
            for matrix, width in zip(matrices, widths, strict=True):
                near = (truth == class_id) & (distance <= width)
                matrix[class_id] += np.bincount(guess[near], minlength=CLASSES)
    expected = [compute_scores(matrix)["mean_iou"] for matrix in matrices]
    assert list(metric.compute()["trimap_iou"].values()) == pytest.approx(expected, abs=1e-12)
    assert expected[0] < expected[1] < expected[2] < score(pairs)["mean_iou"]


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class:UserWarning")
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.4, 1.5)])
def test_surface_distances_on_real_masks_equal_monai(
    pairs: list[tuple[Mask, Mask]], spacing: tuple[float, float]
) -> None:
    metric = SurfaceDistances(CLASSES, tolerance=2.0, spacing=spacing)
    measured, distances = [], []
    for guess, truth in pairs[:2]:
        measured.append(metric.update(guess, truth))
        valid = torch.from_numpy(truth != IGNORED)
        encoded = [
            (
                F.one_hot(torch.from_numpy(np.where(truth == IGNORED, 0, labels)).long(), CLASSES).permute(2, 0, 1)
                * valid
            )
            for labels in (guess, truth)
        ]
        one, two = (masks[None].float() for masks in encoded)
        dice = compute_surface_dice(one, two, [2.0] * CLASSES, include_background=True, spacing=list(spacing))
        np.testing.assert_allclose(measured[-1][1], dice[0].numpy(), atol=1e-6)
        distance = compute_hausdorff_distance(one, two, include_background=True, percentile=95, spacing=list(spacing))
        distances.append(np.where(np.isfinite(distance[0].numpy()), distance[0].numpy(), np.nan))
        present = np.isfinite(measured[-1][0])
        assert present.sum() >= 8
        np.testing.assert_allclose(measured[-1][0][present], distances[-1][present], rtol=1e-5)
    per_class = [
        np.mean(column[np.isfinite(column)]) for column in np.stack(measured)[:, 0].T if np.isfinite(column).any()
    ]
    assert metric.compute()["hausdorff_95"] == pytest.approx(np.mean(per_class), abs=1e-12)


def test_an_evaluator_of_real_masks_gives_the_sum_of_its_images(pairs: list[tuple[Mask, Mask]]) -> None:
    evaluator = Evaluator(CLASSES, metrics={"boundary": BoundaryIoU(CLASSES)})
    for index, (guess, truth) in enumerate(pairs):
        evaluator.update(torch.from_numpy(guess), torch.from_numpy(truth), index, f"{index}")
    scores, whole = evaluator.compute(resamples=20), score(pairs)
    assert all(scores[name] == value or math.isnan(value) for name, value in whole.items() if isinstance(value, float))
    own = [score([pair])["mean_iou"] for pair in pairs]
    assert scores["per_image_mean_iou"] == pytest.approx(np.mean(own), abs=1e-12)
    means = score_counts(evaluator.stack_counts().sum(0))
    for name, value in means.items():
        np.testing.assert_allclose(value, whole[name], atol=1e-12)

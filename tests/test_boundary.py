"""Boundary IoU, trimap IoU, Hausdorff distance 95 and surface Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import binary_erosion

from segplus.metrics import BoundaryIoU, SurfaceDistances, TrimapIoU
from segplus.metrics.borders import find_edges, find_inner_boundary

IGNORED = 255
SHAPES = [(40, 60), (31, 37), (1, 50), (50, 1), (1, 1), (64, 7)]


def draw_blobs(shape, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, max(1, shape[0] // 8), max(1, shape[1] // 8), generator=generator)
    return F.interpolate(coarse, size=shape, mode="bicubic").argmax(1)[0].numpy()


def draw_pair(shape, classes, seed, ignored=True):
    truth, guess = draw_blobs(shape, classes, seed), draw_blobs(shape, classes, seed + 1)
    mixed = np.where(np.arange(shape[1]) < shape[1] // 2, truth, guess)
    if ignored and min(shape) > 4:
        truth = truth.copy()
        truth[:3, : shape[1] // 3] = IGNORED
    return mixed, truth


def measure_boundary_iou_slowly(prediction, truth, class_id, width_px):
    """Take the paper's regions: a mask minus its erosion with 3x3 ones, `width_px` times, empty outside the image."""

    def find_boundary(mask):
        eroded = binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width_px)[1:-1, 1:-1]
        return mask & ~eroded

    valid = truth != IGNORED
    of_truth, of_guess = find_boundary((truth == class_id) & valid), find_boundary((prediction == class_id) & valid)
    return (of_truth & of_guess).sum(), (of_truth | of_guess).sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("share", [0.02, 0.08])
def test_boundary_iou_is_the_papers(shape, share):
    metric = BoundaryIoU(4, share=share)
    both, union = np.zeros(4), np.zeros(4)
    width_px = max(1, round(share * math.hypot(*shape)))
    for seed in range(3):
        prediction, truth = draw_pair(shape, 3, seed)
        metric.update(prediction, truth)
        for class_id in range(4):
            counts = measure_boundary_iou_slowly(prediction, truth, class_id, width_px)
            both[class_id] += counts[0]
            union[class_id] += counts[1]
    with np.errstate(invalid="ignore"):
        expected = both / union
    np.testing.assert_allclose(metric.compute()["per_category_boundary_iou"], expected, atol=1e-12)
    assert metric.compute()["mean_boundary_iou"] == pytest.approx(np.nanmean(expected))


def test_inner_boundary_by_hand():
    labels = np.zeros((5, 5), dtype=np.int32)
    assert find_inner_boundary(labels, 1).sum() == 16
    assert find_inner_boundary(labels, 2).sum() == 24
    assert find_edges(labels).sum() == 16


def test_trimap_counts_only_near_borders():
    truth = np.zeros((4, 10), dtype=np.uint8)
    truth[:, 5:] = 1
    prediction = truth.copy()
    prediction[:, 4] = 1  # wrong at the border
    prediction[:, 0] = 1  # wrong far from it
    metric = TrimapIoU(2, widths_px=(1, 2, 20))
    metric.update(prediction, truth)
    scores = metric.compute()["trimap_iou"]
    assert scores["1"] == pytest.approx((0 / 4 + 4 / 8) / 2)
    assert scores["2"] == pytest.approx((4 / 8 + 8 / 12) / 2)
    assert scores["20"] == pytest.approx((12 / 20 + 20 / 28) / 2)


def test_a_border_with_void_is_no_trimap():
    truth = np.zeros((6, 6), dtype=np.uint8)
    truth[:, 3:] = IGNORED
    metric = TrimapIoU(2, widths_px=(2,))
    metric.update(np.zeros_like(truth), truth)
    assert math.isnan(metric.compute()["trimap_iou"]["2"])
    truth[0, 0] = 1
    metric.update(np.zeros_like(truth), truth)
    assert metric.matrices.sum() == 9


def encode(labels, truth, classes):
    valid = torch.from_numpy(truth != IGNORED)
    ids = torch.from_numpy(np.where(truth == IGNORED, 0, labels)).long()
    return (F.one_hot(ids, classes).permute(2, 0, 1) * valid)[None].float()


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class:UserWarning")
@pytest.mark.parametrize("shape", [(40, 60), (31, 37), (1, 50), (64, 7)], ids=str)
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("ignored", [False, True])
def test_surface_distances_equal_monai(shape, spacing, ignored):
    for seed in range(3):
        prediction, truth = draw_pair(shape, 4, seed, ignored)
        measured = SurfaceDistances(5, tolerance=1.5, spacing=spacing).update(prediction, truth)
        pair = encode(prediction, truth, 5), encode(truth, truth, 5)
        dice = compute_surface_dice(*pair, class_thresholds=[1.5] * 5, include_background=True, spacing=list(spacing))
        np.testing.assert_allclose(measured[1], dice[0].numpy(), atol=1e-6)
        for class_id in range(5):
            present = [bool(masks[0, class_id].any()) for masks in pair]
            if all(present):
                one = [masks[:, class_id : class_id + 1] for masks in pair]
                distance = compute_hausdorff_distance(
                    *one, include_background=True, percentile=95, spacing=list(spacing)
                )
                assert measured[0, class_id] == pytest.approx(float(distance), rel=1e-5, abs=1e-6)
            else:
                assert measured[0, class_id] == np.inf if any(present) else math.isnan(measured[0, class_id])


def test_surface_means_leave_out_what_is_undefined():
    square = np.zeros((8, 8), dtype=np.uint8)
    square[2:5, 2:5] = 1
    moved = np.roll(square, 1, axis=1)
    metric = SurfaceDistances(3, tolerance=0.5)
    metric.update(square, square)
    metric.update(moved, square)
    metric.update(np.zeros_like(square), square)
    scores = metric.compute()
    assert scores["per_category_hausdorff_95"][1] == 0.5  # 0 and 1, and one image without a finite distance
    assert scores["per_category_hausdorff_95_undefined"] == [0, 1, 0]
    assert math.isnan(scores["per_category_hausdorff_95"][2])
    assert scores["per_category_surface_dice"][1] < 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_perfect_prediction(shape):
    _, truth = draw_pair(shape, 3, 0)
    prediction = np.where(truth == IGNORED, 1, truth)
    metrics = BoundaryIoU(3), TrimapIoU(3), SurfaceDistances(3)
    for metric in metrics:
        metric.update(prediction, truth)
    assert metrics[0].compute()["mean_boundary_iou"] == 1.0
    assert all(value == 1.0 or math.isnan(value) for value in metrics[1].compute()["trimap_iou"].values())
    assert metrics[2].compute()["hausdorff_95"] == 0.0
    assert metrics[2].compute()["surface_dice"] == 1.0


def test_merged_parts_equal_the_whole():
    pairs = [draw_pair((20, 30), 3, seed) for seed in range(4)]
    for build in (lambda: BoundaryIoU(3), lambda: TrimapIoU(3), lambda: SurfaceDistances(3)):
        whole, left, right = build(), build(), build()
        for index, pair in enumerate(pairs):
            whole.update(*pair)
            (left if index % 2 else right).update(*pair)
        left.merge(right)
        assert left.compute() == whole.compute()


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        BoundaryIoU(2).update(np.zeros((2, 2), int), np.zeros((2, 3), int))

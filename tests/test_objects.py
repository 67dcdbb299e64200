"""Objects found, missed and false, and surfels: by hand, against slow code, and over processes and both ways."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import label as number_regions

from segplus.classes import ClassMap
from segplus.commands.evaluate import list_image_rows
from segplus.metrics import Evaluator, ObjectScores, SurfaceDistances
from segplus.metrics.borders import measure_surfels
from segplus.metrics.user_metrics import load_metrics
from segplus.training.scorekeeper import Scorekeeper

IGNORED = 255


def read(text):
    return np.array([[IGNORED if mark == "x" else int(mark) for mark in line] for line in text.split()], dtype=np.uint8)


TRUTH = read("110002 110000 000011 022011 022000 0000xx")
GUESS = read("110000 100001 000000 022220 022000 0000xx")


def test_by_hand():
    """Class 1: the square is found with IoU 3/4, the one on the right is missed, and a pixel above it is false.

    Class 2: the lone pixel is missed, the square is found with 4/6.
    """
    metric = ObjectScores(3, size_limits_px=(4,))
    metric.update(GUESS, TRUTH)
    scores = metric.compute()
    assert scores["per_category_objects_found"] == [0, 1, 1]
    assert scores["per_category_objects_missed"] == [0, 1, 1]
    assert scores["per_category_objects_false"] == [0, 1, 0]
    assert scores["per_category_object_f1"][1:] == pytest.approx([1 / 2, 1 / 1.5])
    assert scores["per_category_object_quality"][1:] == pytest.approx([0.75 / 2, (4 / 6) / 1.5])
    assert math.isnan(scores["per_category_object_f1"][0])
    assert scores["mean_object_f1"] == pytest.approx((1 / 2 + 1 / 1.5) / 2)
    small, large = scores["objects_by_size"]["below 4 px"], scores["objects_by_size"]["4 px and more"]
    assert (small["missed"], small["false"], small["found"]) == ([0, 0, 1], [0, 1, 0], [0, 0, 0])
    assert (large["missed"], large["false"], large["found"]) == ([0, 1, 0], [0, 0, 0], [0, 1, 1])


def test_an_overlap_at_the_threshold_is_none_and_diagonals_touch():
    metric = ObjectScores(2, overlap=0.5)
    metric.update(read("1000 0000"), read("1000 0100"))
    assert metric.compute()["per_category_objects_missed"] == [0, 1]
    lower = ObjectScores(2, overlap=0.4)
    lower.update(read("1000 0000"), read("1000 0100"))
    assert lower.compute()["per_category_objects_found"] == [0, 1]


def test_ignored_pixels_belong_to_no_object():
    metric = ObjectScores(2)
    metric.update(read("0011 0011"), read("000x 000x"))  # half of it lies on ignored pixels: false
    metric.update(read("0011 0011"), read("00xx 000x"))  # most of it: counts nowhere
    metric.update(read("0110 0110"), read("01x0 01x0"))  # IoU 1 of what counts
    scores = metric.compute()
    assert scores["per_category_objects_false"] == [0, 1]
    assert scores["per_category_objects_found"] == [0, 1]
    assert scores["per_category_object_quality"][1] == pytest.approx(1 / 1.5)
    parted = ObjectScores(2)
    parted.update(read("11111 11111"), read("11x11 11x11"))  # a perfect prediction goes on below what is ignored
    assert parted.compute()["per_category_object_quality"][1] == 1.0


def count_slowly(guess, truth, class_id):
    """Compare every object with every other; from an IoU of 0.5 on there is one partner at most."""
    regions = [number_regions(mask, np.ones((3, 3))) for mask in (truth == class_id, guess == class_id)]
    objects = [[ids == number for number in range(1, count + 1)] for ids, count in regions]
    ious = [(one & two).sum() / (one | two).sum() for one in objects[0] for two in objects[1]]
    hits = [iou for iou in ious if iou > 0.5]
    return len(hits), len(objects[0]) - len(hits), len(objects[1]) - len(hits), sum(hits)


def draw_images(count=6):
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 4, (count, 8, 9)), np.ones((4, 4), dtype=int)).astype(np.uint8)
    guess = np.where(rng.random(truth.shape) < 0.12, np.roll(truth, 3, 2), truth).astype(np.uint8)
    return np.roll(guess, 1, 1), truth


def test_equals_slow_code_and_parts_are_the_whole():
    guesses, truths = draw_images()
    whole, parts = ObjectScores(4), [ObjectScores(4), ObjectScores(4)]
    expected = np.zeros((4, 4))
    for index, (guess, truth) in enumerate(zip(guesses, truths, strict=True)):
        whole.update(guess, truth)
        parts[index % 2].update(guess, truth)
        expected[1:] += [count_slowly(guess, truth, class_id) for class_id in range(1, 4)]
    scores = whole.compute()
    found = [scores[f"per_category_objects_{name}"] for name in ("found", "missed", "false")]
    np.testing.assert_array_equal(np.transpose(found), expected[:, :3])
    assert expected[:, :3].min(1).max() > 0
    weight = expected[1:, 0] + expected[1:, 1:3].sum(1) / 2
    np.testing.assert_allclose(scores["per_category_object_quality"][1:], expected[1:, 3] / weight, atol=1e-8)
    parts[1].merge(parts[0])
    assert str(parts[1].compute()) == str(scores)


def test_a_trainers_evaluation_gives_the_same():
    """The other way to them: metrics given to a trainer, batch by batch."""
    guesses, truths = draw_images()
    metric, classes = ObjectScores(4), ClassMap.build(["ground", "a", "b", "c"])
    keeper = Scorekeeper(classes, load_metrics([metric], classes))
    assert keeper.wants_maps
    keeper.add_matrices(torch.zeros(6, 4, 4, dtype=torch.int64))
    for start in (0, 4):
        keeper.add_maps(guesses[start : start + 4], truths[start : start + 4], is_last=start == 4)
    found = keeper.compute()
    assert metric.counts.sum() == 0, "the trainer counts in a copy, afresh in each evaluation"
    for guess, truth in zip(guesses, truths, strict=True):
        metric.update(guess, truth)
    scores = metric.compute()
    assert found["mean_object_f1"] == scores["mean_object_f1"]
    assert found["per_category_objects_missed/b"] == scores["per_category_objects_missed"][2]
    assert all(np.ndim(value) == 0 for value in found.values())


def test_a_row_an_image_holds_what_was_measured_of_each_class():
    guesses, truths = draw_images()
    classes = ClassMap.build(["ground", "a", "b", "c"])

    def build(indices):
        evaluator = Evaluator(4, metrics={"objects": ObjectScores(4), "surface": SurfaceDistances(4)})
        for index in indices:
            pair = torch.from_numpy(guesses[index]), torch.from_numpy(truths[index])
            evaluator.update(*pair, index, f"image {index}")
        return evaluator

    rows = list_image_rows(build([1, 3, 5]).merge(build([0, 2, 4])), classes)
    assert [row["name"] for row in rows] == [f"image {index}" for index in range(6)]
    for row, guess, truth in zip(rows, guesses, truths, strict=True):
        found, missed, false, _ = count_slowly(guess, truth, 2)
        assert (row["objects_found/b"], row["objects_missed/b"], row["objects_false/b"]) == (found, missed, false)
        both = ((guess == 2) & (truth == 2)).sum()
        assert row["dice/b"] == pytest.approx(2 * both / ((guess == 2).sum() + (truth == 2).sum()))
        distance, dice = SurfaceDistances(4).update(guess, truth)[:, 2]
        assert (row["hausdorff_95/b"], row["surface_dice/b"]) == (distance, dice)


def test_surfels_of_a_pixel_a_square_and_an_edge():
    slant = math.hypot(2.0, 3.0) / 2
    spacing = np.array([2.0, 3.0])
    assert measure_surfels(np.ones((1, 1), bool), spacing).tolist() == [[slant, slant], [slant, slant]]
    square = measure_surfels(np.ones((2, 2), bool), spacing)
    assert square.tolist() == [[slant, 3.0, slant], [2.0, 0.0, 2.0], [slant, 3.0, slant]]
    diagonal = measure_surfels(np.eye(2, dtype=bool), spacing)
    assert diagonal[1, 1] == 2 * slant


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_surfels_equal_deepminds_package():
    peer = pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    guesses, truths = draw_images(3)
    for spacing in ((1.0, 1.0), (0.4, 1.5)):
        metric = SurfaceDistances(4, tolerance=1.0, spacing=spacing, border="surfels")
        for guess, truth in zip(guesses, truths, strict=True):
            measured = metric.update(guess, truth)
            for class_id in range(4):
                distances = peer.compute_surface_distances(truth == class_id, guess == class_id, spacing)
                expected = (
                    peer.compute_robust_hausdorff(distances, 95),
                    peer.compute_surface_dice_at_tolerance(distances, 1.0),
                )
                np.testing.assert_allclose(measured[:, class_id], expected, atol=1e-9)

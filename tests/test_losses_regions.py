"""Terms that sort or look at neighbours against somebody else's code, their equations, or a table made by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from kornia.losses import lovasz_softmax_loss
from loss_formulas import (
    compute_boundary,
    compute_boundary_cross_entropy,
    compute_lovasz_softmax,
    compute_rmi,
    compute_soft_boundary_f1,
)
from loss_scene import CLASSES, assert_same, draw_scene, enlarge

from segplus.losses import build_criterion
from segplus.losses.boundary import measure_boundary_distance, measure_signed_distance

ONES = torch.ones(CLASSES, dtype=torch.float64)
IGNORED_ROWS = pytest.mark.parametrize("ignored", [slice(0), slice(3, 9), slice(0, 24)], ids=["none", "some", "all"])


@pytest.fixture
def scene():
    return draw_scene()


@pytest.mark.parametrize("options", [{}, {"per_image": True}, {"present_only": False}])
def test_lovasz_softmax_is_its_definition(scene, options):
    logits, labels = scene
    labels[1, :, 3:7] = 255
    labels[labels == 2] = 255  # an absent class
    expected = compute_lovasz_softmax(enlarge(logits), labels, ONES, **options)
    assert_same({"lovasz_softmax": options}, logits, labels, expected)


def test_lovasz_softmax_is_kornias(scene):
    logits, labels = scene
    config = {"lovasz_softmax": {"present_only": False, "per_image": True}}
    assert_same(config, logits, labels, lovasz_softmax_loss(enlarge(logits), labels))


def test_lovasz_softmax_by_hand():
    """Two classes, probabilities of class 1: 0.1, 0.6, 0.8, 0.3; labels 0, 0, 1, 1.

    Errors of both classes: 0.7, 0.6, 0.2, 0.1 at pixels 3, 1, 2, 0. One minus the IoU of class 1 as they come in:
    1/2, 2/3, 1, 1, so its steps are 1/2, 1/6, 1/3, 0; of class 0: 1/3, 2/3, 3/4, 1, so 1/3, 1/3, 1/12, 1/4.
    """
    probability = torch.tensor([0.1, 0.6, 0.8, 0.3], dtype=torch.float64)
    logits = torch.stack([(1 - probability).log(), probability.log()])[None, :, None]
    found = build_criterion({"lovasz_softmax": 1.0}, 2)(logits, torch.tensor([[[0, 0, 1, 1]]]))
    first, second = 0.7 / 2 + 0.6 / 6 + 0.2 / 3, 0.7 / 3 + 0.6 / 3 + 0.2 / 12 + 0.1 / 4
    assert float(found) == pytest.approx((first + second) / 2, abs=1e-12)


@pytest.mark.parametrize("background", [True, False])
@IGNORED_ROWS
def test_boundary_is_kervadecs(scene, background, ignored):
    logits, labels = scene
    labels[1, ignored] = 255
    expected = compute_boundary(enlarge(logits), labels, ONES, background=background)
    assert_same({"boundary": {"background": background}}, logits, labels, expected)


def test_boundary_by_hand():
    """Class 1 is the middle three of five columns; the distance maps are those of the authors' one_hot2dist."""
    labels = torch.tensor([0, 1, 1, 1, 0]).expand(1, 2, 5)
    valid = torch.ones(2, 5, dtype=torch.bool)
    assert measure_signed_distance(labels[0], valid, 1)[0].tolist() == [1, 0, -1, 0, 1]
    assert measure_signed_distance(labels[0], valid, 0)[0].tolist() == [0, 1, 2, 1, 0]
    probability = torch.tensor([0.2, 0.5, 0.9, 0.4, 0.1], dtype=torch.float64).expand(1, 2, 5)
    logits = torch.stack([(1 - probability).log(), probability.log()], 1)
    of_class_1 = 0.2 - 0.9 + 0.1
    of_class_0 = 0.5 + 2 * 0.1 + 0.6
    found = build_criterion({"boundary": 1.0}, 2)(logits, labels)
    assert float(found) == pytest.approx((of_class_1 + of_class_0) / (2 * 5), abs=1e-12)
    alone = build_criterion({"boundary": {"background": False}}, 2)(logits, labels)
    assert float(alone) == pytest.approx(of_class_1 / 5, abs=1e-12)


def test_a_region_without_an_outside_has_no_boundary():
    labels = torch.full((1, 9, 9), 1)
    labels[:, :, 6:] = 255
    logits = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    assert build_criterion({"boundary": 1.0}, 2)(logits, labels) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 3.0]])
@IGNORED_ROWS
def test_boundary_cross_entropy_weighs_by_the_distance(scene, smoothing, weights, ignored):
    logits, labels = scene
    labels[1, ignored] = 255
    given = ONES if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = compute_boundary_cross_entropy(enlarge(logits), labels, given, 2.0, 3.0, smoothing)
    config = {"boundary_cross_entropy": {"amount": 2.0, "sigma_px": 3.0, "label_smoothing": smoothing}}
    assert_same(config, logits, labels, expected, class_weights=weights)


def test_boundary_cross_entropy_by_hand():
    """One row: 0 0 0 1 ignored 1. The boundary is beside a valid neighbour only: at pixels 2 and 3."""
    labels = torch.tensor([[[0, 0, 0, 1, 255, 1]]])
    distance = measure_boundary_distance(labels[0], labels[0] != 255)
    assert distance.tolist() == [[2, 1, 0, 0, 1, 2]]
    logits = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)[None, :, None, None].expand(1, 2, 1, 6)
    near, far = 1 + 4 * math.exp(-1 / 8), 1 + 4 * math.exp(-4 / 8)
    expected = ((far + near + 5) * math.log(4 / 3) + (5 + far) * math.log(4)) / 5
    found = build_criterion({"boundary_cross_entropy": {"amount": 4.0, "sigma_px": 2.0}}, 2)(logits, labels)
    assert float(found) == pytest.approx(expected, abs=1e-12)
    alone = build_criterion({"boundary_cross_entropy": {"amount": 4.0}}, 2)(logits, labels.clamp(max=0))
    assert float(alone) == pytest.approx(math.log(4 / 3), abs=1e-12)  # no boundary: plain cross-entropy


def draw_square(left):
    """Return the logits of a square of 4 x 4 in 12 x 12, and its labels."""
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, 4:8, left : left + 4] = 1
    sign = 2.0 * labels[:, None].double() - 1
    return torch.cat([-50 * sign, 50 * sign], 1), labels


@pytest.mark.parametrize(("left", "expected"), [(4, 0.0), (5, 0.0), (6, (4 / 12 + 8 / 20) / 2)])
def test_soft_boundary_f1_of_hard_predictions_by_hand(left, expected):
    """Within one pixel all of a boundary is found; of a square two columns to the right it is not.

    Class 1: the last column of the square's ring of 12, four pixels, is too far. Class 0: of the ring of 20 around it
    its last column is, six pixels, and two of its first.
    """
    labels = draw_square(4)[1]
    found = build_criterion({"soft_boundary_f1": {"tolerance_px": 3}}, 2)(draw_square(left)[0], labels)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_soft_boundary_f1_misses_all_of_an_empty_prediction():
    labels = draw_square(4)[1]
    empty = torch.tensor([50.0, -50.0], dtype=torch.float64)[None, :, None, None].expand(1, 2, 12, 12)
    assert float(build_criterion({"soft_boundary_f1": {}}, 2)(empty, labels)) == pytest.approx(1.0, abs=1e-6)


def draw_wrong_square():
    """Return the logits of a blurred square two columns to the right of the labels' square."""
    return F.avg_pool2d(draw_square(6)[0].clamp(-4, 4), 3, 1, 1)


def descend(criterion, logits, labels):
    """Return the logits after 60 steps down the gradient."""
    leaf = logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(leaf, labels).backward()
        optimizer.step()
    return leaf.detach()


@pytest.mark.parametrize("term", ["boundary", "boundary_cross_entropy"])
def test_the_gradient_of_a_boundary_term_moves_a_square_to_its_labels(term):
    labels, wrong = draw_square(4)[1], draw_wrong_square()
    assert int((wrong.argmax(1) != labels).sum()) >= 12
    assert torch.equal(descend(build_criterion({term: 1.0}, 2), wrong, labels).argmax(1), labels)


def test_the_gradient_of_soft_boundary_f1_finds_the_boundary():
    """An F1 that is built on argmax has no gradient, and would stay where it is."""
    labels, wrong = draw_square(4)[1], draw_wrong_square()
    criterion = build_criterion({"soft_boundary_f1": {"tolerance_px": 3}}, 2)
    assert criterion(wrong, labels) > 0.3
    found = descend(criterion, wrong, labels)
    assert criterion(found, labels) < 0.05
    hard = F.one_hot(found.argmax(1), 2).movedim(-1, 1) * 100.0
    assert criterion(hard, labels) < 0.05


@IGNORED_ROWS
def test_soft_boundary_f1_is_its_equations(scene, ignored):
    """The largest value around a pixel is taken over valid pixels only, and counts at valid pixels only."""
    logits, labels = scene
    labels[1, ignored] = 255
    assert_same({"soft_boundary_f1": 1.0}, logits, labels, compute_soft_boundary_f1(enlarge(logits), labels, ONES))


@IGNORED_ROWS
def test_rmi_is_the_authors(scene, ignored):
    logits, labels = scene
    labels[1, ignored] = 255
    assert_same({"rmi": 1.0}, logits, labels, compute_rmi(enlarge(logits), labels, ONES))

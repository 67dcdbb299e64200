"""Pixel and overlap terms against somebody else's code, or a table made by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from loss_scene import CLASSES, HIGH, assert_same, draw_scene, enlarge
from monai.losses import DiceLoss, FocalLoss, TverskyLoss

from segplus.losses import build_criterion


@pytest.fixture
def scene():
    return draw_scene()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 3.0]])
def test_cross_entropy_is_torchs(scene, smoothing, weights):
    logits, labels = scene
    labels[0, :7] = 255
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(enlarge(logits), labels, given, ignore_index=255, label_smoothing=smoothing)
    assert_same({"cross_entropy": {"label_smoothing": smoothing}}, logits, labels, expected, class_weights=weights)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_monais(scene, gamma):
    logits, labels = scene
    # MONAI averages over classes as well as pixels; only the true class has a loss.
    loss = FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True, reduction="mean")
    assert_same({"focal": {"gamma": gamma}}, logits, labels, loss(enlarge(logits), labels[:, None]) * CLASSES)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_dice_is_monais(scene, squared, batch, background):
    logits, labels = scene
    loss = DiceLoss(softmax=True, to_onehot_y=True, squared_pred=squared, batch=batch, include_background=background,
                    smooth_nr=1.0, smooth_dr=1.0)  # fmt: skip
    config = {"squared": squared, "per_image": not batch, "background": background, "present_only": False}
    assert_same({"dice": config}, logits, labels, loss(enlarge(logits), labels[:, None]))


def test_jaccard_is_monais(scene):
    logits, labels = scene
    # MONAI's smooth is added to 2 |pt| + s over 2 (union) + s.
    loss = DiceLoss(softmax=True, to_onehot_y=True, jaccard=True, batch=True, smooth_nr=2.0, smooth_dr=2.0)
    config = {"jaccard": {"present_only": False}}
    assert_same(config, logits, labels, loss(enlarge(logits), labels[:, None]))


@pytest.mark.parametrize("gamma", [1.0, 4 / 3])
def test_tversky_is_monais(scene, gamma):
    logits, labels = scene
    loss = TverskyLoss(softmax=True, to_onehot_y=True, alpha=0.2, beta=0.8, batch=True, reduction="none",
                       smooth_nr=1.0, smooth_dr=1.0)  # fmt: skip
    by_class = loss(enlarge(logits), labels[:, None]).flatten()
    config = {"focal_tversky": {"alpha": 0.2, "beta": 0.8, "gamma": gamma, "present_only": False}}
    assert_same(config, logits, labels, (by_class ** (1 / gamma)).mean())
    if gamma == 1.0:
        config = {"tversky": {"alpha": 0.2, "beta": 0.8, "present_only": False}}
        assert_same(config, logits, labels, loss(enlarge(logits), labels[:, None]).mean())


def test_binary_cross_entropy_of_one_logit_is_torchs(scene):
    logits, labels = scene[0][:, :1], scene[1] % 2
    labels[0, 3:9] = 255
    full, valid = enlarge(logits)[:, 0], labels != 255
    weight = torch.tensor(3.0, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(full[valid], labels[valid].double(), pos_weight=weight)
    found = build_criterion({"binary_cross_entropy": {"positive_weight": 3.0}}, 1)(logits, labels)
    assert torch.allclose(found, expected, rtol=1e-12)
    (gradient,), (slope,) = torch.autograd.grad(found, scene[0]), torch.autograd.grad(expected, scene[0])
    assert torch.allclose(gradient, slope, atol=1e-12)


def test_binary_cross_entropy_of_many_labels_is_torchs(scene):
    logits = scene[0]
    labels = torch.randint(0, 2, (2, CLASSES, *HIGH), generator=torch.Generator().manual_seed(2))
    labels[0, 1, 5:] = 255
    valid = labels != 255
    expected = F.binary_cross_entropy_with_logits(enlarge(logits)[valid], labels[valid].double())
    assert_same({"binary_cross_entropy": 1.0}, logits, labels, expected)


def test_sigmoid_focal_is_monais(scene):
    logits, labels = scene
    loss = FocalLoss(gamma=2.0, alpha=0.25, to_onehot_y=True)
    config = {"sigmoid_focal": {"alpha": 0.25}}
    assert_same(config, logits, labels, loss(enlarge(logits), labels[:, None]))


def test_two_by_two_table():
    """Probabilities 3/4 and 1/4 everywhere, labels 0 0 1 and one ignored."""
    logits = torch.tensor([math.log(3.0), 0.0], dtype=torch.float64)[None, :, None, None].expand(1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [1, 255]]])
    expected = {
        "cross_entropy": (2 * math.log(4 / 3) + math.log(4)) / 3,
        "focal": (2 * math.log(4 / 3) / 16 + math.log(4) * 9 / 16) / 3,
        # hits 1.5 and 0.25, areas 2.25 and 0.75, labels 2 and 1
        "dice": 1 - (3.0 / 4.25 + 0.5 / 1.75) / 2,
        "jaccard": 1 - (1.5 / 2.75 + 0.25 / 1.5) / 2,
        # false positives 0.75 and 0.5, false negatives 0.5 and 0.75
        "tversky": 1 - (1.5 / (1.5 + 0.225 + 0.35) + 0.25 / (0.25 + 0.15 + 0.525)) / 2,
        "focal_tversky": ((0.575 / 2.075) ** 0.75 + (0.675 / 0.925) ** 0.75) / 2,
        # a quarter of three pixels, rounded up, is the one that is wrong
        "ohem_cross_entropy": math.log(4),
        # one sigmoid a class of log 3 and 0: 3/4 and 1/2
        "binary_cross_entropy": (2 * math.log(4 / 3) + math.log(4) + 3 * math.log(2)) / 6,
        "sigmoid_focal": (2 * math.log(4 / 3) / 16 + 9 * math.log(4) / 16 + 3 * math.log(2) / 4) / 6,
    }
    for name, value in expected.items():
        options = {"smooth": 0.0} if name in {"dice", "jaccard", "tversky", "focal_tversky"} else {}
        found = build_criterion({name: options}, 2)(logits, labels)
        assert float(found) == pytest.approx(value, abs=1e-12), name

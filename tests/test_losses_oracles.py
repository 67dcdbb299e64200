"""Pixel and overlap terms against somebody else's code, a formula written out slowly, or a table made by hand."""

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


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_ohem_keeps_the_hardest_share_of_every_image(scene, share):
    logits, labels = scene
    labels[0, :11] = 255
    losses = F.cross_entropy(enlarge(logits), labels, ignore_index=255, reduction="none")
    kept = [losses[i][labels[i] != 255].sort(descending=True).values for i in range(2)]
    kept = [row[: math.ceil(len(row) * share)] for row in kept]
    assert_same({"ohem_cross_entropy": {"share": share}}, logits, labels, torch.cat(kept).mean())


@pytest.mark.parametrize(("threshold", "least"), [(0.3, 1), (0.05, 200)])
def test_ohem_keeps_what_is_below_the_threshold_and_a_minimum(scene, threshold, least):
    logits, labels = scene
    losses = F.cross_entropy(enlarge(logits), labels, reduction="none").flatten(1)
    kept = []
    for row in losses:
        ordered = row.sort(descending=True).values
        kept.append(ordered[: max(least, int((ordered > -math.log(threshold)).sum()))])
    config = {"ohem_cross_entropy": {"threshold": threshold, "min_kept": least}}
    assert_same(config, logits, labels, torch.cat(kept).mean())


@pytest.mark.parametrize("options", [{"share": 0.2}, {"threshold": 0.3, "min_kept": 1}])
def test_ohem_weighs_what_it_keeps_and_divides_by_its_number(scene, options):
    """Class weights do not choose: the least probable true classes are kept, whatever they weigh."""
    logits, labels = scene
    labels[1, :5] = 255
    weights = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
    losses, kept = F.cross_entropy(enlarge(logits), labels, ignore_index=255, reduction="none"), []
    for image in range(2):
        ordered, places = losses[image][labels[image] != 255].sort(descending=True)
        found = int((ordered > -math.log(0.3)).sum()) if "threshold" in options else math.ceil(len(ordered) * 0.2)
        kept.append((ordered * weights[labels[image][labels[image] != 255][places]])[:found])
    assert_same({"ohem_cross_entropy": options}, logits, labels, torch.cat(kept).mean(), class_weights=weights)


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


@pytest.mark.parametrize("option", ["plain", "log", "class_weighted"])
@pytest.mark.parametrize("term", ["dice", "jaccard"])
def test_options_of_overlaps_are_their_formulas(scene, term, option):
    logits, labels = scene
    labels[0, 4:9] = 255
    full, valid = enlarge(logits).softmax(1).movedim(1, -1), labels != 255
    kept, truth = full[valid], F.one_hot(labels[valid], CLASSES).double()
    hits, areas, counts = (kept * truth).sum(0), kept.sum(0), truth.sum(0)
    overlap = (2 * hits + 3) / (areas + counts + 3) if term == "dice" else (hits + 3) / (areas + counts - hits + 3)
    weights = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
    losses = -overlap.log() if option == "log" else 1 - overlap
    expected = (losses * weights).sum() / weights.sum() if option == "class_weighted" else losses.mean()
    config = {term: {"smooth": 3.0} | ({} if option == "plain" else {option: True})}
    assert_same(config, logits, labels, expected, class_weights=weights)


@pytest.mark.parametrize("term", ["focal", "binary_cross_entropy"])
def test_alpha_and_weights_of_pixel_terms_are_their_formulas(scene, term):
    logits, labels = scene
    labels[0, 4:9] = 255
    weights, alpha = torch.tensor([[0.5, 2.0, 1.0, 3.0], [0.25, 0.5, 1.0, 2.0]], dtype=torch.float64)
    full, valid = enlarge(logits).movedim(1, -1), labels != 255
    kept, truth = full[valid], labels[valid]
    if term == "focal":
        losses = F.cross_entropy(kept, truth, reduction="none")
        options = {"alpha": alpha.tolist()}
        expected = (alpha[truth] * weights[truth] * (1 - (-losses).exp()) ** 2 * losses).sum() / weights[truth].sum()
    else:
        targets, options = F.one_hot(truth, CLASSES).double(), {"positive_weight": alpha.tolist()}
        total = F.binary_cross_entropy_with_logits(kept, targets, weights, reduction="sum", pos_weight=alpha)
        expected = total / (len(kept) * weights.sum())
    assert_same({term: options}, logits, labels, expected, class_weights=weights)


def test_two_by_two_table():
    """One pixel a class pair: probabilities 3/4 and 1/4 everywhere, labels 0 0 1 ignored."""
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
    }
    for name, value in expected.items():
        options = {"smooth": 0.0} if name in {"dice", "jaccard", "tversky"} else {}
        found = build_criterion({name: options}, 2)(logits, labels)
        assert float(found) == pytest.approx(value, abs=1e-12), name

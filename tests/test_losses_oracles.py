"""Every term against somebody else's code, a formula written out slowly, or a table made by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from kornia.losses import lovasz_softmax_loss
from monai.losses import DiceLoss, FocalLoss, TverskyLoss

from segplus.losses import build_criterion

CLASSES, LOW, HIGH = 4, (6, 5), (24, 20)


@pytest.fixture
def scene():
    """Logits at stride 4 and labels without an ignored pixel, float64."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, CLASSES, *LOW, generator=generator, dtype=torch.float64) * 2
    blocks = torch.randint(0, CLASSES, (2, 1, 4, 5), generator=generator)
    labels = F.interpolate(blocks.float(), size=HIGH)[:, 0].long()
    return logits.requires_grad_(), labels


def enlarge(logits):
    return F.interpolate(logits, size=HIGH, mode="bilinear", align_corners=False)


def assert_same(config, logits, labels, expected, **options):
    """Compare value and gradient within 1e-6, the bound of the issue, and in fact far less."""
    value = build_criterion(config, CLASSES, **options)(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    assert float(abs(value - expected).detach()) < 1e-6 * max(1.0, float(abs(expected).detach()))
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-6


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


def slow_lovasz(probabilities, truth):
    """Return the Lovasz extension of one class's Jaccard loss as it is defined: the sum of m_i (J_i - J_(i-1))."""
    errors = [(abs(float(t) - float(p)), bool(t)) for p, t in zip(probabilities, truth, strict=True)]
    errors.sort(reverse=True)
    total, before, value = sum(t for _, t in errors), 0.0, 0.0
    missed = false = 0
    for error, is_class in errors:
        missed, false = missed + is_class, false + (not is_class)
        jaccard = 1 - (total - missed) / (total + false)
        value, before = value + error * (jaccard - before), jaccard
    return value


def test_lovasz_softmax_is_its_definition(scene):
    logits, labels = scene
    labels[1, :, 3:7] = 255
    probabilities = enlarge(logits).softmax(1).detach()
    valid = labels != 255
    losses = [slow_lovasz(probabilities[:, c][valid], (labels == c)[valid]) for c in range(CLASSES)]
    value = build_criterion({"lovasz_softmax": 1.0}, CLASSES)(logits, labels)
    assert float(value.detach()) == pytest.approx(sum(losses) / CLASSES, abs=1e-9)


def test_lovasz_softmax_is_kornias(scene):
    logits, labels = scene
    config = {"lovasz_softmax": {"present_only": False, "per_image": True}}
    assert_same(config, logits, labels, lovasz_softmax_loss(enlarge(logits), labels))


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


def list_distances(points, size):
    """Return the distance of every cell to the nearest of some points, the slow way."""
    return torch.tensor(
        [[min(math.dist((y, x), point) for point in points) for x in range(size[1])] for y in range(size[0])],
        dtype=torch.float64,
    )


def test_boundary_is_kervadecs(scene):
    logits, labels = scene
    probabilities, expected = enlarge(logits).softmax(1), 0.0
    for image in range(2):
        for index in labels[image].unique().tolist():
            region = labels[image] == index
            outside = list_distances(region.nonzero().tolist(), HIGH)
            inside = list_distances((~region).nonzero().tolist(), HIGH)
            signed = torch.where(region, 1 - inside, outside)
            expected = expected + (probabilities[image, index] * signed).sum()
    assert_same({"boundary": 1.0}, logits, labels, expected / probabilities.numel())


def test_boundary_cross_entropy_weighs_by_the_distance(scene):
    logits, labels = scene
    losses, expected = F.cross_entropy(enlarge(logits), labels, reduction="none"), 0.0
    for image in range(2):
        padded = F.pad(labels[image][None].float(), (1, 1, 1, 1), mode="replicate")[0]
        around = [padded[1 + dy : 25 + dy, 1 + dx : 21 + dx] for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        points = torch.stack([other != labels[image] for other in around]).any(0).nonzero().tolist()
        distance = list_distances(points, HIGH)
        expected = expected + (losses[image] * (1 + 2 * torch.exp(-(distance**2) / (2 * 3**2)))).sum()
    config = {"boundary_cross_entropy": {"amount": 2.0, "sigma_px": 3.0}}
    assert_same(config, logits, labels, expected / labels.numel())


def test_soft_boundary_f1_of_hard_predictions_by_hand():
    """A square of 4 x 4 in 12 x 12: its inner boundary has 12 pixels; the prediction is shifted by one to the right."""
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, 4:8, 4:8] = 1
    logits = torch.full((1, 2, 12, 12), -50.0, dtype=torch.float64)
    logits[:, 0] = 50
    logits[:, 1, 4:8, 5:9], logits[:, 0, 4:8, 5:9] = 50, -50
    shifted = build_criterion({"soft_boundary_f1": {"tolerance_px": 3}}, 2)(logits, labels)
    assert float(shifted) == pytest.approx(0.0, abs=1e-6)  # every boundary pixel is found within one pixel
    empty = torch.tensor([50.0, -50.0], dtype=torch.float64)[None, :, None, None].expand(1, 2, 12, 12)
    missed = build_criterion({"soft_boundary_f1": {}}, 2)(empty, labels)
    assert float(missed) == pytest.approx(1.0, abs=1e-6)  # no boundary is predicted, of either class


def test_soft_boundary_f1_is_its_equations(scene):
    logits, labels = scene
    probabilities, total = enlarge(logits).softmax(1), 0.0

    def draw(maps):
        return F.max_pool2d(1 - maps, 3, 1, 1) - (1 - maps)

    for image in range(2):
        scores = []
        for index in range(CLASSES):
            truth = (labels[image] == index).double()[None, None]
            guess = probabilities[image, index][None, None]
            true, found = draw(truth), draw(guess)
            if true.sum() == 0:
                continue
            near_true, near_found = F.max_pool2d(true, 5, 1, 2), F.max_pool2d(found, 5, 1, 2)
            precision, recall = (found * near_true).sum() / found.sum(), (true * near_found).sum() / true.sum()
            scores.append(1 - 2 * precision * recall / (precision + recall))
        total = total + torch.stack(scores).mean() / 2
    assert_same({"soft_boundary_f1": 1.0}, logits, labels, total)


def test_rmi_is_the_authors(scene):
    """The authors' steps, written out: pool by 3, nine shifted copies, covariances as sums, Cholesky."""
    logits, labels = scene
    probabilities, total = enlarge(logits).sigmoid(), 0.0
    truth = F.one_hot(labels, CLASSES).movedim(-1, 1).double()
    pooled = [F.avg_pool2d(maps, 3, 3, padding=1) for maps in (truth, probabilities)]
    rows, columns = pooled[0].shape[2] - 2, pooled[0].shape[3] - 2
    copies = [
        torch.stack([maps[:, :, y : y + rows, x : x + columns] for y in range(3) for x in range(3)], 2).flatten(3)
        for maps in pooled
    ]
    la, pr = (points - points.mean(3, keepdim=True) for points in copies)
    diagonal = 5e-4 * torch.eye(9, dtype=torch.float64)
    la_cov, pr_cov, la_pr = la @ la.mT, pr @ pr.mT, la @ pr.mT
    rest = la_cov - la_pr @ torch.linalg.inv(pr_cov + diagonal) @ la_pr.mT
    half = torch.linalg.cholesky(rest + diagonal).diagonal(dim1=2, dim2=3).log().sum(2)  # (N, C)
    for image in range(2):
        for index in range(CLASSES):
            if (labels[image] == index).any():
                total = total + half[image, index] / 9 / 2
    assert_same({"rmi": 1.0}, logits, labels, total)


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

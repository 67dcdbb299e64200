"""Terms that sort or look at neighbours against somebody else's code or a formula written out slowly."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from kornia.losses import lovasz_softmax_loss
from loss_scene import CLASSES, HIGH, assert_same, draw_scene, enlarge

from segplus.losses import build_criterion


@pytest.fixture
def scene():
    return draw_scene()


def slow_lovasz(probabilities, truth):
    """Return the Lovasz extension of one class's Jaccard loss as it is defined: the sum of m_i (J_i - J_(i-1))."""
    errors, order = (truth.double() - probabilities).abs().sort(descending=True)
    total, before, steps = int(truth.sum()), 0.0, []
    missed = false = 0
    for is_class in truth[order].tolist():
        missed, false = missed + is_class, false + (not is_class)
        jaccard = 1 - (total - missed) / (total + false)
        steps.append(jaccard - before)
        before = jaccard
    return errors @ torch.tensor(steps, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"per_image": True}, {"present_only": False}])
def test_lovasz_softmax_is_its_definition(scene, options):
    logits, labels = scene
    labels[1, :, 3:7] = 255
    labels[labels == 2] = 255  # an absent class
    probabilities, valid = enlarge(logits).softmax(1), labels != 255
    values = []
    for region in [slice(0, 1), slice(1, 2)] if options.get("per_image") else [slice(None)]:
        kept = valid[region]
        classes = range(CLASSES) if "present_only" in options else labels[region][kept].unique().tolist()
        losses = [slow_lovasz(probabilities[region, c][kept], (labels[region] == c)[kept]) for c in classes]
        values.append(torch.stack(losses).mean())
    assert_same({"lovasz_softmax": options}, logits, labels, torch.stack(values).mean())


def test_lovasz_softmax_is_kornias(scene):
    logits, labels = scene
    config = {"lovasz_softmax": {"present_only": False, "per_image": True}}
    assert_same(config, logits, labels, lovasz_softmax_loss(enlarge(logits), labels))


def list_distances(points, size):
    """Return the distance of every cell to the nearest of some points, the slow way."""
    return torch.tensor(
        [[min(math.dist((y, x), point) for point in points) for x in range(size[1])] for y in range(size[0])],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("ignored", [slice(0), slice(3, 9), slice(0, 20)])
def test_boundary_is_kervadecs(scene, background, ignored):
    """Ignored pixels count nowhere, and are neither inside nor outside of a region."""
    logits, labels = scene
    labels[1, ignored] = 255
    probabilities, expected = enlarge(logits).softmax(1), 0.0
    for image in range(2):
        valid = labels[image] != 255
        for index in labels[image][valid].unique().tolist():
            if index == 0 and not background:
                continue
            region = labels[image] == index
            outside = list_distances(region.nonzero().tolist(), HIGH)
            inside = list_distances((valid & ~region).nonzero().tolist(), HIGH)
            signed = torch.where(region, 1 - inside, outside)
            expected = expected + (probabilities[image, index] * signed)[valid].sum()
    count = (CLASSES if background else CLASSES - 1) * (labels != 255).sum()
    assert_same({"boundary": {"background": background}}, logits, labels, expected / count)


def test_a_region_without_an_outside_has_no_boundary():
    labels = torch.full((1, 9, 9), 1)
    labels[:, :, 6:] = 255
    logits = torch.randn(1, 2, 9, 9, dtype=torch.float64)
    assert build_criterion({"boundary": 1.0}, 2)(logits, labels) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 3.0]])
@pytest.mark.parametrize("ignored", [slice(0), slice(3, 9)])
def test_boundary_cross_entropy_weighs_by_the_distance(scene, smoothing, weights, ignored):
    logits, labels = scene
    labels[1, ignored] = 255
    by_class = torch.ones(CLASSES) if weights is None else torch.tensor(weights)
    by_class, expected = by_class.double(), 0.0
    losses = F.cross_entropy(enlarge(logits), labels, by_class, ignore_index=255, reduction="none",
                             label_smoothing=smoothing)  # fmt: skip
    for image in range(2):
        points = []
        for y, x in (labels[image] != 255).nonzero().tolist():
            around = [(y, x + 1), (y + 1, x), (y, x - 1), (y - 1, x)]
            others = [int(labels[image, b, a]) for b, a in around if 0 <= b < HIGH[0] and 0 <= a < HIGH[1]]
            if any(other not in {255, int(labels[image, y, x])} for other in others):
                points.append((y, x))
        distance = list_distances(points, HIGH)
        expected = expected + (losses[image] * (1 + 2 * torch.exp(-(distance**2) / (2 * 3**2)))).sum()
    config = {"boundary_cross_entropy": {"amount": 2.0, "sigma_px": 3.0, "label_smoothing": smoothing}}
    expected = expected / by_class[labels[labels != 255]].sum()
    assert_same(config, logits, labels, expected, class_weights=weights)


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


@pytest.mark.parametrize("ignored", [slice(0), slice(3, 9)])
def test_soft_boundary_f1_is_its_equations(scene, ignored):
    """The largest value around a pixel is taken over valid pixels only, and counts at valid pixels only."""
    logits, labels = scene
    labels[1, ignored] = 255
    probabilities, total = enlarge(logits).softmax(1), 0.0

    def take_largest(maps, valid, width):
        hidden = F.pad(maps.masked_fill(~valid, -1.0), [width // 2] * 4, value=-1.0)
        return hidden.unfold(0, width, 1).unfold(1, width, 1).amax((2, 3))

    for image in range(2):
        scores, valid = [], labels[image] != 255
        for index in range(CLASSES):
            maps = ((labels[image] == index).double(), probabilities[image, index])
            true, found = (take_largest(1 - one, valid, 3) - (1 - one) for one in maps)
            if true[valid].sum() == 0:
                continue
            near_true, near_found = take_largest(true, valid, 5), take_largest(found, valid, 5)
            precision = (found * near_true)[valid].sum() / found[valid].sum()
            recall = (true * near_found)[valid].sum() / true[valid].sum()
            scores.append(1 - 2 * precision * recall / (precision + recall))
        total = total + torch.stack(scores).mean() / 2
    assert_same({"soft_boundary_f1": 1.0}, logits, labels, total)


@pytest.mark.parametrize("ignored", [slice(0), slice(3, 9), slice(0, 24)])
def test_rmi_is_the_authors(scene, ignored):
    """The authors' steps, written out: pool by 3, nine shifted copies, covariances as sums, Cholesky."""
    logits, labels = scene
    labels[1, ignored] = 255
    valid = (labels != 255)[:, None]
    probabilities, total = enlarge(logits).sigmoid() * valid, 0.0
    truth = torch.stack([labels == index for index in range(CLASSES)], 1).double()
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
    images = [image for image in range(2) if valid[image].any()]
    for image in images:
        for index in labels[image][labels[image] != 255].unique().tolist():
            total = total + half[image, index] / 9 / len(images)
    assert_same({"rmi": 1.0}, logits, labels, total)

"""Every loss term written out on the upsampled logits, under autograd: slow, obvious, and none of segplus' code.

A formula takes the upsampled logits (N, C, H, W), labels (N, H, W) and one weight a class (C,).
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F

IGNORED = 255


def keep_valid(full, labels):
    """Return the logits (K, C) and labels (K,) of the valid pixels."""
    valid = labels != IGNORED
    return full.movedim(1, -1)[valid], labels[valid]


def compute_cross_entropy(full, labels, weights, smoothing=0.0):
    return F.cross_entropy(full, labels, weights, ignore_index=IGNORED, label_smoothing=smoothing)


def compute_focal(full, labels, weights, gamma=2.0, alpha=1.0):
    logits, truth = keep_valid(full, labels)
    probability = logits.softmax(1).gather(1, truth[:, None])[:, 0]
    by_class = torch.as_tensor(alpha, dtype=full.dtype).expand(full.shape[1])
    losses = -by_class[truth] * weights[truth] * (1 - probability) ** gamma * probability.log()
    return losses.sum() / weights[truth].sum()


def compute_ohem(full, labels, weights, share=None, threshold=None, least=1):
    """Class weights do not choose: the least probable true classes of every image are kept, whatever they weigh."""
    kept = []
    for image, label in zip(full, labels, strict=True):
        logits, truth = keep_valid(image[None], label[None])
        losses, order = F.cross_entropy(logits, truth, reduction="none").sort(descending=True)
        if threshold is None:
            count = math.ceil(len(losses) * share)
        else:
            count = max(min(least, len(losses)), int((losses > -math.log(threshold)).sum()))
        kept.append((losses * weights[truth[order]])[:count])
    return torch.cat(kept).mean()


def compute_binary_cross_entropy(full, labels, weights, positive_weight=1.0):
    """One class against the rest."""
    logits, truth = keep_valid(full, labels)
    targets = F.one_hot(truth, full.shape[1]).to(full)
    positive = torch.as_tensor(positive_weight, dtype=full.dtype)
    total = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum", pos_weight=positive)
    return total / (len(truth) * weights.sum())


def compute_sigmoid_focal(full, labels, weights, gamma=2.0, alpha=0.25):
    logits, truth = keep_valid(full, labels)
    targets = F.one_hot(truth, full.shape[1]).to(full)
    right = targets * logits.sigmoid() + (1 - targets) * (1 - logits.sigmoid())
    balance = 1 if alpha is None else targets * alpha + (1 - targets) * (1 - alpha)
    losses = -balance * (1 - right) ** gamma * right.log()
    return (losses * weights).sum() / (len(truth) * weights.sum())


def sum_overlaps(full, labels):
    """Return hits, areas, squares and counts of every class over the valid pixels, each (C,)."""
    logits, truth = keep_valid(full, labels)
    probabilities, targets = logits.softmax(1), F.one_hot(truth, full.shape[1]).to(full)
    return (probabilities * targets).sum(0), probabilities.sum(0), (probabilities**2).sum(0), targets.sum(0)


def average_classes(losses, counts, weights, present_only=True):
    weights = weights * (counts > 0) if present_only else weights
    return (losses * weights).sum() / weights.sum()


def compute_dice(full, labels, weights, squared=False, log=False, smooth=1.0, present_only=True):
    hits, areas, squares, counts = sum_overlaps(full, labels)
    overlap = (2 * hits + smooth) / ((squares if squared else areas) + counts + smooth)
    return average_classes(-overlap.log() if log else 1 - overlap, counts, weights, present_only)


def compute_jaccard(full, labels, weights, log=False, smooth=1.0):
    hits, areas, _, counts = sum_overlaps(full, labels)
    overlap = (hits + smooth) / (areas + counts - hits + smooth)
    return average_classes(-overlap.log() if log else 1 - overlap, counts, weights)


def compute_tversky(full, labels, weights, alpha=0.3, beta=0.7, gamma=1.0, smooth=1.0):
    hits, areas, _, counts = sum_overlaps(full, labels)
    index = (hits + smooth) / (hits + alpha * (areas - hits) + beta * (counts - hits) + smooth)
    return average_classes((1 - index) ** (1 / gamma), counts, weights)


def extend_jaccard(errors, truth):
    """Return the Lovasz extension of one class's Jaccard loss as it is defined: the sum of m_i (J_i - J_(i-1))."""
    errors, order = errors.sort(descending=True)
    total, before, steps = int(truth.sum()), 0.0, []
    missed = false = 0
    for is_class in truth[order].tolist():
        missed, false = missed + is_class, false + (not is_class)
        jaccard = 1 - (total - missed) / (total + false)
        steps.append(jaccard - before)
        before = jaccard
    return errors @ torch.tensor(steps, dtype=errors.dtype)


def list_images(labels):
    """Return the numbers of the images that have a valid pixel."""
    return [i for i, label in enumerate(labels) if (label != IGNORED).any()]


def compute_lovasz_softmax(full, labels, weights, per_image=False, present_only=True):
    regions = [slice(i, i + 1) for i in list_images(labels)] if per_image else [slice(None)]
    values = []
    for region in regions:
        logits, truth = keep_valid(full[region], labels[region])
        classes = truth.unique().tolist() if present_only else range(full.shape[1])
        errors = (F.one_hot(truth, full.shape[1]).to(full) - logits.softmax(1)).abs()
        losses = [extend_jaccard(errors[:, c], truth == c) for c in classes]
        values.append(torch.stack(losses).mean())
    return torch.stack(values).mean()


def list_distances(points, size):
    """Return the distance of every cell of a grid to the nearest of some points (K, 2)."""
    return measure_all_pairs(tuple(map(tuple, points.tolist())), tuple(size))


@cache
def measure_all_pairs(points, size):
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    cells, others = torch.stack([rows, columns], -1).flatten(0, 1).double(), torch.tensor(points).double()
    nearest = [(cell - others).square().sum(-1).amin(1) for cell in cells[:, None].split(256)]
    return torch.cat(nearest).sqrt().view(size)


def compute_boundary(full, labels, weights, background=True):
    """Ignored pixels add nothing, and are neither inside nor outside of a region."""
    probabilities, total = full.softmax(1), full.sum() * 0
    for image, label in zip(probabilities, labels, strict=True):
        valid = label != IGNORED
        for index in label[valid].unique().tolist():
            if index == 0 and not background:
                continue
            region = label == index
            outside = list_distances(region.nonzero(), label.shape)
            inside = list_distances((valid & ~region).nonzero(), label.shape)
            total = total + (image[index] * torch.where(region, 1 - inside, outside))[valid].sum()
    return total / ((full.shape[1] - (not background)) * (labels != IGNORED).sum())


def find_boundary(label):
    """Return the pixels (K, 2) with a neighbour (left, right, above, below) of another class."""
    hidden, found = F.pad(label, (1, 1, 1, 1), value=IGNORED), torch.zeros_like(label, dtype=torch.bool)
    for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
        other = hidden[top : top + label.shape[0], left : left + label.shape[1]]
        found |= (other != label) & (other != IGNORED) & (label != IGNORED)
    return found.nonzero()


def compute_boundary_cross_entropy(full, labels, weights, amount=5.0, sigma=5.0, smoothing=0.0):
    losses = F.cross_entropy(full, labels, weights, ignore_index=IGNORED, reduction="none", label_smoothing=smoothing)
    total = full.sum() * 0
    for i in list_images(labels):
        distance = list_distances(find_boundary(labels[i]), labels[i].shape)
        total = total + (losses[i] * (1 + amount * torch.exp(-(distance**2) / (2 * sigma**2)))).sum()
    return total / weights[labels[labels != IGNORED]].sum()


def take_largest(maps, valid, width):
    """Return the largest value around every pixel, over valid pixels only."""
    hidden = F.pad(maps.masked_fill(~valid, -1.0), [width // 2] * 4, value=-1.0)
    return hidden.unfold(0, width, 1).unfold(1, width, 1).amax((2, 3))


def compute_soft_boundary_f1(full, labels, weights, width=3, tolerance=5):
    probabilities, total = full.softmax(1), full.sum() * 0
    for i in list_images(labels):
        scores, label, valid = [], labels[i], labels[i] != IGNORED
        for index, one in enumerate(probabilities[i]):
            maps = ((label == index).to(full), one)
            true, found = (take_largest(1 - one, valid, width) - (1 - one) for one in maps)
            if true[valid].sum() == 0:
                continue
            near_true, near_found = take_largest(true, valid, tolerance), take_largest(found, valid, tolerance)
            precision = (found * near_true)[valid].sum() / (found[valid].sum() + 1e-7)
            recall = (true * near_found)[valid].sum() / (true[valid].sum() + 1e-7)
            scores.append(1 - 2 * precision * recall / (precision + recall + 1e-7))
        total = total + torch.stack(scores).mean() / len(list_images(labels))
    return total


def compute_rmi(full, labels, weights):
    """Take the authors' steps: pool by 3, nine shifted copies, covariances as sums, Cholesky."""
    valid = (labels != IGNORED)[:, None]
    probabilities, total = full.sigmoid() * valid, full.sum() * 0
    truth = torch.stack([labels == index for index in range(full.shape[1])], 1).to(full)
    pooled = [F.avg_pool2d(maps, 3, 3, padding=1) for maps in (truth, probabilities)]
    rows, columns = pooled[0].shape[2] - 2, pooled[0].shape[3] - 2
    copies = [
        torch.stack([maps[:, :, y : y + rows, x : x + columns] for y in range(3) for x in range(3)], 2).flatten(3)
        for maps in pooled
    ]
    la, pr = (points - points.mean(3, keepdim=True) for points in copies)
    diagonal = 5e-4 * torch.eye(9, dtype=full.dtype)
    rest = la @ la.mT - la @ pr.mT @ torch.linalg.inv(pr @ pr.mT + diagonal) @ pr @ la.mT
    half = torch.linalg.cholesky(rest + diagonal).diagonal(dim1=2, dim2=3).log().sum(2)  # (N, C)
    for image in list_images(labels):
        for index in labels[image][labels[image] != IGNORED].unique().tolist():
            total = total + half[image, index] / 9 / len(list_images(labels))
    return total


# By term: parameters as a recipe has them, the formula, and its arguments.
FORMULAS = {
    "binary_cross_entropy": ({"positive_weight": 3.0}, compute_binary_cross_entropy, {"positive_weight": 3.0}),
    "boundary": ({}, compute_boundary, {}),
    "boundary_cross_entropy": (
        {"amount": 2.0, "sigma_px": 3.0, "label_smoothing": 0.1},
        compute_boundary_cross_entropy,
        {"amount": 2.0, "sigma": 3.0, "smoothing": 0.1},
    ),
    "cross_entropy": ({"label_smoothing": 0.1}, compute_cross_entropy, {"smoothing": 0.1}),
    "dice": ({"class_weighted": True}, compute_dice, {}),
    "focal": ({"gamma": 1.5, "alpha": 0.3}, compute_focal, {"gamma": 1.5, "alpha": 0.3}),
    "focal_tversky": ({"class_weighted": True}, compute_tversky, {"gamma": 4 / 3}),
    "jaccard": ({"class_weighted": True}, compute_jaccard, {}),
    "lovasz_softmax": ({}, compute_lovasz_softmax, {}),
    "ohem_cross_entropy": ({"share": 0.3}, compute_ohem, {"share": 0.3}),
    "rmi": ({}, compute_rmi, {}),
    "sigmoid_focal": ({"alpha": 0.25}, compute_sigmoid_focal, {"alpha": 0.25}),
    "soft_boundary_f1": ({}, compute_soft_boundary_f1, {}),
    "tversky": ({"alpha": 0.2, "beta": 0.8, "class_weighted": True}, compute_tversky, {"alpha": 0.2, "beta": 0.8}),
}
# Other forms of the same terms.
BY_CLASS = [0.25, 0.5, 1.0, 2.0, 0.75]
VARIANTS = [
    (
        "binary_cross_entropy",
        {"positive_weight": BY_CLASS},
        compute_binary_cross_entropy,
        {"positive_weight": BY_CLASS},
    ),
    ("boundary", {"background": False}, compute_boundary, {"background": False}),
    ("cross_entropy", {}, compute_cross_entropy, {}),
    ("dice", {"squared": True, "class_weighted": True}, compute_dice, {"squared": True}),
    ("dice", {"log": True, "class_weighted": True, "smooth": 3.0}, compute_dice, {"log": True, "smooth": 3.0}),
    ("dice", {"present_only": False, "class_weighted": True}, compute_dice, {"present_only": False}),
    ("focal", {"gamma": 0.5, "alpha": BY_CLASS}, compute_focal, {"gamma": 0.5, "alpha": BY_CLASS}),
    ("jaccard", {"log": True, "class_weighted": True, "smooth": 0.5}, compute_jaccard, {"log": True, "smooth": 0.5}),
    ("lovasz_softmax", {"per_image": True}, compute_lovasz_softmax, {"per_image": True}),
    ("lovasz_softmax", {"present_only": False}, compute_lovasz_softmax, {"present_only": False}),
    ("ohem_cross_entropy", {"share": 1.0}, compute_ohem, {"share": 1.0}),
    ("ohem_cross_entropy", {"threshold": 0.3, "min_kept": 9}, compute_ohem, {"threshold": 0.3, "least": 9}),
    ("ohem_cross_entropy", {"threshold": 0.05, "min_kept": 200}, compute_ohem, {"threshold": 0.05, "least": 200}),
    ("sigmoid_focal", {"gamma": 0.5}, compute_sigmoid_focal, {"gamma": 0.5, "alpha": None}),
    ("soft_boundary_f1", {"width_px": 5, "tolerance_px": 3}, compute_soft_boundary_f1, {"width": 5, "tolerance": 3}),
]

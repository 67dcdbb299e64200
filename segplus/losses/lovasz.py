"""Lovasz-softmax: a surrogate of the mean IoU that sorts the errors of every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from segplus.losses.softmax import LOG2_E, SoftmaxWalk
from segplus.losses.terms import LabelBatch, Part, Reduction, Term


@dataclass(frozen=True)
class LovaszSoftmax(Term):
    """The Lovasz extension of one minus the IoU of every class, averaged over classes.

    Args:
        per_image: Finish every image by itself and average; otherwise the whole batch is one region.
        present_only: Average over the classes that the labels contain; otherwise over all.
        sync: Sort the errors of all processes together (per batch only).
    Reference:
        Berman et al., The Lovasz-Softmax loss, 2018, equations 9 to 11, algorithm 1. https://arxiv.org/abs/1705.08790
    """

    per_image: bool = False
    present_only: bool = True
    sync: bool = True

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the number of images that count, where images are finished one by one."""
        return batch.count_images() if self.per_image else None


class Errors(NamedTuple):
    """The errors of one class that can have a gradient, of this process.

    Args:
        values: |truth - probability|, shape (K,).
        truth: Whether the pixel has the class, bool, shape (K,).
    """

    values: Tensor
    truth: Tensor


def weigh_errors(errors: Errors) -> Tensor:
    """Return the gradient of the Lovasz extension by every error, shape (K,), with errors in any order."""
    order = errors.values.argsort(descending=True)
    truth = errors.truth[order]
    # Whole numbers are exact beyond 2^24 pixels, and differences of quotients near 1 are never taken: a pixel of the
    # class removes one from the intersection, any other adds one to the union.
    seen = truth.cumsum(0, dtype=torch.int32)
    total = truth.sum(dtype=torch.int32)
    union = torch.arange(1, len(truth) + 1, dtype=torch.int32, device=truth.device).sub_(seen).add_(total)
    union = union.to(errors.values.dtype)
    missed = (total - seen).to(errors.values.dtype)
    steps = torch.where(truth, 1 / union, missed.div_(union).div_((union - 1).clamp_(min=1)))
    steps[:1].masked_fill_(total == 0, 1)
    return torch.zeros_like(steps).scatter_(0, order, steps)


def find_floor(errors: Tensor, truth: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    """Return the error below which a pixel of another class has no gradient.

    Sorted by falling error, the Jaccard loss is 1 once every pixel of the class has come, and stays there: only errors
    of other pixels above the smallest error of the class itself count. Without any pixel of the class only the largest
    does.
    """
    low = torch.where(truth & valid, errors, torch.inf).amin()
    high = torch.where(valid, errors, 0).amax()
    found = reduction.minimize_over_processes(torch.stack([low, -high]))
    return torch.where(found[0].isinf(), -found[1], found[0])


def differentiate_lovasz(
    part: Part[LovaszSoftmax],
    walk: SoftmaxWalk,
    log_norms: Sequence[Tensor],
    reduction: Reduction,
    gradient: Tensor | None,
) -> Tensor:
    """Add the value to the part and the classes' own share of the gradient to `gradient`.

    Args:
        part: The term.
        walk: The batch.
        log_norms: Of every image, arranged; see `Measures`.
        reduction: How processes share a batch.
        gradient: Shape (N, C, h, w), or None.
    Returns:
        The sum over classes of p dL/dp, arranged: what the last walk lowers the factor of the probabilities by.
    """
    norms = torch.stack(list(log_norms))
    lift = torch.zeros_like(walk.grid.restore(norms))
    if part.term.per_image:
        alone = Reduction(1, 1.0, 1.0, 1.0)
        groups = [slice(i, i + 1) for i in range(len(norms))]
        for group in groups:
            _differentiate_group(
                part, walk, norms[group], group, (alone, part.scale, part.scale), gradient, lift[group]
            )
    else:
        synced = part.term.sync and reduction.processes > 1
        shares = (reduction.gradient_share, reduction.value_share) if synced else (reduction.lone_share,) * 2
        scales = norms.new_tensor(shares)
        own = reduction if synced else Reduction(1, 1.0, 1.0, 1.0)
        _differentiate_group(part, walk, norms, slice(None), (own, scales[0], scales[1]), gradient, lift)
    return walk.grid.arrange(lift)


def _differentiate_group(
    part: Part[LovaszSoftmax],
    walk: SoftmaxWalk,
    norms: Tensor,
    group: slice,
    how: tuple[Reduction, Tensor, Tensor],
    gradient: Tensor | None,
    lift: Tensor,
) -> None:
    """Treat some images as one region, class by class: only one channel is ever upsampled at a time."""
    reduction, gradient_scale, value_scale = how
    labels, valid = walk.batch.labels[group], walk.batch.valid[group]
    log_norm = walk.grid.restore(norms)
    logits = walk.logits[group]
    peaks = logits.amax(1, keepdim=True)
    classes = list_classes(part.term, labels[valid], walk.classes, reduction)
    for index in classes:
        channel = (logits[:, index : index + 1] - peaks).mul_(LOG2_E)
        full = F.interpolate(channel, size=labels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        probability = full.sub_(log_norm).exp2_()
        truth = labels == index
        errors = torch.where(truth, 1 - probability, probability)
        floor = find_floor(errors, truth, valid, reduction)
        kept = valid & (truth | (errors >= floor))
        values = errors[kept]
        everyone, own = reduction.gather_over_processes(values, truth[kept])
        steps = weigh_errors(Errors(*everyone))
        part.value += (everyone[0] * steps).sum() * (value_scale / len(classes))
        if gradient is None:
            continue
        slopes = torch.zeros_like(probability)
        sign = 1 - 2 * truth[kept].to(steps.dtype)
        slopes[kept] = steps[own] * sign * (gradient_scale * part.weight / len(classes))
        slopes.mul_(probability)
        lift += slopes
        size, shape = list(labels.shape[-2:]), list(channel.shape)
        back = torch.ops.aten.upsample_bilinear2d_backward(slopes[:, None], size, shape, False, None, None)
        gradient[group, index] += back[:, 0]


def list_classes(term: LovaszSoftmax, labels: Tensor, num_classes: int, reduction: Reduction) -> list[int]:
    """Return the classes that count, given the labels of all valid pixels of this process, shape (K,)."""
    counts = reduction.add_over_processes(torch.bincount(labels.long(), minlength=num_classes)).tolist()
    return [c for c in range(num_classes) if counts[c] or (not term.present_only and sum(counts))]


def evaluate_lovasz(
    term: LovaszSoftmax, probabilities: Tensor, labels: Tensor, valid: Tensor, reduction: Reduction
) -> Tensor:
    """Return the value of one region the plain way, every error sorted, from probabilities (N, C, H, W)."""
    classes = list_classes(term, labels[valid], probabilities.shape[1], reduction)
    total = probabilities.sum() * 0
    for index in classes:
        truth = (labels == index)[valid]
        errors = (truth.to(probabilities.dtype) - probabilities[:, index][valid]).abs()
        everyone, own = reduction.gather_over_processes(errors.detach(), truth)
        steps = weigh_errors(Errors(*everyone))
        rest = (everyone[0] * steps).sum() - (errors.detach() * steps[own]).sum()
        total = total + ((errors * steps[own]).sum() + rest) / len(classes)
    return total

"""Lovasz-softmax: a surrogate of the mean IoU that sorts the errors of every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from segplus.losses.channel_terms import Channels, ChannelTerm
from segplus.losses.terms import LabelBatch, Reduction, Summand

ALONE = Reduction(processes=1, divisor=1)


@dataclass(frozen=True)
class LovaszSoftmax(ChannelTerm):
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

    def walk(self, summand: Summand[ChannelTerm], channels: Channels, reduction: Reduction) -> None:
        """Add the value to the summand, and the gradient by `channels.add_gradient`."""
        if self.per_image:
            for i in range(len(channels.logits)):
                self._walk_region(summand, channels, slice(i, i + 1), (ALONE, summand.scale, summand.scale))
            return
        synced = self.sync and reduction.processes > 1
        gradient_factor = reduction.synced_gradient_factor if synced else reduction.value_factor
        scales = [channels.logits.new_full((), factor) for factor in (gradient_factor, reduction.value_factor)]
        self._walk_region(summand, channels, slice(None), (reduction if synced else ALONE, scales[0], scales[1]))

    def _walk_region(
        self, summand: Summand[ChannelTerm], channels: Channels, images: slice, how: tuple[Reduction, Tensor, Tensor]
    ) -> None:
        """Treat some images as one region."""
        reduction, gradient_scale, value_scale = how
        labels, valid = channels.batch.labels[images], channels.batch.valid[images]
        classes = self.list_classes(labels[valid], channels.classes, reduction)
        for index in classes:
            probability, truth = channels.upsample(images, index), labels == index
            errors = torch.where(truth, 1 - probability, probability)
            kept = valid & (truth | (errors >= find_floor(errors, truth, valid, reduction)))
            everyone, own = reduction.gather_over_processes(errors[kept], truth[kept])
            steps = weigh_errors(Errors(*everyone))
            summand.value += (everyone[0] * steps).sum() * (value_scale / len(classes))
            slopes, sign = torch.zeros_like(probability), 1 - 2 * truth[kept].to(steps.dtype)
            slopes[kept] = steps[own] * sign * (gradient_scale * summand.weight / len(classes))
            channels.add_gradient(images, index, probability, slopes)

    def evaluate(
        self, summand: Summand[ChannelTerm], probabilities: Tensor, batch: LabelBatch, reduction: Reduction
    ) -> Tensor:
        """Return the value the plain way, every error sorted, from probabilities (N, C, H, W)."""
        if not self.per_image:
            if self.sync:
                return reduction.scale_synced(self._evaluate_region(probabilities, batch, slice(None), reduction))
            return self._evaluate_region(probabilities, batch, slice(None), ALONE) * reduction.value_factor
        images = [slice(i, i + 1) for i in range(len(probabilities))]
        values = [self._evaluate_region(probabilities, batch, image, ALONE) for image in images]
        return torch.stack(values).sum() * summand.scale

    def _evaluate_region(self, probabilities: Tensor, batch: LabelBatch, images: slice, reduction: Reduction) -> Tensor:
        maps, labels, valid = probabilities[images], batch.labels[images], batch.valid[images]
        classes = self.list_classes(labels[valid], maps.shape[1], reduction)
        total = maps.sum() * 0
        for index in classes:
            truth = (labels == index)[valid]
            errors = (truth.to(maps.dtype) - maps[:, index][valid]).abs()
            everyone, own = reduction.gather_over_processes(errors.detach(), truth)
            steps = weigh_errors(Errors(*everyone))
            rest = (everyone[0] * steps).sum() - (errors.detach() * steps[own]).sum()
            total = total + ((errors * steps[own]).sum() + rest) / len(classes)
        return total

    def list_classes(self, labels: Tensor, num_classes: int, reduction: Reduction) -> list[int]:
        """Return the classes that count, given the labels of all valid pixels of this process, shape (K,)."""
        counts = reduction.add_over_processes(torch.bincount(labels.long(), minlength=num_classes)).tolist()
        return [c for c in range(num_classes) if counts[c] or (not self.present_only and sum(counts))]


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

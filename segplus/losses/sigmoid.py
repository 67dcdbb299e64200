"""Terms on one sigmoid a class: binary cross-entropy and its focal form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.errors import InputError
from segplus.losses.concurrency import map_images
from segplus.losses.softmax import group_images
from segplus.losses.terms import BY_CLASS, LabelBatch, Summand, Term, differentiate, require_at_least
from segplus.losses.upsample import Grid, Position, Source, find_limit


@dataclass(frozen=True)
class SigmoidTerm(Term):
    """A loss of every logit by itself, averaged over the entries that count.

    Labels are 0, 1 or ignored, of shape (N, H, W) for one logit and (N, C, H, W) for several that do not exclude each
    other. Class ids of shape (N, H, W) with several logits are taken one class against the rest.
    """

    needs_softmax: ClassVar[bool] = False
    takes_multi_label: ClassVar[bool] = True

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the sum of the class weights of the entries that count."""
        weights = torch.ones(batch.num_classes) if batch.class_weights is None else batch.class_weights
        weights = weights.to(batch.labels.device, batch.sum_dtype)
        if batch.labels.ndim == 3:
            return batch.count_pixels() * weights.sum()
        return (batch.valid.sum((0, 2, 3)) * weights).sum()

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every entry, shape (C, P)."""
        raise NotImplementedError

    def slopes(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return d losses / d logits, shape (C, P), by autograd where a term does not write it out."""
        return differentiate(lambda leaf: self.losses(leaf, targets), logits)


@dataclass(frozen=True)
class BinaryCrossEntropy(SigmoidTerm):
    """Minus the log-probability of every 0/1 label under a sigmoid.

    Args:
        positive_weight: Factor of the loss of labels that are 1: one number, one a class, or by class name.
    Reference:
        torch.nn.BCEWithLogitsLoss.
    """

    positive_weight: Tensor | float | None = field(default=None, metadata=BY_CLASS)

    def check(self, key: str) -> None:
        """Raise InputError where the weight is negative."""
        require_at_least(key, self, ("positive_weight",), 0)

    def _weigh(self, logits: Tensor, targets: Tensor) -> Tensor | None:
        if self.positive_weight is None:
            return None
        weight = self.positive_weight
        return 1 + ((weight.to(logits)[:, None] if isinstance(weight, Tensor) else weight) - 1) * targets

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every entry."""
        found = -F.logsigmoid(torch.where(targets > 0, logits, -logits))
        weight = self._weigh(logits, targets)
        return found if weight is None else found * weight

    def slopes(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return sigmoid(logit) - target, weighted."""
        found = logits.sigmoid().sub_(targets)
        weight = self._weigh(logits, targets)
        return found if weight is None else found.mul_(weight)


@dataclass(frozen=True)
class SigmoidFocal(SigmoidTerm):
    """Binary cross-entropy times (1 - p)^gamma, p the probability of the true label.

    Args:
        gamma: Focusing exponent; 0 is binary cross-entropy.
        alpha: Factor of positive labels; negative ones get 1 - alpha. None leaves both at 1.
    Reference:
        Lin et al., Focal Loss for Dense Object Detection, 2017, equation 5. https://arxiv.org/abs/1708.02002
    """

    gamma: float = 2.0
    alpha: float | None = None

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is out of range."""
        require_at_least(key, self, ("gamma",), 0)
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise InputError(f"{key}.alpha", found=self.alpha, allowed="[0, 1]")

    def _weigh(self, targets: Tensor) -> Tensor | float:
        return 1.0 if self.alpha is None else targets * (2 * self.alpha - 1) + (1 - self.alpha)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every entry."""
        signed = torch.where(targets > 0, -logits, logits)  # minus the logit of the true label
        # (1 - p)^gamma = exp(gamma log sigmoid(signed)), which autograd can differentiate everywhere
        return (self.gamma * F.logsigmoid(signed)).exp() * -F.logsigmoid(-signed) * self._weigh(targets)

    def slopes(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the derivative (1 - p)^gamma (gamma p softplus + (1 - p)), with the sign of the label."""
        signed = torch.where(targets > 0, -logits, logits)
        wrong = signed.sigmoid()  # 1 - p
        slope = wrong**self.gamma * (self.gamma * torch.sigmoid(-signed) * -F.logsigmoid(-signed) + wrong)
        return slope * (1 - 2 * targets) * self._weigh(targets)


def stream_sigmoid_terms(
    logits: Tensor,
    batch: LabelBatch,
    grid: Grid,
    joined: bool,
    summands: Sequence[Summand[SigmoidTerm]],
    gradient: Tensor | None,
) -> None:
    """Add every summand's value to it and its gradient to `gradient`, in one walk.

    Args:
        logits: Shape (N, C, h, w).
        batch: The labels.
        grid: The walk.
        joined: Whether all images are walked together.
        summands: The terms.
        gradient: Shape (N, C, h, w), added to in place; None where no gradient is wanted.
    """
    scales = [summand.scale * summand.weight for summand in summands]

    def walk_images(images: slice) -> list[Tensor]:
        labels = batch.labels[images] if batch.labels.ndim == 3 else batch.labels[images].transpose(0, 1)
        arranged = grid.arrange(labels)
        counted = grid.arrange((labels != batch.ignore_index).to(torch.uint8))

        values = [torch.zeros_like(summand.value) for summand in summands]

        def compute(chunk: Tensor, position: Position) -> None:
            flat = chunk.flatten(1)
            targets, weights = read_targets(arranged[position], counted[position], batch, flat)
            total = None
            for summand, scale, value in zip(summands, scales, values, strict=True):
                value += (summand.term.losses(flat, targets) * weights).sum() * summand.scale
                if gradient is not None:
                    slope = summand.term.slopes(flat, targets).mul_(weights * scale)
                    total = slope if total is None else total.add_(slope)
            if total is not None:
                flat.copy_(total)

        mine = None if gradient is None else gradient[images].transpose(0, 1)
        grid.visit(Source(logits[images].transpose(0, 1), mine, find_limit(logits, joined)), compute)
        return values

    values = logits.shape[1] * batch.labels.shape[-2] * batch.labels.shape[-1]
    for found in map_images(walk_images, group_images(len(logits), joined), logits.device, values):
        for summand, value in zip(summands, found, strict=True):
            summand.value += value


def read_targets(labels: Tensor, counted: Tensor, batch: LabelBatch, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 0/1 targets (C, P) of a chunk of labels and their weights, (1, P) or (C, P), in the type of `like`."""
    weights = counted.reshape(-1, like.shape[1]).to(like)
    if batch.class_weights is not None:
        weights = weights * batch.class_weights.to(like)[:, None]
    rows = labels.reshape(-1, like.shape[1])
    if len(rows) == len(like):
        return rows.to(like) * counted.reshape(-1, like.shape[1]), weights
    classes = torch.arange(len(like), device=like.device)[:, None]
    return (rows == classes).to(like), weights


def evaluate_sigmoid(summand: Summand[SigmoidTerm], full: Tensor, batch: LabelBatch) -> Tensor:
    """Return the value the plain way, from upsampled logits (N, C, H, W)."""
    total = full.sum() * 0
    for index, image in enumerate(full):
        labels = batch.labels[index]
        flat = image.flatten(1)
        targets, weights = read_targets(labels, (labels != batch.ignore_index).to(torch.uint8), batch, flat)
        total = total + (summand.term.losses(flat, targets) * weights).sum()
    return total * summand.scale

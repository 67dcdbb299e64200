"""Terms that are a sum of one loss a pixel: cross-entropy and its relatives on the softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from segplus.errors import InputError
from segplus.losses.terms import BY_CLASS, ImageLabels, LabelBatch, Reduction, Term, differentiate, require_at_least


@dataclass(frozen=True)
class PixelTerm(Term):
    """A loss that depends on one pixel's probability of its true class.

    `losses` is the formula, `slopes` its derivative: by autograd, where a term does not write it out for speed.
    """

    selects: ClassVar[bool] = False

    @property
    def smoothing(self) -> float:
        """The share of the target that is spread over all classes."""
        return 0.0

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the sum of the class weights of the pixels that count."""
        return batch.weigh_pixels()

    def weigh(self, image: ImageLabels) -> Tensor:
        """Return the weight of the true class of every pixel, 0 where ignored, shape (n, H, W)."""
        return image.weights

    def emphasize(self, image: ImageLabels) -> Tensor | None:
        """Return a factor of every pixel's whole loss, smoothed labels included, shape (n, H, W), or None for 1."""
        return None

    def select(self, log_target: Tensor, valid: Tensor) -> Tensor:
        """Return 1 for the pixels that are kept, 0 for the others, where a term chooses by the loss.

        Args:
            log_target: Log-probability of the true class, shape (n, ...).
            valid: 1 where the label counts, 0 where it is ignored, likewise.
        """
        raise NotImplementedError

    def divide_kept(self, kept: Tensor, reduction: Reduction) -> Tensor:
        """Return the denominator, given the number of pixels that were selected, where `count` has none."""
        raise NotImplementedError

    def losses(self, log_target: Tensor) -> Tensor:
        """Return the loss of every pixel from the log-probability of its true class, any shape."""
        raise NotImplementedError

    def slopes(self, log_target: Tensor) -> Tensor:
        """Return d losses / d log_target."""
        return differentiate(self.losses, log_target)


@dataclass(frozen=True)
class LogLossTerm(PixelTerm):
    """A loss of minus the log-probability of a pixel's true class."""

    def losses(self, log_target: Tensor) -> Tensor:
        """Return minus the log-probability."""
        return -log_target

    def slopes(self, log_target: Tensor) -> Tensor:
        """Return -1."""
        return torch.full_like(log_target, -1.0)


@dataclass(frozen=True)
class CrossEntropy(LogLossTerm):
    """Minus the log-probability of the true class, averaged over valid pixels with class weights.

    Args:
        label_smoothing: Share of the target that is spread evenly over all classes, in [0, 1).
    Reference:
        Szegedy et al., Rethinking the Inception Architecture, 2016, section 7 (smoothing).
        torch.nn.CrossEntropyLoss (class weights).
    """

    label_smoothing: float = 0.0

    @property
    def smoothing(self) -> float:
        """The share of the target that is spread over all classes."""
        return self.label_smoothing

    def check(self, key: str) -> None:
        """Raise InputError where the smoothing is outside [0, 1)."""
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"{key}.label_smoothing", found=self.label_smoothing, allowed="[0, 1)")


@dataclass(frozen=True)
class Focal(PixelTerm):
    """Cross-entropy times (1 - p)^gamma: pixels that are already right count less.

    Args:
        gamma: Focusing exponent; 0 is cross-entropy.
        alpha: One factor for all classes, one a class, or factors by class name. Unlike class weights it is not in the
            denominator.
    Reference:
        Lin et al., Focal Loss for Dense Object Detection, 2017, equation 4. https://arxiv.org/abs/1708.02002
    """

    gamma: float = 2.0
    alpha: Tensor | float | None = field(default=None, metadata=BY_CLASS)

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is negative."""
        require_at_least(key, self, ("gamma", "alpha"), 0)

    def weigh(self, image: ImageLabels) -> Tensor:
        """Return class weight times alpha."""
        if self.alpha is None:
            return image.weights
        alpha = self.alpha.to(image.weights)[image.ids] if isinstance(self.alpha, Tensor) else self.alpha
        return image.weights * alpha

    def losses(self, log_target: Tensor) -> Tensor:
        """Return -(1 - p)^gamma log p."""
        # Kept off 0, where autograd has no derivative of a power below 1.
        return -((-log_target.expm1()).clamp(min=1e-30) ** self.gamma) * log_target

    def slopes(self, log_target: Tensor) -> Tensor:
        """Return gamma (1 - p)^(gamma - 1) p log p - (1 - p)^gamma."""
        rest = -log_target.expm1()  # 1 - p
        # The quotient log p / (1 - p) tends to -1 at p = 1, where (1 - p)^(gamma - 1) alone may be infinite.
        quotient = (log_target / rest).nan_to_num(nan=-1.0)
        return rest.clamp(min=0) ** self.gamma * (self.gamma * quotient * log_target.exp() - 1)


@dataclass(frozen=True)
class OhemCrossEntropy(LogLossTerm):
    """Cross-entropy of the hardest pixels of every image (online hard example mining).

    Args:
        share: Share of an image's valid pixels that is kept, the hardest first. The mean is over the kept pixels, whose
            number follows from the labels, so it is exact under accumulation.
        threshold: In place of `share`: keep the pixels whose true class has a probability below it. The mean is over
            the kept pixels of the batch, whose number only the forward pass knows.
        min_kept: With `threshold`: pixels of an image that are kept at least.
        sync: With `threshold`: count the kept pixels of all processes.
    Reference:
        Shrivastava et al., Training Region-based Object Detectors with OHEM, 2016; Wu et al., High-performance Semantic
        Segmentation Using Very Deep FCNs, 2016, section 2.2 (threshold). https://arxiv.org/abs/1604.04339
    """

    selects: ClassVar[bool] = True
    share: float = 0.25
    threshold: float | None = None
    min_kept: int = 1000
    sync: bool = True

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is out of range."""
        if not 0 < self.share <= 1:
            raise InputError(f"{key}.share", found=self.share, allowed="(0, 1]")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(f"{key}.threshold", found=self.threshold, allowed="(0, 1]")
        require_at_least(key, self, ("min_kept",), 1)

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the number of kept pixels where it follows from the labels."""
        if self.threshold is not None:
            return None
        return (batch.valid.flatten(1).sum(1).double() * self.share).ceil().sum()

    def select(self, log_target: Tensor, valid: Tensor) -> Tensor:
        """Return 1 for the pixels that are kept. Waits once for an accelerator: topk wants a number."""
        hardness = torch.where(valid > 0, -log_target, -torch.inf).flatten(1)
        total = valid.flatten(1).sum(1, dtype=torch.float64)
        kept = (total * self.share).ceil() if self.threshold is None else total.clamp(max=self.min_kept)
        chosen = torch.zeros_like(hardness)
        for row, losses, count in zip(chosen, hardness, kept.long().tolist(), strict=True):
            row.scatter_(0, losses.topk(count, sorted=False).indices, 1.0)
        chosen = chosen.view_as(valid)
        if self.threshold is None:
            return chosen
        return torch.maximum(chosen, (log_target < math.log(self.threshold)).to(valid) * valid)

    def divide_kept(self, kept: Tensor, reduction: Reduction) -> Tensor:
        """Return the number of kept pixels, over the factor by which the mean counts."""
        if not self.sync:
            return kept / reduction.value_factor
        return reduction.add_over_processes(kept) / reduction.synced_gradient_factor

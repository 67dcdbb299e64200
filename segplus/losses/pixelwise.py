"""Terms that are a sum of one loss a pixel: cross-entropy and its relatives on the softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from segplus.errors import InputError
from segplus.losses.terms import ImageLabels, LabelBatch, Term


@dataclass(frozen=True)
class PixelTerm(Term):
    """A loss that depends on one pixel's probability of its true class.

    `losses` is the formula; `slopes` is its derivative, which the engine uses in place of autograd.
    """

    needs_all_pixels: ClassVar[bool] = False

    @property
    def smoothing(self) -> float:
        """The share of the target that is spread over all classes."""
        return 0.0

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the sum of the class weights of the pixels that count."""
        return batch.weigh_pixels()

    def weigh(self, image: ImageLabels) -> Tensor:
        """Return the weight of every pixel of one image, 0 where ignored, shape (H, W)."""
        return image.weights

    def losses(self, log_target: Tensor) -> Tensor:
        """Return the loss of every pixel from the log-probability of its true class, any shape."""
        raise NotImplementedError

    def slopes(self, log_target: Tensor) -> Tensor:
        """Return d losses / d log_target."""
        raise NotImplementedError


@dataclass(frozen=True)
class CrossEntropy(PixelTerm):
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

    def check(self) -> None:
        """Raise InputError where the smoothing is outside [0, 1)."""
        if not 0 <= self.label_smoothing < 1:
            raise InputError("losses.cross_entropy.label_smoothing", found=self.label_smoothing, allowed="[0, 1)")

    def losses(self, log_target: Tensor) -> Tensor:
        """Return minus the log-probability."""
        return -log_target

    def slopes(self, log_target: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(log_target)


@dataclass(frozen=True)
class Focal(PixelTerm):
    """Cross-entropy times (1 - p)^gamma: pixels that are already right count less.

    Args:
        gamma: Focusing exponent; 0 is cross-entropy.
    Reference:
        Lin et al., Focal Loss for Dense Object Detection, 2017, equation 4. https://arxiv.org/abs/1708.02002
    """

    gamma: float = 2.0

    def check(self) -> None:
        """Raise InputError where gamma is negative."""
        if self.gamma < 0:
            raise InputError("losses.focal.gamma", found=self.gamma, allowed="0 or more")

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

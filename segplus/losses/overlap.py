"""Terms on overlaps of regions: sums of probabilities by class, and a finish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from segplus.errors import InputError
from segplus.losses.terms import LabelBatch, Term, require_at_least


class Overlaps(NamedTuple):
    """Sums over the valid pixels of images or of a batch, every one of shape (N or 1, C).

    Args:
        hits: Sum of the probability of class c over pixels labelled c.
        areas: Sum of the probability of class c over all pixels.
        squares: Sum of its square.
        counts: Number of pixels labelled c.
    """

    hits: Tensor
    areas: Tensor
    squares: Tensor
    counts: Tensor


@dataclass(frozen=True)
class OverlapTerm(Term):
    """A loss that is a function of `Overlaps`: one `score` a class, averaged over the classes that count.

    Args:
        per_image: Finish every image by itself and average; otherwise the whole batch is one region.
        present_only: Average over the classes that the labels contain; otherwise over all.
        background: Count class 0.
        class_weighted: Average the classes with the class weights.
        sync: Add the sums of all processes before the finish (per batch only; per image needs no exchange).
    """

    per_image: bool = False
    present_only: bool = True
    background: bool = True
    class_weighted: bool = False
    sync: bool = True

    @property
    def needs_squares(self) -> bool:
        """Whether the score reads `squares`."""
        return False

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the number of images that count, where images are finished one by one."""
        return batch.count_images() if self.per_image else None

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is negative."""
        require_at_least(key, self, [name for name in ("smooth", "alpha", "beta") if name in vars(self)], 0)

    def score(self, overlaps: Overlaps) -> Tensor:
        """Return the loss of every class, shape (N or 1, C)."""
        raise NotImplementedError

    def finish(self, overlaps: Overlaps, class_weights: Tensor | None) -> Tensor:
        """Return the loss of every image, or of the batch, shape (N or 1,); 0 where no class counts."""
        weights = torch.ones_like(overlaps.counts)
        if self.class_weighted and class_weights is not None:
            weights = weights * class_weights.to(weights)
        if self.present_only:
            weights = weights * (overlaps.counts > 0)
        weights = weights * (overlaps.counts.sum(1, keepdim=True) > 0)
        if not self.background:
            weights = weights.clone()
            weights[:, 0] = 0
        total = weights.sum(1)
        mean = (self.score(overlaps) * weights).sum(1) / total.where(total > 0, torch.ones_like(total))
        return mean * (total > 0)


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient, 0 where the denominator is 0, with a zero gradient there."""
    empty = denominator <= 0
    return (numerator / denominator.masked_fill(empty, 1)).masked_fill(empty, 0)


@dataclass(frozen=True)
class Dice(OverlapTerm):
    """1 - 2 |p t| / (|p| + |t|), the soft Dice (Sorensen) overlap of every class.

    Args:
        squared: Squares in the denominator (V-Net's form); labels are 0 or 1, so only the probabilities change.
        log: Minus the logarithm of the overlap in place of one minus it.
        smooth: Pixels added to both sides of the fraction; 0 is exact.
    Reference:
        Milletari et al., V-Net, 2016, section 3 (squared); Sudre et al., 2017 (linear).
        https://arxiv.org/abs/1606.04797
    """

    squared: bool = False
    log: bool = False
    smooth: float = 1.0

    @property
    def needs_squares(self) -> bool:
        """Whether the denominator is squared."""
        return self.squared

    def score(self, overlaps: Overlaps) -> Tensor:
        """Return the loss of every class."""
        mass = overlaps.squares if self.squared else overlaps.areas
        overlap = divide(2 * overlaps.hits + self.smooth, mass + overlaps.counts + self.smooth)
        return -overlap.clamp(min=1e-12).log() if self.log else 1 - overlap


@dataclass(frozen=True)
class Jaccard(OverlapTerm):
    """1 - |p t| / (|p| + |t| - |p t|), the soft intersection over union of every class.

    Args:
        log: Minus the logarithm of the overlap in place of one minus it.
        smooth: Pixels added to both sides of the fraction; 0 is exact.
    Reference:
        Rahman and Wang, Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation, 2016,
        equation 3.
    """

    log: bool = False
    smooth: float = 1.0

    def score(self, overlaps: Overlaps) -> Tensor:
        """Return the loss of every class."""
        union = overlaps.areas + overlaps.counts - overlaps.hits
        overlap = divide(overlaps.hits + self.smooth, union + self.smooth)
        return -overlap.clamp(min=1e-12).log() if self.log else 1 - overlap


@dataclass(frozen=True)
class Tversky(OverlapTerm):
    """1 - TP / (TP + alpha FP + beta FN): Dice with a price for each type of error.

    Prices of 0.5 and 0.5 are Dice, 1 and 1 Jaccard.

    Args:
        alpha: Price of false positives.
        beta: Price of false negatives; above alpha it favours recall.
        smooth: Pixels added to both sides of the fraction; 0 is exact.
    Reference:
        Salehi et al., Tversky Loss Function for Image Segmentation, 2017, equation 3. https://arxiv.org/abs/1706.05721
    """

    alpha: float = 0.3
    beta: float = 0.7
    smooth: float = 1.0

    def score(self, overlaps: Overlaps) -> Tensor:
        """Return the loss of every class."""
        false_positives, false_negatives = overlaps.areas - overlaps.hits, overlaps.counts - overlaps.hits
        errors = self.alpha * false_positives + self.beta * false_negatives
        return 1 - divide(overlaps.hits + self.smooth, overlaps.hits + errors + self.smooth)


@dataclass(frozen=True)
class FocalTversky(Tversky):
    """The Tversky loss of every class to the power 1 / gamma: classes that are already right count less.

    Args:
        gamma: The root; 1 is Tversky, the paper uses 4 / 3.
    Reference:
        Abraham and Khan, A Novel Focal Tversky Loss Function, 2018, equation 4, where alpha and beta are swapped.
        https://arxiv.org/abs/1810.07842
    """

    gamma: float = 4 / 3

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is out of range."""
        super().check(key)
        if self.gamma <= 0:
            raise InputError(f"{key}.gamma", found=self.gamma, allowed="above 0")

    def score(self, overlaps: Overlaps) -> Tensor:
        """Return the loss of every class."""
        # Kept off 0, where the root has no derivative.
        return super().score(overlaps).clamp(min=1e-7) ** (1 / self.gamma)

"""Class weights: the pixels of each class, turned into weights by a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segplus.errors import InputError, suggest

Counts = npt.NDArray[np.int64]


def weigh_inverse(counts: Counts) -> npt.NDArray[np.float64]:
    """Return 1 / p, p the share of the class's pixels."""
    return _invert(counts[0] / max(counts[0].sum(), 1))


def weigh_median(counts: Counts) -> npt.NDArray[np.float64]:
    """Return median frequency over frequency, a frequency being pixels over the pixels of images that have the class.

    Reference:
        Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels, 2015, section 6.3.2.
        https://arxiv.org/abs/1411.4734
    """
    frequencies = counts[0] / np.maximum(counts[1], 1)
    present = frequencies[counts[0] > 0]
    return _invert(frequencies) * (np.median(present) if len(present) else 0.0)


def weigh_effective(counts: Counts, beta: float = 0.9999) -> npt.NDArray[np.float64]:
    """Return (1 - beta) / (1 - beta^n), n the class's pixels in thousands: the inverse effective number of samples.

    Neighbouring pixels say nearly the same, so a thousand of them are one sample; with single pixels every beta that is
    usual gives equal weights.

    Reference:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019, proposition 1 and section
        4. https://arxiv.org/abs/1901.05555
    """
    effective = -np.expm1(counts[0] / 1000 * np.log(beta)) / (1 - beta)
    return _invert(np.asarray(effective, dtype=np.float64))


def weigh_enet(counts: Counts) -> npt.NDArray[np.float64]:
    """Return 1 / ln(1.02 + p), between 1.42 and 50.5.

    Reference:
        Paszke et al., ENet, 2016, section 5. https://arxiv.org/abs/1606.02147
    """
    return _invert(np.log(1.02 + counts[0] / max(counts[0].sum(), 1)))


Formula = Callable[[Counts], npt.NDArray[np.float64]]
FORMULAS: dict[str, Formula] = {
    "effective_number": weigh_effective,
    "enet": weigh_enet,
    "inverse_frequency": weigh_inverse,
    "median_frequency": weigh_median,
}


def find_formula(name: str) -> Formula:
    """Return the formula of that name.

    Raises:
        InputError: If there is none.
    """
    if name not in FORMULAS:
        raise InputError("class_weights: no such formula", found=name, fix=suggest(name, FORMULAS))
    return FORMULAS[name]


def compute_class_weights(counts: Counts, formula: str) -> Tensor:
    """Return one weight a class, averaging 1 over the classes that occur; 1 for a class without a pixel.

    Args:
        counts: From `SplitStatistics.class_pixels`, shape (2, C).
        formula: A name of `FORMULAS`.
    Returns:
        Float32, shape (C,).
    Raises:
        InputError: If there is no such formula.
    """
    weigh = find_formula(formula)
    present = counts[0] > 0
    weights = weigh(counts)
    if present.any():
        weights = weights / weights[present].mean()
    return torch.tensor(np.where(present, weights, 1.0), dtype=torch.float32)


def choose_class_weights(
    given: str | Mapping[str, float] | Sequence[float] | None, counts: Callable[[], Counts]
) -> Tensor | Mapping[str, float] | Sequence[float] | None:
    """Return what `build_criterion` takes: a formula's name is computed, anything else passes.

    Args:
        given: What the recipe says.
        counts: Called where a formula needs the counts.
    """
    if not isinstance(given, str):
        return given
    find_formula(given)  # before the masks are counted
    return compute_class_weights(counts(), given)


def _invert(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.divide(1.0, values, out=np.zeros_like(values, dtype=np.float64), where=values > 0)

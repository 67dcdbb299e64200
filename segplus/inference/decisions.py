"""From probabilities to class ids: the most probable class, or thresholds by class, and what is left uncertain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segplus.recipe.postprocess_section import DecisionRecipe


def choose_classes(probabilities: Tensor, thresholds: Tensor | None) -> Tensor:
    """Return the class of every pixel.

    A class with a threshold is a pixel's where its probability reaches it; of several such the one with the greatest
    ratio to its threshold wins. Where none does, it is the most probable class of those without a threshold, or, where
    all have one, the one with the greatest ratio.

    Args:
        probabilities: Float, shape (..., C).
        thresholds: Shape (C,), NaN for a class without one; None gives the most probable class.
    Returns:
        Class ids, int64, shape (...); of equal ones the lowest.
    """
    if thresholds is None:
        return probabilities.argmax(-1)
    limited = ~thresholds.isnan()
    ratios = torch.where(limited, probabilities / thresholds, -torch.inf)
    best, chosen = ratios.max(-1)
    if limited.all():
        return chosen
    others = torch.where(limited, -torch.inf, probabilities).argmax(-1)
    return torch.where(best >= 1, chosen, others)


def build_thresholds(recipe: DecisionRecipe, class_names: Sequence[str]) -> Tensor | None:
    """Return the thresholds as `choose_classes` takes them.

    Raises:
        InputError: If a class does not exist.
    """
    recipe.check_classes(class_names)
    if not recipe.thresholds:
        return None
    return torch.tensor([recipe.thresholds.get(name, torch.nan) for name in class_names], dtype=torch.float32)

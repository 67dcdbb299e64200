"""From probabilities to class ids: the most probable class, or thresholds by class, and what is left uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segplus.classes import find_backgrounds
from segplus.recipe.postprocess_section import DecisionRecipe


@dataclass(frozen=True)
class ClassRule:
    """Thresholds by class, and the class of pixels whose own does not reach its threshold.

    Args:
        thresholds: Float32, shape (C,), NaN for a class without one.
        fallback: A class id; None leaves such pixels to the other classes.
    """

    thresholds: Tensor
    fallback: int | None = None

    @property
    def is_argmax(self) -> bool:
        """Whether every pixel gets the most probable class."""
        return bool(self.thresholds.isnan().all())

    def choose_fallback(self) -> int | None:
        """Return the fallback where it can be one: a class that has a threshold of its own cannot."""
        if self.fallback is None or not bool(self.thresholds[self.fallback].isnan()):
            return None
        return self.fallback


def choose_classes(probabilities: Tensor, rule: ClassRule) -> Tensor:
    """Return the class of every pixel.

    A class with a threshold is a pixel's where its probability reaches it; of several such the one with the greatest
    ratio to its threshold wins. Where none does, it is the most probable class, if that has no threshold. If it has
    one, and so is below it, the pixel gets the fallback; without a fallback, the most probable class of those without
    a threshold, or, where all have one, the class with the greatest ratio.

    Args:
        probabilities: Float, shape (..., C).
        rule: On any device.
    Returns:
        Class ids, int64, shape (...); of equal ones the lowest.
    """
    most = probabilities.argmax(-1)
    if rule.is_argmax:
        return most
    thresholds, fallback = rule.thresholds.to(probabilities.device), rule.choose_fallback()
    limited = ~thresholds.isnan()
    best, chosen = torch.where(limited, probabilities / thresholds, -torch.inf).max(-1)
    if fallback is not None:
        others = torch.where(limited[most], fallback, most)
    elif not rule.thresholds.isnan().any():
        return chosen
    else:
        others = torch.where(limited, -torch.inf, probabilities).argmax(-1)
    return torch.where(best >= 1, chosen, others)


def build_rule(recipe: DecisionRecipe, class_names: Sequence[str]) -> ClassRule:
    """Return the rule of a decision; its fallback, where none is named, is the one class that is called background.

    Raises:
        InputError: If a class does not exist.
    """
    recipe.check_classes(class_names)
    thresholds = [recipe.thresholds.get(name, torch.nan) for name in class_names]
    backgrounds = find_backgrounds(class_names)
    fallback = backgrounds[0] if len(backgrounds) == 1 else None
    if recipe.fallback is not None:
        fallback = list(class_names).index(recipe.fallback)
    return ClassRule(torch.tensor(thresholds, dtype=torch.float32), fallback)

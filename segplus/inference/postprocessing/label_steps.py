"""The steps of a recipe's `postprocess:` section that change a label map, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.inference.postprocessing.components import fill_holes, keep_largest, remove_by_area
from segplus.inference.postprocessing.outlines import close_class, open_class, take_majority
from segplus.recipe.postprocess_section import BY_CLASS, PostprocessRecipe

Labels = npt.NDArray[Any]


def has_label_steps(recipe: PostprocessRecipe) -> bool:
    """Return whether any step changes a label map; the others change probabilities."""
    return bool(recipe.majority_px) or any(vars(recipe)[key] for key in BY_CLASS)


def apply_label_steps(labels: Labels, recipe: PostprocessRecipe, class_names: Sequence[str]) -> Labels:
    """Return a label map after every step of a recipe, in the order of its keys, each for the classes in their order.

    Args:
        labels: Class ids, shape (H, W); ids from the number of classes on are no class, and keep their pixels.
        recipe: The steps.
        class_names: Position is the class id.
    """
    count, before = len(class_names), labels
    if recipe.majority_px:
        labels = take_majority(labels, recipe.majority_px, count)
    for class_id, radius_px in _list_values(recipe.open_px, class_names):
        labels = open_class(labels, class_id, int(radius_px), count)
    for class_id, radius_px in _list_values(recipe.close_px, class_names):
        labels = close_class(labels, class_id, int(radius_px))
    for class_id, most_px in _list_values(recipe.fill_holes_below_px, class_names):
        labels = fill_holes(labels, class_id, most_px)
    labels = _remove_by_area(labels, recipe, class_names)
    for class_id, kept in _list_values(recipe.keep_largest, class_names):
        labels = keep_largest(labels, class_id, count, int(kept))
    for class_id, distance_px in _list_values(recipe.split_touching_px, class_names):
        from segplus.inference.postprocessing.touching import split_touching  # half a second that few need

        labels = split_touching(labels, class_id, int(distance_px), count)
    return np.where(before >= count, before, labels) if labels is not before else labels


def _remove_by_area(labels: Labels, recipe: PostprocessRecipe, class_names: Sequence[str]) -> Labels:
    count = len(class_names)
    pixel_mm2 = (recipe.pixel_size_mm or 1.0) ** 2
    for class_id, least_px in _list_values(recipe.remove_below_px, class_names):
        labels = remove_by_area(labels, class_id, count, least_px=least_px)
    for class_id, most_px in _list_values(recipe.remove_above_px, class_names):
        labels = remove_by_area(labels, class_id, count, most_px=most_px)
    for class_id, least_mm2 in _list_values(recipe.remove_below_mm2, class_names):
        labels = remove_by_area(labels, class_id, count, least_px=least_mm2 / pixel_mm2)
    for class_id, most_mm2 in _list_values(recipe.remove_above_mm2, class_names):
        labels = remove_by_area(labels, class_id, count, most_px=most_mm2 / pixel_mm2)
    return labels


def _list_values(
    values: dict[str, int] | dict[str, float] | float, class_names: Sequence[str]
) -> Iterator[tuple[int, float]]:
    """Yield (class id, value) of the classes that have one; a single number is every class's."""
    for class_id, name in enumerate(class_names):
        value = values.get(name, 0) if isinstance(values, dict) else values
        if value:
            yield class_id, value

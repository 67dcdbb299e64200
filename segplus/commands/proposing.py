"""An inspection with the checks that training makes before its first step, on the data and on the recipe."""

from __future__ import annotations

import yaml

from segplus.data.checking import check_splits
from segplus.data.loading import load_segmentation_dataset, require_splits
from segplus.errors import InputError
from segplus.inspection import Audit, inspect_dataset
from segplus.inspection.findings import Finding, describe_mistake
from segplus.recipe import Recipe
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.strict import build_dataclass


def audit_for_training(section: DataRecipe) -> Audit:
    """Return what a data set holds, and the recipe that fits only if training with it passes every check.

    Args:
        section: The recipe's data section.
    Raises:
        InputError: If the section has an unknown key or value.
    """
    audit = inspect_dataset(section)
    report = audit.report
    if audit.data is not None:
        try:
            require_splits(audit.data, section.channels)
        except InputError as error:
            report["findings"].insert(
                0, Finding("error", "no split", describe_mistake(error), fix=error.fix).describe()
            )
    problem = check_proposal(report["recipe"]) if "recipe" in report else None
    if problem is not None:
        for key in ("recipe", "reasons", "question"):
            del report[key]
        message = f"no recipe is proposed: {describe_mistake(problem)}"
        report["findings"].append(Finding("note", "no recipe", message, fix=problem.fix).describe())
    return audit


def check_proposal(text: str) -> InputError | None:
    """Return what training with a recipe would refuse before its first step, None where it would begin."""
    try:
        recipe = build_dataclass(Recipe, yaml.safe_load(text), "", "the proposed recipe")
        data = load_segmentation_dataset(recipe.data)
        require_splits(data, recipe.data.channels)
        check_splits(data.splits, warn=False)  # they are findings
    except InputError as error:
        return error
    return None

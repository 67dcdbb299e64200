"""An inspection with the checks that training makes before its first step, on the data and on the recipe."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from segplus.data.checking import check_splits
from segplus.data.loading import load_segmentation_dataset, require_splits
from segplus.errors import InputError
from segplus.inspection import Audit, inspect_dataset
from segplus.inspection.findings import LEVELS, Finding, describe_mistake
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
            report["findings"].insert(0, asdict(Finding("error", "no split", describe_mistake(error), fix=error.fix)))
    problem = check_proposal(report["recipe"]) if "recipe" in report else None
    if problem is not None:
        for key in ("recipe", "reasons", "question"):
            del report[key]
        message = f"no recipe is proposed: {describe_mistake(problem)}"
        report["findings"].append(asdict(Finding("note", "no recipe", message, fix=problem.fix)))
    if "recipe" in report:
        settle_findings(report)
    return audit


def settle_findings(report: dict[str, Any]) -> None:
    """Lower the level of what the proposed recipe mends: to a question where it has stand-ins, else to a note.

    Class names that the recipe takes from a file are not missing.
    """
    data = yaml.safe_load(report["recipe"])["data"]
    mended = {
        "no class names": True,
        "class named like void": True,
        "lossy mask": data.get("encoding") == "binary" or data.get("color_tolerance", 0) > 0,
        "sequences across splits": "group_pattern" in data,
        "other channels": "channels" in data,
    }
    if not report["question"]:  # the names lie in a file that the recipe takes
        report["findings"] = [one for one in report["findings"] if one["kind"] != "no class names"]
    for finding in report["findings"]:
        if mended.get(finding["kind"], False):
            is_open = finding["kind"] == "no class names"
            finding["level"] = "question" if is_open else "note"
            finding["fix"] = "put your names in place of those of the recipe" if is_open else "the recipe below does it"
    report["findings"].sort(key=lambda finding: LEVELS.index(finding["level"]))


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

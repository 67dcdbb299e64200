"""A first recipe for a data set: the lines that inspect proposes, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from segplus.commands.chosen_sections import read_sections
from segplus.commands.proposing import audit_for_training
from segplus.errors import InputError
from segplus.files import write_text
from segplus.recipe.data_section import DataRecipe


def write_new_recipe(section: DataRecipe, output: Path) -> list[str]:
    """Write the recipe that fits a data set, and return what breaks training, one line a finding.

    Args:
        section: The recipe's data section; `{"dataset": DATA}` for a bare folder, file or Hub id.
        output: The file; never one that is there.
    Raises:
        InputError: If the file is there, or the data cannot be read.
    """
    if output.exists():
        raise InputError(f"{output}: is there already", fix="name another file: --output other.yaml, or remove it")
    report = audit_for_training(section).report
    errors = [finding for finding in report["findings"] if finding["level"] == "error"]
    lines = [f"{finding['kind']}: {finding['message']}" for finding in errors]
    if "recipe" not in report:
        raise InputError(f"{section.dataset}: no recipe can be proposed", found="; ".join(lines) or "no training pair")
    write_text(output, report["recipe"])
    return lines


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Write a recipe; 1 when something would break training."""
    section, _ = read_sections("new", options.data, None, None, None, rest)
    breaking = write_new_recipe(section, Path(options.output))
    for line in breaking:
        print(f"breaks training: {line}")
    print(f"written: {options.output}; look it over, then: segplus train {options.output}")
    return int(bool(breaking))

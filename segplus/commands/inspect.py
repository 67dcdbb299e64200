"""The work of `segplus inspect`: read, print, write the page, and say by exit code whether training would break."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from segplus.commands.chosen_sections import read_sections
from segplus.commands.proposing import audit_for_training
from segplus.data.loading import build_section
from segplus.errors import InputError
from segplus.files import prepare_folder
from segplus.inspection.audit_page import write_page
from segplus.inspection.audit_text import render_text
from segplus.recipe.data_section import DataRecipe


def inspect(
    section: DataRecipe | Mapping[str, Any],
    *,
    as_json: bool = False,
    page: Path | None = None,
    output: TextIO | None = None,
) -> int:
    """Print what a data set holds, and return 1 when something would break training, otherwise 0.

    Args:
        section: The recipe's data section; `{"dataset": DATA}` for a bare folder, file or Hub id.
        as_json: Print JSON for programs instead of text for people.
        page: HTML file to write as well.
        output: Where to print; standard output by default.
    Raises:
        InputError: If the section has an unknown key or value, or the page is no HTML file or cannot be written.
    """
    if page is not None:
        if page.suffix.lower() not in (".html", ".htm"):  # so that no table or image is written over
            raise InputError(f"--page {page}: not the name of a page", allowed="*.html, *.htm")
        prepare_folder(page.parent)
    audit = audit_for_training(build_section(section))
    text = json.dumps(audit.report, indent=1, ensure_ascii=False) + "\n" if as_json else render_text(audit.report)
    (output or sys.stdout).write(text)
    if page is not None:
        write_page(audit, page)
    return audit.exit_code


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print what a data set holds; 1 when something would break training."""
    section, _ = read_sections("inspect", options.data, options.recipe, None, None, rest)
    return inspect(section, as_json=options.json, page=options.page)

"""`segplus_decision.json`: how a checkpoint's probabilities become a label map, stored beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from segplus.errors import InputError
from segplus.files import explain_refusals, write_text
from segplus.recipe import build_dataclass
from segplus.recipe.postprocess_section import DecisionRecipe

DECISION_FILE = "segplus_decision.json"
Changes = Mapping[str, Any]  # as the file holds it: what it names replaces what was chosen before


def find_decision(source: str, revision: str | None = None) -> DecisionRecipe:
    """Return the decision that lies beside a checkpoint; the most probable class where there is none.

    Args:
        source: Folder or Hub id.
        revision: Commit of a model of the Hub.
    Raises:
        InputError: If the file is damaged, or says what cannot be.
    """
    if Path(source).is_dir():
        path = Path(source) / DECISION_FILE
        return read_decision(path) if path.is_file() else DecisionRecipe()
    found = cached_file(
        source,
        DECISION_FILE,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return DecisionRecipe() if found is None else read_decision(Path(found))


def read_decision(path: Path) -> DecisionRecipe:
    """Return the decision of a file.

    Raises:
        InputError: If there is no such file, it is damaged, or it says what cannot be.
    """
    with explain_refusals(path):
        content = path.read_bytes()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: damaged", found=str(error)[:200], fix="remove it, or run segplus thresholds"
        ) from None
    return build_dataclass(DecisionRecipe, values, "", str(path))


def write_decision(path: Path, decision: DecisionRecipe) -> None:
    """Write a decision, whole or not at all."""
    write_text(path, json.dumps(decision.list_chosen(), indent=2, ensure_ascii=False) + "\n")


def change_decision(decision: DecisionRecipe, changes: Changes) -> DecisionRecipe:
    """Return a decision with some of its values replaced, class by class and key by key.

    Raises:
        InputError: If a key or a value is not one.
    """
    if not changes:
        return decision
    merged = _merge(decision.list_chosen(), changes)
    if {"thresholds", "fallback"} & changes.keys():
        merged.pop("chosen_on", None)  # they are no longer the chosen ones
    return build_dataclass(DecisionRecipe, merged, "", "command line")


def _merge(values: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = _merge(before, value) if isinstance(before, dict) and isinstance(value, Mapping) else value
    return merged

"""How probabilities become a label map, as a verb's command line says."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segplus.commands.options import VERBS
from segplus.errors import InputError
from segplus.inference.decision_file import Changes, change_decision, read_decision
from segplus.recipe import DecisionRecipe, load_postprocess

_PIXEL_UNITS_MM = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}


def read_chosen_decision(
    options: argparse.Namespace, rest: Sequence[str], recipe: str | None = None
) -> DecisionRecipe | Changes:
    """Return the decision that a command line names, or what it changes of the one stored with the checkpoint.

    Args:
        options: thresholds, fallback, uncertain_below and decision of `options`; pixel_size where there is.
        rest: Keys of the `postprocess` section, among others.
        recipe: A recipe that the command line names, whose `postprocess` section counts over what is stored.
    Raises:
        InputError: If a value cannot be read.
    """
    changes: dict[str, Any] = {}
    postprocess = load_postprocess(recipe, rest, VERBS[options.verb].sections)
    size = vars(options).get("pixel_size")
    if size not in (None, "file"):
        postprocess["pixel_size_mm"] = parse_pixel_size(size)
    if postprocess:
        changes["postprocess"] = postprocess
    if options.threshold:
        changes["thresholds"] = dict(map(_parse_threshold, options.threshold))
    if options.fallback is not None:
        changes["fallback"] = options.fallback
    if options.uncertain_below is not None:
        changes["uncertain_below"] = options.uncertain_below
    if options.decision is None:
        return changes
    base = DecisionRecipe() if options.decision == "none" else read_decision(Path(options.decision))
    return change_decision(base, changes)


def name_recipe(data: str | None, recipe: str | None) -> str | None:
    """Return the recipe that a command line names as such or as its data; None where it names none."""
    return data if data is not None and data.endswith((".yaml", ".yml")) else recipe


def parse_pixel_size(text: str) -> float:
    """Return the millimetres of a length such as 0.05mm or 3um.

    Raises:
        InputError: If it is none.
    """
    number = text.rstrip("nuµmc ")
    unit = text[len(number) :].strip()
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < 2**53 or unit not in _PIXEL_UNITS_MM:
        raise InputError(
            "--pixel-size: not a length",
            found=text,
            allowed=f"a number and one of {', '.join(_PIXEL_UNITS_MM)}: 0.05mm",
        )
    return value * _PIXEL_UNITS_MM[unit]


def _parse_threshold(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        return name, float(number)
    except ValueError:
        raise InputError("--threshold", found=text, allowed="CLASS=PROBABILITY, such as crack=0.3") from None

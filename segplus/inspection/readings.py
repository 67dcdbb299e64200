"""How the masks of a data set are read: as the recipe says, or as one guess with its reason says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from segplus.data.layouts.names import find_all_legends, find_names
from segplus.data.layouts.source import Source
from segplus.data.loading import SegmentationData, assemble
from segplus.errors import InputError
from segplus.inspection.guesses import GROUND, THING, Guess, guess_meaning
from segplus.inspection.surveys import survey_masks
from segplus.recipe.data_section import DataRecipe

# What a guess answers anew; everything else of a data section stays.
_ANSWERED: dict[str, Any] = {
    "classes": None,
    "colors": None,
    "encoding": "auto",
    "threshold": None,
    "color_tolerance": 0,
    "mask_channel": None,
    "reduce_labels": False,
}


@dataclass(frozen=True)
class Reading:
    """An opened data set.

    Args:
        data: The splits.
        section: The data section that reads them; of a guess, the recipe's own with other answers.
        guess: What was guessed, None where everything is as the recipe says.
    """

    data: SegmentationData
    section: DataRecipe
    guess: Guess | None = None


def guess_reading(source: Source, section: DataRecipe, progress: bool) -> Reading | None:
    """Return the data as a guess at their masks reads them, None where there is nothing to guess from.

    Raises:
        InputError: If no mask can be read, or the guess reads none.
    """
    stated = read_stated_names(source, section)
    if not stated and section.encoding == "binary":
        names = [section.unmasked or GROUND, THING]
        guess: Guess | None = Guess({"classes": names}, "data.encoding: binary", "what are the two classes called?")
        return Reading(assemble(source, replace(section, classes=names)), replace(section, classes=names), guess)
    survey = survey_masks(source, int(section.max_image_megapixels * 1e6), progress)
    if survey is None:
        return None
    guess = guess_meaning(survey, find_all_legends(source), stated)
    if guess is None:
        raise InputError(
            "masks whose values mean neither classes, nor colours of a few classes, nor two classes",
            found=f"{len(survey.values) + len(survey.colors)} values"
            + (f"; {survey.damaged.what}" if survey.damaged else ""),
            fix="set data.encoding, see docs/data.md",
        )
    keys = _name_first(guess.keys, section.unmasked)
    classes, colors = keys.get("classes", []), keys.get("colors", [])
    known = {*(classes.values() if isinstance(classes, dict) else classes), *colors}
    void = [entry for entry in section.void if type(entry) is int or entry in known]
    merge = section.merge if {name for group in section.merge.values() for name in group} <= known else {}
    read = replace(section, **{**_ANSWERED, "void": void, "merge": merge, **keys})
    return Reading(assemble(source, read), read, guess)


def _name_first(keys: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Return the keys of a guess with this name, where there is one, in place of those that stand in for background."""
    found, stand_ins = dict(keys), {one: name or one for one in (GROUND, "value 0", "color 000000")}
    for key, named in keys.items():
        if key == "classes" and isinstance(named, list):
            found[key] = [stand_ins.get(one, one) for one in named]
        elif key == "classes" and isinstance(named, dict):
            found[key] = {value: stand_ins.get(one, one) for value, one in named.items()}
        elif key == "colors" and isinstance(named, dict):
            found[key] = {stand_ins.get(one, one): color for one, color in named.items()}
    return found


def read_stated_names(source: Source, section: DataRecipe) -> Mapping[int, str]:
    """Return value -> name, as the recipe or the data state them; nothing where they do not."""
    if section.classes is None and (source.presumed or section.colors is not None):
        return {}
    try:
        return find_names(section, source, {})[1]
    except InputError:
        return {}

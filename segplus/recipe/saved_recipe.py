"""A recipe as a file that repeats the run: the lines that differ from the defaults first, then the defaults."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from segplus.files import write_text
from segplus.recipe.sections import Recipe
from segplus.recipe.training_section import check_training


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write the merged recipe, every default included, whole or not at all."""
    write_text(path, format_recipe(recipe))


def format_recipe(recipe: Recipe) -> str:
    """Return the merged recipe as YAML; in each section the chosen lines come first, the defaults under a comment."""
    return _lay_out(_to_plain(dataclasses.asdict(recipe)), list_chosen(recipe))


def format_chosen(recipe: Recipe) -> str:
    """Return the lines of a recipe that are no default, as YAML; they repeat the run as the whole recipe does."""
    return _dump(list_chosen(recipe))


def list_chosen(recipe: Recipe) -> dict[str, Any]:
    """Return the keys of a recipe that are not what they would be if they were left out, as nested mappings."""
    chosen = _list_changed(recipe)
    training = dict(recipe.training)
    # The direction follows from the metric, and is refused beside another one.
    for key in sorted(recipe.training, key=lambda one: one != "greater_is_better"):
        others = {other: value for other, value in training.items() if other != key}
        if check_training(others, "", "") == recipe.training:
            training = others
    if training:
        chosen["training"] = _to_plain(training)
    return {field.name: chosen[field.name] for field in dataclasses.fields(recipe) if field.name in chosen}


def _list_changed(section: Any) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = vars(section)[field.name]
        if dataclasses.is_dataclass(value):
            inner = _list_changed(value)
            if inner or field.default_factory is dataclasses.MISSING:
                changed[field.name] = inner
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != default:
            changed[field.name] = _to_plain(value)
    return changed


def _lay_out(whole: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    text = ""
    for key, part in chosen.items():
        if isinstance(part, dict) and part != whole[key]:
            text += f"{key}:\n{textwrap.indent(_lay_out(whole[key], part), '  ')}"
        else:
            text += _dump({key: whole[key]})
    rest = {key: value for key, value in whole.items() if key not in chosen}
    return text + (f"# defaults\n{_dump(rest)}" if rest else "")


def _dump(values: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(entry) for key, entry in value.items()}
    return [_to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value

"""From a YAML file and a command line to a Recipe."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.documents import read_document
from segplus.recipe.evaluation_section import EvaluationRecipe
from segplus.recipe.keys import list_training_hints, parse_keys, set_dotted
from segplus.recipe.paths import place_fold
from segplus.recipe.postprocess_section import PostprocessRecipe
from segplus.recipe.sections import Recipe
from segplus.recipe.strict import build_dataclass
from segplus.recipe.tokens import refuse_tokens
from segplus.recipe.training_section import check_training


def load_recipe(path: str | os.PathLike[str], arguments: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file, with the command line's values over the file's.

    With `data.folds`, `training.output_dir` becomes the fold's own folder inside it: runs/name/fold-2.

    Args:
        path: The YAML file.
        arguments: `--key value` or `--key=value`; keys are dotted (`--training.learning_rate 1e-4`) or, where only one
            section has the key, bare (`--learning_rate 1e-4`).

    Raises:
        InputError: If the file cannot be read, a key is unknown or a value has the wrong type.
    """
    file = str(path)
    values = _read_yaml(Path(path))
    for key, value in parse_keys(arguments):
        set_dotted(values, key, value)
    refuse_tokens(values, "", file)
    values["training"] = check_training(values.get("training") or {}, Path(path).stem, file)
    recipe = build_dataclass(Recipe, values, "", file)
    if recipe.data.folds:
        folder = place_fold(recipe.training["output_dir"], recipe.data.fold)
        return dataclasses.replace(recipe, training=recipe.training | {"output_dir": folder})
    return recipe


def load_sections(
    path: str | os.PathLike[str] | None,
    arguments: Sequence[str] = (),
    dataset: str | None = None,
    sections: Sequence[str] = ("data", "evaluation"),
) -> tuple[DataRecipe, EvaluationRecipe]:
    """Return the data and the evaluation section alone: what a verb other than training needs.

    Args:
        path: A recipe; None for the defaults.
        arguments: `--key value` of these two sections, over the file's.
        dataset: Replaces the file's `data.dataset`.
        sections: Those that the command reads, or parts of them: a key outside them is refused.
    Raises:
        InputError: If the file cannot be read, a key of any section is unknown, a value has the wrong type, or nothing
            says where the data lie.
    """
    file = "command line" if path is None else str(path)
    values = {} if path is None else _read_yaml(Path(path))
    refuse_tokens(values, "", file)
    _refuse_unknown_keys(values, file)
    for key, value in parse_keys(arguments, sections):
        set_dotted(values, key, value)
    if dataset is not None:
        set_dotted(values, "data.dataset", dataset)
    if path is not None and "data" not in values:
        raise InputError(f"{file}: key 'data' is missing", fix="add it: data: ...")
    data = build_dataclass(DataRecipe, values.get("data", {}), "data", file)
    return data, build_dataclass(EvaluationRecipe, values.get("evaluation", {}), "evaluation", file)


def load_postprocess(
    path: str | os.PathLike[str] | None, arguments: Sequence[str] = (), sections: Sequence[str] = ("",)
) -> dict[str, Any]:
    """Return the lines of a recipe's `postprocess` section, those of the command line over them, to be checked.

    Args:
        path: A recipe; None for the command line alone.
        arguments: `--key value`.
        sections: Those that the command reads.
    Raises:
        InputError: If the file cannot be read, or a key of the command line is unknown.
    """
    values = {} if path is None else {"postprocess": _read_yaml(Path(path)).get("postprocess") or {}}
    for key, value in parse_keys(arguments, sections):
        if key.split(".")[0] == "postprocess":
            set_dotted(values, key, value)
    file = "command line" if path is None else str(path)
    refuse_tokens(values, "", file)
    section = values.get("postprocess", {})
    build_dataclass(PostprocessRecipe, section, "postprocess", file)
    return dict(section)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not os.path.exists(path):
        raise InputError(f"recipe {path}: no such file", fix="check the path")
    values = read_document(path, f"recipe {path}")
    if not isinstance(values, dict):
        raise InputError(f"recipe {path}: not a recipe", found=type(values).__name__, allowed="key: value lines")
    return values


def _refuse_unknown_keys(values: dict[str, Any], file: str) -> None:
    """Refuse what is no section of a recipe, and what is no key of one; values are checked where they are used."""
    hints = typing.get_type_hints(Recipe)
    for name, content in values.items():
        if name not in hints:
            raise InputError(f"{file}: unknown key '{name}'", fix=suggest(str(name), hints))
        if name != "training" and not dataclasses.is_dataclass(hints[name]):
            continue
        keys = list_training_hints() if name == "training" else typing.get_type_hints(hints[name])
        if not isinstance(content, dict):
            raise InputError(f"{file}: {name} is not a section", found=repr(content), allowed="key: value lines")
        for key in content:
            if key not in keys:
                raise InputError(f"{file}: unknown key '{name}.{key}'", fix=suggest(str(key), keys))

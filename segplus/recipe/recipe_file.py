"""From a YAML file and a command line to a Recipe, and back to a file that repeats the run."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from segplus.errors import InputError, suggest
from segplus.files import write_whole
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.documents import DocumentError, parse_document, read_document
from segplus.recipe.evaluation_section import EvaluationRecipe
from segplus.recipe.paths import place_fold
from segplus.recipe.sections import Recipe
from segplus.recipe.strict import build_dataclass
from segplus.recipe.training_section import check_training, list_training_hints


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
    values, known = _read_yaml(Path(path)), _list_keys()
    for key, value in _parse_arguments(arguments, known):
        _set_dotted(values, key, value)
    values["training"] = check_training(values.get("training") or {}, Path(path).stem, file)
    recipe = build_dataclass(Recipe, values, "", file)
    if recipe.data.folds:
        folder = place_fold(recipe.training["output_dir"], recipe.data.fold)
        return dataclasses.replace(recipe, training=recipe.training | {"output_dir": folder})
    return recipe


def load_sections(
    path: str | os.PathLike[str] | None, arguments: Sequence[str] = (), dataset: str | None = None
) -> tuple[DataRecipe, EvaluationRecipe]:
    """Return the data and the evaluation section alone: what a verb other than training needs.

    Args:
        path: A recipe; None for the defaults.
        arguments: `--key value` of these two sections, over the file's.
        dataset: Replaces the file's `data.dataset`.
    Raises:
        InputError: If the file cannot be read, a key of any section is unknown, a value has the wrong type, or nothing
            says where the data lie.
    """
    file = "command line" if path is None else str(path)
    values = {} if path is None else _read_yaml(Path(path))
    _refuse_unknown_keys(values, file)
    known = [key for key in _list_keys() if key.split(".")[0] in ("data", "evaluation")]
    for key, value in _parse_arguments(arguments, known):
        _set_dotted(values, key, value)
    if dataset is not None:
        _set_dotted(values, "data.dataset", dataset)
    if path is not None and "data" not in values:
        raise InputError(f"{file}: key 'data' is missing", fix="add it: data: ...")
    data = build_dataclass(DataRecipe, values.get("data", {}), "data", file)
    return data, build_dataclass(EvaluationRecipe, values.get("evaluation", {}), "evaluation", file)


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write the merged recipe, every default included, whole or not at all."""
    with write_whole(Path(path)) as temporary:
        temporary.write_text(format_recipe(recipe), encoding="utf-8")


def format_recipe(recipe: Recipe) -> str:
    """Return the merged recipe as YAML, every default included."""
    return yaml.safe_dump(_to_plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(entry) for key, entry in value.items()}
    return [_to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = sorted(str(p) for p in Path("configs").rglob("*.yaml")) if Path("configs").is_dir() else []
        raise InputError(f"recipe {path}: no such file", fix=suggest(str(path), nearby) if nearby else "check the path")
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


def _parse_arguments(arguments: Sequence[str], known: Sequence[str]) -> list[tuple[str, Any]]:
    """Return dotted keys with their values, in order."""
    pairs: list[tuple[str, Any]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"command line: '{word}' is not a key", allowed="--key value")
        name, equals, text = word[2:].partition("=")
        key = _find_key(name, known)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"command line: --{name} has no value", allowed=f"--{name} value")
            text = rest.pop(0)
        try:
            pairs.append((key, parse_document(text)))
        except DocumentError:
            # Patterns such as *.png or [a-z]+ mean something else in YAML.
            pairs.append((key, text))
    return pairs


def _list_keys() -> list[str]:
    keys: list[str] = []
    hints = typing.get_type_hints(Recipe)
    for name, hint in hints.items():
        keys.append(name)
        if dataclasses.is_dataclass(hint):
            keys += [f"{name}.{field.name}" for field in dataclasses.fields(hint)]
    return keys + [f"training.{name}" for name in list_training_hints()]


def _find_key(key: str, known: Sequence[str]) -> str:
    open_sections = ("losses", "class_weights", "training", "model.config", "model.image_processor")
    if key in known or any(key.startswith(f"{section}.") for section in open_sections if section in known):
        return key
    if any(key.startswith(f"{entry}.") for entry in known if "." in entry):
        return key
    sections = list(dict.fromkeys(entry.split(".")[0] for entry in known))
    if key.split(".")[0] in typing.get_type_hints(Recipe).keys() - set(sections):
        raise InputError(f"command line: --{key} has no part in this command", allowed=f"keys of {', '.join(sections)}")
    matches = [entry for entry in known if entry.rsplit(".", 1)[-1] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"command line: --{key} stands for several keys", allowed=", ".join(f"--{m}" for m in matches))
    leaves = [entry.rsplit(".", 1)[-1] for entry in known]
    raise InputError(f"command line: unknown key '--{key}'", fix=suggest(key, known if "." in key else leaves))


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, dict) else {}
        values = values[section]
    values[leaf] = value

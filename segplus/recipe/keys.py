"""The dotted keys of a recipe: which there are, and what a command line says about them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from segplus.errors import InputError, suggest
from segplus.recipe.documents import DocumentError, parse_document
from segplus.recipe.sections import Recipe

# Sections whose keys are names that a recipe makes up, or another library's.
_OPEN_SECTIONS = ("losses", "class_weights", "training", "model.config", "model.image_processor")


@lru_cache(maxsize=1)
def list_training_hints() -> dict[str, Any]:
    """Return the keys of `training` with their types: those of transformers.TrainingArguments."""
    from transformers import TrainingArguments  # seconds, which no help and no other section needs

    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainingArguments) if field.init}


def list_keys(sections: Sequence[str] = ("",)) -> list[str]:
    """Return the dotted keys of some sections, each section before what is in it.

    Args:
        sections: Dotted names; "" is the whole recipe, `training` included.
    """
    own = [(key, section) for key in _walk(Recipe, "") for section in sections if _is_inside(key, section)]
    keys = list(dict.fromkeys(key for key, _ in own))
    if any(_is_inside("training", section) for section in sections):
        keys += [f"training.{name}" for name in list_training_hints()]
    return keys


def _walk(section: Any, where: str) -> Iterator[str]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        key = f"{where}{field.name}"
        yield key
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _walk(hints[field.name], f"{key}.")


def _is_inside(key: str, section: str) -> bool:
    return not section or key == section or key.startswith(f"{section}.")


def parse_keys(arguments: Sequence[str], sections: Sequence[str] = ("",)) -> list[tuple[str, Any]]:
    """Return the dotted keys of a command line with their values, in order.

    Args:
        arguments: `--key value` or `--key=value`.
        sections: The sections that the command reads.
    Raises:
        InputError: If a key is unknown, stands for several, has no value, or is not read by the command.
    """
    pairs: list[tuple[str, Any]] = []
    known = list_keys(sections) if arguments else []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"command line: '{word}' is not a key", allowed="--key value")
        name, equals, text = word[2:].partition("=")
        key = _find_key(name, known, sections)
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


def _find_key(key: str, known: Sequence[str], sections: Sequence[str]) -> str:
    if key in known or any(key.startswith(f"{section}.") for section in _OPEN_SECTIONS if section in known):
        return key
    if any(key.startswith(f"{entry}.") for entry in known if "." in entry):
        return key
    matches = _match_leaf(key, known)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"command line: --{key} stands for several keys", allowed=", ".join(f"--{m}" for m in matches))
    if key in _walk(Recipe, "") or is_leaf(key) or _names_other_section(key, sections):
        allowed = f"keys of {', '.join(sections)}"
        raise InputError(f"command line: --{key} has no part in this command", allowed=allowed)
    leaves = [entry.rsplit(".", 1)[-1] for entry in known]
    raise InputError(f"command line: unknown key '--{key}'", fix=suggest(key, known if "." in key else leaves))


def _match_leaf(key: str, known: Sequence[str]) -> list[str]:
    return [entry for entry in known if entry.rsplit(".", 1)[-1] == key]


def _names_other_section(key: str, sections: Sequence[str]) -> bool:
    top = key.split(".")[0]
    is_read = any(_is_inside(section, top) or not section for section in sections)
    return top in typing.get_type_hints(Recipe) and not is_read


def is_leaf(name: str) -> bool:
    """Return whether a word without dots is the last part of some key outside `training`."""
    return bool(_match_leaf(name, list(_walk(Recipe, ""))))


def set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested mappings; what stands in the way of a section is replaced by one."""
    *sections, leaf = key.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, dict) else {}
        values = values[section]
    values[leaf] = value

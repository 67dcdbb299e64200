"""What every key of a recipe means: type, default, unit and sentence, read from the sections' own docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union

import yaml

from segplus.errors import InputError, suggest
from segplus.recipe.keys import list_keys, list_training_hints
from segplus.recipe.sections import Recipe
from segplus.recipe.training_section import RESERVED, TRAINING_DEFAULTS

_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null", Any: "any"}
_MANY = {int: "whole numbers", float: "numbers"}
_UNITS = {
    "px": "pixels",
    "images": "images",
    "share": "a share, 0 to 1",
    "seconds": "seconds",
    "mm": "millimetres",
    "mm2": "square millimetres",
}
_OPENING = """# Every key of a recipe

Made by `segplus recipes reference` from the sections' own classes; `segplus recipes explain data.void` prints one key.
On the command line keys are dotted, `--data.void '[11]'`, or bare where one section has them: `--learning_rate 1e-4`.
`segplus recipes schema` prints a JSON schema for editors.
"""
_TRAINING = "Every key of `transformers.TrainingArguments`. segplus sets these defaults of its own:"


@dataclass(frozen=True)
class Key:
    """One key of a recipe, for people.

    Args:
        name: Dotted.
        type: In words.
        default: As a recipe would say it; "required" where there is none.
        unit: Empty where it has none.
        sentence: What it does.
        section: Its keys, where it is a section.
    """

    name: str
    type: str
    default: str
    unit: str
    sentence: str
    section: tuple[Key, ...] = ()


def list_section(cls: type[Any], where: str = "") -> tuple[Key, ...]:
    """Return the keys of a dataclass whose docstring says in `Args:` what they are.

    Args:
        cls: The dataclass.
        where: Dotted name of the section, empty for the whole recipe.
    """
    hints, sentences = typing.get_type_hints(cls), read_arguments(cls)
    keys = []
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], f"{where}.{field.name}" if where else field.name
        sentence = sentences.get(field.name, "")
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            keys.append(Key(name, "section", "", "", sentence, list_section(hint, name)))
        else:
            keys.append(Key(name, format_type(hint), _format_default(field), _find_unit(field.name, hint), sentence))
    return tuple(keys)


def read_arguments(cls: type[Any]) -> dict[str, str]:
    """Return name -> sentences of the `Args:` in the docstrings of a dataclass and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        section = inspect.cleandoc(base.__doc__ or "").partition("Args:\n")[2]
        section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def format_type(hint: Any) -> str:
    """Return a type in words: list of whole numbers, text or null."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _TYPES:
        return _TYPES[hint]
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(format_type(argument) for argument in arguments)
    if origin in (list, tuple):
        return "list" if arguments[0] is Any else f"list of {_MANY.get(arguments[0], format_type(arguments[0]))}"
    if origin is dict and arguments[1] is Any:
        return "mapping"
    if origin is dict:
        return f"mapping of {format_type(arguments[0])} to {format_type(arguments[1])}"
    return str(getattr(hint, "__name__", hint))


def _format_default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _format_value(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else _format_value(field.default)


def _format_value(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True)
    return str(text).removesuffix("\n").removesuffix("\n...")


def _find_unit(name: str, hint: Any) -> str:
    return _UNITS.get(name.rsplit("_", 1)[-1], "") if "number" in format_type(hint) else ""


def list_training_section() -> tuple[Key, ...]:
    """Return the keys of `training`, described in the library's own words."""
    from transformers import TrainingArguments

    hints = list_training_hints()
    keys = []
    for field in dataclasses.fields(TrainingArguments):
        if field.name not in hints or field.name in RESERVED:
            continue
        default = TRAINING_DEFAULTS.get(field.name, field.default)
        plain = default if isinstance(default, bool | int | float | str | list | dict | None) else str(default)
        sentence = " ".join(str(field.metadata.get("help", "")).split())
        keys.append(
            Key(
                f"training.{field.name}",
                format_type(hints[field.name]),
                _format_value(plain),
                _find_unit(field.name, hints[field.name]),
                sentence,
            )
        )
    return tuple(keys)


def explain(name: str) -> Key:
    """Return the key of a dotted name, or of a last part that only one key has.

    Raises:
        InputError: If there is no such key, or several.
    """
    if name in RESERVED or name.removeprefix("training.") in RESERVED:
        plain = name.removeprefix("training.")
        raise InputError(f"training.{plain} is not for recipes", fix=RESERVED[plain])
    keys = {key.name: key for key in _flatten(list_section(Recipe))}
    if name not in keys or name == "training":  # the library's keys take seconds to import
        training = list_training_section()
        keys |= {"training": dataclasses.replace(keys["training"], section=training)}
        keys |= {key.name: key for key in training}
    matches = [key for key in keys if key == name] or [key for key in keys if key.rsplit(".", 1)[-1] == name]
    if len(matches) > 1:
        raise InputError(f"'{name}' stands for several keys", allowed=", ".join(matches))
    if not matches:
        leaves = [key.rsplit(".", 1)[-1] for key in list_keys()]
        raise InputError(f"no key '{name}' in a recipe", fix=suggest(name, keys if "." in name else leaves))
    return keys[matches[0]]


def _flatten(keys: tuple[Key, ...]) -> Iterator[Key]:
    for key in keys:
        yield key
        yield from _flatten(key.section)


def describe_key(key: Key) -> str:
    """Return what `segplus recipes explain` prints."""
    lines = [f"{key.name}: {key.type}", *(f"  {text}" for text in (key.sentence,) if text)]
    lines += [f"  default: {key.default}"] if key.default else []
    lines += [f"  unit: {key.unit}"] if key.unit else []
    if key.section:
        lines += ["", *(_summarize_key(entry) for entry in key.section)]
    return "\n".join(lines)


def _summarize_key(key: Key) -> str:
    details = ", ".join(filter(None, [key.type, f"default {key.default}" if key.default else "", key.unit]))
    return f"  {key.name} ({details})" + (f"\n      {key.sentence}" if key.sentence else "")


def render_reference() -> str:
    """Return docs/recipe.md: every key of every section but those of transformers.TrainingArguments."""
    whole = list_section(Recipe)
    parts = [_OPENING, "## The sections\n", _render_table(whole)]
    for key in _flatten(whole):
        if key.section:
            parts += [f"\n## `{key.name}`\n", _render_table(key.section)]
    parts += [
        "\n## `training`\n",
        "Every key of `transformers.TrainingArguments`; segplus sets these defaults of its own:\n",
    ]
    parts += ["| key | default |", "|---|---|"]
    parts += [f"| `{name}` | `{_format_value(value)}` |" for name, value in TRAINING_DEFAULTS.items()]
    parts += ["\nThese have one value that works:\n", "| key | instead |", "|---|---|"]
    parts += [f"| `{name}` | {instead} |" for name, instead in RESERVED.items()]
    return "\n".join(parts) + "\n"


def _render_table(keys: tuple[Key, ...]) -> str:
    lines = ["| key | type | default | unit | what it does |", "|---|---|---|---|---|"]
    for key in keys:
        default = f"`{key.default}`" if key.default not in ("", "required") else key.default
        cells = [f"`{key.name}`", key.type, default, key.unit, key.sentence]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)

"""A JSON schema of the recipe, with which an editor completes keys and marks mistakes."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union

from segplus.recipe.keys import list_training_hints
from segplus.recipe.reference import list_training_section, read_arguments
from segplus.recipe.sections import Recipe
from segplus.recipe.training_section import RESERVED

_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def build_schema() -> dict[str, Any]:
    """Return the schema of a whole recipe (JSON Schema, draft 2020-12)."""
    schema = _describe_section(Recipe)
    schema["properties"]["training"] = _describe_training() | {
        "description": schema["properties"]["training"]["description"]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A recipe of segplus", **schema}


def _describe_section(cls: type[Any]) -> dict[str, Any]:
    hints, sentences = typing.get_type_hints(cls), read_arguments(cls)
    properties, required = {}, []
    for field in dataclasses.fields(cls):
        entry = _describe_type(hints[field.name])
        if field.name in sentences:
            entry["description"] = sentences[field.name]
        has_factory = field.default_factory is not dataclasses.MISSING
        if field.default is not dataclasses.MISSING:
            entry["default"] = field.default
        elif not has_factory:
            required.append(field.name)
        properties[field.name] = entry
    listed = {"required": required} if required else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **listed}


def _describe_type(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _describe_section(hint)
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_describe_type(argument) for argument in arguments]}
    if origin in (list, tuple):
        return {"type": "array", "items": _describe_type(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _describe_type(arguments[1])}
    return {}


def _describe_training() -> dict[str, Any]:
    hints = {name: hint for name, hint in list_training_hints().items() if name not in RESERVED}
    properties = {name: _describe_type(hint) for name, hint in hints.items()}
    for key in list_training_section():
        name = key.name.removeprefix("training.")
        properties[name] = _keep_plain(properties[name]) | {"description": key.sentence}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _keep_plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave open what the library takes as text or as an object of its own: an enum, a mapping, a switch."""
    choices = entry.get("anyOf", [entry])
    return entry if all(choice.get("type") in _PLAIN.values() for choice in choices) else {}

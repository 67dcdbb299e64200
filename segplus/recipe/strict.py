"""Strict values: a mapping becomes a dataclass, every key known and every value of the stated type."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from segplus.errors import InputError, suggest

T = TypeVar("T")
_BEYOND = 2**63  # what no 64-bit number holds
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # no file name or UTF-8 text has them


def build_dataclass(cls: type[T], values: Mapping[str, Any], where: str, file: str) -> T:
    """Return an instance of a dataclass, checked key by key.

    Args:
        cls: The dataclass.
        values: What the recipe says, key by key.
        where: Dotted path of the section, empty for the whole recipe.
        file: The recipe's file name, for messages.

    Raises:
        InputError: If a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InputError(
            f"{file}: {where or 'recipe'} is not a section", found=repr(values), allowed="key: value lines"
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise InputError(f"{file}: unknown key '{_join(where, str(key))}'", fix=suggest(str(key), fields))
    missing = [n for n, f in fields.items() if n not in values and _is_required(f)]
    if missing:
        raise InputError(f"{file}: key '{_join(where, missing[0])}' is missing", fix=f"add it: {missing[0]}: ...")
    built = {key: convert(value, hints[key], _join(where, key), file) for key, value in values.items()}
    try:
        return cls(**built)
    except InputError as error:
        raise InputError(f"{file}: {error.what}", found=error.found, allowed=error.allowed, fix=error.fix) from None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def convert(value: Any, hint: Any, where: str, file: str) -> Any:
    """Return a YAML value as the type that a field states; `6e-5`, which YAML reads as a string, becomes a number.

    Raises:
        InputError: If the value cannot be read as that type without loss.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    _refuse_hostile_value(value, where, file)
    if hint is Any:
        _refuse_hostile_content(value, where, file)
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, where, file)
    if origin is Literal:
        # YAML 1.1 reads off and on as booleans; a recipe that says "off" means the word.
        value = (
            {False: "off", True: "on"}.get(value, value) if isinstance(value, bool) and "off" in arguments else value
        )
        if value in arguments:
            return value
        fix = suggest(str(value), map(str, arguments))
        raise InputError(f"{file}: {where}", found=repr(value), allowed=", ".join(map(str, arguments)), fix=fix)
    if dataclasses.is_dataclass(hint):
        return build_dataclass(hint, value, where, file)  # type: ignore[arg-type]
    if origin in (list, tuple):
        return _convert_sequence(value, origin, arguments, where, file)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong_type(value, "key: value lines", where, file)
        return {
            convert(k, arguments[0], where, file): convert(v, arguments[1], f"{where}.{k}", file)
            for k, v in value.items()
        }
    return _convert_scalar(value, hint, where, file)


def _convert_union(value: Any, choices: tuple[Any, ...], where: str, file: str) -> Any:
    if value is None and type(None) in choices:
        return None
    # A value that already has one of the types stays what it is; only then is a conversion tried, in the order stated.
    for choice in choices:
        plain = typing.get_origin(choice) or choice
        if isinstance(plain, type) and type(value) is plain and plain in (bool, int, float, str):
            return value
    errors = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return convert(value, choice, where, file)
        except InputError as error:
            errors.append(error)
    if len(errors) == 1 or isinstance(value, Mapping | list):
        raise errors[-1]
    allowed = " or ".join(str(e.allowed) for e in errors)
    raise InputError(f"{file}: {where}", found=repr(value), allowed=allowed)


def _convert_sequence(value: Any, origin: type, arguments: tuple[Any, ...], where: str, file: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong_type(value, "a list", where, file)
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _wrong_type(value, f"a list of {len(arguments)}", where, file)
        return tuple(
            convert(v, a, f"{where}[{i}]", file) for i, (v, a) in enumerate(zip(value, arguments, strict=True))
        )
    return origin(convert(v, arguments[0], f"{where}[{i}]", file) for i, v in enumerate(value))


def _convert_scalar(value: Any, cls: type, where: str, file: str) -> Any:
    if cls is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool) and cls is not bool:
        raise _wrong_type(value, _NAMES.get(cls, cls.__name__), where, file)
    if isinstance(value, cls):
        return value
    if cls is str and isinstance(value, int | float):
        return str(value)  # a run named 7
    if cls in (int, float) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except ValueError:
            raise _wrong_type(value, _NAMES[cls], where, file) from None
        _refuse_hostile_value(number, where, file)
        if cls is float:
            return number
        if number.is_integer():
            return int(number)
    raise _wrong_type(value, _NAMES.get(cls, cls.__name__), where, file)


def _refuse_hostile_content(value: Any, where: str, file: str) -> None:
    """Check what lies inside a value whose type a recipe leaves open."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_hostile_value(key, where, file)
            convert(inner, Any, f"{where}.{key}", file)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            convert(inner, Any, f"{where}[{index}]", file)


def _refuse_hostile_value(value: Any, where: str, file: str) -> None:
    """Refuse numbers that are not finite or beyond 64 bits, and text that no file can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{file}: {where} is not finite", found=value, allowed="a finite number")
    if isinstance(value, int | float) and abs(value) >= _BEYOND:
        raise InputError(f"{file}: {where} is too large", found=value, allowed="a number of 64 bits")
    if isinstance(value, str) and _NO_TEXT.search(value):
        raise InputError(f"{file}: {where} holds a character that is no text", found=ascii(value))


_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _wrong_type(value: Any, allowed: str, where: str, file: str) -> InputError:
    return InputError(f"{file}: {where} has the wrong type", found=repr(value), allowed=allowed)

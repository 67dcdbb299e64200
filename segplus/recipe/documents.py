"""YAML as plain values: of a bounded size and depth, without tags, and each key once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from segplus.errors import InputError
from segplus.texts import read_text

_MOST_VALUES = 20_000  # with every alias written out
_MOST_LEVELS = 40


class DocumentError(ValueError):
    """A text that is not YAML of plain values."""


def read_document(path: Path, what: str) -> Any:
    """Return the plain values of a YAML file.

    Args:
        path: The file.
        what: Its name for messages.
    Raises:
        InputError: If it is no file, or not YAML of plain values.
    """
    try:
        return parse_document(read_text(path, what))
    except DocumentError as error:
        raise InputError(f"{what}: not valid YAML", found=error, fix="correct the file") from None


def parse_document(text: str) -> Any:
    """Return the plain values of a YAML text: mappings, lists, text, numbers, true, false and null.

    Raises:
        DocumentError: If it is not YAML, has tags, says a key twice, or is nested or repeated without bounds.
    """
    try:
        values = yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: a number of thousands of digits
        raise DocumentError(str(error).replace("\n", " ")) from None
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    _refuse_bombs(values)
    return values


class _PlainLoader(yaml.SafeLoader):
    """YAML without tags, dates and numbers to the base of 60, which has each key of a mapping once."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        start: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"tag {event.tag} is not for plain values", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                what = f"key '{key}' stands twice" if isinstance(key, Hashable) else "a key that is no text or number"
                raise yaml.constructor.ConstructorError(None, None, what, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _construct_number(loader: _PlainLoader, node: yaml.ScalarNode) -> Any:
    """Return a number; 1:30, which YAML 1.1 takes for ninety, stays text."""
    text = str(loader.construct_scalar(node))
    if ":" in text:
        return text
    return loader.construct_yaml_int(node) if node.tag.endswith("int") else loader.construct_yaml_float(node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _PlainLoader.add_constructor(_tag, _construct_number)


def _refuse_bombs(values: Any) -> None:
    """Count the values as they would be written out: aliases make gigabytes of some lines, or a list that holds itself.

    Raises:
        DocumentError: If they are too many, or too deep.
    """
    waiting, count = [(values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        count += 1 + len(inner)
        if count > _MOST_VALUES or depth > _MOST_LEVELS:
            raise DocumentError(f"more than {_MOST_VALUES} values or {_MOST_LEVELS} levels, aliases written out")
        waiting += [(entry, depth + 1) for entry in inner]

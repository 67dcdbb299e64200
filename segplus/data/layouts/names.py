"""Class names and colours: from the recipe, from files beside the data, or from the data set itself."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segplus.classes import ClassMap, Color, pack_colors
from segplus.data.layouts.source import Source
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.paths import expand_path
from segplus.texts import is_file, read_json, read_text

_HEXADECIMAL = re.compile("#[0-9a-fA-F]{6}")
_DIGITS = re.compile("[0-9]{1,9}")  # other scripts' digits, and thousands of them, are words
_WHOLE = re.compile("-?[0-9]{1,18}")


class NoClassNamesError(InputError):
    """Nothing names the classes of a data set."""


def build_class_map(section: DataRecipe, source: Source, legend: bool) -> ClassMap:
    """Return the one look-up table of a data set.

    Args:
        section: The recipe's data section.
        source: What the layout knows.
        legend: Masks hold colours instead of ids.

    Raises:
        NoClassNamesError: If there are no class names.
        InputError: If a key names a class that is not there.
    """
    colors = read_colors(section, source)
    origin, names = find_names(section, source, colors)
    # A value that the recipe names is a class, also where the layout's convention ignores it.
    asked = set(names) if section.classes is not None else set()
    void: list[Any] = [*section.void, *(value for value in source.void if value not in asked)]
    settings: dict[str, Any] = {"merge": section.merge, "unknown": section.unknown, "source": origin}
    if legend:
        return _build_legend(section, names, colors, void, settings)
    known = set(names.values())
    for name in colors:
        if name not in known and name not in section.merge:
            raise InputError("data.colors: no such class", found=name, fix=suggest(name, known))
    void_names = {entry for entry in void if isinstance(entry, str)} | {
        names[v] for v in void if isinstance(v, int) and v in names
    }
    merged = {member for members in section.merge.values() for member in members}
    drawn = {
        name: color
        for name, color in colors.items()
        if name not in void_names and name not in merged - set(section.merge)
    }
    return ClassMap.build(names, reduce_labels=section.reduce_labels, void=void, colors=drawn, **settings)


def _build_legend(
    section: DataRecipe,
    names: Mapping[int, str],
    colors: Mapping[str, Color],
    void: list[Any],
    settings: Mapping[str, Any],
) -> ClassMap:
    if section.reduce_labels:
        raise InputError(
            "data.reduce_labels: masks of colours have no ids to reduce", fix="name the colour in data.void"
        )
    missing = [name for name in names.values() if name not in colors]
    if missing:
        raise InputError(
            "data.colors: classes without a colour", found=", ".join(missing[:5]), fix="give each class one"
        )
    void_values: list[int | str] = []
    for entry in void:
        if isinstance(entry, list | tuple):
            void_values.append(pack_color(entry, "data.void"))
        elif isinstance(entry, str):
            void_values.append(pack_color(colors[entry], "data.void") if entry in colors else entry)
        else:
            raise InputError(
                "data.void: masks of colours have no ids", found=entry, allowed="class names and colours [r, g, b]"
            )
    listed = {pack_color(colors[name], f"data.colors.{name}"): name for name in names.values()}
    if len(listed) < len(names):
        raise InputError("data.colors: two classes have one colour", fix="give each class its own, or use data.merge")
    kept = {value: name for value, name in listed.items() if value not in void_values and name not in void_values}
    members = {member for group in section.merge.values() for member in group}
    drawn = {name: colors[name] for name in kept.values() if name not in members}
    for new, group in section.merge.items():
        first = next((name for name in kept.values() if name in group), None)
        if first is not None:
            drawn[new] = colors[first]
    return ClassMap.build(listed, void=void_values, colors=drawn, legend=True, **settings)


def pack_color(color: Any, key: str) -> int:
    """Return the packed value of one colour.

    Raises:
        InputError: If it is not three numbers from 0 to 255.
    """
    if isinstance(color, str) and _HEXADECIMAL.fullmatch(color):
        color = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    if (
        not isinstance(color, list | tuple)
        or len(color) != 3
        or not all(type(c) is int and 0 <= c <= 255 for c in color)
    ):
        raise InputError(f"{key}: not a colour", found=color, allowed="three numbers from 0 to 255, or '#rrggbb'")
    return int(pack_colors(np.array(color)))


def read_colors(section: DataRecipe, source: Source) -> dict[str, Color]:
    """Return class name -> colour, from the recipe, its legend file, or the layout."""
    given = section.colors
    if given is None:
        return dict(source.colors or {})
    if isinstance(given, str):
        given = read_legend_file(find_file(given, source, "data.colors"), f"data.colors: {given}")
    colors = {}
    for name, color in given.items():
        packed = pack_color(color, f"data.colors.{name}")
        colors[str(name)] = (packed >> 16, packed >> 8 & 255, packed & 255)
    return colors


def read_legend_file(path: Path, what: str) -> dict[str, Any]:
    """Return class name -> [r, g, b] of a JSON mapping, a CSV with name, r, g, b, or lines `r g b name`.

    Raises:
        InputError: If it is none of these.
    """
    if path.suffix.lower() == ".json":
        legend = read_json(path, what)
        if not isinstance(legend, dict):
            raise InputError(f"{what}: not a legend", found=type(legend).__name__, allowed='{"sky": [0, 0, 255], ...}')
        return legend
    legend = {}
    for number, line in enumerate(read_text(path, what).splitlines(), start=1):
        cells = _split_line(line, f"{what}, line {number}")
        digits = [index for index, cell in enumerate(cells) if _DIGITS.fullmatch(cell)]
        words = [cell for cell in cells if cell and not _DIGITS.fullmatch(cell)]
        if len(digits) != 3 or not words:
            if number == 1 or not any(cells):
                continue  # a header, or an empty line
            raise InputError(
                f"{what}, line {number}: not a colour and a name", found=line[:60], allowed="name, r, g, b"
            )
        legend[" ".join(words)] = [int(cells[index]) for index in digits]
    if not legend:
        raise InputError(f"{what}: no colours", allowed="lines of name, r, g, b")
    return legend


def _split_line(line: str, what: str) -> list[str]:
    try:
        cells = next(csv.reader([line], strict=True)) if "," in line else line.split()
    except csv.Error as error:
        raise InputError(f"{what}: not a line of a table ({error})", found=line[:60]) from None
    return [cell.strip() for cell in cells]


def find_names(section: DataRecipe, source: Source, colors: Mapping[str, Color]) -> tuple[str, dict[int, str]]:
    """Return what names the classes, for messages, and mask value -> class name.

    Raises:
        NoClassNamesError: If nothing names the classes.
    """
    given, origin = section.classes, "data.classes"
    if source.follows_classes:
        return str(source.names_file or origin), dict(source.names or {})
    if isinstance(given, str):
        origin = f"data.classes: {given}"
        return origin, read_id2label(find_file(given, source, "data.classes"), origin)
    if given is not None:
        return origin, normalize_names(given, origin)
    if source.root is not None:
        beside = (source.root if source.root.is_dir() else source.root.parent) / "id2label.json"
        if is_file(beside):
            return str(beside), read_id2label(beside, str(beside))
    if source.names:
        return str(source.names_file or source.root or origin), dict(source.names)
    if colors:
        return "data.colors", dict(enumerate(colors))
    raise NoClassNamesError(
        "data.classes: no class names",
        found="no id2label.json beside the data, no ClassLabel in it, nothing in the recipe",
        fix="list them in data.classes, or put an id2label.json into the data set's folder",
    )


def normalize_names(given: Any, where: str) -> dict[int, str]:
    """Return mask value -> name of a list, of {value: name}, or of {name: value}.

    Raises:
        InputError: If it is none of these, or a name or value stands twice.
    """
    entries = given if isinstance(given, list) else [*given, *given.values()]
    if any(isinstance(entry, bool) for entry in entries):
        raise InputError(
            f"{where}: YAML reads yes, no, on and off as true and false", found=given, fix="quote the name"
        )
    if not all(isinstance(entry, str | int | float) for entry in entries):
        odd = next(entry for entry in entries if not isinstance(entry, str | int | float))
        raise InputError(f"{where}: a name that is no text", found=repr(odd), allowed="text or numbers")
    if isinstance(given, list):
        names = {index: str(name) for index, name in enumerate(given)}
    elif all(_WHOLE.fullmatch(str(key)) for key in given):
        names = {int(key): str(name) for key, name in given.items()}
    elif all(type(value) is int for value in given.values()):
        names = {value: str(key) for key, value in given.items()}
    else:
        raise InputError(f"{where}: not value: name lines", found=given, allowed="0: sky, 1: road, ...")
    if len(names) < len(given):
        raise InputError(f"{where}: two names for one value", found=given, fix="use data.merge")
    if not names:
        raise InputError(f"{where}: no classes", found=given, fix="name at least one")
    return names


def read_id2label(path: Path, what: str) -> dict[int, str]:
    """Return mask value -> name of an id2label.json (or a label2id, or a list).

    Raises:
        InputError: If it is none of these.
    """
    loaded = read_json(path, what)
    if not isinstance(loaded, dict | list):
        raise InputError(f"{what}: not a mapping", found=type(loaded).__name__, allowed='{"0": "sky", ...}')
    return normalize_names(loaded, what)


def find_file(name: str, source: Source, key: str) -> Path:
    """Return a file named in the recipe: relative to the data set, to the working folder, or in a data set of the Hub.

    Raises:
        InputError: If it is in none of these.
    """
    path = Path(expand_path(name, key))
    candidates = [path] if path.is_absolute() else [*([source.root / path] if source.root else []), path]
    for candidate in candidates:
        if is_file(candidate):
            return candidate
    if not path.is_absolute() and len(path.parts) >= 3:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download("/".join(path.parts[:2]), "/".join(path.parts[2:]), repo_type="dataset"))
        except Exception as error:  # no network, no such repository, no such file: all mean that it is not there
            raise InputError(
                f"{key}: no such file", found=name, fix=f"correct the path ({type(error).__name__} on the Hub)"
            ) from None
    raise InputError(f"{key}: no such file", found=name, allowed=" or ".join(map(str, candidates)))

"""Legends: what strangers write beside their masks about names, values and colours of classes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segplus.classes import pack_colors, unpack_color
from segplus.colors import Color
from segplus.errors import InputError
from segplus.texts import is_file, read_json, read_text

_HEXADECIMAL = re.compile("#[0-9a-fA-F]{6}")
_DIGITS = re.compile("[0-9]{1,9}")  # other scripts' digits, and thousands of them, are words
_WHOLE = re.compile("-?[0-9]{1,18}")
_NAMED = re.compile(
    "class|label|legend|colou?r|category|categories|palette|objectinfo|names|^(codes|config|dataset)$", re.IGNORECASE
)
_LARGEST = 1 << 20  # bytes of a file that may be a legend
_NAME_KEYS, _COLOR_KEYS = ("title", "name", "label", "class"), ("color", "colour", "rgb", "hex")
_VALUE_KEYS = ("value", "pixel_value", "index", "id")
_NUMBER_COLUMNS = ("idx", *_VALUE_KEYS, "r", "g", "b", "red", "green", "blue")


class Legend(NamedTuple):
    """What a file says of classes.

    names: mask value -> name; where it states no values, by position. colors: name -> colour, or nothing. stated: the
    file states the values.
    """

    names: dict[int, str]
    colors: dict[str, Color]
    stated: bool


def find_legends(folder: Path) -> dict[str, Legend]:
    """Return file name -> legend, of the files of a folder that are called and built like one."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in (".json", ".csv", ".tsv", ".txt") or not _NAMED.search(path.stem):
            continue
        if path.name != "id2label.json" and is_file(path) and path.stat().st_size <= _LARGEST:
            with suppress(InputError):  # a file of another kind: a list of pairs, annotations
                found[path.name] = read_legend(path, str(path))
    # A config.json is a legend where it says so by its colours.
    return {name: legend for name, legend in found.items() if legend.colors or name != "config.json"}


def read_legend(path: Path, what: str) -> Legend:
    """Return the classes that a file names.

    JSON: `{"sky": [0, 0, 255]}`, `{"sky": "#0000ff"}`, `{"0": "sky"}`, `{"sky": 0}`, `["sky"]`, and lists of objects
    with title or name and color, as labelling tools write them, alone or under `classes` or `categories`. Text: a
    name a line, with a value or with r, g, b before or behind it, with or without a header; VOC's `name:r,g,b::`.

    Raises:
        InputError: If it is none of these.
    """
    if path.suffix.lower() != ".json":
        return _read_lines(read_text(path, what).splitlines(), what)
    content = read_json(path, what)
    if isinstance(content, dict):
        inner = next((content[key] for key in ("classes", "labels", "categories") if key in content), None)
        content = inner if isinstance(inner, list | dict) else content
    if isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        return _read_entries(content, what)
    if isinstance(content, dict) and content and all(isinstance(v, list) or _is_hex(v) for v in content.values()):
        return _number(list(content), {name: _read_color(value, f"{what}: {name}") for name, value in content.items()})
    if not isinstance(content, dict | list):
        raise InputError(f"{what}: not a mapping", found=type(content).__name__, allowed='{"0": "sky", ...}')
    return Legend(normalize_names(content, what), {}, isinstance(content, dict))


def read_id2label(path: Path, what: str) -> dict[int, str]:
    """Return mask value -> name of an id2label.json, a label2id, a list, or another legend.

    Raises:
        InputError: If it is none of these.
    """
    return read_legend(path, what).names


def read_legend_file(path: Path, what: str) -> dict[str, Color]:
    """Return class name -> colour of a legend.

    Raises:
        InputError: If it is none, or names no colours.
    """
    colors = read_legend(path, what).colors
    if not colors:
        raise InputError(f"{what}: no colours", allowed='{"sky": [0, 0, 255], ...}, or lines of name, r, g, b')
    return colors


def _read_entries(entries: Sequence[Mapping[str, Any]], what: str) -> Legend:
    names, colors, values = [], {}, []
    for number, entry in enumerate(entries):
        lower = {str(key).lower(): value for key, value in entry.items()}
        name = next((str(lower[key]) for key in _NAME_KEYS if isinstance(lower.get(key), str | int)), None)
        if name is None:
            raise InputError(f"{what}: entry {number} has no name", found=list(entry), allowed="title or name")
        color = next((lower[key] for key in _COLOR_KEYS if lower.get(key) is not None), None)
        if color is not None:
            colors[name] = _read_color(color, f"{what}: {name}")
        values.append(next((lower[key] for key in _VALUE_KEYS if type(lower.get(key)) is int), None))
        names.append(name)
    if colors and len(colors) < len(names):
        raise InputError(f"{what}: classes without a colour", found=", ".join(set(names) - set(colors)))
    stated = [value for value in values if value is not None]
    if len(set(stated)) < len(values) or max(abs(value) for value in stated) > 65535:  # not of masks, but of a table
        return _number(names, colors)
    return Legend({value: name for value, name in zip(values, names, strict=True) if value is not None}, colors, True)


def _read_lines(lines: Sequence[str], what: str) -> Legend:
    """Return the legend of lines; a line without numbers where others have some is a header."""
    rows = [_split_line(line, what) for line in lines if line.strip() and not line.startswith("#")]
    if len(rows) > 4096:
        raise InputError(f"{what}: not a legend", found=f"{len(rows)} lines")
    header = [cell.lower() for cell in rows.pop(0)] if len(rows) > 1 and _is_header(rows[0]) else []
    names, colors, values = [], {}, []
    for number, cells in enumerate(rows, start=1):
        digits, words = _pick_digits(cells), [cell for cell in cells if cell and not _DIGITS.fullmatch(cell)]
        if len(header) > 3 and len(cells) == len(header) and "name" in header:  # a table: objectInfo150
            words = [cells[header.index("name")]]
            digits = [cells[header.index(key)] for key in _NUMBER_COLUMNS if key in header]
        hexadecimal = [word for word in words if _is_hex(word)]
        words = [word for word in words if word not in hexadecimal and not re.fullmatch(r"[\d.]+", word)]
        if not words or len(digits) not in (0, 1, 3, 4):
            raise InputError(
                f"{what}, line {number}: not a colour and a name", found=" ".join(cells)[:60], allowed="name, r, g, b"
            )
        name = " ".join(words)
        if hexadecimal or len(digits) >= 3:
            colors[name] = _read_color(
                hexadecimal[0] if hexadecimal else [int(d) for d in digits[-3:]], f"{what}: {name}"
            )
        values.append(int(digits[0]) if len(digits) in (1, 4) else None)
        names.append(name)
    if not names or (colors and len(colors) < len(names)):
        raise InputError(f"{what}: no colours" if not names else f"{what}: classes without a colour", found=len(names))
    if None in values or len(set(values)) < len(values):
        return _number(names, colors)
    return Legend({value: name for value, name in zip(values, names, strict=True) if value is not None}, colors, True)


def _number(names: Sequence[str], colors: dict[str, Color]) -> Legend:
    return Legend(dict(enumerate(names)), colors, False)


def _is_header(cells: Sequence[str]) -> bool:
    """Return whether the cells of a first line are titles of columns."""
    return any(cell.lower() in (*_NAME_KEYS, *_COLOR_KEYS, *_NUMBER_COLUMNS) for cell in cells) and not any(
        _DIGITS.fullmatch(cell) or _is_hex(cell) for cell in cells
    )


def _pick_digits(cells: Sequence[str]) -> list[str]:
    return [cell for cell in cells if _DIGITS.fullmatch(cell)]


def _split_line(line: str, what: str) -> list[str]:
    if re.match(r"[^:,]+:\d+,\d+,\d+(:|$)", line):  # name:r,g,b:parts:actions
        name, color = line.split(":")[:2]
        return [name, *(cell.strip() for cell in color.split(","))]
    try:
        separator = next((mark for mark in (",", "\t", ";") if mark in line), None)
        if separator == "\t" and any(re.fullmatch(r"\d+( \d+)+", cell.strip()) for cell in line.split("\t")):
            separator = None  # r g b, a tab and the name
        cells = next(csv.reader([line], delimiter=separator, strict=True)) if separator else _split_words(line)
    except csv.Error as error:
        raise InputError(f"{what}: not a line of a table ({error})", found=line[:60]) from None
    return [cell.strip() for cell in cells]


def _split_words(line: str) -> list[str]:
    """Return a line's numbers and, as one cell, its words; a colon behind a number is none of the name."""
    words = line.replace(":", ": ").split()
    numbers = [word.rstrip(":") for word in words if _DIGITS.fullmatch(word.rstrip(":"))]
    name = " ".join(word.rstrip(":") for word in words if not _DIGITS.fullmatch(word.rstrip(":")))
    return [*numbers, name]


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and _HEXADECIMAL.fullmatch(value) is not None


def _read_color(value: Any, key: str) -> Color:
    return unpack_color(pack_color(value, key))


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

"""Class names and colours: from the recipe, from files beside the data, or from the data set itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplus.classes import ClassMap, unpack_color
from segplus.colors import Color
from segplus.data.layouts.benchmarks import VOC_CLASSES
from segplus.data.layouts.legends import (
    Legend,
    find_legends,
    normalize_names,
    pack_color,
    read_id2label,
    read_legend_file,
)
from segplus.data.layouts.source import Source
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.paths import expand_path
from segplus.texts import is_file

VOC = "voc"  # in data.classes: the names of the benchmark


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


def read_colors(section: DataRecipe, source: Source) -> dict[str, Color]:
    """Return class name -> colour, from the recipe, its legend file, or the layout."""
    given = section.colors
    if given is None:
        return dict(source.colors or {})
    if isinstance(given, str):
        given = read_legend_file(find_file(given, source, "data.colors"), f"data.colors: {given}")
    return {str(name): unpack_color(pack_color(color, f"data.colors.{name}")) for name, color in given.items()}


def list_folders_of(source: Source) -> list[Path]:
    """Return the folders in which a data set's own files of names and colours may lie: its own, and the splits'."""
    folders = [folder for folder in (source.root, source.top) if folder is not None]
    own = [folder if folder.is_dir() else folder.parent for folder in folders]
    return own + [folder / split for folder in own[:1] for split in source.splits if (folder / split).is_dir()]


def find_all_legends(source: Source) -> dict[str, Legend]:
    """Return file name -> legend of the files beside the data, without those that differ from split to split."""
    found: dict[str, Legend] = {}
    unlike = set()
    for folder in reversed(list_folders_of(source)):
        legends = find_legends(folder)
        if folder.name in source.splits and folder.parent == source.root:
            unlike |= {name for name, legend in legends.items() if found.get(name, legend) != legend}
        found |= legends
    return {name: legend for name, legend in found.items() if name not in unlike}


def find_names(section: DataRecipe, source: Source, colors: Mapping[str, Color]) -> tuple[str, dict[int, str]]:
    """Return what names the classes, for messages, and mask value -> class name.

    Raises:
        NoClassNamesError: If nothing names the classes.
    """
    given, origin = section.classes, "data.classes"
    if source.follows_classes:
        return str(source.names_file or origin), dict(source.names or {})
    if given == VOC:
        return origin, dict(enumerate(VOC_CLASSES))
    if isinstance(given, str):
        origin = f"data.classes: {given}"
        return origin, read_id2label(find_file(given, source, "data.classes"), origin)
    if given is not None:
        return origin, normalize_names(given, origin)
    for beside in (folder / "id2label.json" for folder in list_folders_of(source)):
        if is_file(beside):
            return str(beside), read_id2label(beside, str(beside))
    if source.names:
        return str(source.names_file or source.root or origin), dict(source.names)
    if colors:
        return "data.colors", dict(enumerate(colors))
    keys = [
        f"data.{'colors' if legend.colors else 'classes'}: {name}" for name, legend in find_all_legends(source).items()
    ]
    raise NoClassNamesError(
        "data.classes: no class names",
        found="no id2label.json beside the data, no ClassLabel in it, nothing in the recipe",
        fix=f"set {' or '.join(keys)}"
        if keys
        else "list them in data.classes, or put an id2label.json into the folder",
    )


def find_file(name: str, source: Source, key: str) -> Path:
    """Return a file named in the recipe: relative to the data set, to the working folder, or in a data set of the Hub.

    Raises:
        InputError: If it is in none of these.
    """
    path = Path(expand_path(name, key))
    candidates = [path] if path.is_absolute() else [*(folder / path for folder in list_folders_of(source)), path]
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

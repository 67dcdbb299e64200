"""A CSV of run lengths, as competitions have it: image, start and length of each run, with or without a class."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from segplus.data.decoding.image_reader import read_size
from segplus.data.decoding.polygons import fill_runs
from segplus.data.layouts.folders import list_folders
from segplus.data.layouts.pairing import list_files
from segplus.data.layouts.source import WHOLE, Source, build_table
from segplus.data.layouts.tables import IMAGE_COLUMNS, read_rows
from segplus.data.layouts.words import is_mask_word
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file

_RUNS = re.compile(r"\d+ \d+( \d+ \d+)*")
_IMAGES = (*IMAGE_COLUMNS, "imageid", "image_id", "id", "imagename", "image_label", "imageid_classid")
_CLASSES = ("classid", "class_id", "class", "label", "category", "category_id", "imageid_classid", "image_label")
_NO_TRUTH = re.compile("sample|submission|test", re.IGNORECASE)
_NOTHING = frozenset({"", "-1", "nan", "NaN"})
_SNIFFED = 400  # rows that are looked at for run lengths
_COMPARED = 16  # masks that are read in both orders
_STRIPED = 1.3  # times the length of the border, from which on one reading is the wrong one
_ORDERS = {"columns": "down the columns", "rows": "along the rows"}


def find_run_tables(root: Path) -> list[Path]:
    """Return the tables of run lengths in a folder."""
    return [path for path in sorted(root.glob("*.csv")) if not _NO_TRUTH.search(path.name) and find_columns(path)]


def find_columns(path: Path) -> tuple[str, str, str | None] | None:
    """Return the columns of images, runs and classes of a CSV, or None where it holds no run lengths."""
    if not is_file(path):
        return None
    try:
        rows = list(islice(read_rows(path), _SNIFFED))
    except InputError:
        return None  # a table of another kind: whoever reads it says what is wrong
    columns = list(rows[0]) if rows else []
    runs = [name for name in columns if any(_RUNS.fullmatch(str(row.get(name) or "").strip()) for row in rows)]
    images = [name for name in columns if name not in runs and name.lower() in _IMAGES]
    if len(runs) != 1 or not images:
        return None
    kinds = [name for name in columns if name not in runs and name.lower() in _CLASSES]
    return images[0], runs[0], kinds[0] if kinds else None


def read_run_lengths(path: Path, section: DataRecipe) -> Source:
    """Return every image of a folder with the mask that its rows of run lengths make; without a row it is background.

    Runs are pairs of start and length from pixel 1, in `data.run_order`. `data.annotations` names the table,
    `data.images` the folder of the images, where there are several.

    Raises:
        InputError: If there is no such table, or two, or a row's image is missing.
    """
    root = path if path.is_dir() else path.parent
    tables = (
        [path] if path.is_file() else [root / section.annotations] if section.annotations else find_run_tables(root)
    )
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise InputError(f"{root}: not one table of run lengths", found=found, fix="set data.annotations to its name")
    columns = find_columns(tables[0])
    if columns is None:
        raise InputError(f"{tables[0]}: no run lengths", allowed="columns of image and of 'start length start length'")
    runs = _collect_runs(tables[0], *columns)
    names, values = _name_values(sorted({kind for rows in runs.values() for kind, _ in rows}))
    folder, images = _find_images(root, runs, tables[0], section)
    masks: dict[str, dict[str, Any]] = {}
    for name, file in images.items():
        rows = runs.get(name, runs.get(_stem(name), []))
        shapes = [{"value": values[kind], "runs": text} for kind, text in rows]
        masks[name] = {"size": list(read_size(str(file), str(file))), "background": 0, "shapes": shapes}
    order, how = (section.run_order, "as data.run_order says") if section.run_order else find_order(masks.values())
    if order == "rows":
        for shape in (shape for mask in masks.values() for shape in mask["shapes"]):
            shape["order"] = order
    table = build_table((_stem(name), str(images[name]), json.dumps(mask)) for name, mask in masks.items())
    empty = [name for name, mask in masks.items() if not mask["shapes"]]
    absent = sum(name not in runs and _stem(name) not in runs for name in empty)
    note = f"{WHOLE}: {len(masks)} images of {folder.name}; background are {len(empty) - absent} with an empty cell"
    note += f" and {absent} without a row"
    source = Source({WHOLE: table}, f"run lengths of {tables[0].name}", root, names, encoding="ids")
    source.notes += [note, f"runs are read {_ORDERS[order]}, {how}"]
    source.settled = {"run_order": order}
    return source


def find_order(masks: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Return "columns" or "rows", and why: read the right way, objects are compact, and the other way stripes.

    Args:
        masks: Size and runs of each image. Square ones show nothing: both ways the objects have the same form.
    """
    drawn = [mask for mask in masks if mask["shapes"] and mask["size"][0] != mask["size"][1]]
    drawn = sorted(drawn, key=lambda mask: sum(len(shape["runs"]) for shape in mask["shapes"]))[-_COMPARED:]
    borders = {
        order: sum(_measure_border(shape["runs"], mask["size"], order) for mask in drawn for shape in mask["shapes"])
        for order in _ORDERS
    }
    best = min(borders, key=borders.__getitem__)
    if max(borders.values()) <= _STRIPED * borders[best]:
        return "columns", "which the objects do not show; data.run_order: rows reads them the other way"
    return best, "which gives compact objects, and the other way stripes"


def _measure_border(runs: str, size_px: Sequence[int], order: str) -> int:
    with suppress(ValueError):  # it is reported when the mask is read
        inside = fill_runs(runs, size_px[0], size_px[1], along_rows=order == "rows")
        return int((inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum())
    return 0


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _collect_runs(path: Path, image: str, runs: str, kind: str | None) -> dict[str, list[tuple[str, str]]]:
    """Return image -> (class, run lengths) of its rows; the class is empty where no column has it."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for number, row in enumerate(read_rows(path), start=1):
        name, text = str(row.get(image) or ""), str(row.get(runs) or "").strip()
        of_class = str(row.get(kind) or "") if kind else ""
        if kind == image:  # 0002cc93b.jpg_1
            name, _, of_class = name.rpartition("_")
        if not name:
            raise InputError(f"{path}, row {number}: no image", fix="name one")
        if text in _NOTHING:
            found[name] += []
        elif not _RUNS.fullmatch(text):
            raise InputError(f"{path}, row {number}: not run lengths", found=text[:40], allowed="start length ...")
        else:
            found[name].append((of_class, text))
    return found


def _name_values(kinds: list[str]) -> tuple[dict[int, str], dict[str, int]]:
    """Return value -> name and class -> value: numbers stand for themselves, unless one is 0, which is background."""
    if kinds in ([], [""]):
        return {0: "background", 1: "foreground"}, {"": 1}
    if all(re.fullmatch("[0-9]{1,4}", kind) for kind in kinds):
        shift = int(any(int(kind) == 0 for kind in kinds))
        numbers = sorted(int(kind) for kind in kinds)
        names = {number + shift: f"class {number}" for number in numbers}
        return {0: "background", **names}, {kind: int(kind) + shift for kind in kinds}
    names = dict(enumerate(kinds, start=1))
    return {0: "background", **names}, {kind: position for position, kind in names.items()}


def _find_images(
    root: Path, runs: Mapping[str, object], table: Path, section: DataRecipe
) -> tuple[Path, dict[str, Path]]:
    """Return the folder of the images, and file name -> path of all in it."""
    folders = [root / section.images] if section.images else [root, *_list_below(root)]
    fitting = []
    for folder in folders:
        inside = [Path(name) for name in list_files(folder)] if folder.is_dir() else []
        files = {name.name: folder / name for name in inside if not any(map(is_mask_word, name.parts[:-1]))}
        stems = {name.rpartition(".")[0] for name in files}
        missing = [name for name in runs if name not in files and name not in stems]
        if files and not missing:
            fitting.append((folder, files))
        elif section.images:
            found = ", ".join(missing[:3]) or "no image"
            raise InputError(f"{table}: images that are not in data.images", found=found, fix="correct data.images")
    deepest = [one for one in fitting if not any(one[0] in other[0].parents for other in fitting)]
    if len(deepest) != 1:
        found = ", ".join(folder.name for folder, _ in deepest) or "no folder holds them all"
        raise InputError(f"{table}: not one folder of its images", found=found, fix="set data.images to the folder")
    return deepest[0]


def _list_below(root: Path) -> Iterable[Path]:
    return (path for folder in list_folders(root) for path in (folder, *list_folders(folder)))

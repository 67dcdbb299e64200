"""Tables of pairs: metadata.jsonl or metadata.csv of an imagefolder, and CSV or JSON-lines manifests."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from segplus.data.layouts.pairing import strip_suffix
from segplus.data.layouts.source import WHOLE, Source, build_table, find_split_folders
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe
from segplus.texts import is_file, parse_json, refuse_special_file

IMAGE_COLUMNS = (
    "image", "file_name", "filename", "image_path", "image_file", "image_file_name", "img", "pixel_values", "path",
)  # fmt: skip
MASK_COLUMNS = (
    "mask", "label", "annotation", "mask_path", "mask_file", "mask_file_name", "mask_filename", "label_path",
    "label_file_name", "annotation_path", "segmentation", "segmentation_mask", "segmentation_file_name", "labels",
    "masks", "semantic_mask",
)  # fmt: skip
METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


def find_metadata(root: Path) -> dict[str, Path]:
    """Return split name -> metadata file, of an imagefolder."""
    found = {split: _find_one(folder) for split, folder in find_split_folders(root).items()}
    if not any(found.values()):
        found = {WHOLE: _find_one(root)}
    return {split: path for split, path in found.items() if path is not None}


def name_metadata(folder: Path) -> str:
    """Return the name of a folder's metadata file that has a column of images, "" where there is none."""
    for name in METADATA_NAMES:
        with suppress(InputError):  # whoever reads it says what is wrong
            first = next(read_rows(folder / name), {}) if is_file(folder / name) else {}
            if any(column.lower() in IMAGE_COLUMNS for column in first):
                return name
    return ""


def _find_one(folder: Path) -> Path | None:
    matches = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
    if len(matches) > 1:
        raise InputError(
            f"{folder}: two metadata files", found=", ".join(path.name for path in matches), fix="remove one"
        )
    return matches[0] if matches else None


def read_metadata(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of an imagefolder: one metadata file per split, or one with a `split` column."""
    files = find_metadata(root)
    if not files:
        raise InputError(f"{root}: no metadata file", allowed=", ".join(METADATA_NAMES))
    return _read_files(files, section, "imagefolder with metadata", root)


def read_manifest(path: Path, section: DataRecipe) -> Source:
    """Return the pairs that a CSV or JSON-lines file lists; paths are relative to the file, `split` names the split."""
    return _read_files({WHOLE: path}, section, f"manifest {path.name}", path.parent)


def _read_files(files: Mapping[str, Path], section: DataRecipe, found: str, root: Path) -> Source:
    splits: dict[str, list[tuple[str, str, str]]] = {}
    for split, path in files.items():
        for name, pairs in read_pairs(path, section, split).items():
            splits.setdefault(name, []).extend(pairs)
    masked = {split: [pair for pair in pairs if pair[2]] for split, pairs in splits.items()}
    unmasked = {split: [(name, image) for name, image, mask in pairs if not mask] for split, pairs in splits.items()}
    notes = [f"{split}: {len(pairs)} pairs" for split, pairs in masked.items()]
    tables = {split: build_table(pairs) for split, pairs in masked.items()}
    return Source(tables, found, root, notes=notes, unmasked=unmasked)


def read_pairs(path: Path, section: DataRecipe, split: str) -> dict[str, list[tuple[str, str, str]]]:
    """Return split name -> (name, image path, mask path, "" where its cell is empty) of the rows of a table file.

    Raises:
        InputError: If a column is missing or two would do, or a row names a file that is not there.
    """
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: no rows", fix="list at least one pair")
    image = choose_column(list(first), section.image_column, IMAGE_COLUMNS, "image_column", path)
    mask = choose_column([c for c in first if c != image], section.label_column, MASK_COLUMNS, "label_column", path)
    pairs: dict[str, list[tuple[str, str, str]]] = {}
    for number, row in enumerate(chain([first], rows), start=1):
        paths = []
        for column in (image, mask):
            value = row.get(column)
            if column == mask and value in ("", None):
                paths.append("")
                continue
            if not isinstance(value, str) or not value:
                raise InputError(
                    f"{path}, row {number}: no file in column '{column}'", found=repr(value), fix="name a file"
                )
            file = path.parent / value
            if not is_file(file):
                raise InputError(
                    f"{path}, row {number}: no such file", found=repr(value), fix=f"paths are relative to {path.parent}"
                )
            paths.append(str(file))
        name = strip_suffix(str(row[image]))
        pairs.setdefault(str(row.get("split") or split), []).append((name, paths[0], paths[1]))
    return pairs


def read_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """Yield the rows of a .csv, .tsv or .jsonl file as mappings.

    Raises:
        InputError: If the file is not text in UTF-8, or a row is not one of its table.
    """
    refuse_special_file(path, str(path))
    read = _read_cells if path.suffix.lower() in (".csv", ".tsv") else _read_objects
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from read(file, path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not a table of text", found=error, allowed="CSV, TSV or JSON lines in UTF-8"
        ) from None


def _read_cells(file: Iterable[str], path: Path) -> Iterator[Mapping[str, object]]:
    rows = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        columns = next(rows, [])
        twice = [column for column, count in Counter(columns).items() if column and count > 1]
        if twice:
            raise InputError(f"{path}: columns that stand twice", found=", ".join(twice[:5]), fix="rename one")
        for cells in filter(None, rows):  # empty lines are none
            if len(cells) > len(columns):
                raise InputError(
                    f"{path}, line {rows.line_num}: more cells than columns",
                    found=f"{len(cells)} cells, {len(columns)} columns",
                    fix="quote a cell that holds the delimiter",
                )
            yield dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: not a table ({error})", fix="correct the line") from None


def _read_objects(file: Iterable[str], path: Path) -> Iterator[Mapping[str, object]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not an object", found=line[:60].strip(), fix="one object a line")
        yield row


def choose_column(columns: Sequence[str], asked: str | None, usual: Sequence[str], key: str, where: object) -> str:
    """Return the column that is asked for, or the only one with a usual name.

    Raises:
        InputError: If the column is missing, or two would do.
    """
    if asked is not None:
        if asked not in columns:
            raise InputError(f"data.{key}: no such column in {where}", found=asked, fix=suggest(asked, columns))
        return asked
    matches = [column for column in columns if column.lower() in usual]
    if len(matches) != 1:
        raise InputError(
            f"{where}: {'more than one' if matches else 'no'} column could be data.{key}",
            found=", ".join(matches or columns),
            fix=f"set data.{key}",
        )
    return matches[0]

"""Data sets that the `datasets` library reads: Hub ids, Parquet, folders written by save_to_disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc

from segplus.data.layouts.legends import read_id2label
from segplus.data.layouts.source import Source, Stream, find_split
from segplus.data.layouts.tables import IMAGE_COLUMNS, MASK_COLUMNS
from segplus.errors import InputError, suggest
from segplus.recipe.data_section import DataRecipe


def read_hub(name: str, section: DataRecipe) -> Source:
    """Return the pairs of a Hub data set, of a folder that load_dataset takes, or of a Parquet file."""
    path = Path(name)
    try:
        if path.is_file():
            builder = path.suffix.lstrip(".").lower()
            loaded = datasets.load_dataset(builder, data_files=str(path), streaming=section.streaming)
        else:
            loaded = load_repository(name, section)
        stream = None
        if section.streams_training:
            loaded, stream = open_stream(loaded, section)
        elif section.streaming:
            loaded = take_rows(loaded, section)
    except InputError:
        raise
    except Exception as error:  # the library raises a dozen types here: missing repository, config, network, builder
        raise InputError(
            f"data.dataset: '{name}' could not be opened",
            found=f"{type(error).__name__}: {error}",
            fix="correct the id or the folder",
        ) from None
    source = build_hub_source(loaded, section, name, path if path.exists() else None)
    if stream is not None:
        columns = find_columns(stream[0].features, section, f"{name} (train)")
        source.stream = Stream(stream[0], columns, stream[1])
        source.notes.append(f"train: a stream of {stream[0].num_shards} files, nothing is kept of it")
    return source


def load_repository(name: str, section: DataRecipe) -> Any:
    """Return the splits of a repository or folder; of one that is a script, the Hub's own conversion to Parquet."""
    config, revision = section.dataset_config, section.revision
    try:
        return datasets.load_dataset(name, config, revision=revision, streaming=section.streaming)
    except RuntimeError as error:
        # The library has no type of its own for this: a plain RuntimeError, told by its message alone.
        if "scripts are no longer supported" not in str(error) or revision is not None:
            raise
    return datasets.load_dataset(name, config, revision="refs/convert/parquet", streaming=section.streaming)


def take_rows(streams: Mapping[str, Any], section: DataRecipe) -> dict[str, datasets.Dataset]:
    """Return the first data.max_images rows of each split of a stream, images still encoded, held in memory.

    Raises:
        InputError: If a split that is there has no limit.
    """
    tables = {}
    for split, asked in section.split_names.items():
        name = find_split(list(streams), split, asked)
        if name is None:
            continue
        tables[name] = _hold(streams[name], split, section)
    return tables


def _hold(stream: datasets.IterableDataset, split: str, section: DataRecipe) -> datasets.Dataset:
    rows = keep_encoded(stream)
    return datasets.Dataset.from_list(list(rows.take(_find_limit(split, section))), features=rows.features)


def open_stream(
    streams: Mapping[str, Any], section: DataRecipe
) -> tuple[dict[str, datasets.Dataset], tuple[datasets.IterableDataset, list[int]]]:
    """Return validation and test rows, held in memory, and the training rows with those to skip in each file.

    Where there is no validation split, the head of the training stream becomes it.

    Raises:
        InputError: If there is no training split, or a split that is held has no limit.
    """
    found = {split: find_split(list(streams), split, name) for split, name in section.split_names.items()}
    if found["train"] is None and len(streams) == 1:
        found["train"] = next(iter(streams))
    if found["train"] is None:
        raise InputError("data.train_split: no training split", found=", ".join(streams), fix="set data.train_split")
    training = keep_encoded(streams[found["train"]])
    tables, skipped = {}, [0] * training.num_shards
    if found["validation"] is None and section.validation_split != "none":
        head, skipped = take_head(training, _find_limit("validation", section))
        tables["validation"] = datasets.Dataset.from_list(head, features=training.features)
    for split in ("validation", "test"):
        source = found[split]
        if source is not None:
            tables[split] = _hold(streams[source], split, section)
    if not tables:
        raise InputError("data.validation_split: none, and a stream needs one", fix="leave data.validation_split out")
    return tables, (training, skipped)


def _find_limit(split: str, section: DataRecipe) -> int:
    if split not in section.max_images:
        raise InputError(
            f"data.max_images.{split}: a stream is read up to a number of images",
            fix=f"set data.max_images: {{{split}: ...}}, or data.{split}_split: none, or data.streaming: false",
        )
    return section.max_images[split]


def keep_encoded(stream: datasets.IterableDataset) -> datasets.IterableDataset:
    """Return the stream with images as they are stored, {"bytes", "path"}."""
    for column, feature in (stream.features or {}).items():
        if _is_image(feature):
            stream = stream.cast_column(column, datasets.Image(decode=False))
    return stream


def read_saved(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of a folder that Dataset.save_to_disk or DatasetDict.save_to_disk wrote."""
    try:
        loaded = datasets.load_from_disk(str(root))
    except (FileNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"{root}: not a folder that save_to_disk wrote ({error})", fix="correct data.dataset"
        ) from None
    return build_hub_source(loaded, section, str(root), root)


def build_hub_source(loaded: Any, section: DataRecipe, name: str, root: Path | None) -> Source:
    """Return the pairs of a loaded data set with its columns renamed to image and mask."""
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    tables, columns = {}, ("", "")
    for split, rows in splits.items():
        columns = find_columns(rows.features, section, f"{name} ({split})")
        tables[split] = prepare_rows(rows, *columns, split)
    features = next(iter(splits.values())).features
    names = find_label_names(features) or _read_repository_names(name, root, section.revision)
    notes = [
        f"{split}: {len(rows)} rows, image column '{columns[0]}', label column '{columns[1]}'"
        for split, rows in tables.items()
    ]
    return Source(tables, "data set of the `datasets` library", root, names=names, notes=notes)


def find_columns(features: Mapping[str, Any], section: DataRecipe, where: str) -> tuple[str, str]:
    """Return (image column, label column), by the recipe or by type and usual name.

    Raises:
        InputError: If a column is missing, or more than one could be meant.
    """
    images = [column for column, feature in features.items() if _is_image(feature)]
    label = section.label_column or _pick(images, MASK_COLUMNS, (section.image_column,))
    image = section.image_column or _pick(images, IMAGE_COLUMNS, (label,))
    if label is None and image is not None:
        label = _pick([c for c in images if c != image], (), ())
    if image is None and label is not None:
        image = _pick([c for c in images if c != label], (), ())
    for key, column in (("image_column", image), ("label_column", label)):
        if column is None:
            raise InputError(f"{where}: which column is data.{key}?", found=", ".join(features), fix=f"set data.{key}")
        if column not in features:
            raise InputError(f"data.{key}: no such column in {where}", found=column, fix=suggest(column, features))
    return str(image), str(label)


def _pick(columns: list[str], usual: tuple[str, ...], taken: tuple[str | None, ...]) -> str | None:
    free = [column for column in columns if column not in taken]
    matches = [column for column in free if column.lower() in usual]
    if len(matches) == 1:
        return matches[0]
    return free[0] if len(free) == 1 and not usual else None


def _is_image(feature: Any) -> bool:
    """Return whether a feature is an Image, or the struct {bytes, path} or plain bytes, as in Parquet files."""
    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")


def prepare_rows(rows: datasets.Dataset, image: str, label: str, split: str) -> datasets.Dataset:
    """Return the table name, image, mask; images stay encoded, as {"bytes", "path"}."""
    chosen = rows.select_columns(list(dict.fromkeys([image, label])))
    for column in (image, label):
        if _is_image(chosen.features[column]):
            chosen = chosen.cast_column(column, datasets.Image(decode=False))
    chosen = chosen.rename_columns({image: "image", label: "mask"})
    return chosen.add_column("name", _name_rows(chosen, split))


def _name_rows(rows: datasets.Dataset, split: str) -> list[str]:
    """Return the images' own file names where each has one and they differ, or split/number."""
    numbered = [f"{split}/{index:06d}" for index in range(len(rows))]
    if not isinstance(rows.features["image"], datasets.Image) or not len(rows):
        return numbered
    plain = rows.flatten_indices() if rows._indices is not None else rows
    paths = pc.struct_field(plain.data.column("image"), "path").to_pylist()
    stems = [Path(path).stem if path else "" for path in paths]
    return stems if all(stems) and len(set(stems)) == len(stems) else numbered


def find_label_names(features: Any) -> dict[int, str] | None:
    """Return the names of the only list of ClassLabel; a single ClassLabel names scenes, not pixels."""
    lists = {tuple(found) for found in _walk_label_names(features, inside_list=False)}
    return dict(enumerate(lists.pop())) if len(lists) == 1 else None


def _walk_label_names(feature: Any, inside_list: bool) -> Iterator[list[str]]:
    if isinstance(feature, datasets.ClassLabel):
        if inside_list:
            yield list(feature.names)
    elif isinstance(feature, dict):
        for inner in feature.values():
            yield from _walk_label_names(inner, inside_list)
    elif isinstance(feature, list):
        yield from _walk_label_names(feature[0], True)
    elif isinstance(feature, datasets.List | datasets.LargeList | datasets.Sequence):
        yield from _walk_label_names(feature.feature, True)


def _read_repository_names(name: str, root: Path | None, revision: str | None) -> dict[int, str] | None:
    if root is not None:
        return None  # the reader of id2label.json in folders finds it
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(name, "id2label.json", repo_type="dataset", revision=revision)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
        return None
    return read_id2label(Path(path), f"{name}: id2label.json")


def take_head(rows: datasets.IterableDataset, most: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the first rows of a stream, and how many of them lie in each file."""
    head: list[dict[str, Any]] = []
    taken = []
    for file in range(rows.num_shards):
        before = len(head)
        head += rows.shard(rows.num_shards, file).take(most - before) if before < most else ()
        taken.append(len(head) - before)
    return head, taken

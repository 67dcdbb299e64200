"""What a layout hands over: tables of pairs, one a split, and what it knows of the classes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, IterableDataset
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable

from segplus.colors import Color
from segplus.data.layouts.words import find_kind
from segplus.errors import InputError
from segplus.texts import is_text

_ROWS_AT_ONCE = 4096
WHOLE = "train"  # the split of data that are not divided
SPLIT_ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "tr", "train_set", "training_set", "trainset"),
    "validation": (
        "validation", "val", "valid", "va", "dev", "validate", "validating", "val_set", "validation_set", "valset",
    ),
    "test": ("test", "testing", "tst", "ts", "test_set", "testset"),
}  # fmt: skip
# Training and validation images in one: the training split of data that have no other.
_JOINT = ("train_val", "trainval", "train_valid", "train_validation", "train+val", "traindev", "train_dev")
# traincrop and valcrop are splits, too, and so are imagesTr and imagesTs; testimony is none.
_SPLIT_WORD = re.compile(
    "(?<![a-z])(train(ing|val)?|val(id(ation)?)?|dev|test(ing)?)(?=(crops?|data|patch(es)?|tiles?)?(?![a-z]))"
    "|(?-i:(?<=[a-z])(Tr|Va|Ts)(?![A-Za-z]))",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile("(train|training|val|valid|validation|test|testing)[A-Z]?[_-]")


class OpenChoiceError(InputError):
    """More than one thing fits; `keys` of the data section make one choice until a person has answered `question`."""

    def __init__(self, what: str, *, keys: Mapping[str, Any] | None = None, question: str = "", **given: Any) -> None:
        super().__init__(what, **given)
        self.keys, self.question = dict(keys or {}), question


@dataclass(frozen=True)
class Stream:
    """The training rows of a data set that is not held.

    Args:
        rows: The stream, images not decoded.
        columns: Names of the image and the mask column.
        skipped: Rows at the beginning of each file that belong to another split.
    """

    rows: IterableDataset
    columns: tuple[str, str]
    skipped: Sequence[int]


@dataclass
class Source:
    """The pairs of a data set before masks are read.

    Args:
        splits: Split name, as the data set says it -> table with the columns name, image, mask. An image is a path or
            {"bytes", "path"}; a mask the same, or a JSON text of shapes.
        found: What was recognised, for people.
        root: The folder that holds the pairs, None on the Hub.
        names: Mask value -> class name, where the data set says it.
        colors: Class name -> colour, where the data set says it.
        void: Mask values that the layout ignores.
        encoding: The layout's own encoding, or None.
        follows_classes: `names` was made from data.classes already.
        presumed: `names` are the usual ones of the layout; nothing in the data set says that they are its own.
        settled: Keys of the data section that say what was recognised, for the recipe that is proposed.
        notes: What was found in each split, for people.
        unmasked: Images without a mask: split -> (name, path).
        masks_alone: Masks without an image.
        stream: The training split where it is streamed; `splits` then are called validation and test.
        top: The data set's folder, where the pairs lie in one below.
        names_file: The file that `names` come from, for messages.
    """

    splits: dict[str, Dataset]
    found: str
    root: Path | None = None
    names: Mapping[int, str] | None = None
    colors: Mapping[str, Color] | None = None
    void: tuple[int, ...] = ()
    encoding: str | None = None
    follows_classes: bool = False
    presumed: bool = False
    settled: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unmasked: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    masks_alone: list[str] = field(default_factory=list)
    stream: Stream | None = None
    top: Path | None = None
    names_file: Path | None = None

    @property
    def images_alone(self) -> list[str]:
        """The images without a mask of all splits."""
        return [path for found in self.unmasked.values() for _, path in found]

    def describe_orphans(self) -> list[str]:
        """Return a sentence on images without a mask, and one on masks without an image."""
        named = (("images without a mask", self.images_alone), ("masks without an image", self.masks_alone))
        return [f"{len(files)} {what} ({name_some(map(os.path.basename, files))})" for what, files in named if files]


def name_some(names: Iterable[str]) -> str:
    """Return the first three names, and how many more there are, for messages."""
    named = list(names)
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def build_table(pairs: Iterable[tuple[str, str, str]]) -> Dataset:
    """Return an Arrow table with the columns name, image, mask; of the pairs only a few thousand are held at a time."""
    schema = pa.schema([(column, pa.string()) for column in ("name", "image", "mask")])
    coming, chunks = iter(pairs), [schema.empty_table()]
    while rows := list(islice(coming, _ROWS_AT_ONCE)):
        try:
            columns = [pa.array([row[position] for row in rows], pa.string()) for position in range(3)]
        except UnicodeEncodeError:
            raise _refuse_encoding(rows) from None
        chunks.append(pa.table(columns, schema=schema))
    # Without a fingerprint `datasets` makes one from a copy of the table.
    return Dataset(InMemoryTable(pa.concat_tables(chunks)), fingerprint=generate_random_fingerprint())


def _refuse_encoding(rows: Iterable[tuple[str, str, str]]) -> InputError:
    odd = next(text for row in rows for text in row if not is_text(text))
    return InputError(f"{odd!a}: a file name that is no text in UTF-8", fix="rename the file or its folder")


def find_split(available: Sequence[str], split: str, asked: str | None) -> str | None:
    """Return the data set's own name of a split, or None.

    Raises:
        InputError: If the asked name is not there, or two names would do.
    """
    if asked == "none":
        return None
    if asked is not None:
        if asked not in available:
            raise InputError(
                f"data.{split}_split: no such split", found=asked, allowed=", ".join(sorted(available)) or "none at all"
            )
        return asked
    matches = [name for name in available if _plain(name) in SPLIT_ALIASES[split]]
    if not matches and split == "train":
        matches = [name for name in available if _plain(name) in _JOINT]
    if not matches:
        loose = [name for name in available if rank_split(name) == list(SPLIT_ALIASES).index(split)]
        matches = loose if len(loose) == 1 else []
    if len(matches) > 1:
        raise InputError(
            f"two splits could be the {split} split", found=", ".join(matches), fix=f"set data.{split}_split"
        )
    return matches[0] if matches else None


def find_split_folders(root: Path, asked: Iterable[str | None] = ()) -> dict[str, Path]:
    """Return the folders inside a folder that have the usual name of a split, or one that was asked for, by name.

    Args:
        root: The folder.
        asked: Names that a recipe gives to splits.
    Returns:
        Name -> folder: those of training first, then validation, then test.
    """
    named = set(asked)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    found = [path for path in folders if path.name in named or is_split_name(path.name)]
    found = found or _find_named_alike(folders)
    return {path.name: path for path in sorted(found, key=lambda path: rank_split(path.name))}


def _find_named_alike(folders: Iterable[Path]) -> list[Path]:
    """Return the folders of splits that are named alike but for the split, as stage1_train and stage1_test are."""
    alike: dict[str, list[Path]] = {}
    for path in folders:
        match = _SPLIT_WORD.search(path.name)
        if match is not None and find_kind(path.name) is None:
            alike.setdefault(path.name[: match.start()] + path.name[match.end() :], []).append(path)
    found = [paths for paths in alike.values() if len({rank_split(path.name) for path in paths}) > 1]
    return found[0] if len(found) == 1 else []


def is_split_name(name: str) -> bool:
    """Return whether a folder's name is a usual name of a split, in small or large letters."""
    return any(_plain(name) in aliases for aliases in (*SPLIT_ALIASES.values(), _JOINT))


def rank_split(name: str) -> int:
    """Return 0 for a name of the training split, 1 of validation, 2 of test, 3 for one without such a word in it."""
    match = None if is_split_name(name) else _SPLIT_WORD.search(name)
    plain = _plain(match[0] if match else name)
    usual = [plain in aliases for aliases in SPLIT_ALIASES.values()]
    return 0 if plain in _JOINT else usual.index(True) if any(usual) else len(usual)


def divide_by_names(names: Sequence[str]) -> dict[str, list[int]]:
    """Return split -> rows where every name begins with the word of one, as train_1 and testA_1 do; or nothing."""
    matches = [_FIRST_WORD.match(os.path.basename(name)) for name in names]
    ranks = [rank_split(match[1]) for match in matches if match]
    found = {split: [row for row, one in enumerate(ranks) if one == rank] for rank, split in enumerate(SPLIT_ALIASES)}
    found = {split: rows for split, rows in found.items() if rows}
    return found if len(ranks) == len(names) and len(found) > 1 and "train" in found else {}


def put_split(name: str) -> str:
    """Return a folder's name with `{split}` in the place of the split's, or "" where it has none."""
    if is_split_name(name):
        return "{split}"
    return _SPLIT_WORD.sub("{split}", name, count=1) if _SPLIT_WORD.search(name) else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")

"""The data set of a run: splits of pairs, read one at a time, and the classes that all of them share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, TypedDict

import datasets
import numpy as np
import numpy.typing as npt

from segplus.classes import ClassMap
from segplus.data.contents import digest_contents, stamp_entries
from segplus.data.decoding.image_reader import ImageReader, describe_file, read_size
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.decoding.regions import open_image, open_label
from segplus.data.decoding.stored import Stored
from segplus.errors import InputError
from segplus.images import DecodedImage, OpenPair, measure_image

Labels = npt.NDArray[np.unsignedinteger[Any]]


class Pair(TypedDict):
    """One image with its mask.

    image: PIL image in RGB, upright, or an array (H, W, channels). label: class ids, (H, W). name: text.
    """

    image: DecodedImage
    label: Labels
    name: str


class SegmentationSplit:
    """A split of images and masks, map-style; only names are held, pixels are read when asked for.

    Args:
        rows: Table with the columns name, image, mask.
        decoder: What the masks mean.
        reader: How images become pixels.
        title: Name of the split, for messages.
    """

    def __init__(self, rows: datasets.Dataset, decoder: MaskDecoder, reader: ImageReader, title: str) -> None:
        self.rows = rows
        self.decoder = decoder
        self.reader = reader
        self.title = title
        self.statistics: Any = None  # what segplus.data.statistics counted

    @property
    def classes(self) -> ClassMap:
        """The classes of the labels."""
        return self.decoder.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:
        """Return the pair at a position.

        Raises:
            InputError: If a file is damaged, the sizes differ, or the mask holds a value outside the classes.
        """
        row = self._row(index)
        sources = _name_pair(row)
        return read_pair(row["image"], row["mask"], row["name"], sources, self.reader, self.decoder)

    def open(self, index: int) -> OpenPair:
        """Return the pair, of which nothing is decoded yet where the format allows.

        Raises:
            InputError: If a file is damaged, or the sizes differ.
        """
        row = self._row(index)
        sources = _name_pair(row)
        return open_pair(row["image"], row["mask"], sources, self.reader, self.decoder)

    def __iter__(self) -> Iterator[Pair]:
        for index in range(len(self)):
            yield self[index]

    def name(self, index: int) -> str:
        """Return the name of a pair within the split, without file suffix."""
        return str(self._row(index)["name"])

    @property
    def names(self) -> list[str]:
        """The names of all pairs, in order."""
        return list(self.rows["name"])

    def image(self, index: int) -> DecodedImage:
        """Return the image only."""
        row = self._row(index)
        return self.reader.read(row["image"], name_source(row["image"], row["name"]))

    def label(self, index: int) -> Labels:
        """Return the class ids only, shape (H, W)."""
        row = self._row(index)
        return self.decoder.read(row["mask"], _name_pair(row)[1])

    def raw_label(self, index: int) -> npt.NDArray[Any]:
        """Return the mask's raw values (ids or packed colours) before the look-up table, shape (H, W)."""
        row = self._row(index)
        return self.decoder.read_raw(row["mask"], _name_pair(row)[1])

    def check_mask(self, index: int) -> None:
        """Raise InputError if rows are missing in a PNG mask whose check sums hold; reading it would not tell.

        It costs about what reading costs, so that it is done once, when a split is counted.
        """
        row = self._row(index)
        self.decoder.check(row["mask"], _name_pair(row)[1])

    def size_px(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the upright image, from its header."""
        row = self._row(index)
        return read_size(row["image"], name_source(row["image"], row["name"]))

    def sources(self, index: int) -> tuple[str, str]:
        """Return what messages call the image and the mask: their paths where they have one."""
        row = self._row(index)
        return _name_pair(row)

    def stored(self, index: int) -> tuple[Stored, Stored]:
        """Return image and mask as they lie in the table: a path, {"bytes", "path"}, or a JSON text of shapes."""
        row = self._row(index)
        return row["image"], row["mask"]

    def describe_encoding(self, index: int) -> tuple[str, str]:
        """Return the file format and mode of image and mask, such as ("JPEG RGB", "PNG L")."""
        image, mask = self.stored(index)
        sources = self.sources(index)
        return describe_file(image, sources[0]), describe_file(mask, sources[1])

    def palette(self, index: int) -> bytes | None:
        """Return the palette of a mask file, or None where it has none."""
        return self.decoder.read_palette(self.stored(index)[1], self.sources(index)[1])

    def select(self, indices: Sequence[int] | npt.NDArray[np.int64], title: str | None = None) -> SegmentationSplit:
        """Return the split that holds only these pairs, in this order."""
        rows = self.rows.select(np.asarray(indices, dtype=np.int64))
        chosen = type(self)(rows, self.decoder, self.reader, title or self.title)
        chosen.statistics = None if self.statistics is None else self.statistics.select(indices)
        return chosen

    def to_dataset(self) -> datasets.Dataset:
        """Return the decoded pairs as a table of the `datasets` library, ready to be pushed; images are stored as PNG.

        Columns: `image` and `label` are Images, a label of class ids; `name` is text; `classes` lists the classes that
        an image shows, as ClassLabels, whose names segplus and others read back.

        Raises:
            InputError: If a pair cannot be read, or an image has other channels than an image format holds.
        """
        names, ignored = list(self.classes.names), self.classes.ignore_index
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.Image(),
                "name": datasets.Value("string"),
                "classes": datasets.List(datasets.ClassLabel(names=names)),
            }
        )

        def list_rows() -> Iterator[dict[str, Any]]:
            for pair in self:
                if isinstance(pair["image"], np.ndarray):
                    raise InputError(f"{pair['name']}: no image format holds these channels", found=pair["image"].shape)
                shown = [int(value) for value in np.unique(pair["label"]) if value != ignored]
                yield {**pair, "classes": shown}

        return datasets.Dataset.from_generator(list_rows, features=features)

    @cached_property
    def fingerprint(self) -> str:
        """Text that changes with the bytes of a file, the choice or order of files, or the meaning of a mask value.

        A first time reads every file once; files of the same path, size and modification time are not read again.
        Images inside a table go by the fingerprint that the `datasets` library gives it.
        """
        meaning = describe_meaning(self.decoder, self.reader)
        held = self.rows._fingerprint if _holds_bytes(self.rows) else self._digest_files()
        return hashlib.sha256(f"{meaning}|{held}".encode()).hexdigest()[:32]

    def _digest_files(self) -> str:
        def list_entries() -> Iterator[str]:
            for image, mask in zip(self.rows["image"], self.rows["mask"], strict=True):
                yield image
                yield mask

        return digest_contents(list_entries(), stamp_entries(list_entries()))

    def _row(self, index: int) -> dict[str, Any]:
        if not -len(self.rows) <= index < len(self.rows):
            raise IndexError(f"{self.title} has {len(self.rows)} pairs, not {index}")
        row: dict[str, Any] = self.rows[int(index)]
        return row


def read_pair(
    image: Stored, mask: Stored, name: str, sources: tuple[str, str], reader: ImageReader, decoder: MaskDecoder
) -> Pair:
    """Return the decoded pair of a stored image and mask; messages call them by their sources.

    Raises:
        InputError: If one is damaged, the sizes differ, or the mask holds a value outside the classes.
    """
    decoded = reader.read(image, sources[0])
    label = decoder.read(mask, sources[1], lambda size: refuse_different_sizes(measure_image(decoded), size, *sources))
    refuse_different_sizes(measure_image(decoded), label.shape, *sources)
    return {"image": decoded, "label": label, "name": name}


def open_pair(
    image: Stored, mask: Stored, sources: tuple[str, str], reader: ImageReader, decoder: MaskDecoder
) -> OpenPair:
    """Return the pair of a stored image and mask, of which nothing is decoded yet where the format allows.

    Raises:
        InputError: If one is damaged, or the sizes differ.
    """
    opened = open_image(reader, image, sources[0])
    label = open_label(decoder, mask, sources[1], lambda size: refuse_different_sizes(opened.size_px, size, *sources))
    refuse_different_sizes(opened.size_px, label.size_px, *sources)
    return OpenPair(opened.size_px, opened.read, label.read)


def name_source(stored: Stored, name: str) -> str:
    """Return what messages call a stored file: its path, or the row's name."""
    if isinstance(stored, str):
        return name if stored.startswith("{") else stored
    # rows of values and images without a path go by the row's name
    if isinstance(stored, dict) and stored.get("path"):
        return str(stored["path"])
    return name


def _name_pair(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what messages call an image and its mask; a mask that is no file goes by its image."""
    image = name_source(row["image"], row["name"])
    return image, name_source(row["mask"], f"mask of {image}")


def refuse_different_sizes(image: tuple[int, int], mask: tuple[int, ...], source: str, mask_source: str) -> None:
    """Raise InputError unless image and mask have one (height, width)."""
    if tuple(image) == tuple(mask):
        return
    turned = " (one lies on its side: EXIF orientation was applied)" if tuple(image) == tuple(mask[::-1]) else ""
    raise InputError(
        f"{source}: image and mask have different sizes{turned}",
        found=f"image {image[1]} x {image[0]}, mask {mask[1]} x {mask[0]} px ({mask_source})",
        fix="export the mask again at the image's size",
    )


def describe_meaning(decoder: MaskDecoder, reader: ImageReader) -> str:
    """Return a text that two decoders share only if they read every mask alike."""
    settings = {key: value for key, value in vars(decoder).items() if key != "classes"}
    classes = decoder.classes
    table = sorted(classes.raw_to_class.items())
    return json.dumps([settings, classes.names, table, classes.unknown, classes.legend, asdict(reader)], default=str)


def _holds_bytes(rows: datasets.Dataset) -> bool:
    return not all(isinstance(rows.features[column], datasets.Value) for column in ("image", "mask"))

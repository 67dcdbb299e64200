"""A training split as a stream: read file by file, shuffled through a buffer, pass after pass, nothing kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import datasets
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Sampler

from segplus.classes import ClassMap
from segplus.data.dataset import Pair, name_source, open_pair, read_pair
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.decoding.stored import Stored
from segplus.data.parallel import read_ahead
from segplus.errors import InputError
from segplus.images import OpenPair

_READ_AHEAD = 64  # rows between the reader's thread and the loader
_NAMES_KEPT = 1 << 14  # rows whose names are remembered, for messages; more than workers hold at any time


class StreamedRow(TypedDict):
    """A row as it is stored, not decoded.

    image, mask: {"bytes", "path"}, or rows of values. name: file and row within it. position: number of the row in what
    all processes draw. number_of_pass: from 0.
    """

    image: Stored
    mask: Stored
    name: str
    position: int
    number_of_pass: int


class StreamedSplit:
    """A split that has no length and no positions: rows come in an order, and are decoded where they are needed.

    Args:
        rows: The stream, images not decoded.
        columns: Names of the image and the mask column.
        skipped: Rows to leave out at the beginning of each file, because another split holds them.
        decoder: What the masks mean.
        reader: How images become pixels.
        buffer_images: Rows among which the next one is drawn.
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        columns: tuple[str, str],
        skipped: Sequence[int],
        decoder: MaskDecoder,
        reader: ImageReader,
        buffer_images: int,
    ) -> None:
        self.decoder, self.reader, self.buffer_images = decoder, reader, buffer_images
        # files before the last one that was read into are used up
        first = max((file for file, taken in enumerate(skipped) if taken), default=0)
        types = dict(zip(("image", "mask"), (rows.features[column] for column in columns), strict=True))
        self.rows = datasets.IterableDataset.from_generator(
            _number_rows,
            features=datasets.Features({**types, "name": datasets.Value("string")}),
            # a list is what `datasets` divides among processes, and puts into another order in each pass
            gen_kwargs={"rows": rows, "columns": columns, "files": list(enumerate(skipped))[first:]},
        )

    @property
    def classes(self) -> ClassMap:
        """The classes of the labels."""
        return self.decoder.classes

    def __iter__(self) -> Iterator[Pair]:
        """Yield one pass of decoded pairs in the order of the files.

        Raises:
            InputError: If a row is damaged, its sizes differ, or its mask holds a value outside the classes.
        """
        for row in self.rows:
            yield self.read(row)

    def read(self, row: Any) -> Pair:
        """Return the decoded pair of a row.

        Raises:
            InputError: If it is damaged, the sizes differ, or the mask holds a value outside the classes.
        """
        return read_pair(row["image"], row["mask"], row["name"], _name_sources(row), self.reader, self.decoder)

    def open(self, row: Any) -> OpenPair:
        """Return the pair of a row, of which nothing is decoded yet where the format allows.

        Raises:
            InputError: If it is damaged, or the sizes differ.
        """
        return open_pair(row["image"], row["mask"], _name_sources(row), self.reader, self.decoder)

    def draw_rows(self, seed: int, process_index: int = 0, num_processes: int = 1) -> Iterator[StreamedRow]:
        """Yield this process's rows without end, in another order in each pass.

        Raises:
            InputError: If a pass holds no row.
        """
        shuffled = self.rows.shuffle(seed=seed, buffer_size=self.buffer_images)
        share = split_dataset_by_node(shuffled, rank=process_index, world_size=num_processes)
        drawn = number_of_pass = 0
        while True:
            before = drawn
            share.set_epoch(number_of_pass)
            for row in share:
                position = drawn * num_processes + process_index
                yield {**row, "position": position, "number_of_pass": number_of_pass}  # type: ignore[typeddict-item]
                drawn += 1
            if drawn == before:
                raise InputError(
                    "data.streaming: no row is left to train on", fix="lower data.max_images.validation, or add images"
                )
            number_of_pass += 1


def _name_sources(row: Any) -> tuple[str, str]:
    """Return what messages call a row's image and mask: file and row."""
    name = row["name"]
    image, mask = (name_source(row[column], name) for column in ("image", "mask"))
    return image if image == name else f"{image} ({name})", f"mask of {name}" if mask == name else f"{mask} ({name})"


class RowSampler(Sampler[StreamedRow]):
    """Draws a stream's rows for a data loader, whose workers decode them; a thread reads ahead.

    The order depends on the seed and the number of processes alone, and rows that a resumed run skips are not decoded.

    Args:
        split: The stream.
        seed: Another seed gives another order.
        process_index: Which process draws.
        num_processes: How many share the stream: whole files where their number allows, or else every n-th row.
    """

    def __init__(self, split: StreamedSplit, seed: int, process_index: int = 0, num_processes: int = 1) -> None:
        self.split, self.seed = split, seed
        self.process_index, self.num_processes = process_index, num_processes
        self.rows_per_pass: int | None = None
        self._names: OrderedDict[int, str] = OrderedDict()

    def __iter__(self) -> Iterator[StreamedRow]:
        rows = self.split.draw_rows(self.seed, self.process_index, self.num_processes)
        for drawn, row in enumerate(read_ahead(rows, _READ_AHEAD)):
            if row["number_of_pass"] == 1 and self.rows_per_pass is None:
                self.rows_per_pass = drawn
            self._names[row["position"]] = row["name"]
            if len(self._names) > _NAMES_KEPT:
                self._names.popitem(last=False)
            yield row

    def name(self, position: int) -> str:
        """Return the name of a row that was drawn lately."""
        return self._names.get(position, f"row {position} of the stream")


def _number_rows(
    rows: datasets.IterableDataset, columns: tuple[str, str], files: Sequence[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    for file, skipped in files:
        for number, row in enumerate(rows.shard(rows.num_shards, file)):
            if number >= skipped:
                yield {"image": row[columns[0]], "mask": row[columns[1]], "name": f"train, file {file}, row {number}"}

"""Decoded images and masks in one memory-mapped file each: decoding is paid once, memory is the operating system's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.data.contents import digest_contents, digest_files, stamp_entries
from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.regions import open_arrays
from segplus.data.remembered import prepare_cache, tell_damage
from segplus.errors import InputError
from segplus.files import write_whole_folder
from segplus.images import DecodedImage, OpenPair

_FORMAT = 2
_FILES = ("images.bin", "labels.bin", "table.npy")


def measure_cache(split: SegmentationSplit) -> int:
    """Return the bytes that the cache of a split takes, from the images' headers and one decoded pair."""
    if not len(split):
        return 0
    first = split[0]
    image, label = _to_array(first["image"]), first["label"]
    bytes_per_pixel: int = image.dtype.itemsize * image.shape[2] + label.dtype.itemsize
    return sum(height * width for height, width in map(split.size_px, range(len(split)))) * bytes_per_pixel


def open_cache(
    split: SegmentationSplit, folder: Path, tell: Callable[[Iterable[int]], Iterable[int]] = iter
) -> CachedSplit:
    """Return the split from its cache, which is made first where it is not there.

    The cache's folder is named by the split's fingerprint: another file, choice of files or meaning of a mask value
    makes another cache. It is written beside and renamed when whole: a run that dies leaves no half cache. One whose
    files do not fit their digest is told in one line and made anew; files of the same size and time are not read again.

    Args:
        split: The split.
        folder: Where caches lie.
        tell: Wraps the positions, to show progress.
    Raises:
        InputError: If the folder cannot be written to, or the disk is too small.
    """
    path = folder / f"{split.fingerprint}-{_FORMAT}"
    damage = _find_damage(path) if os.path.lexists(path) else "absent"
    if damage is not None:
        if damage != "absent":
            tell_damage(path, damage)
        _write_cache(split, path, tell)
    return CachedSplit(split, path)


class CachedSplit:
    """A split whose pairs come from memory-mapped files, read-only.

    Args:
        split: The split that was cached: it has the names and the classes.
        path: The folder of its cache.
    """

    def __init__(self, split: Any, path: Path) -> None:
        self.split, self.path = split, path
        stored = json.loads((path / "index.json").read_text(encoding="utf-8"))
        self._image_dtype, self._label_dtype = np.dtype(stored["image_dtype"]), np.dtype(stored["label_dtype"])
        self._table: npt.NDArray[np.int64] = np.load(path / "table.npy")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {"image", "label", "name"} without decoding; three 8-bit channels are a PIL image, as before."""
        image, label, is_rgb = self._map(index)
        return {"image": Image.fromarray(image) if is_rgb else image, "label": label, "name": self.name(index)}

    def open(self, index: int) -> OpenPair:
        """Return the pair; what is read of it are the pages of the files that hold the rectangle."""
        return open_arrays(*self._map(index)[:2])

    def _map(self, index: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], bool]:
        """Return image (H, W, channels), class ids (H, W), and whether the image is one of PIL."""
        image_start, label_start, height, width, channels, is_rgb = self._table[index].tolist()
        image_end = image_start + height * width * channels * self._image_dtype.itemsize
        label_end = label_start + height * width * self._label_dtype.itemsize
        image = self._images[image_start:image_end].view(self._image_dtype).reshape(height, width, channels)
        label = self._labels[label_start:label_end].view(self._label_dtype).reshape(height, width)
        return image, label, bool(is_rgb)

    def size_px(self, index: int) -> tuple[int, int]:
        """Return (height, width)."""
        return int(self._table[index, 2]), int(self._table[index, 3])

    def name(self, index: int) -> str:
        """Return the name of a pair within the split."""
        return str(self.split.name(index))

    def select(self, indices: npt.ArrayLike, title: str | None = None) -> CachedSplit:
        """Return the split that holds only these pairs, in this order, from the same cache."""
        chosen = CachedSplit(self.split.select(indices, title), self.path)
        chosen._table = self._table[np.asarray(indices, dtype=np.int64)]
        return chosen

    @cached_property
    def _images(self) -> npt.NDArray[np.uint8]:
        return np.asarray(np.memmap(self.path / "images.bin", np.uint8, mode="r"))

    @cached_property
    def _labels(self) -> npt.NDArray[np.uint8]:
        return np.asarray(np.memmap(self.path / "labels.bin", np.uint8, mode="r"))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: a worker opens its own."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_images", "_labels")}


def _write_cache(split: SegmentationSplit, path: Path, tell: Callable[[Iterable[int]], Iterable[int]]) -> None:
    prepare_cache(path.parent)
    needed, free = measure_cache(split), shutil.disk_usage(path.parent).free
    if needed > 0.95 * free:
        raise InputError(
            f"{path.parent}: too little room for the cache",
            found=f"{free / 2**20:.0f} MiB free",
            allowed=f"{needed / 2**20:.0f} MiB and 5 % spare",
            fix="name another folder, or train without the cache",
        )
    with write_whole_folder(path) as beside:
        _write_files(split, beside, tell)


def _find_damage(path: Path) -> str | None:
    """Return what is wrong with a cache, None where it is whole."""
    try:
        stored = json.loads((path / "index.json").read_text(encoding="utf-8"))
        entries = _list_entries(path, stored["image_dtype"], stored["label_dtype"])
        is_whole = stored["digest"] == digest_contents(entries, stamp_entries(entries))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"index.json: {type(error).__name__}"
    return None if is_whole else "its digest does not fit"


def _list_entries(folder: Path, image_dtype: str, label_dtype: str) -> list[str]:
    """Return what the digest of a cache is of: the types of its values, and its files."""
    return [json.dumps({"image": image_dtype, "label": label_dtype}), *(str(folder / name) for name in _FILES)]


def _write_files(split: SegmentationSplit, beside: Path, tell: Callable[[Iterable[int]], Iterable[int]]) -> None:
    table = np.zeros((len(split), 6), np.int64)
    types: set[tuple[str, str]] = set()
    with (beside / "images.bin").open("wb") as images, (beside / "labels.bin").open("wb") as labels:
        for index in tell(range(len(split))):
            pair = split[index]
            image, label = _to_array(pair["image"]), pair["label"]
            types.add((image.dtype.str, label.dtype.str))
            is_rgb = int(isinstance(pair["image"], Image.Image))
            table[index] = (_append(images, image), _append(labels, label), *image.shape, is_rgb)
    if len(types) > 1:
        raise InputError(
            "cache: images or masks of different depths in one split", found=sorted(types), allowed="one depth"
        )
    image_dtype, label_dtype = next(iter(types), ("|u1", "|u1"))
    np.save(beside / "table.npy", table)
    digest = digest_files(_list_entries(beside, image_dtype, label_dtype))
    header = {"image_dtype": image_dtype, "label_dtype": label_dtype, "digest": digest}
    (beside / "index.json").write_text(json.dumps(header), encoding="utf-8")


def _append(file: BinaryIO, array: npt.NDArray[Any]) -> int:
    start = file.tell()
    file.write(np.ascontiguousarray(array).data)
    return start


def _to_array(image: DecodedImage) -> npt.NDArray[Any]:
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]

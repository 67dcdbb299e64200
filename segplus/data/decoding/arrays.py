"""NumPy files as arrays: what a header claims is compared with a limit before anything of that size is allocated."""

from __future__ import annotations

import math
import zipfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.data.decoding.stored import Stored, find_path, find_suffix, is_in_table, open_binary


def load_array(stored: Stored, most_values: int) -> npt.NDArray[Any]:
    """Return the array of a .npy file, or the only array of a .npz file.

    Args:
        stored: The file.
        most_values: Largest number of values that is read at once.
    Raises:
        ValueError: If it is another file, or holds objects.
        PIL.Image.DecompressionBombError: If it claims more values.
    """
    header = read_header(stored)
    if header.size > most_values:
        raise Image.DecompressionBombError(f"an array of shape {header.shape}; {most_values} values are read at once")
    if is_mapped(stored):
        return np.array(map_array(stored))  # mapped first: the file is as long as its header says
    with open_binary(stored) as file:
        loaded = np.load(file, allow_pickle=False)
        only: npt.NDArray[Any] = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
        return only


def is_mapped(stored: Stored) -> bool:
    """Return whether a file can be mapped into memory: a .npy file on a disk."""
    return find_suffix(stored) == ".npy" and not is_in_table(stored)


def map_array(stored: Stored) -> npt.NDArray[Any]:
    """Return the array of a .npy file, mapped into memory: only what is looked at is read."""
    mapped: npt.NDArray[Any] = np.load(find_path(stored), mmap_mode="r", allow_pickle=False)
    return mapped


def read_header(stored: Stored) -> npt.NDArray[Any]:
    """Return an array of the type and shape that a .npy or .npz file states; it takes no memory.

    Raises:
        ValueError: If it is another file, has no values, or holds objects.
    """
    with open_binary(stored) as opened:
        if opened.read(2) != b"PK":
            opened.seek(0)
            return _read_header(opened)
        with zipfile.ZipFile(opened) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise ValueError(f"an archive of {len(names)} arrays; one is expected")
            with archive.open(names[0]) as member:
                return _read_header(member)


def _read_header(file: IO[bytes]) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of NumPy's format is not read")
    shape, _, dtype = read(file)
    if dtype.hasobject or dtype.fields is not None:
        raise ValueError(f"an array of type {dtype}, not of numbers")
    if math.prod(shape) < 1 or min(shape, default=1) < 1:
        raise ValueError(f"an array of shape {shape}, without values")
    return np.broadcast_to(np.zeros((), dtype), shape)

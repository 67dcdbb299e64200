"""NumPy files as arrays: what a header claims is compared with a limit before anything of that size is allocated."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def load_array(file: str | bytes, most_values: int) -> npt.NDArray[Any]:
    """Return the array of a .npy file, or the only array of a .npz file.

    Args:
        file: Path, or content.
        most_values: Largest number of values that is read at once.
    Raises:
        ValueError: If it is another file, or holds objects.
        PIL.Image.DecompressionBombError: If it claims more values.
    """
    header = read_header(file)
    if header.size > most_values:
        raise Image.DecompressionBombError(f"an array of shape {header.shape}; {most_values} values are read at once")
    if isinstance(file, str) and file.lower().endswith(".npy"):
        return np.array(map_array(file))  # mapped first: the file is as long as its header says
    loaded = np.load(io.BytesIO(file) if isinstance(file, bytes) else file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        only: npt.NDArray[Any] = loaded[loaded.files[0]]
        return only


def map_array(path: str) -> npt.NDArray[Any]:
    """Return the array of a .npy file, mapped into memory: only what is looked at is read."""
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def read_header(file: str | bytes) -> npt.NDArray[Any]:
    """Return an array of the type and shape that a .npy or .npz file states; it takes no memory.

    Raises:
        ValueError: If it is another file, has no values, or holds objects.
    """
    with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as opened:
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

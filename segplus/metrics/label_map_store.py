"""Label maps of any number of images, in memory up to a size and in a temporary file beyond it."""

from __future__ import annotations

import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segplus.errors import InputError

MOST_IN_MEMORY_BYTES = 1 << 30

Array = npt.NDArray[Any]


class LabelMaps(Sequence[Array]):
    """Arrays in the order they came; each is read when it is asked for. `np.asarray` stacks those of one shape.

    Args:
        most_bytes: What is kept in memory; later arrays are written to a temporary file, which lives as long as this.
    """

    def __init__(self, most_bytes: int = MOST_IN_MEMORY_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: list[Array] = []
        self._written: list[tuple[int, tuple[int, ...], np.dtype[Any]]] = []
        self._file: IO[bytes] | None = None
        self.bytes_in_memory = self.bytes_on_disk = 0

    def append(self, array: Array) -> None:
        """Add an array."""
        if not self._written and self.bytes_in_memory + array.nbytes <= self._most_bytes:
            self._kept.append(array)
            self.bytes_in_memory += array.nbytes
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed with this object
            weakref.finalize(self, self._file.close)
        self._file.seek(self.bytes_on_disk)
        self._file.write(np.ascontiguousarray(array).data)
        self._written.append((self.bytes_on_disk, array.shape, array.dtype))
        self.bytes_on_disk += array.nbytes

    def __len__(self) -> int:
        return len(self._kept) + len(self._written)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        if row < len(self._kept):
            return self._kept[row]
        assert self._file is not None
        start, shape, dtype = self._written[row - len(self._kept)]
        self._file.seek(start)
        count = int(np.prod(shape))
        return np.frombuffer(self._file.read(count * dtype.itemsize), dtype).reshape(shape)

    def __iter__(self) -> Iterator[Array]:
        return (self[row] for row in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        """Return every array compressed: that is how label maps go from one process to another."""
        packed = [(zlib.compress(array.tobytes(), 1), array.shape, array.dtype) for array in self]
        return {"most_bytes": self._most_bytes, "packed": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["most_bytes"])  # type: ignore[misc]
        for packed, shape, dtype in state["packed"]:
            self.append(np.frombuffer(zlib.decompress(packed), dtype).reshape(shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        shapes = {array.shape for array in self._kept} | {shape for _, shape, _ in self._written}
        if len(shapes) > 1:
            raise InputError(
                "these label maps differ in size", fix="take them one by one: for label_map in predictions"
            )
        return np.stack(list(self)).astype(dtype) if len(self) else np.empty(0, dtype)

"""Rows of numbers that are kept for every image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Rows:
    """A growing array. One block of memory, since small arrays kept between large temporary ones would pin those.

    Args:
        shape: Shape of a row.
        dtype: Type of its numbers.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._held = np.zeros((64, *shape), dtype=dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: npt.ArrayLike) -> None:
        """Keep a copy of a row."""
        if self._count == len(self._held):
            self._held = np.concatenate([self._held, np.zeros_like(self._held)])
        self._held[self._count] = row
        self._count += 1

    def extend(self, other: Rows) -> None:
        """Keep a copy of another's rows."""
        spare = np.zeros((64, *self._held.shape[1:]), self._held.dtype)
        self._held = np.concatenate([self.stack(), other.stack(), spare])
        self._count += len(other)

    def stack(self) -> npt.NDArray[Any]:
        """Return all rows, shape (N, ...), without a copy."""
        return self._held[: self._count]

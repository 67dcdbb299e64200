"""Which image each data-loader worker holds: what is left to name when the system kills one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.utils.data import get_worker_info

from segplus.errors import InputError

_MOST_WORKERS = 256
_HANDLER_SECONDS = 1.0


class HeldRows:
    """For each worker its process id and the row that it reads, in memory that the processes share."""

    def __init__(self) -> None:
        self._table = share_memory(torch.full((_MOST_WORKERS, 2), -1, dtype=torch.int64))  # process id, row

    def hold(self, row: int) -> None:
        """Note the row that this process begins to read; only a worker's is noted."""
        worker = get_worker_info()
        if worker is not None and worker.id < _MOST_WORKERS:
            self._table[worker.id, 0], self._table[worker.id, 1] = os.getpid(), row

    def find_row(self, process: int) -> int | None:
        """Return the last row that a worker began to read, or None where it is none of this data set's."""
        return next((int(row) for held, row in self._table.tolist() if held == process), None)


@contextmanager
def explain_lost_worker(sets: Sequence[tuple[HeldRows, Callable[[int], str]]]) -> Iterator[None]:
    """Turn the loader's error about a worker that was killed into a message with the file that it held.

    Args:
        sets: The rows that each data set's workers hold, with what names the file of a row.
    Raises:
        InputError: If a worker was lost.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as first:
        error = _await_handler(first)
        # torch has no class of its own for it: only the text tells.
        found = re.match(r"DataLoader worker \(pid(?:\(s\))? (\d+)", str(error))
        if found is None:
            raise
        rows = [(held.find_row(int(found[1])), name_row) for held, name_row in sets]
        name = next((name_row(row) for row, name_row in rows if row is not None), None)
        raise InputError(
            "data loading: a worker process was killed" + ("" if name is None else f" while it held {name}"),
            found=str(error).splitlines()[0].strip(),
            fix="if memory ran out, use fewer workers (training.dataloader_num_workers) or look at this file; if "
            "/dev/shm is full, free it; "
            "then repeat the command to go on",
        ) from error


def _await_handler(error: Exception) -> Exception:
    """Return what torch's signal handler says of a worker, where the worker's pipe broke before it was called."""
    if isinstance(error, RuntimeError):
        return error
    try:
        time.sleep(_HANDLER_SECONDS)
    except RuntimeError as told:
        return told
    return error


def share_memory(values: torch.Tensor) -> torch.Tensor:
    """Return the values in memory that the processes share.

    Raises:
        InputError: If the system gives none.
    """
    try:
        return values.share_memory_()  # type: ignore[no-any-return, no-untyped-call]
    except RuntimeError as error:
        raise InputError(
            "data-loader workers: the system gives no shared memory",
            found=str(error).splitlines()[0],
            fix="free room in /dev/shm, or raise the limit on the size of files (ulimit -f)",
        ) from None

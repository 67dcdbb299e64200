"""A full disk while a checkpoint is written: told in one message, with what is missing."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from segplus.errors import InputError
from segplus.files import name_temporary

_CHUNK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explain_full_disk(folder: Path, needed_bytes: int, unfinished: Path | None = None) -> Iterator[None]:
    """Turn an error of writing into a message where the disk, a quota or a limit on file sizes is its cause.

    torch and safetensors tell only that writing failed, so a file of zeros is tried in the same folder.

    Args:
        folder: Where it is written.
        needed_bytes: What is written, all in all.
        unfinished: The checkpoint that is being written; it is removed where it found no space.
    Raises:
        InputError: If there is no space.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        is_full = isinstance(error, OSError) and error.errno in _FULL
        if not is_full and _write_zeros(folder, needed_bytes) >= needed_bytes:
            raise
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        missing = max(needed_bytes - _write_zeros(folder, needed_bytes), _CHUNK_BYTES)
        raise InputError(
            f"training.output_dir {folder}: no space left; the checkpoints that were written before are kept",
            found=f"a checkpoint takes about {_count_mebibytes(needed_bytes)} MiB, "
            f"{_count_mebibytes(missing)} MiB more than there are",
            fix="free space or raise the quota, then repeat the command to go on; "
            "training.save_total_limit says how many checkpoints are kept",
        ) from error


def _write_zeros(folder: Path, count: int) -> int:
    """Return how many bytes a new file in this folder can take, up to a count; the file is removed."""
    path, written = name_temporary(folder), 0
    try:
        with path.open("xb", buffering=0) as file:
            while written < count:
                written += file.write(bytes(min(_CHUNK_BYTES, count - written)))
    except OSError as error:
        if error.errno not in _FULL:
            raise
    finally:
        path.unlink(missing_ok=True)
    return written


def _count_mebibytes(count: int) -> int:
    return -(-count // 2**20)

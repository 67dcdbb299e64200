"""What files hold, as a digest: what was learned of a file's bytes is kept under it, wherever the file lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from segplus.data.remembered import find_cache_folder, remember

_FORMAT = 2  # of the remembered digests
_AT_ONCE = 1024  # files in flight: memory does not grow with their number
_THREADS = 8  # hashing and reading both leave Python's lock


def digest_contents(entries: Iterable[str], stamps: str) -> str:
    """Return a digest of the bytes of files, in order; files whose sizes and times are those of before are not read.

    Args:
        entries: Paths, and texts that stand for themselves (JSON objects).
        stamps: Digest of the entries with the files' sizes and modification times: what was found is kept under it.
    """
    path = find_cache_folder() / "contents" / f"{stamps}-{_FORMAT}"
    return remember(path, lambda: digest_files(entries), str.encode, bytes.decode)


def digest_files(entries: Iterable[str]) -> str:
    """Return a digest of the bytes of files, in order; all are read."""
    digest, coming = hashlib.blake2b(digest_size=16), iter(entries)
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(coming, _AT_ONCE)):
            for digested in pool.map(_digest_entry, some):
                digest.update(digested)
    return digest.hexdigest()


def stamp_entries(entries: Iterable[str]) -> str:
    """Return a digest of paths, sizes and modification times, and of texts that stand for themselves."""
    digest = hashlib.blake2b(digest_size=16)
    for entry in entries:
        digest.update(f"{entry}|".encode())
        for path in list_files_of(entry):
            digest.update("{}|{}\n".format(*_read_stamp(path)).encode())
    return digest.hexdigest()


def _digest_entry(entry: str) -> bytes:
    """Return the digest of a file's suffix, which says how it is read, and of its bytes."""
    paths = list_files_of(entry)
    named = entry if entry.startswith("{") else os.path.splitext(entry)[1].lower() + "|"
    digest = hashlib.blake2b(named.encode(), digest_size=16)
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:  # it is reported when the file is read as an image
            digest.update(type(error).__name__.encode())
    return digest.digest()


def list_files_of(entry: str) -> list[str]:
    """Return the files behind an entry: the path itself, or those that a text of shapes names."""
    if not entry.startswith("{"):
        return [entry]
    return [shape["file"] for shape in json.loads(entry)["shapes"] if "file" in shape] if '"file"' in entry else []


def _read_stamp(path: str) -> tuple[int, int]:
    """Return (bytes, modification time in ns) of a file, zeros where it is absent."""
    try:
        status = Path(path).stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns

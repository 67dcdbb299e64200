"""What was found out once, kept in the cache folder: used where it is whole, and found out again where it is not."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from segplus.errors import InputError
from segplus.files import prepare_folder, write_whole

T = TypeVar("T")
logger = logging.getLogger(__name__)
_DIGEST_BYTES = 16


def find_cache_folder() -> Path:
    """Return the folder of what is remembered: SEGPLUS_CACHE, or segplus/ in the user's cache folder."""
    named = os.environ.get("SEGPLUS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segplus"


def remember(
    path: Path,
    find_out: Callable[[], T],
    pack: Callable[[T], bytes],
    unpack: Callable[[bytes], T],
) -> T:
    """Return what is remembered under a path, or find it out and remember it.

    An entry begins with the digest of its name and its content: one that was emptied, cut short, changed or renamed is
    told in one line and made anew.

    Args:
        path: The entry.
        find_out: Returns the value.
        pack: Returns the bytes of a value.
        unpack: Returns the value of those bytes.
    Raises:
        InputError: If the folder cannot be made or written to.
    """
    content = _read_entry(path)
    if content is not None:
        return unpack(content)
    prepare_cache(path.parent)
    value = find_out()
    packed = pack(value)
    with write_whole(path) as temporary:
        temporary.write_bytes(_digest(path, packed) + packed)
    return value


def remember_json(path: Path, find_out: Callable[[], T]) -> T:
    """Return what is remembered under a path, a value of JSON's types; see `remember`."""
    value: T = remember(path, find_out, lambda value: json.dumps(value).encode(), json.loads)
    return value


def prepare_cache(folder: Path) -> None:
    """Make a folder of a cache.

    Raises:
        InputError: If it cannot be made or written to.
    """
    try:
        prepare_folder(folder)
    except InputError as error:
        fix = "name another folder of the cache: export SEGPLUS_CACHE=FOLDER, or data.cache for decoded images"
        raise InputError(error.what, found=error.found, fix=fix) from error


def tell_damage(path: Path, damage: str) -> None:
    """Say in one line that something in a cache is made anew, and why."""
    logger.warning("%s is damaged (%s) and is made anew", path, damage)


def _discard(path: Path, damage: str) -> None:
    tell_damage(path, damage)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _read_entry(path: Path) -> bytes | None:
    """Return the content of an entry that is whole, None where there is none."""
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        _discard(path, "no file")
        return None
    try:
        entry = path.read_bytes()
    except OSError as error:
        _discard(path, error.strerror or type(error).__name__)
        return None
    stated, content = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
    if stated != _digest(path, content):
        _discard(path, "its digest does not fit")
        return None
    return content


def _digest(path: Path, content: bytes) -> bytes:
    named = hashlib.blake2b(path.name.encode(), digest_size=_DIGEST_BYTES)
    named.update(content)
    return named.digest()

"""Text and JSON files of other people: read where they are regular files, and refused by name where they are not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from segplus.errors import InputError

_MOST_BYTES = 1 << 31  # annotations of a million images; a file without an end is none


def is_file(path: str | Path) -> bool:
    """Return whether a path is that of a regular file; of a name that no file can have, False."""
    return os.path.isfile(path)


def is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8; that of a file may hold any bytes."""
    return name.encode("utf-8", "replace").decode("utf-8") == name


def refuse_special_file(path: str | Path, what: str) -> None:
    """Refuse what is no regular file: a FIFO would be waited for, and a device has no end.

    Raises:
        InputError: If so, or if nothing is there.
    """
    if is_file(path):
        return
    if os.path.isdir(path):
        found = "a folder"
    else:
        found = "a FIFO, device or socket" if os.path.exists(path) else "nothing of that name"
    raise InputError(f"{what}: no such file", found=found, fix="correct the path or remove the entry")


def read_text(path: str | Path, what: str | None = None) -> str:
    """Return the text of a file in UTF-8, with or without a byte-order mark.

    Args:
        path: The file.
        what: Its name for messages; its path where none is given.
    Raises:
        InputError: If it is no regular file, cannot be read, or is not UTF-8.
    """
    named = what or str(path)
    refuse_special_file(path, named)
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise InputError(f"{named}: too large for a text", found=f"{os.path.getsize(path)} bytes")
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{named}: cannot be read", found=error.strerror, fix="correct its permissions") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{named}: not a text in UTF-8", found=error, fix="correct the file") from None


def read_json(path: str | Path, what: str | None = None) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: If it is no file, or not JSON.
    """
    named = what or str(path)
    return parse_json(read_text(path, named), named)


def parse_json(text: str, what: str) -> Any:
    """Return the content of a JSON text.

    Raises:
        InputError: If it is not JSON, nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{what}: not JSON (nested too deeply)", found=text[:60].strip()) from None
    except ValueError as error:  # JSONDecodeError, or digits beyond Python's limit
        raise InputError(f"{what}: not JSON ({error})", found=repr(text[:60].strip()), fix="correct the file") from None

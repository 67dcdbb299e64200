"""Files that are written whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside the target, which takes the target's name when the block ends well.

    Two processes may write the same file at once: each has a temporary file of its own, and the last one stands. What a
    killed process leaves is hidden and has no suffix of an image or table.

    Args:
        path: The file; folders on the way are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)

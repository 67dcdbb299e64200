"""What a person can get wrong: one exception, one message, no traceback."""

from __future__ import annotations

import difflib
import errno
import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

EXIT_CODE_INPUT = 2
EXIT_CODE_DIVERGED = 3
EXIT_CODE_SIGNAL = 128  # and the signal's number, as shells count
_MOST_WORDS = 25
_MOST_COMPARED, _LONGEST_COMPARED = 1000, 64  # words, letters: beyond, nothing is suggested
_MOST_LETTERS = 2000  # of a line of a message
_ANOTHER = "name another folder"
_REFUSALS = {
    errno.ENOSPC: ("the disk is full", "free some room, and repeat the command"),
    errno.EDQUOT: ("the disk quota is used up", "free some room, and repeat the command"),
    errno.EFBIG: ("the file would be larger than the system allows", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", _ANOTHER),
    errno.EACCES: ("no permission", f"change the permissions, or {_ANOTHER}"),
    errno.EPERM: ("not permitted", f"change the permissions, or {_ANOTHER}"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOTDIR: ("a file lies where a folder is needed", _ANOTHER),
    errno.EEXIST: ("a file lies where a folder is needed", _ANOTHER),
    errno.EISDIR: ("a folder lies where a file is needed", "name another file"),
    errno.ENOTEMPTY: ("a folder lies where a file is needed", "name another file"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.ELOOP: ("a link, which is not followed", "name the file itself"),
}


class InputError(ValueError):
    """A mistake in a recipe, a file or a command, told in one message.

    Args:
        what: The file or key, and what is wrong with it.
        found: The value that was found.
        allowed: What would have been accepted.
        fix: What to do about it.
    """

    def __init__(self, what: str, *, found: object = None, allowed: object = None, fix: str | None = None) -> None:
        given = {"found": found, "allowed": allowed, "fix": fix}
        lines = [what.rstrip("."), *(f"{name}: {value}" for name, value in given.items() if value is not None)]
        super().__init__("\n  ".join(map(_shorten, lines)))
        self.what, self.found, self.allowed, self.fix = what, found, allowed, fix

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process with every attribute intact."""
        return partial(type(self), self.what, found=self.found, allowed=self.allowed, fix=self.fix), ()


def _shorten(text: str) -> str:
    return "\n".join(
        line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]} ... ({len(line)} letters)"
        for line in text.split("\n")
    )


def describe_error(error: Exception) -> str:
    """Return the message of an error; of one that a data loader's worker sent with its traceback, the message alone."""
    return str(error).rpartition(f"{InputError.__name__}: ")[2].strip()


def explain_os_error(error: OSError, path: str | None = None) -> InputError:
    """Return what the operating system refused as a message with the path and the fix.

    Args:
        error: The error, with an errno.
        path: What the message names; the error's own path by default.
    """
    named = path if path is not None else error.filename
    what, fix = _REFUSALS.get(error.errno or 0, (error.strerror or type(error).__name__, None))
    if error.errno in (errno.EEXIST, errno.ENOENT) and named is not None and os.path.islink(named):
        what, fix = "a link to nothing", "remove it, or name another place"
    found = None
    if error.errno == errno.ENOSPC and named is not None:
        folder = next((parent for parent in Path(str(named)).absolute().parents if parent.is_dir()), Path("/"))
        found = f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB free"
    return InputError(what if named is None else f"{named}: {what}", found=found, fix=fix)


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return the sentence that names the nearest allowed word, or the whole list where nothing is near."""
    words = sorted(allowed)
    compared = [word.lower() for word in words[:_MOST_COMPARED] if len(word) <= _LONGEST_COMPARED]
    is_short = len(name) <= _LONGEST_COMPARED
    near = difflib.get_close_matches(name.lower(), compared, n=1, cutoff=0.5) if is_short else []
    if near:
        return f"did you mean '{next(word for word in words if word.lower() == near[0])}'?"
    return f"choose one of: {', '.join(words[:_MOST_WORDS])}" + (", ..." if len(words) > _MOST_WORDS else "")

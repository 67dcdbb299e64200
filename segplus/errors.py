"""What a person can get wrong: one exception, one message, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial

EXIT_CODE_INPUT = 2
EXIT_CODE_DIVERGED = 3
EXIT_CODE_SIGNAL = 128  # and the signal's number, as shells count
_MOST_WORDS = 25
_MOST_COMPARED, _LONGEST_COMPARED = 1000, 64  # words, letters: beyond, nothing is suggested
_MOST_LETTERS = 2000  # of a line of a message


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


def _shorten(line: str) -> str:
    return line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]} ... ({len(line)} letters)"


def describe_error(error: Exception) -> str:
    """Return the message of an error; of one that a data loader's worker sent with its traceback, the message alone."""
    return str(error).rpartition(f"{InputError.__name__}: ")[2].strip()


def suggest(name: str, allowed: Iterable[str]) -> str:
    """Return the sentence that names the nearest allowed word, or the whole list where nothing is near."""
    words = sorted(allowed)
    compared = [word.lower() for word in words[:_MOST_COMPARED] if len(word) <= _LONGEST_COMPARED]
    is_short = len(name) <= _LONGEST_COMPARED
    near = difflib.get_close_matches(name.lower(), compared, n=1, cutoff=0.5) if is_short else []
    if near:
        return f"did you mean '{next(word for word in words if word.lower() == near[0])}'?"
    return f"choose one of: {', '.join(words[:_MOST_WORDS])}" + (", ..." if len(words) > _MOST_WORDS else "")

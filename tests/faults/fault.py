"""What a fault is: a folder with something wrong in it, a command, and what the command must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from .specimen import Place

# answered: exit code 2 (or 1 of inspect) and one message that names the file or key.
# runs: exit code 0, and the results are there.
# either: both are right; only a crash, a hang or a changed file is not.
Expected = Literal["answered", "runs", "either"]


@dataclass(frozen=True)
class Command:
    """One verb with its arguments, run in the fault's folder.

    Args:
        verb: train, inspect, evaluate, predict, compare or folds.
        arguments: What stands behind the verb.
        names: One of these words must stand in the answer.
        writable: Folders in which the command may change files that were there before.
        makes: Folders in which it may make files; None for everywhere.
        results: Files that are there after a command that runs.
        environment: Variables of the process.
        megabytes: Memory that the command may take beside what an idle process has.
        file_megabytes: Largest file that the command may write; None for no limit.
        equal: Two files that have one content after a command that runs.
    """

    verb: str
    arguments: tuple[str, ...]
    names: tuple[str, ...] = ()
    writable: tuple[str, ...] = ("out", "cache")
    makes: tuple[str, ...] | None = ("out", "cache")
    results: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    megabytes: int = 2048
    file_megabytes: float | None = None
    equal: tuple[str, str] | None = None


@dataclass(frozen=True)
class Case:
    """One drawn fault: what is wrong, in a few words, and how to build it."""

    told: str
    build: Callable[[Place], Command]
    expected: Expected = "answered"


Generator = Callable[[Random], Iterator[Case]]


@dataclass(frozen=True)
class Fault:
    """A case with its place in the catalogue."""

    category: str
    generator: str
    number: int
    case: Case

    @property
    def name(self) -> str:
        """Unique within a seed."""
        return f"{self.category}/{self.generator}/{self.number}"


def write_bytes(path: Path, content: bytes | str) -> Path:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def shorten(value: object, length: int = 70) -> str:
    """Return a value as a few words for a fault's description."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 4]} ..."

"""How far a long loop is: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from tqdm import tqdm

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 10.0


def is_quiet() -> bool:
    """Return whether nobody wants to see progress: TQDM_DISABLE is set, as `segplus --quiet` does."""
    return os.environ.get("TQDM_DISABLE", "0").lower() not in ("", "0", "false")


class Progress(Generic[T]):
    """Counts what is done, and tells of it on stderr.

    Args:
        items: What is gone through; None where `update` counts.
        total: How many there are, None where nobody knows.
        title: What is done.
        unit: What is counted, in the plural.
        show: False tells nothing.
        leave: Leave the full bar where it is.
    """

    def __init__(
        self,
        items: Iterable[T] = (),
        *,
        total: int | None = None,
        title: str = "",
        unit: str = "items",
        show: bool = True,
        leave: bool = True,
    ) -> None:
        self._items, self._total, self._title, self._unit = items, total, title, unit
        is_terminal = sys.stderr.isatty()
        is_shown = show and not is_quiet()
        self._bar = tqdm(total=total, desc=title, unit=f" {unit}", leave=leave) if is_shown and is_terminal else None
        self._writes_lines = is_shown and not is_terminal
        self._count = 0
        self._start = self._last = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """Count what was done; write a line where the last one is ten seconds old."""
        self._count += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._writes_lines and time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self.restart_clock()
            print(self.describe(), file=sys.stderr, flush=True)

    def restart_clock(self) -> None:
        """Wait ten seconds for the next line: another one was just written."""
        self._last = time.monotonic()

    def describe(self) -> str:
        """Return the line, such as `inspect train: 120/701 pairs, 12.3 a second, 47 s left`."""
        rate = self._count / max(time.monotonic() - self._start, 1e-9)
        if self._total is None:
            return f"{self._title}: {self._count} {self._unit}, {rate:.3g} a second"
        left = (self._total - self._count) / max(rate, 1e-9)
        return f"{self._title}: {self._count}/{self._total} {self._unit}, {rate:.3g} a second, {left:.0f} s left"

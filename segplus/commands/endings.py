"""How a command ends: one message and an exit code for everything that is no defect of segplus."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from segplus.errors import (
    EXIT_CODE_INPUT,
    EXIT_CODE_SIGNAL,
    InputError,
    describe_error,
    explain_os_error,
)

EXIT_CODE_NO_READER = 141  # as the shell says of what SIGPIPE ended
EXIT_CODES = (
    "exit codes: 0 done; 1 `inspect` found what breaks training, `predict` left out images that cannot be read, or a "
    "defect of segplus, with a traceback; 2 a mistake in a command, recipe, file or data set, or what the system "
    "refuses (no permission, a full disk); 3 training diverged; 130 Ctrl-C; 143 SIGTERM."
)


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does."""


def end_command(work: Callable[[], int]) -> int:
    """Return the exit code of a command's work; a defect of segplus keeps its traceback.

    A terminal or a log that cannot show a character gets its escape, and never ends a command.

    Args:
        work: Returns an exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    before, sys.excepthook = sys.excepthook, _report_defect
    code = _translate(work)
    sys.excepthook = before
    return code


def _translate(work: Callable[[], int]) -> int:
    try:
        with _raise_terminated():
            code = work()
            sys.stdout.flush()
            return code
    except InputError as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        return EXIT_CODE_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be flushed at exit goes nowhere
        return EXIT_CODE_NO_READER
    except OSError as error:
        if error.errno is None:  # a library's own, not the system's
            raise
        print(f"error: {explain_os_error(error)}", file=sys.stderr)
        return EXIT_CODE_INPUT
    except KeyboardInterrupt as error:
        is_terminated = isinstance(error, TerminatedError)
        cause = "terminated (SIGTERM)" if is_terminated else "interrupted (Ctrl-C)"
        print(f"\n{cause}: nothing is half written; repeat the command to go on", file=sys.stderr)
        return EXIT_CODE_SIGNAL + (signal.SIGTERM if is_terminated else signal.SIGINT)


@contextmanager
def _raise_terminated() -> Iterator[None]:
    """Let SIGTERM unwind this process as Ctrl-C does; processes that it forks end at once, as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report_defect(error_type: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(error_type, error, trace)
    if issubclass(error_type, Exception):
        print(
            "this is a defect of segplus: please report it with the command and the lines above",
            file=sys.stderr,
        )

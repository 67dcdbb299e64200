"""Running a fault's command: in a fork of this warm process, or in a process of its own as a person does."""

from __future__ import annotations

import importlib
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import tqdm

from .fault import Command
from .specimen import build_specimen

ROOT = Path(__file__).resolve().parents[2]
ESCAPED = 70  # exit code of a fork whose command let an exception through
SECONDS = 25


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Args:
        code: Exit code; None where it was killed for taking too long; negative for a signal.
        text: Standard output and standard error.
        seconds: Wall time.
    """

    code: int | None
    text: str
    seconds: float


def prepare(folder: Path) -> Path:
    """Build the specimen in a child process, and import here what it imported there, so that every fork is warm.

    Args:
        folder: Where the specimen is written.
    Returns:
        The folder.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    tqdm.tqdm.monitor_interval = 0  # its thread would be lost in a fork
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "modules.txt"
    if not listed.exists():
        outcome = run_in_fork(lambda: _build_and_list(folder, listed), folder, {}, 4096, None, 200)
        assert outcome.code == 0, outcome.text[-3000:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in listed.read_text().split():
            with suppress(ImportError):
                importlib.import_module(name)
    return folder


def _build_and_list(folder: Path, listed: Path) -> int:
    os.environ["SEGPLUS_CACHE"] = str(folder / "cache")
    build_specimen(folder)
    for verb in ("inspect", "evaluate", "predict", "compare", "folds"):
        importlib.import_module(f"segplus.commands.{verb}")
    lazy = ("segplus", "transformers", "albumentations", "pycocotools", "PIL", "datasets", "pyarrow", "jinja2")
    listed.write_text("\n".join(sorted(name for name in list(sys.modules) if name.startswith(lazy))))
    return 0


def run_command(command: Command, folder: Path, seconds: float = SECONDS) -> Outcome:
    """Run a command in a fork of this process, in its folder."""

    def call() -> int:
        if command.verb == "train":
            from segplus.commands.train import main

            return main(list(command.arguments))
        from segplus.__main__ import main as run_verb

        return run_verb([command.verb, *command.arguments])

    environment = {"SEGPLUS_CACHE": str(folder / "cache"), **command.environment}
    return run_in_fork(call, folder, environment, command.megabytes, command.file_megabytes, seconds)


def run_in_fork(call, folder: Path, environment, megabytes: int, file_megabytes: float | None, seconds: float):
    """Call a function in a fork with limits, and return what it printed and its exit code."""
    started = time.perf_counter()
    reading, writing = os.pipe()  # a file would meet the limit on files, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        _be_the_child(call, folder, environment, megabytes, file_megabytes, writing)
    os.close(writing)
    os.set_blocking(reading, False)
    said: list[bytes] = []
    code = _wait(child, started + seconds, reading, said)
    os.close(reading)
    return Outcome(code, b"".join(said).decode("utf-8", "backslashreplace"), time.perf_counter() - started)


def _be_the_child(call, folder: Path, environment, megabytes: int, file_megabytes, log: int) -> None:
    code = ESCAPED
    try:
        os.setsid()
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding, write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), encoding, "backslashreplace", write_through=True)
        for handler in logging.getLogger("transformers").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
        os.chdir(folder)
        _limit(megabytes, file_megabytes)
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        code = int(call())
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code & 0xFF)


def _limit(megabytes: int, file_megabytes: float | None) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file_megabytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Python's own setting: EFBIG instead of death
        size = int(file_megabytes * 2**20)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _wait(child: int, deadline: float, reading: int, said: list[bytes]) -> int | None:
    """Collect what a child says until it ends, and return its exit code; None where it was killed at the deadline."""
    while time.perf_counter() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        _drain(reading, said)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _drain(reading: int, said: list[bytes]) -> None:
    """Read what lies in a pipe; its children may hold it open beyond their parent's end."""
    with suppress(BlockingIOError):
        while part := os.read(reading, 1 << 16):
            said.append(part)


def start_process(command: Command, folder: Path, seconds: float = 120) -> Outcome:
    """Run a command in a process of its own, as a person does."""
    start = ["run_segmentation.py"] if command.verb == "train" else ["-m", "segplus", command.verb]
    if command.verb == "train":
        start = [str(ROOT / start[0])]
    environment = {"SEGPLUS_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT), **command.environment}
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *start, *command.arguments],
            cwd=folder, env=os.environ | environment, capture_output=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(None, "", seconds)
    text = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    return Outcome(done.returncode, text, time.perf_counter() - started)

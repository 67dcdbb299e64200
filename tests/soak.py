"""Disturb tiny runs at random, repeat their command until they end, and compare weights with an undisturbed run's.

Usage:
    python tests/soak.py [--seed N] [--faults 50] [--minutes M] [--processes 1 2] [--folder DIR]

Signals go to ranks, launcher and data workers; the disk is full at a random size; the newest checkpoint is damaged
between two commands. Prints a table of what each fault got, and ends with exit code 1 where a run did not end in the
undisturbed run's weights, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from launching import ROOT, build_command, build_environment, write_recipe

SECONDS = 280  # after which a command counts as hung
GRACE_SECONDS = 30  # in which the rest of a killed command must end by itself
ATTEMPTS = 40  # of one run, after which it makes no progress
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DAMAGES = ("zeroed middle of model.safetensors", "empty optimizer.pt", "missing config.json")
RUN = {
    "training": {
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "load_best_model_at_end": False,
        "dataloader_num_workers": 1,
        "report_to": "none",
    }
}


@dataclass(frozen=True)
class Attempt:
    """One start of a run's command, and what disturbed it.

    Args:
        what: The fault; "-" for none.
        processes: Number of ranks.
        code: Exit code; None where it was hung.
        crashed: Whether a traceback was printed by a process that was not killed with SIGKILL.
        left: Whether processes of it were still there after the grace.
    """

    what: str
    processes: int
    code: int | None
    crashed: bool
    left: bool


@dataclass
class Run:
    """All attempts of one run, and whether it ended in the undisturbed run's weights."""

    processes: int
    attempts: list[Attempt] = field(default_factory=list)
    end: str = "no end"


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb runs for as long as was asked for; return 0 when all ended in the same weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="where the runs are kept; by default a folder that is removed")
    options = parser.parse_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    rng, deadline = Random(options.seed), time.monotonic() + 60 * options.minutes
    wanted = {
        processes: run_undisturbed(folder / f"undisturbed-{processes}", processes) for processes in options.processes
    }
    runs: list[Run] = []
    while time.monotonic() < deadline and count_faults(runs) < options.faults:
        processes = options.processes[len(runs) % len(options.processes)]
        digest, seconds = wanted[processes]
        run = disturb(folder / str(len(runs)), processes, digest, seconds, rng, options.faults - count_faults(runs))
        runs.append(run)
        told = ", ".join(f"{attempt.what} -> {attempt.code}" for attempt in run.attempts)
        print(f"run {len(runs)}, {processes} processes: {run.end} ({told})", file=sys.stderr, flush=True)
    print(f"seed {options.seed}: {count_faults(runs)} faults in {len(runs)} runs\n\n{format_table(runs)}")
    if options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return int(any(run.end != "equal" for run in runs))


def count_faults(runs: Sequence[Run]) -> int:
    """Return the number of faults that runs were given."""
    return sum(attempt.what != "-" for run in runs for attempt in run.attempts)


def run_undisturbed(folder: Path, processes: int) -> tuple[str, float]:
    """Return the digest of the final weights, and the seconds from the run's claim of its folder to its end."""
    folder.mkdir(parents=True)
    recipe = write_recipe(folder, RUN)
    process = start(recipe, processes, None)
    while not (folder / "run" / "recipe.yaml").exists() and process.poll() is None:
        time.sleep(0.01)
    started = time.monotonic()
    code = process.wait(SECONDS)
    assert code == 0, (folder / "log.txt").read_text()[-3000:]
    return digest_weights(folder), time.monotonic() - started


def digest_weights(folder: Path) -> str:
    """Return a digest of the final model."""
    return hashlib.sha256((folder / "run" / "model.safetensors").read_bytes()).hexdigest()


def disturb(folder: Path, processes: int, digest: str, seconds: float, rng: Random, most: int) -> Run:
    """Start a run, disturb and repeat it until it ends, and compare its weights."""
    folder.mkdir(parents=True)
    recipe, run = write_recipe(folder, RUN), Run(processes)
    chosen = rng.randrange(1, 6)
    for attempt in range(ATTEMPTS):
        what = choose_fault(rng, processes) if attempt < min(chosen, most) else "-"
        if what in DAMAGES and not damage_newest(folder / "run", what):
            what = "-" if attempt else "SIGKILL to a rank"
        before = (folder / "log.txt").stat().st_size if attempt else 0
        code, left = run_attempt(recipe, processes, what, seconds, rng)
        said = (folder / "log.txt").read_bytes()[before:].decode("utf-8", "replace")
        # The launcher shows a traceback of its own when a rank has failed.
        crashed = f'File "{ROOT}/segplus' in said and "Traceback (most recent call last)" in said
        run.attempts.append(Attempt(what, processes, code, crashed, left))
        if code == 0:
            run.end = "equal" if digest_weights(folder) == digest else "OTHER WEIGHTS"
            return run
        if what == "-":
            run.end = f"NO END, exit code {code}: {said[-400:]}"
            return run
    return run


def choose_fault(rng: Random, processes: int) -> str:
    """Return a fault that a run of so many processes can meet."""
    targets = ["a rank", "a data worker", *(["the launcher"] if processes > 1 else [])]
    faults = [f"{one.name} to {target}" for one in SIGNALS for target in targets]
    return rng.choice([*faults, "a full disk", "a full disk", *DAMAGES])


def damage_newest(run: Path, what: str) -> bool:
    """Damage the newest checkpoint; return whether there was one."""
    numbered = [path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    if not numbered:
        return False
    newest = max(numbered, key=lambda path: int(path.name.removeprefix("checkpoint-")))
    path = newest / what.rsplit(" ", 1)[-1]
    if not path.is_file():
        return False
    content = path.read_bytes()
    if what.startswith("missing"):
        path.unlink()
    elif what.startswith("empty"):
        path.write_bytes(b"")
    else:
        middle = len(content) // 2
        path.write_bytes(content[: middle - 500] + bytes(1000) + content[middle + 500 :])
    return True


def run_attempt(recipe: Path, processes: int, what: str, seconds: float, rng: Random) -> tuple[int | None, bool]:
    """Run the command once with one fault; return its exit code, and whether processes were left after the grace."""
    limit = rng.randrange(100, 400_000) if what == "a full disk" else None
    process = start(recipe, processes, limit)
    if " to " in what:
        name, _, target = what.partition(" to ")
        wait_for_training(recipe.parent, process, seconds * rng.uniform(0, 1.1))
        found = find_targets(process.pid, target, processes)
        if found:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.Signals[name])
    try:
        code: int | None = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    return code, end_session(process.pid)


def start(recipe: Path, processes: int, file_bytes: int | None) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, its output appended to log.txt."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    with (recipe.parent / "log.txt").open("ab") as log:
        return subprocess.Popen(
            build_command(recipe, processes=processes),
            stdout=log if file_bytes is None else subprocess.DEVNULL,  # the log would meet the limit, too
            stderr=log if file_bytes is None else subprocess.DEVNULL,
            env=build_environment(recipe.parent),
            start_new_session=True,
            preexec_fn=limit,
            cwd=ROOT,
        )


def wait_for_training(folder: Path, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a run has claimed its folder and its processes are up, and then for some seconds more."""
    deadline = time.monotonic() + SECONDS
    log, size = folder / "log.txt", (folder / "log.txt").stat().st_size
    while process.poll() is None and time.monotonic() < deadline and log.stat().st_size == size:
        time.sleep(0.01)
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def find_targets(main_pid: int, target: str, processes: int) -> list[int]:
    """Return the processes that a fault may hit: launcher, ranks, or the ranks' data workers."""
    ranks = list_children(main_pid) if processes > 1 else [main_pid]
    ranks = [pid for pid in ranks if "run_segmentation.py" in read_command(pid)]
    if target == "the launcher":
        return [main_pid]
    if target == "a rank":
        return ranks or [main_pid]
    workers = [pid for rank in ranks for pid in list_children(rank) if "resource_tracker" not in read_command(pid)]
    return workers or ranks or [main_pid]


def list_children(pid: int) -> list[int]:
    """Return the children of a process, whichever thread started them."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def read_command(pid: int) -> str:
    """Return the command line of a process, empty where it has gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    return ""


def end_session(session: int) -> bool:
    """Wait for the rest of a session, and kill what is left after the grace; return whether there was something."""
    deadline = time.monotonic() + GRACE_SECONDS
    while list_session(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = list_session(session)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(left)


def list_session(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in ("Z", "X"):
                    found.append(int(entry.name))
    return found


def format_table(runs: Sequence[Run]) -> str:
    """Return fault x processes x what it got, as a Markdown table."""
    groups: dict[tuple[str, int], list[tuple[Attempt, Run]]] = defaultdict(list)
    for run in runs:
        for attempt in run.attempts:
            groups[attempt.what, attempt.processes].append((attempt, run))
    lines = ["| fault | processes | times | exit codes | tracebacks | processes left | runs ended equal |",
             "|---|---:|---:|---|---:|---:|---:|"]  # fmt: skip
    for (what, processes), held in sorted(groups.items()):
        codes = ", ".join(sorted({str(attempt.code) for attempt, _ in held}))
        crashed, left = sum(attempt.crashed for attempt, _ in held), sum(attempt.left for attempt, _ in held)
        ended = {id(run): run.end == "equal" for _, run in held}
        row = (what, processes, len(held), codes, crashed, left, f"{sum(ended.values())} of {len(ended)}")
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

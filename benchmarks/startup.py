"""How long a person waits for a help and for an import: segplus beside its peers, in one run.

Each command runs in a process of its own, one after the other, several times in turn; medians and the fastest on the
wall, and the median of the processor time, which a busy machine stretches less. The peers are what stands beside
segplus in the same environment. Writes startup.md beside this file.

    python benchmarks/startup.py [--repeats 9]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe_machine

from segplus.commands.options import VERBS

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
IMPORT_GOAL, HELP_GOAL = 0.3, 0.5


def list_commands() -> dict[str, tuple[list[str], float | None]]:
    """Return title -> (command, goal in seconds; None for a peer)."""
    segplus = [sys.executable, "-m", "segplus"]
    commands: dict[str, tuple[list[str], float | None]] = {
        "python -c pass": ([sys.executable, "-c", "pass"], None),
        "import segplus": ([sys.executable, "-c", "import segplus"], IMPORT_GOAL),
        "segplus --help": ([*segplus, "--help"], HELP_GOAL),
    }
    commands |= {f"segplus {verb} --help": ([*segplus, verb, "--help"], HELP_GOAL) for verb in VERBS}
    commands["segplus recipes explain data.void"] = ([*segplus, "recipes", "explain", "data.void"], HELP_GOAL)
    commands["import transformers"] = ([sys.executable, "-c", "import transformers"], None)
    commands["import torch"] = ([sys.executable, "-c", "import torch"], None)
    commands["accelerate --help"] = ([str(TOOLS / "accelerate"), "--help"], None)
    commands["transformers --help"] = ([str(TOOLS / "transformers"), "--help"], None)
    return commands


def measure_seconds(command: list[str]) -> tuple[float, float]:
    """Return how long a command takes, on the wall and on the processor."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure all commands in turn and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    commands = list_commands()
    for command, _ in commands.values():
        measure_seconds(command)  # compiled and in the file cache
    seconds: dict[str, list[tuple[float, float]]] = {title: [] for title in commands}
    for _ in range(repeats):
        for title, (command, _) in commands.items():
            seconds[title].append(measure_seconds(command))
    told = (
        f"Seconds, {repeats} repeats in turn, each in a process of its own; the goal is for the wall, peers have none."
    )
    lines = [
        "# Start-up",
        "",
        told,
        "",
        "| command | median | fastest | processor | goal |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, (_, goal) in commands.items():
        wall, processor = zip(*seconds[title], strict=True)
        figures = f"{statistics.median(wall):.2f} | {min(wall):.2f} | {statistics.median(processor):.2f}"
        lines.append(f"| `{title}` | {figures} | {goal or ''} |")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines += ["", *describe_machine("torch", "transformers", "accelerate"), f"- load (1, 5, 15 minutes): {load}"]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

"""Judge the faults of a seed, print the table of what they get, and list those that get something else.

Usage:
    python -m tests.faults [--seed N] [--count 1200] [--category C] [--generator G] [--failures FILE] [--part 0/2]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .catalogue import CATEGORIES, draw_faults
from .fault import Fault
from .judging import GOT, Verdict, judge
from .running import prepare


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when every fault gets what it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--category", choices=CATEGORIES)
    parser.add_argument("--generator", help="the generators whose names hold this word")
    parser.add_argument("--part", default="0/1", help="1/2: every second fault, from the second one")
    parser.add_argument("--failures", type=Path, help="Markdown file of the faults that get something else, by cause")
    parser.add_argument("--table", action="store_true", help="print the table alone")
    options = parser.parse_args(arguments)
    faults = [fault for fault in draw_faults(options.seed, options.count)
              if options.category in (None,
              fault.category) and (options.generator or "") in fault.generator]  # fmt: skip
    part, parts = map(int, options.part.split("/"))
    faults = faults[part::parts]
    started = time.perf_counter()
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        verdicts = judge_all(faults, root, None if options.table else sys.stderr)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    wrong = [verdict for verdict in verdicts if not verdict.is_right]
    seconds = time.perf_counter() - started
    print(f"seed {options.seed}: {len(verdicts)} faults, {seconds:.0f} s\n\n{format_table(verdicts)}")
    if not options.table:
        print("\n".join(["", *map(format_failure, wrong)]))
    if options.failures:
        options.failures.write_text(format_causes(wrong), encoding="utf-8")
    return int(bool(wrong))


def judge_all(faults: Sequence[Fault], root: Path, log=None) -> list[Verdict]:
    """Judge faults one after the other, each in a folder that is removed after it."""
    specimen = prepare(root / "specimen")
    verdicts = []
    for number, fault in enumerate(faults):
        folder = root / str(number)
        verdict = judge(fault, folder, specimen)
        verdicts.append(verdict)
        shutil.rmtree(folder, ignore_errors=True)
        if log is not None and not verdict.is_right:
            print(
                f"{number}/{len(faults)} {format_failure(verdict)}"[:300].replace(os.linesep, " "), file=log, flush=True
            )
    return verdicts


def format_table(verdicts: Sequence[Verdict]) -> str:
    """Return category x what its faults got, as a Markdown table."""
    counts = Counter((verdict.fault.category, verdict.got) for verdict in verdicts)
    rows = [["category", "faults", *GOT]]
    for category in CATEGORIES:
        numbers = [counts[category, got] for got in GOT]
        if sum(numbers):
            rows.append([category, str(sum(numbers)), *map(str, numbers)])
    total = [sum(int(row[column]) for row in rows[1:]) for column in range(1, len(rows[0]))]
    rows.append(["all", *map(str, total)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def format_failure(verdict: Verdict) -> str:
    """Return one line on a fault that got something else than it must."""
    fault = verdict.fault
    return f"{fault.name} [{fault.case.told}] must be {fault.case.expected}: {verdict.got}, {verdict.why}"


def format_causes(wrong: Sequence[Verdict]) -> str:
    """Return the failing faults grouped by cause: what they got, and why."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in wrong:
        cause = verdict.why if verdict.got in ("crashed", "overwrote") else verdict.fault.generator
        where = cause.rpartition(" at ")[2] if verdict.got == "crashed" else cause
        groups.setdefault((verdict.got, where), []).append(verdict)
    lines = []
    for (got, cause), held in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"\n## {got}: {cause} ({len(held)} faults)\n")
        for verdict in held[:8]:
            words = " ".join((verdict.command.verb, *verdict.command.arguments))
            lines.append(
                f"- `{verdict.fault.name}` {verdict.fault.case.told}\n  command: `{words[:200]}`\n  {verdict.why[:300]}"
            )
        lines += [f"- ... and {len(held) - 8} more"] if len(held) > 8 else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

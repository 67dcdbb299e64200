"""What a fault got, and whether that is what it must get."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .fault import Command, Fault
from .running import ESCAPED, Outcome, run_command
from .specimen import Place

EXIT_CODE_FINDINGS, EXIT_CODE_INPUT = 1, 2
GOT = ("answered", "runs", "crashed", "hung", "overwrote", "accepted", "refused", "unclear")
_ERROR = re.compile(r"(?m)^(?:segplus[\w ]*: )?error: ")


@dataclass(frozen=True)
class Verdict:
    """What a fault got: one of GOT, why, and the command with its outcome."""

    fault: Fault
    got: str
    why: str
    command: Command
    outcome: Outcome

    @property
    def is_right(self) -> bool:
        """Whether the fault got what it must get."""
        return self.got in ("answered", "runs")


def judge(fault: Fault, folder: Path, specimen: Path, run: Callable[[Command, Path], Outcome] = run_command) -> Verdict:
    """Build a fault in an empty folder, run its command, and judge it.

    Args:
        fault: The fault.
        folder: Made here.
        specimen: From `prepare`.
        run: How the command is run.
    """
    folder.mkdir(parents=True)
    command = fault.case.build(Place(folder, specimen))
    before = digest_tree(folder)
    outcome = run(command, folder)
    got, why = _judge_outcome(fault, command, outcome, folder)
    changed = find_changes(before, digest_tree(folder), command)
    if changed:
        got, why = "overwrote", f"{changed} (beside: {got} {why})"
    return Verdict(fault, got, why, command, outcome)


def _judge_outcome(fault: Fault, command: Command, outcome: Outcome, folder: Path) -> tuple[str, str]:
    code, text, expected = outcome.code, outcome.text, fault.case.expected
    if code is None:
        return "hung", f"no end after {outcome.seconds:.0f} s"
    if code < 0 or code == ESCAPED or "Traceback (most recent call last)" in text:
        return "crashed", find_cause(text) or f"exit code {code}"
    if code == 0:
        missing = [name for name in command.results if not list(folder.glob(name))]
        if missing:
            return "unclear", f"exit code 0, and no {missing[0]}"
        if command.equal and len({(folder / name).read_bytes() for name in command.equal}) > 1:
            return "unclear", f"exit code 0, and {command.equal[0]} is not {command.equal[1]}"
        return ("runs", "") if expected != "answered" else ("accepted", "exit code 0")
    if code != EXIT_CODE_INPUT and not (command.verb == "inspect" and code == EXIT_CODE_FINDINGS):
        return "unclear", f"exit code {code}"
    messages = len(_ERROR.findall(text))
    if messages != 1 and not (command.verb == "inspect" and code == EXIT_CODE_FINDINGS):
        return "unclear", f"{messages} messages"
    if command.names and not any(name.lower() in text.lower() for name in command.names):
        return "unclear", f"names none of {', '.join(command.names)}: {find_message(text)}"
    return ("answered", "") if expected != "runs" else ("refused", find_message(text))


def find_message(text: str) -> str:
    """Return the first lines of the message of an outcome."""
    found = _ERROR.search(text)
    return " | ".join(text[found.end() if found else 0 :].strip().splitlines()[:3])[:300]


def find_cause(text: str) -> str:
    """Return the exception of the last traceback with the last line of segplus in it."""
    frames = re.findall(r'File "[^"]*?/(segplus/[^"]+)", line (\d+), in (\S+)', text)
    last = [line for line in text.strip().splitlines() if re.match(r"[\w.]*(Error|Exception|Interrupt|Exit)\b", line)]
    where = f" at {frames[-1][0]}:{frames[-1][2]}" if frames else ""
    return (last[-1][:200] if last else text.strip()[-200:]) + where


def digest_tree(folder: Path) -> dict[str, str]:
    """Return relative path -> digest of what lies there; links are told by their target, devices by their type."""
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            found[str(path.relative_to(folder))] = _digest(path)
    return found


def _digest(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"link to {os.readlink(path)}"
    if stat.S_ISREG(status.st_mode):
        return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return f"type {stat.S_IFMT(status.st_mode)}"


def find_changes(before: dict[str, str], after: dict[str, str], command: Command) -> str:
    """Return the first path that is changed, gone or new where the command may not write."""
    for path, digest in before.items():
        if path.split("/")[0] not in command.writable and after.get(path) != digest:
            return f"{path} was {'changed' if path in after else 'removed'}"
    for path in after:
        if path not in before and command.makes is not None and path.split("/")[0] not in command.makes:
            return f"{path} was written"
    return ""

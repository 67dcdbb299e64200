"""What a signal leaves behind: the error that ends the training, and what the checkpoint's step still owes."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from segplus.files import write_text
from segplus.models.stored_files import read_json_object

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
OWED_FILE = "interrupted.json"


class TrainingInterruptedError(RuntimeError):
    """A signal ended the training, after a checkpoint, or an evaluation before the first step.

    Args:
        number: The signal.
        step: The step of the checkpoint; 0 where there is none.
    """

    def __init__(self, number: int, step: int) -> None:
        kept = "after a checkpoint; repeat the command to go on" if step else "before training; repeat the command"
        super().__init__(f"{SIGNALS[signal.Signals(number)]}: stopped at step {step}, {kept}")
        self.number = number


class EvaluationInterruptedError(TrainingInterruptedError):
    """A signal broke off an evaluation; its step's checkpoint is still to be written."""


@dataclass(frozen=True)
class OwedWork:
    """What a run does at the step of a checkpoint if nobody disturbs it.

    Args:
        evaluates: An evaluation, which was broken off.
        saves: A checkpoint. Where there would be none, the one that the signal had written never becomes the best.
    """

    evaluates: bool
    saves: bool


def write_owed_work(folder: Path, owed: OwedWork | None) -> None:
    """Note in a checkpoint what is owed at its step, or take the note back."""
    if owed is None or owed == OwedWork(evaluates=False, saves=True):
        (folder / OWED_FILE).unlink(missing_ok=True)
    else:
        write_text(folder / OWED_FILE, json.dumps(asdict(owed)) + "\n")


def read_owed_work(folder: Path) -> OwedWork | None:
    """Return what is owed at a checkpoint's step, which was found whole; None where nothing is."""
    if not (folder / OWED_FILE).is_file():
        return None
    noted = read_json_object(folder / OWED_FILE)
    return OwedWork(evaluates=noted.get("evaluates") is True, saves=noted.get("saves") is True)

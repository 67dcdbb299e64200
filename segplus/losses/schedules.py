"""Weights and parameters that change over the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segplus.errors import InputError, suggest

# How far the way from the first to the second value is gone at a share in [0, 1] of the schedule's own span.
CURVES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,  # noqa: ARG005
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
    "linear": lambda share: share,
    "step": lambda share: float(share >= 1),
    "warmup": lambda share: share,
}


@dataclass(frozen=True)
class Schedule:
    """A number that goes from `first` to `last` while the training goes from `start` to `end`, and stays there.

    Args:
        curve: A name of `CURVES`. "constant" is `last` all the time; "step" jumps at `end`; "warmup" is linear from 0.
        first: Value up to `start`.
        last: Value from `end` on.
        start: Share of the training, in [0, 1].
        end: Share of the training, in [start, 1].
        whole: Round to the nearest whole number.
    """

    curve: str
    first: float
    last: float
    start: float
    end: float
    whole: bool = False

    def evaluate(self, share: float) -> float:
        """Return the value at a share of the training, in [0, 1]."""
        span = self.end - self.start
        inner = (share - self.start) / span if span > 0 else float(share >= self.end)
        gone = CURVES[self.curve](min(max(inner, 0.0), 1.0))
        value = self.first + (self.last - self.first) * gone
        return round(value) if self.whole else value


def is_number(value: Any) -> bool:
    """Return whether a recipe's value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63  # NaN is not below


def read_schedule(key: str, given: Mapping[str, Any], *, whole: bool = False) -> Schedule:
    """Return the schedule that a recipe writes as {schedule: cosine, from: 0, to: 0.5, start: 0.1, end: 0.9}.

    Args:
        key: Name of the value, for messages.
        given: `schedule` and `to`; `from` (0), `start` (0) and `end` (1; "warmup": 0.1) may be left out.
        whole: Whether the value is a whole number.
    Raises:
        InputError: If a key or a curve does not exist, or the span is not inside [0, 1].
    """
    allowed = ("schedule", "from", "to", "start", "end")
    for name in given:
        if name not in allowed:
            raise InputError(f"{key}: no such key of a schedule", found=name, fix=suggest(str(name), allowed))
    curve = str(given.get("schedule"))
    if curve not in CURVES:
        raise InputError(f"{key}.schedule: no such schedule", found=curve, fix=suggest(curve, CURVES))
    if "to" not in given:
        raise InputError(f"{key}: the schedule has no value to end at", allowed="to: a number")
    if curve == "warmup" and "from" in given:
        raise InputError(f"{key}.from: a warmup starts at 0", found=given["from"], fix="use schedule: linear")
    numbers = {}
    defaults = {"from": 0.0, "to": 0.0, "start": 0.0, "end": 0.1 if curve == "warmup" else 1.0}
    for name, default in defaults.items():
        value = given.get(name, default)
        if not is_number(value):
            raise InputError(f"{key}.{name}", found=repr(value), allowed="a finite number")
        numbers[name] = float(value)
    if not 0 <= numbers["start"] <= numbers["end"] <= 1:
        found = (numbers["start"], numbers["end"])
        raise InputError(
            f"{key}: start and end are shares of the training", found=found, allowed="0 <= start <= end <= 1"
        )
    return Schedule(curve, numbers["from"], numbers["to"], numbers["start"], numbers["end"], whole)

"""A clock that stands still but for callbacks, for test_step_clock: seconds that can be told beforehand."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class Clock:
    """A clock that moves when a callback says so."""

    now = 0.0
    dies_at: int | None = None


class MoveClock(TrainerCallback):
    """Two seconds a step, a thousand an evaluation and five hundred a checkpoint; dies where it is told to."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == Clock.dies_at:
            raise RuntimeError("killed")
        Clock.now += 2

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Clock.now += 1000

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Clock.now += 500


class SpoilTwoSteps(TrainerCallback):
    """Make the gradients of steps 2 and 8 infinite."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step in (1, 7):
            self.handle = next(model.parameters()).register_hook(lambda gradient: gradient + float("inf"))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in (2, 8):
            self.handle.remove()

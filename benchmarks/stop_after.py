"""A callback that ends a training after some minutes: equal time for every recipe."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback


class StopAfter(TrainerCallback):
    """Stops the training at the first step that ends after so many minutes.

    Args:
        minutes: Of training.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds, self._start = 60 * minutes, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the clock."""
        if time.monotonic() - self._start > self._seconds:
            control.should_training_stop = True

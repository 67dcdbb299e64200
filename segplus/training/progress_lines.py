"""Lines in place of the library's bars, where there is no terminal."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from segplus.progress import Progress


class ProgressLines(TrainerCallback):
    """Tells every ten seconds how far training and evaluation are, unless another line of the log did."""

    def __init__(self) -> None:
        self._training: Progress[None] | None = None
        self._evaluation: Progress[None] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to count the steps that are left."""
        self._training = Progress(
            total=state.max_steps - state.global_step,
            title="training",
            unit="steps",
            show=state.is_world_process_zero,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        if self._training is not None:
            self._training.update()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the line of the log for one of these."""
        if self._training is not None:
            self._training.restart_clock()

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Count a batch of an evaluation."""
        if self._evaluation is None:
            total = len(eval_dataloader) if has_length(eval_dataloader) else None
            shown = state.is_world_process_zero
            self._evaluation = Progress(total=total, title="evaluation", unit="batches", show=shown)
        self._evaluation.update()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget the evaluation that has ended."""
        self._evaluation = None

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Likewise."""
        self._evaluation = None

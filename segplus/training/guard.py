"""What happens when a loss or a gradient is not a number."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from torch import nn

from segplus.models.stored_files import find_value_that_is_not_finite

logger = logging.getLogger(__name__)

PATIENCE_STEPS = 3


class TrainingDivergedError(RuntimeError):
    """Training cannot go on: losses, gradients or weights are not finite. Checkpoints are kept."""


class DivergenceGuard:
    """Counts optimizer steps that are not finite, and stops when they repeat.

    Args:
        patience_steps: Consecutive bad steps that end the run.
    """

    def __init__(self, patience_steps: int = PATIENCE_STEPS) -> None:
        self.patience_steps = patience_steps
        self.skipped_steps = 0
        self._bad_losses = 0
        self._last_bad_loss = 0
        self._bad_gradients = 0

    def watch_loss(self, loss: float, step: int, file_names: Sequence[str]) -> None:
        """Take the loss of one micro-batch; a step is bad where one of its micro-batches is.

        Args:
            loss: Its loss.
            step: The optimizer step that it is part of, from 1.
            file_names: Its images.
        Raises:
            TrainingDivergedError: In the last of `patience_steps` bad steps running, with the micro-batch's file names.
        """
        if math.isfinite(loss):
            return
        if step != self._last_bad_loss:
            self._bad_losses = self._bad_losses + 1 if step == self._last_bad_loss + 1 else 1
            self._last_bad_loss = step
        shown = ", ".join(file_names)
        logger.warning("step %d: the loss is %s; batch: %s", step, loss, shown)
        if self._bad_losses >= self.patience_steps:
            raise TrainingDivergedError(
                f"the loss was {loss} {self._bad_losses} steps running, last at step {step}\n"
                f"  batch: {shown}\n"
                "  fix: lower training.learning_rate, train in float32 (training.bf16: false), or look at these files"
            )

    def watch_gradient(self, norm: float, step: int) -> bool:
        """Take the gradient norm of one optimizer step; return whether the step may be taken.

        Raises:
            TrainingDivergedError: At the last of `patience_steps` bad norms running.
        """
        if math.isfinite(norm):
            self._bad_gradients = 0
            return True
        self.skipped_steps += 1
        self._bad_gradients += 1
        logger.warning(
            "step %d: the gradient norm is %s; step skipped (%d skipped so far)", step, norm, self.skipped_steps
        )
        if self._bad_gradients >= self.patience_steps:
            raise TrainingDivergedError(
                f"the gradient norm was not finite {self._bad_gradients} steps running, last at step {step}\n"
                "  fix: lower training.learning_rate, or train in float32 (training.bf16: false)"
            )
        return False


def require_finite_weights(model: nn.Module, step: int) -> None:
    """Refuse to keep weights that no longer mean anything.

    Raises:
        TrainingDivergedError: If a weight or a statistic of the model is NaN or infinite.
    """
    name = find_value_that_is_not_finite(model.state_dict())
    if name is not None:
        raise TrainingDivergedError(
            f"the weights are not finite after step {step}: {name}; they were not saved, older checkpoints are kept\n"
            "  fix: lower training.learning_rate, or train in float32 (training.bf16: false), in another output_dir"
        )

"""Staged unfreezing: frozen modules that begin to learn at a step of the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, TrainerCallback

from segplus.errors import InputError
from segplus.models import find_parameters
from segplus.progress import is_quiet

if TYPE_CHECKING:
    from segplus.training.trainer import SegmentationTrainer


@dataclass(frozen=True)
class UnfreezingStage:
    """Parameters that begin to learn together.

    Args:
        moment: Below 1 a share of the training's steps, from 1 a step.
        modules: What the recipe calls them.
        parameters: Those of the model.
    """

    moment: float
    modules: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    def find_step(self, max_steps: int) -> int:
        """Return how many steps are done when the stage begins."""
        return math.ceil(self.moment * max_steps) if self.moment < 1 else int(self.moment)


def plan_unfreezing(model: PreTrainedModel, wishes: Mapping[float, Sequence[str]]) -> list[UnfreezingStage]:
    """Return the stages in order, and let their parameters require gradients until the training begins.

    Optimizer and DistributedDataParallel take up what requires gradients where they are made, so all that will ever
    learn must do so then.

    Args:
        model: With what is frozen.
        wishes: The recipe's `model.unfreeze`.
    Raises:
        InputError: If a module does not exist, or none of its parameters is frozen until then.
    """
    stages = []
    for moment, names in sorted(wishes.items()):
        chosen = [model.get_parameter(name) for name in find_parameters(model, names, "model.unfreeze")]
        frozen = tuple(parameter for parameter in chosen if not parameter.requires_grad)
        if not frozen:
            raise InputError(
                f"model.unfreeze: nothing of it is frozen at {moment:g}",
                found=", ".join(names),
                fix="name it in model.freeze, and once in model.unfreeze",
            )
        for parameter in frozen:
            parameter.requires_grad_(True)
        stages.append(UnfreezingStage(moment, tuple(names), frozen))
    return stages


class StagedUnfreezing(TrainerCallback):
    """Lets each stage learn from its step on; what has begun follows from the step alone, so a resume is exact.

    Args:
        stages: In order.
        hold_still: Called when something began or stopped to learn.
    """

    def __init__(self, stages: Sequence[UnfreezingStage], hold_still: Callable[[], None]) -> None:
        self._stages, self._hold_still = list(stages), hold_still
        self._begun = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Freeze what has not begun at this step.

        Raises:
            InputError: If a stage begins after the last step.
        """
        late = next((stage for stage in self._stages if stage.find_step(state.max_steps) >= state.max_steps), None)
        if late is not None:
            raise InputError(
                "model.unfreeze: the training ends before",
                found=f"{late.moment:g} ({', '.join(late.modules)})",
                allowed=f"a share below 1, or a step below {state.max_steps}",
            )
        self._begun = self._count_begun(state)
        self._set_gradients()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the stages whose step it is."""
        begun = self._count_begun(state)
        if begun == self._begun:
            return
        if state.is_world_process_zero and not is_quiet():
            for stage in self._stages[self._begun : begun]:
                millions = sum(parameter.numel() for parameter in stage.parameters) / 1e6
                tqdm.write(f"step {state.global_step}: {', '.join(stage.modules)} learns from here ({millions:.2f} M)")
        self._begun = begun
        self._set_gradients()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave every parameter as it was made: another training may begin."""
        for stage in self._stages:
            for parameter in stage.parameters:
                parameter.requires_grad_(True)

    def _count_begun(self, state: Any) -> int:
        return sum(stage.find_step(state.max_steps) <= state.global_step for stage in self._stages)

    def _set_gradients(self) -> None:
        for index, stage in enumerate(self._stages):
            for parameter in stage.parameters:
                parameter.requires_grad_(index < self._begun)
        self._hold_still()


def install_unfreezing(trainer: SegmentationTrainer, stages: Sequence[UnfreezingStage]) -> None:
    """Give a trainer the stages of its recipe."""
    if stages:
        trainer.add_callback(StagedUnfreezing(stages, trainer.hold_still))

"""What a trainer's `losses` may be: a recipe's mapping, a Criterion, or anybody's function of logits and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.losses import Criterion, build_criterion
from segplus.models.mask_transformers import MatchingLoss
from segplus.recipe.imports import import_object

LossFunction = Callable[[Tensor, Tensor], Tensor]
Losses = Mapping[str, Any] | Criterion | nn.Module | LossFunction | str


class _UnscheduledLoss(nn.Module):
    """A loss of people's own: its terms are not told apart, and nothing in it changes with the progress."""

    def __init__(self) -> None:
        super().__init__()
        self.term_values: dict[str, Tensor] = {}

    def set_progress(self, share: float) -> None:
        """Change nothing: there are no schedules."""


class FullResolutionLoss(_UnscheduledLoss):
    """A stranger's loss of full-resolution logits and labels, averaged over micro-batches and processes.

    Args:
        loss: Takes logits (N, C, H, W) and labels (N, H, W), gives a scalar; without trainable parameters.
        num_processes: Over which it is averaged.
    Raises:
        InputError: If the loss has parameters: no optimizer would train them.
    """

    def __init__(self, loss: LossFunction, num_processes: int) -> None:
        super().__init__()
        if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
            raise InputError(
                "losses: this module has parameters, which no optimizer would train",
                found=type(loss).__name__,
                fix="make them buffers, or part of the model",
            )
        self.loss, self.num_processes = loss, num_processes

    def count_normalizers(self, labels: Tensor) -> dict[str, Tensor]:
        """Return nothing: what a stranger's loss divides by is its own affair."""
        return {}

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        normalizers: Mapping[str, Tensor] | None = None,
        accumulation_steps: int = 1,
    ) -> Tensor:
        """Return the loss, in training divided by the micro-batches of a step over all processes."""
        full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
        value = self.loss(full, labels)
        if value.ndim != 0:
            raise InputError("losses: the function must return a scalar", found=f"shape {tuple(value.shape)}")
        return value if normalizers is None else value / (accumulation_steps * self.num_processes)


class OutputLoss(_UnscheduledLoss):
    """Trainer's compute_loss_func, which counts the items itself: valid pixels here.

    Args:
        function: Takes (outputs, labels, num_items_in_batch=...).
        ignore_index: The label that is ignored.
    """

    def __init__(self, function: Callable[..., Tensor], ignore_index: int) -> None:
        super().__init__()
        self.function, self.ignore_index = function, ignore_index

    def count_normalizers(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the number of valid pixels."""
        return {"num_items_in_batch": (labels != self.ignore_index).sum()}

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        normalizers: Mapping[str, Tensor] | None = None,
        accumulation_steps: int = 1,
    ) -> Tensor:
        """Return what the function makes of an output that holds these logits."""
        counts = self.count_normalizers(labels) if normalizers is None else normalizers
        return self.function(SemanticSegmenterOutput(logits=logits), labels, **counts)  # type: ignore[arg-type]


TrainingLoss = Criterion | FullResolutionLoss | MatchingLoss | OutputLoss


def choose_losses(
    losses: Losses | None, compute_loss_func: Callable[..., Tensor] | None, classes: ClassMap, num_processes: int
) -> TrainingLoss:
    """Return the loss of a training; cross-entropy where none is given.

    Args:
        losses: A recipe's mapping, a Criterion, a module or function (logits, labels) -> scalar, or the dotted path of
            one.
        compute_loss_func: Trainer's own, instead of `losses`.
        classes: The classes.
        num_processes: Of the training.
    Raises:
        InputError: If both are given, a term does not exist, or the criterion is for other classes.
    """
    if compute_loss_func is not None:
        if losses is not None:
            raise InputError("losses and compute_loss_func: both are given", fix="give one of them")
        return OutputLoss(compute_loss_func, classes.ignore_index)
    if losses is None or isinstance(losses, Mapping):
        names, ignored = classes.names, classes.ignore_index
        return build_criterion(losses or {"cross_entropy": 1.0}, classes.num_classes, ignored, class_names=names)
    chosen = _import_loss(losses) if isinstance(losses, str) else losses
    if isinstance(chosen, Criterion):
        expected = (classes.num_classes, classes.ignore_index)
        if (chosen.num_classes, chosen.ignore_index) != expected:
            raise InputError(
                "losses: the criterion is for other classes",
                found=f"{chosen.num_classes} classes, ignore_index {chosen.ignore_index}",
                allowed=f"{expected[0]} classes, ignore_index {expected[1]}",
            )
        return chosen
    return FullResolutionLoss(chosen, num_processes)


def choose_matching_loss(
    losses: Losses | MatchingLoss | None, compute_loss_func: Callable[..., Tensor] | None, classes: ClassMap, model: Any
) -> MatchingLoss:
    """Return the loss of a mask transformer, its own.

    Args:
        losses: None, or a MatchingLoss with class weights.
        compute_loss_func: None.
        classes: The classes.
        model: The mask transformer.
    Raises:
        InputError: If another loss is given: queries have no logits of pixels.
    """
    if isinstance(losses, MatchingLoss):
        return losses
    if losses is not None or compute_loss_func is not None:
        refuse_pixel_losses(losses if losses is not None else "compute_loss_func", model.config.model_type)
    return MatchingLoss(model.config, classes.ignore_index)


def refuse_pixel_losses(losses: Any, model_type: str) -> None:
    """Refuse losses of pixels' logits beside a mask transformer, which matches masks with queries.

    Raises:
        InputError: Always; it names them.
    """
    raise InputError(
        f"losses: {model_type} learns by matching masks with queries, and these need the logits of pixels",
        found=", ".join(losses) if isinstance(losses, Mapping) else losses,
        fix="leave losses out; model.config has class_weight, mask_weight, dice_weight and no_object_weight",
    )


def _import_loss(path: str) -> Criterion | LossFunction:
    found = import_object(path, "losses")
    return found() if isinstance(found, type) else found

"""The losses of heads that learn beside the main one and are left out when a model serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from segplus.losses import Criterion
from segplus.losses.boundary_head import BoundaryHeadLoss


def list_auxiliary_logits(hooked: Tensor | None, outputs: Mapping[str, Any]) -> list[Tensor]:
    """Return the logits of every auxiliary head: the one of a library's model and those that an output names."""
    named = outputs.get("auxiliary_logits") or ()
    return [*named] if hooked is None else [hooked, *named]


def sum_auxiliary_losses(
    criterion: Criterion, logits: list[Tensor], compute: Callable[[Criterion, Tensor], Tensor]
) -> tuple[Tensor | float, dict[str, Tensor]]:
    """Return the sum of the heads' losses and of its parts, the latter by the name that a training line has."""
    total: Tensor | float = 0.0
    parts: dict[str, Tensor] = {}
    for one in logits:
        total = total + compute(criterion, one)
        for name, value in criterion.term_values.items():
            key = f"auxiliary/{name}"
            parts[key] = parts[key] + value if key in parts else value
    return total, parts


def build_boundary_loss(model: PreTrainedModel, criterion: Criterion) -> BoundaryHeadLoss | None:
    """Return the loss of a boundary head, or None for a model without one."""
    heads = dict(model.named_children()).get("boundary_heads")
    return BoundaryHeadLoss(criterion) if heads is not None and len(heads) else None

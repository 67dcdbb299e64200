"""The losses of heads that learn beside the main one and are left out when a model serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from segplus.losses import Criterion
from segplus.losses.boundary_head import BoundaryHeadLoss


def list_auxiliary_logits(outputs: Any) -> list[Tensor]:
    """Return the logits of every auxiliary head that an output holds: one tensor of a library's model, or several."""
    found = outputs.get("auxiliary_logits") if isinstance(outputs, dict) else None
    return [found] if isinstance(found, Tensor) else list(found or ())


def sum_auxiliary_losses(
    criterion: Any, logits: list[Tensor], compute: Callable[[Any, Tensor], Tensor]
) -> tuple[Tensor | float, dict[str, Tensor]]:
    """Return the sum of the heads' losses and of its terms, the latter by the name that a training line has."""
    total: Tensor | float = 0.0
    terms: dict[str, Tensor] = {}
    for one in logits:
        total = total + compute(criterion, one)
        for name, value in criterion.term_values.items():
            key = f"auxiliary/{name}"
            terms[key] = terms[key] + value if key in terms else value
    return total, terms


def build_boundary_loss(model: nn.Module, criterion: Any) -> BoundaryHeadLoss | None:
    """Return the loss of a boundary head; None for a model without one, and beside a loss that is no Criterion."""
    heads = dict(model.named_children()).get("boundary_heads")
    has_boundary = isinstance(heads, nn.ModuleList) and len(heads) > 0
    return BoundaryHeadLoss(criterion) if has_boundary and isinstance(criterion, Criterion) else None

"""The auxiliary head's logits, which DPT, UperNet and BEiT compute but do not return."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class AuxiliaryLogits:
    """Keeps what the auxiliary head gave in the last forward pass of a training step.

    Args:
        model: Any model; one without an `auxiliary_head` gives None for ever.
    """

    def __init__(self, model: nn.Module) -> None:
        self._logits: torch.Tensor | None = None
        head = dict(model.named_children()).get("auxiliary_head")
        if head is not None:
            head.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._logits = output if module.training else None

    def take(self) -> torch.Tensor | None:
        """Return the logits, shape (N, C, h, w), once, so that no graph is kept alive; None outside training."""
        logits, self._logits = self._logits, None
        return logits

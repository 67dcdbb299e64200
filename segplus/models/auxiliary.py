"""The auxiliary head's logits, which DPT, UperNet and BEiT compute but do not return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import SemanticSegmenterOutput


@dataclass
class AuxiliaryOutput(SemanticSegmenterOutput):
    """A model's output with the auxiliary head's logits, shape (N, C, h, w)."""

    auxiliary_logits: torch.Tensor | None = None


@contextmanager
def expose_auxiliary_logits(model: nn.Module) -> Iterator[bool]:
    """Let a model return `auxiliary_logits` in training mode while the block runs; give whether it has such a head.

    DistributedDataParallel finds the parameters of a step in what a model returns: a head whose logits are taken from
    elsewhere is called unused, and its gradients are an error.

    Args:
        model: Any model; one without an `auxiliary_head` is left alone.
    """
    head = dict(model.named_children()).get("auxiliary_head")
    if head is None:
        yield False
        return
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        if module.training:
            kept[:] = [output]

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        return AuxiliaryOutput(**output, auxiliary_logits=kept.pop()) if kept else None

    hooks = [head.register_forward_hook(keep), model.register_forward_hook(add)]
    try:
        yield True
    finally:
        for hook in hooks:
            hook.remove()

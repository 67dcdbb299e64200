"""Learning-rate groups: backbone and head, with and without weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from segplus.models import is_head_parameter
from segplus.recipe import OptimizerRecipe


def group_parameters(
    model: PreTrainedModel, recipe: OptimizerRecipe, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return optimizer groups of every trainable parameter, the backbone's first.

    Args:
        model: The model.
        recipe: Head multiplier and the words that mark parameters without decay.
        learning_rate: The backbone's; the head's is this times the multiplier.
        weight_decay: For weights; biases, normalisation layers and position embeddings get none.

    Returns:
        Up to four groups with `params`, `lr`, `weight_decay` and `name`; empty ones are left out.
    """
    undecayed = _name_undecayed_parameters(model, recipe.no_decay)
    groups: dict[str, dict[str, Any]] = {}
    for owner, factor in (("backbone", 1.0), ("head", recipe.head_learning_rate_multiplier)):
        for suffix, decay in (("", weight_decay), ("_no_decay", 0.0)):
            name = owner + suffix
            groups[name] = {"params": [], "lr": learning_rate * factor, "weight_decay": decay, "name": name}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            owner = "head" if is_head_parameter(model, name) else "backbone"
            groups[owner + ("_no_decay" if name in undecayed else "")]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def _name_undecayed_parameters(model: nn.Module, words: list[str]) -> set[str]:
    norms = tuple(
        layer
        for name, layer in vars(nn).items()
        if name.endswith("Norm") or "BatchNorm" in name or "InstanceNorm" in name
    )
    names = set()
    for prefix, module in model.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            # A library's own norm (a LayerNorm for channels-first maps, say) is known by its name alone.
            is_norm = isinstance(module, norms) or type(module).__name__.endswith("Norm")
            if is_norm or leaf == "bias" or any(word in name for word in words):
                names.add(name)
    return names

"""Learning-rate groups: the layers of the backbone and the head, with and without weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from segplus.errors import InputError
from segplus.models import is_head_parameter, number_layers
from segplus.recipe import OptimizerRecipe


def group_parameters(
    model: PreTrainedModel, recipe: OptimizerRecipe, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return optimizer groups of every trainable parameter, the backbone's first.

    With layer-wise decay, layer l of the backbone's L (0 is its stem) learns at learning_rate * layer_decay ** (L - l).

    Args:
        model: The model.
        recipe: Head multiplier, layer-wise decay, and the words that mark parameters without weight decay.
        learning_rate: Of the backbone's last layer; the head's is this times the multiplier.
        weight_decay: For weights; biases, normalisation layers and position embeddings get none.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`: `backbone`, `head`, with layer-wise decay
        `backbone_layer_0` and so on, each once more with the ending `_no_decay`; empty ones are left out.
    Raises:
        InputError: If there is layer-wise decay, and no backbone.
    Reference:
        Bao, Dong, Piao, Wei, BEiT: BERT Pre-Training of Image Transformers, 2021, appendix H; there the head counts as
        one more layer. https://arxiv.org/abs/2106.08254
    """
    undecayed = _name_undecayed_parameters(model, recipe.no_decay)
    depths = number_layers(model) if recipe.layer_decay != 1 else {}
    if recipe.layer_decay != 1 and not depths:
        raise InputError(f"optimizer.layer_decay: {type(model).__name__} has no backbone of its own", fix="set it to 1")
    last = max(depths.values(), default=0)
    owners = {f"backbone_layer_{depth}": recipe.layer_decay ** (last - depth) for depth in range(last + 1)}
    owners = owners if depths else {"backbone": 1.0}
    groups: dict[str, dict[str, Any]] = {}
    for owner, factor in [*owners.items(), ("head", recipe.head_learning_rate_multiplier)]:
        for suffix, decay in (("", weight_decay), ("_no_decay", 0.0)):
            name = owner + suffix
            groups[name] = {"params": [], "lr": learning_rate * factor, "weight_decay": decay, "name": name}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            backbone = f"backbone_layer_{depths[name]}" if name in depths else "backbone"
            owner = "head" if is_head_parameter(model, name) else backbone
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

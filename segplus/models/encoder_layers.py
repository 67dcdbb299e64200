"""The layers of a model's encoder, from its stem to its last, whatever the library calls them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

_TRUNK_SHARE = 0.5  # of the encoder's parameters: what holds more is looked into


def name_encoder(model: PreTrainedModel) -> str:
    """Return the name of the module that is the model's encoder; such a module need not exist."""
    prefix = model.base_model_prefix
    return prefix if prefix in dict(model.named_children()) else "backbone"


def number_layers(model: PreTrainedModel) -> dict[str, int]:
    """Return how deep in the encoder each of its parameters lies: 0 in the stem, 1 in the first layer, and so on.

    A layer is a block of a plain transformer, a stage of an encoder with a pyramid of maps, an inverted residual of
    MobileNetV2: an entry of the outermost lists of modules. What stands before the first is the stem; without such
    lists, each child of the encoder is a layer, and the first the stem. What follows the last belongs to it.

    Args:
        model: The model.
    Returns:
        Depth by the parameter's name in the model; empty where the model has no encoder of its own.
    """
    prefix = name_encoder(model)
    encoder = dict(model.named_children()).get(prefix)
    if encoder is None:
        return {}
    parts = list(_list_parts(encoder, prefix, _count(encoder)))
    listed = [index for index, (_, is_entry) in enumerate(parts) if is_entry]
    first, last = (listed[0], listed[-1]) if listed else (1, len(parts) - 1)
    first = max(first, 1)  # a list that begins the encoder begins with its stem
    depths = {name: min(max(index - first + 1, 0), last - first + 1) for index, (name, _) in enumerate(parts)}
    return {
        name: next((depth for part, depth in depths.items() if name.startswith(f"{part}.")), 0)
        for name, _ in model.named_parameters()
        if name.startswith(f"{prefix}.")
    }


def _list_parts(module: nn.Module, prefix: str, total: int) -> Iterator[tuple[str, bool]]:
    """Yield the names of the encoder's parts in order, and whether each is an entry of a list."""
    for name, child in module.named_children():
        here = f"{prefix}.{name}"
        if not _count(child):
            continue
        if isinstance(child, nn.ModuleList):
            yield from ((f"{here}.{index}", True) for index, entry in enumerate(child) if _count(entry))
        elif _count(child) > _TRUNK_SHARE * total and any(isinstance(one, nn.ModuleList) for one in child.modules()):
            yield from _list_parts(child, here, total)
        else:
            yield here, False


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

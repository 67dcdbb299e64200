"""Classes of a new data set that begin as classes of the checkpoint: a truck's weights for a car, not random ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from segplus.errors import InputError, suggest
from segplus.models.model_configs import choose_auto_class

_KEY = "model.checkpoint_classes"


def check_checkpoint_classes(mapping: Mapping[str, Sequence[str]], names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that no class has.

    Args:
        mapping: Classes of the data, and the checkpoint's classes that each of them begins as.
        names: Classes of the data.
        known: Classes of the checkpoint.
    Raises:
        InputError: If a name is neither.
    """
    for name, sources in mapping.items():
        if name not in names:
            raise InputError(f"{_KEY}: the data have no class '{name}'", fix=suggest(name, names))
        for source in sources:
            if source not in known:
                raise InputError(f"{_KEY}.{name}: the checkpoint has no class '{source}'", fix=suggest(source, known))


def begin_classes(model: PreTrainedModel, source: PreTrainedModel, mapping: Mapping[str, Sequence[str]]) -> list[str]:
    """Let classes begin as the mean of the checkpoint's classes, in place, in every head.

    A class's logit is linear in its weights, so it begins as the mean of those classes' logits.

    Args:
        model: With the data's classes.
        source: The checkpoint with its own.
        mapping: Classes of the data, and the checkpoint's classes that each of them begins as. Others stay as they are.
    Returns:
        The parameters whose every class was begun.
    """
    own, given = model.config.label2id, source.config.label2id
    weights = source.state_dict()
    begun = []
    with torch.no_grad():
        for name in _find_class_parameters(model):
            for target, sources in mapping.items():
                rows = weights[name][[given[one] for one in sources]]
                model.get_parameter(name)[own[target]] = rows.mean(dim=0)
            model.get_parameter(name)[len(own) :] = weights[name][len(given) :]  # a mask transformer's "no object"
            begun += [name] if set(mapping) == set(own) else []
    return begun


def _find_class_parameters(model: PreTrainedModel) -> list[str]:
    """Return the parameters that have a row for each class: those that would have one more with one class more."""
    config: PreTrainedConfig = copy.deepcopy(model.config)
    config.num_labels = model.config.num_labels + 1
    with torch.device("meta"):
        larger = dict(choose_auto_class(config).from_config(config).named_parameters())
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.shape[1:] == larger[name].shape[1:] and len(larger[name]) == len(parameter) + 1
    ]

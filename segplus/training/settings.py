"""What a trainer needs to know before it is built: arguments that serve it, and the classes."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from segplus.classes import IGNORE_INDEX, ClassMap
from segplus.errors import InputError

_PRECISIONS = ("no", "fp16", "bf16", "fp8")
Classes = ClassMap | Sequence[str] | Mapping[int, str]


def adapt_arguments(arguments: TrainingArguments | None) -> TrainingArguments:
    """Return a copy of a caller's arguments with what this trainer needs.

    Args:
        arguments: TrainingArguments as anybody makes them; None for transformers' defaults.
    Raises:
        InputError: If they ask for what means nothing here.
    """
    own = copy.copy(arguments) if arguments is not None else TrainingArguments("tmp_trainer")
    refuse_sharding(own)
    _refuse_foreign(own)
    own.remove_unused_columns = False
    own.label_names = ["labels"]
    own.batch_eval_metrics = True
    own.dataloader_pin_memory = own.dataloader_pin_memory and torch.accelerator.is_available()
    # DataParallel would run the hooks once a replica; several GPUs are for accelerate launch, one process each.
    own._n_gpu = min(own.n_gpu, 1)
    return own


def refuse_odd_environment() -> None:
    """Refuse a precision that accelerate does not know; its launcher hands it on in a variable.

    Raises:
        InputError: If so.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in _PRECISIONS:
        raise InputError("ACCELERATE_MIXED_PRECISION", found=precision, allowed=", ".join(_PRECISIONS))


def refuse_sharding(arguments: TrainingArguments) -> None:
    """Raise InputError where FSDP or DeepSpeed were asked for."""
    if arguments.fsdp or arguments.deepspeed or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise InputError(
            "training: FSDP and DeepSpeed shard models that segplus trains whole",
            found="fsdp or deepspeed",
            fix="use configs/accelerate/ddp.yaml",
        )


def _refuse_foreign(arguments: TrainingArguments) -> None:
    foreign = {
        "label_smoothing_factor": "use losses={'cross_entropy': {'label_smoothing': 0.1}}",
        "neftune_noise_alpha": "it adds noise to the embeddings of words; leave it out",
        "use_liger_kernel": "it is for language models; leave it out",
        "include_for_metrics": "compute_metrics gets label maps and labels; leave it out",
    }
    for name, fix in foreign.items():
        value = vars(arguments)[name]
        if value:
            raise InputError(f"TrainingArguments.{name}: it means nothing here", found=value, fix=fix)
    if arguments.train_sampling_strategy not in ("random", "sequential"):
        raise InputError(
            "TrainingArguments.train_sampling_strategy: images have no length",
            found=arguments.train_sampling_strategy,
            allowed="random, sequential",
        )


def choose_classes(classes: Classes | None, model: nn.Module) -> ClassMap:
    """Return the classes of a training: those that are given, or else those that the model's config names.

    Where no ClassMap says it, the ignored label is the config's `semantic_loss_ignore_index`, 255 in most.

    Args:
        classes: Names in the order of the class ids, id -> name, or a ClassMap.
        model: Its config must have as many classes.
    Raises:
        InputError: If the model has another number of classes, or neither names any.
    """
    config: Any = getattr(model, "config", None)  # Trainer takes plain modules, too
    if classes is None and config is None:
        raise InputError("classes: a model without a config names none", fix="give classes=[...]")
    if isinstance(classes, ClassMap):
        chosen = classes
    else:
        chosen = ClassMap.build(classes if classes is not None else config.id2label)
        ignored = IGNORE_INDEX if config is None else config.to_dict().get("semantic_loss_ignore_index", IGNORE_INDEX)
        if not 0 <= ignored < chosen.num_classes:
            chosen = dataclasses.replace(chosen, ignore_index=ignored)
    if config is not None and config.num_labels != chosen.num_classes:
        raise InputError(
            "classes: the model has another number of them",
            found=f"{chosen.num_classes} names, {config.num_labels} labels of the model",
            fix="load the model with num_labels=... and ignore_mismatched_sizes=True",
        )
    return chosen


def write_class_names(model: nn.Module, classes: ClassMap) -> None:
    """Set a model's id2label and label2id, so that transformers' pipeline shows names."""
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.id2label, config.label2id = classes.id2label, classes.label2id

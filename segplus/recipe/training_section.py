"""The recipe's `training:` section: transformers' own names, strict, with the values that a run can be done with."""

from __future__ import annotations

import enum
import importlib.util
import typing
from typing import Any

from segplus.errors import InputError, suggest
from segplus.recipe.keys import list_training_hints
from segplus.recipe.strict import convert
from segplus.texts import is_file

# Where TrainingArguments' own defaults do not serve segmentation. A recipe may change every one of them. Precision and
# the number of workers are left to the machine: segplus.training.arguments.
TRAINING_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "learning_rate": 6e-5,
    "weight_decay": 0.01,
    "lr_scheduler_type": "polynomial",
    "warmup_steps": 0.05,
    "max_grad_norm": 1.0,
    "num_train_epochs": 20,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "mean_iou",
    "restore_callback_states_from_checkpoint": True,
    "logging_steps": 10,
    "hub_strategy": "end",
    "report_to": "tensorboard",
    "ddp_find_unused_parameters": False,
    "seed": 42,
}

# What an evaluation during training gives, and a best checkpoint may be chosen by.
MONITORED = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_dice", "frequency_weighted_iou", "loss")

# segplus forms the batches, counts the pixels and computes the loss itself; these have one value that works.
RESERVED = {
    "label_smoothing_factor": "use losses: {cross_entropy: {label_smoothing: 0.1}}",
    "remove_unused_columns": "segplus sets it",
    "label_names": "segplus sets it",
    "batch_eval_metrics": "segplus sets it",
    "prediction_loss_only": "segplus sets it",
    "average_tokens_across_devices": "segplus counts the valid pixels of all processes itself",
    "include_num_input_tokens_seen": "it is for language models",
    "use_liger_kernel": "it is for language models",
    "neftune_noise_alpha": "it is for language models",
    "train_sampling_strategy": "use transforms.sampling",
    "include_for_metrics": "segplus sets it",
    "do_train": "use `segplus evaluate` to evaluate only",
    "do_eval": "use training.eval_strategy",
    "do_predict": "use `segplus predict`",
    "resume_from_checkpoint": "repeat the same command: it resumes by itself",
    "local_rank": "use accelerate launch",
    "save_only_model": "without the optimizer a run that died starts from zero; use training.save_total_limit: 1",
    "hub_token": "log in with `hf auth login`; a token does not belong in a recipe",
}


_NO_END = float("inf")
_SEEDS = (0, 2**32, "0 up to 4294967295")
_BETAS = (0, 1, "0 up to, not including, 1")
_COUNTS = (1, _NO_END, "1 and more")
_AMOUNTS = (0, _NO_END, "a number from 0")
# Key -> from, below, and that in words.
_RANGES: dict[str, tuple[float, float, str]] = {
    "per_device_train_batch_size": _COUNTS,
    "per_device_eval_batch_size": _COUNTS,
    "gradient_accumulation_steps": _COUNTS,
    "eval_accumulation_steps": _COUNTS,
    "dataloader_prefetch_factor": _COUNTS,
    "save_total_limit": _COUNTS,
    "dataloader_num_workers": (0, 1025, "0 to 1024"),
    "learning_rate": _AMOUNTS,
    "weight_decay": _AMOUNTS,
    "max_grad_norm": _AMOUNTS,
    "warmup_steps": _AMOUNTS,
    "eval_delay": _AMOUNTS,
    "adam_epsilon": _AMOUNTS,
    "adam_beta1": _BETAS,
    "adam_beta2": _BETAS,
    "seed": _SEEDS,
    "data_seed": _SEEDS,
}


def check_training(given: Any, name: str, file: str) -> dict[str, Any]:
    """Return the section with every default that segplus changes.

    Args:
        given: What the recipe says.
        name: The run's, for its folder.
        file: The recipe's, for messages.
    Raises:
        InputError: If a key is unknown, or a value has the wrong type or ends no run.
    """
    if not isinstance(given, dict):
        raise InputError(f"{file}: training is not a section", found=repr(given), allowed="key: value lines")
    hints = list_training_hints()
    merged = {"output_dir": f"runs/{name}"} | TRAINING_DEFAULTS
    if not any(importlib.util.find_spec(package) for package in ("tensorboard", "tensorboardX")):
        merged["report_to"] = "none"
    for key, value in given.items():
        if key not in hints:
            allowed = [hint for hint in hints if hint not in RESERVED]
            raise InputError(f"{file}: unknown key 'training.{key}'", fix=suggest(str(key), allowed))
        if key in RESERVED:
            raise InputError(f"{file}: training.{key} is not for recipes", fix=RESERVED[key])
        merged[key] = _convert_training_value(value, hints[key], f"training.{key}", file)
    _check_ranges(merged, file)
    merged["greater_is_better"] = str(merged["metric_for_best_model"]).removeprefix("eval_") != "loss"  # null, too
    if merged["eval_strategy"] == "no":
        return merged | {"load_best_model_at_end": False}
    # The best checkpoint can only be kept where each evaluation is followed by a save.
    for what in ("strategy", "steps"):
        if f"eval_{what}" in given and f"save_{what}" not in given:
            merged[f"save_{what}"] = merged[f"eval_{what}"]
    return merged


def _check_ranges(training: dict[str, Any], file: str) -> None:
    """Refuse numbers that would end the run later, with somebody else's message."""
    for key, (low, below, allowed) in _RANGES.items():
        value = training.get(key)
        if value is not None and not low <= value < below:
            raise InputError(f"{file}: training.{key}", found=value, allowed=allowed)
    for key in ("eval_steps", "save_steps", "logging_steps", "num_train_epochs"):
        value = training.get(key)
        if value is not None and not value > 0:
            raise InputError(f"{file}: training.{key}", found=value, allowed="above 0")
    if training.get("max_steps", -1) != -1 and training["max_steps"] < 1:
        allowed = "1 and more, or -1 for training.num_train_epochs"
        raise InputError(f"{file}: training.max_steps", found=training["max_steps"], allowed=allowed)
    _check_choices(training, file)


def _check_choices(training: dict[str, Any], file: str) -> None:
    """Refuse words and files that there are not."""
    from transformers.training_args import trainer_log_levels  # seconds, which no help needs

    for key in ("log_level", "log_level_replica"):
        if training.get(key, "passive") not in trainer_log_levels:
            fix = suggest(training[key], trainer_log_levels)
            raise InputError(f"{file}: training.{key}: no such level", found=training[key], fix=fix)
    for key in ("accelerator_config", "fsdp_config", "deepspeed"):
        if isinstance(training.get(key), str) and not is_file(training[key]):
            raise InputError(f"{file}: training.{key}: no such file", found=training[key], fix="correct the path")
    metric = str(training["metric_for_best_model"]).removeprefix("eval_")
    if metric not in MONITORED and not metric.startswith("iou/"):
        allowed = ", ".join((*MONITORED, "iou/<class>"))
        fix = suggest(metric, MONITORED)
        raise InputError(f"{file}: training.metric_for_best_model", found=metric, allowed=allowed, fix=fix)
    is_score = metric != "loss"
    if training.get("greater_is_better") not in (is_score, None):
        best = "highest" if is_score else "lowest"
        fix = f"leave it out, or say {str(is_score).lower()}: the best {metric} is the {best}"
        raise InputError(f"{file}: training.greater_is_better", found=not is_score, fix=fix)


def _convert_training_value(value: Any, hint: Any, where: str, file: str) -> Any:
    """Check numbers, words and switches; leave the library's own enums and structures to TrainingArguments."""
    choices = typing.get_args(hint) or (hint,)
    if value is False and bool not in choices:
        value = "no"  # YAML 1.1 reads `eval_strategy: no` as a boolean
    words = [str(entry.value) for choice in choices if _is_enum(choice) for entry in choice]
    if words and value not in words:
        raise InputError(f"{file}: {where}", found=repr(value), fix=suggest(str(value), words))
    simple = [choice for choice in choices if choice in (bool, int, float, str, type(None))]
    return convert(value, hint if len(simple) == len(choices) else Any, where, file)


def _is_enum(choice: Any) -> bool:
    return isinstance(choice, type) and issubclass(choice, enum.Enum)

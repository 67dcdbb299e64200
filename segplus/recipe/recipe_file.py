"""From a YAML file and a command line to a Recipe, and back to a file that repeats the run."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

from segplus.errors import InputError, suggest
from segplus.files import write_whole
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.evaluation_section import EvaluationRecipe
from segplus.recipe.paths import place_fold
from segplus.recipe.sections import Recipe
from segplus.recipe.strict import build_dataclass, convert
from segplus.recipe.tokens import refuse_tokens

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


def load_recipe(path: str | os.PathLike[str], arguments: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file, with the command line's values over the file's.

    With `data.folds`, `training.output_dir` becomes the fold's own folder inside it: runs/name/fold-2.

    Args:
        path: The YAML file.
        arguments: `--key value` or `--key=value`; keys are dotted (`--training.learning_rate 1e-4`) or, where only one
            section has the key, bare (`--learning_rate 1e-4`).

    Raises:
        InputError: If the file cannot be read, a key is unknown or a value has the wrong type.
    """
    file = str(path)
    values, known = _read_yaml(Path(path)), _list_keys()
    for key, value in _parse_arguments(arguments, known):
        _set_dotted(values, key, value)
    refuse_tokens(values, "", file)
    values["training"] = _check_training(values.get("training") or {}, Path(path).stem, file)
    recipe = build_dataclass(Recipe, values, "", file)
    if recipe.data.folds:
        folder = place_fold(recipe.training["output_dir"], recipe.data.fold)
        return dataclasses.replace(recipe, training=recipe.training | {"output_dir": folder})
    return recipe


def load_sections(
    path: str | os.PathLike[str] | None, arguments: Sequence[str] = (), dataset: str | None = None
) -> tuple[DataRecipe, EvaluationRecipe]:
    """Return the data and the evaluation section alone: what a verb other than training needs.

    Args:
        path: A recipe; None for the defaults.
        arguments: `--key value` of these two sections, over the file's.
        dataset: Replaces the file's `data.dataset`.
    Raises:
        InputError: If the file cannot be read, a key of any section is unknown, a value has the wrong type, or nothing
            says where the data lie.
    """
    file = "command line" if path is None else str(path)
    values = {} if path is None else _read_yaml(Path(path))
    refuse_tokens(values, "", file)
    _refuse_unknown_keys(values, file)
    known = [key for key in _list_keys() if key.split(".")[0] in ("data", "evaluation")]
    for key, value in _parse_arguments(arguments, known):
        _set_dotted(values, key, value)
    if dataset is not None:
        _set_dotted(values, "data.dataset", dataset)
    if path is not None and "data" not in values:
        raise InputError(f"{file}: key 'data' is missing", fix="add it: data: ...")
    data = build_dataclass(DataRecipe, values.get("data", {}), "data", file)
    return data, build_dataclass(EvaluationRecipe, values.get("evaluation", {}), "evaluation", file)


def save_recipe(recipe: Recipe, path: str | os.PathLike[str]) -> None:
    """Write the merged recipe, every default included, whole or not at all."""
    with write_whole(Path(path)) as temporary:
        temporary.write_text(format_recipe(recipe), encoding="utf-8")


def format_recipe(recipe: Recipe) -> str:
    """Return the merged recipe as YAML, every default included."""
    return yaml.safe_dump(_to_plain(dataclasses.asdict(recipe)), sort_keys=False, allow_unicode=True)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(entry) for key, entry in value.items()}
    return [_to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        nearby = sorted(str(p) for p in Path("configs").rglob("*.yaml")) if Path("configs").is_dir() else []
        raise InputError(f"recipe {path}: no such file", fix=suggest(str(path), nearby) if nearby else "check the path")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path}: not valid YAML", found=str(error).replace("\n", " ")) from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {path}: not a recipe", found=type(values).__name__, allowed="key: value lines")
    return values


def _refuse_unknown_keys(values: dict[str, Any], file: str) -> None:
    """Refuse what is no section of a recipe, and what is no key of one; values are checked where they are used."""
    hints = typing.get_type_hints(Recipe)
    for name, content in values.items():
        if name not in hints:
            raise InputError(f"{file}: unknown key '{name}'", fix=suggest(str(name), hints))
        if name != "training" and not dataclasses.is_dataclass(hints[name]):
            continue
        keys = _training_hints() if name == "training" else typing.get_type_hints(hints[name])
        if not isinstance(content, dict):
            raise InputError(f"{file}: {name} is not a section", found=repr(content), allowed="key: value lines")
        for key in content:
            if key not in keys:
                raise InputError(f"{file}: unknown key '{name}.{key}'", fix=suggest(str(key), keys))


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys; a recipe that says two things is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _parse_arguments(arguments: Sequence[str], known: Sequence[str]) -> list[tuple[str, Any]]:
    """Return dotted keys with their values, in order."""
    pairs: list[tuple[str, Any]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise InputError(f"command line: '{word}' is not a key", allowed="--key value")
        name, equals, text = word[2:].partition("=")
        key = _find_key(name, known)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"command line: --{name} has no value", allowed=f"--{name} value")
            text = rest.pop(0)
        try:
            pairs.append((key, yaml.safe_load(text)))
        except yaml.YAMLError:
            # Patterns such as *.png or [a-z]+ mean something else in YAML.
            pairs.append((key, text))
    return pairs


def _list_keys() -> list[str]:
    keys: list[str] = []
    hints = typing.get_type_hints(Recipe)
    for name, hint in hints.items():
        keys.append(name)
        if dataclasses.is_dataclass(hint):
            keys += [f"{name}.{field.name}" for field in dataclasses.fields(hint)]
    return keys + [f"training.{name}" for name in _training_hints()]


def _find_key(key: str, known: Sequence[str]) -> str:
    open_sections = ("losses", "class_weights", "training", "model.config", "model.image_processor")
    if key in known or any(key.startswith(f"{section}.") for section in open_sections if section in known):
        return key
    if any(key.startswith(f"{entry}.") for entry in known if "." in entry):
        return key
    sections = list(dict.fromkeys(entry.split(".")[0] for entry in known))
    if key.split(".")[0] in typing.get_type_hints(Recipe).keys() - set(sections):
        raise InputError(f"command line: --{key} has no part in this command", allowed=f"keys of {', '.join(sections)}")
    matches = [entry for entry in known if entry.rsplit(".", 1)[-1] == key]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"command line: --{key} stands for several keys", allowed=", ".join(f"--{m}" for m in matches))
    leaves = [entry.rsplit(".", 1)[-1] for entry in known]
    raise InputError(f"command line: unknown key '--{key}'", fix=suggest(key, known if "." in key else leaves))


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = dict(inner) if isinstance(inner, dict) else {}
        values = values[section]
    values[leaf] = value


def _training_hints() -> dict[str, Any]:
    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in dataclasses.fields(TrainingArguments) if field.init}


def _check_training(given: Any, name: str, file: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{file}: training is not a section", found=repr(given), allowed="key: value lines")
    hints = _training_hints()
    merged = {"output_dir": f"runs/{name}"} | TRAINING_DEFAULTS
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
    for key in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if training.get(key, 1) < 1:
            raise InputError(f"{file}: training.{key}", found=training[key], allowed="1 and more")
    rate = training["learning_rate"]
    if not 0 <= rate < math.inf:
        raise InputError(f"{file}: training.learning_rate", found=rate, allowed="a number from 0")
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
    is_simple = all(choice in (bool, int, float, str, type(None)) for choice in choices)
    return convert(value, hint, where, file) if is_simple else value

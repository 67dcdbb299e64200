"""The config of a model: read from a checkpoint, or built from a recipe's values."""

from __future__ import annotations

import os
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    PreTrainedConfig,
)
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from segplus.classes import WIDE_IGNORE_INDEX, ClassMap
from segplus.errors import InputError, suggest
from segplus.models.library_failures import explain_config, explain_failures, quiet_transformers
from segplus.models.mask_transformers.families import FAMILIES, find_family, is_mask_transformer
from segplus.models.remote_code import refuse_untrusted_code
from segplus.recipe import ModelRecipe
from segplus.recipe.paths import expand_path
from segplus.texts import is_text

_READS_FOUR_LAYERS = ("beit", "data2vec-vision")


def build_config(recipe: ModelRecipe, classes: ClassMap, use_auxiliary_head: bool, channels: int) -> PreTrainedConfig:
    """Return the config of a recipe's model, checked against its type.

    Args:
        recipe: The recipe's model section.
        classes: The classes.
        use_auxiliary_head: Whether a model that can has one.
        channels: Of the images.
    Raises:
        InputError: If a value is unknown or impossible, or the model is none of semantic segmentation.
    """
    values = dict(recipe.config)
    model_type = values.pop("model_type", None)
    if values.pop("num_channels", channels) != channels:
        raise InputError(
            "model.config.num_channels: not the number of channels of the data",
            found=recipe.config["num_channels"],
            allowed=channels,
            fix="leave it out: data.channels says how many there are",
        )
    if recipe.checkpoint is None:
        config = _build_config_of_type(str(model_type))
    else:
        checkpoint = expand_checkpoint(recipe.checkpoint)
        trusted = recipe.trust_remote_code
        config = load_config(checkpoint, "model.checkpoint", revision=recipe.revision, trust_remote_code=trusted)
    source = recipe.checkpoint or f"model.config.model_type {model_type}"
    refuse_other_tasks(config, source, is_fine_tuned=False)
    known = config.to_dict()
    for key, value in values.items():
        if key not in known:
            raise InputError(f"model.config: {config.model_type} has no '{key}'", fix=suggest(str(key), known))
        _refuse_impossible_numbers(str(key), value)
    values |= _fix_values(config, values)
    values |= {"id2label": classes.id2label, "label2id": classes.label2id}
    values["semantic_loss_ignore_index"] = classes.ignore_index
    if not use_auxiliary_head and "use_auxiliary_head" in known:
        values["use_auxiliary_head"] = False
    if "backbone" in known and isinstance(values.get("backbone"), str):
        values["backbone"] = expand_checkpoint(values["backbone"], "model.config.backbone")
    # from_dict, not setattr: values that depend on each other are checked together, as in a file.
    with quiet_transformers(), explain_config("model.config"):
        return type(config).from_dict(_choose_stages({**_drop_derived(known, values), **values}))


def _drop_derived(known: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return a config's values without those that follow from what the recipe asks for: they must follow anew."""
    derived = {"stage_names"}
    if "out_features" in values or "out_indices" in values or "num_hidden_layers" in values:
        derived |= {"out_features", "out_indices"}
    return {key: value for key, value in known.items() if key not in derived}


def _choose_stages(values: dict[str, Any]) -> dict[str, Any]:
    """Let BEiT and Data2Vec, whose heads read four layers, read them at equal distances where nobody says which."""
    asked = values.get("out_features") or values.get("out_indices") or []
    depth = int(values.get("num_hidden_layers", 0))
    if values["model_type"] not in _READS_FOUR_LAYERS or len(asked) > 1 or depth < 4:
        return values
    others = {key: value for key, value in values.items() if key != "out_features"}
    return {**others, "out_indices": [depth * part // 4 for part in (1, 2, 3, 4)]}


def _fix_values(config: PreTrainedConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a mask transformer must have; none for other models."""
    fixed = dict(find_family(config).fixed_config) if is_mask_transformer(config) else {}
    for key, value in fixed.items():
        if given.get(key, value) != value:
            raise InputError(
                f"model.config.{key}: transformers' {config.model_type} does not serve masks with it",
                found=given[key],
                allowed=value,
                fix="leave it out; in training every layer of the decoder learns",
            )
    return fixed


def _refuse_impossible_numbers(key: str, value: object) -> None:
    """Refuse what no network has, and some are built of without a word: negative sizes and counts, and shares of 2."""
    numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int | float)]
    if "drop" in key and not all(0 <= one < 1 for one in numbers):
        raise InputError(f"model.config.{key}", found=value, allowed="a share from 0 to below 1")
    is_count = key.startswith("num_") or key.endswith(("size", "sizes", "dim", "dims", "depth", "depths", "ratios"))
    if is_count and not all(one >= 0 for one in numbers):
        raise InputError(f"model.config.{key}", found=value, allowed="no negative number")


def _build_config_of_type(model_type: str) -> PreTrainedConfig:
    allowed = _list_model_types()
    if model_type not in allowed:
        raise InputError(
            "model.config.model_type", found=model_type, allowed=", ".join(allowed), fix=suggest(model_type, allowed)
        )
    return AutoConfig.for_model(model_type)


def _list_model_types() -> list[str]:
    return sorted({config.model_type for config in AutoModelForSemanticSegmentation._model_mapping} | set(FAMILIES))


def choose_auto_class(config: PreTrainedConfig) -> Any:
    """Return the Auto class that loads the model of a config."""
    return AutoModelForUniversalSegmentation if is_mask_transformer(config) else AutoModelForSemanticSegmentation


def load_config(
    checkpoint: str, key: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Return a checkpoint's config.

    Args:
        checkpoint: Folder or Hub id.
        key: What a message begins with.
        revision: Branch, tag or commit of the Hub.
        trust_remote_code: Run the code that the checkpoint brings or names.
    Raises:
        InputError: If it cannot be loaded, or names code of the Hub that nobody trusted.
    """
    with quiet_transformers(), explain_failures(key, checkpoint):
        values, _ = PreTrainedConfig.get_config_dict(checkpoint, revision=revision or "main")
        count = values.get("num_labels", 0)
        if isinstance(count, int) and count > WIDE_IGNORE_INDEX:  # transformers makes a name for each
            raise InputError(f"{key} {checkpoint}: config.json: num_labels", found=count, allowed=WIDE_IGNORE_INDEX)
        if not trust_remote_code:
            refuse_untrusted_code(values, key, checkpoint)
        _refuse_unknown_quantization(values, key, checkpoint)
        return AutoConfig.from_pretrained(checkpoint, revision=revision or "main", trust_remote_code=trust_remote_code)


def _refuse_unknown_quantization(values: dict[str, Any], key: str, source: str) -> None:
    """Refuse weights that are said to be quantised in a way that transformers would pass over with a warning."""
    stated = values.get("quantization_config")
    method = stated.get("quant_method") if isinstance(stated, dict) else stated
    if stated is not None and str(method) not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise InputError(
            f"{key} {source}: config.json: quantization_config",
            found=stated,
            allowed=", ".join(AUTO_QUANTIZATION_CONFIG_MAPPING),
            fix="remove it where the weights are not quantised",
        )


def refuse_other_tasks(config: PreTrainedConfig, source: str, *, is_fine_tuned: bool = True) -> None:
    """Refuse a model that is none of semantic segmentation, by its config alone.

    Args:
        config: The model's config.
        source: What a message calls the model.
        is_fine_tuned: Whether it must have been saved with a segmentation head. Training may begin with an encoder, or
            with a model of another task whose type has such a head.
    Raises:
        InputError: If so.
    """
    if "AutoModelForSemanticSegmentation" in (config.to_dict().get("auto_map") or {}):
        return  # the checkpoint brings its own code
    message = f"{source} is no semantic-segmentation model"
    expected = choose_auto_class(config)._model_mapping.get(type(config), None)
    if expected is None:
        raise InputError(
            message,
            found=f"model type '{config.model_type}'",
            allowed=", ".join(_list_model_types()),
            fix="choose a checkpoint of one of these types",
        )
    saved = (config.architectures or [expected.__name__])[0]
    if is_fine_tuned and saved != expected.__name__:
        raise InputError(
            message, found=saved, allowed=expected.__name__, fix="fine-tune it first, or name a checkpoint that was"
        )


def expand_checkpoint(checkpoint: str, key: str = "model.checkpoint") -> str:
    """Return a checkpoint with ${VARIABLES} and ~ filled in.

    Args:
        checkpoint: Hub id or folder.
        key: The recipe's key that holds it, for the message.

    Raises:
        InputError: If a variable is not set, or a path that is clearly local does not exist.
    """
    expanded = expand_path(checkpoint, key)
    if not is_text(expanded):  # the library of its weights opens no other path
        raise InputError(f"{key}: {expanded!a} is no text in UTF-8", fix="rename the folder")
    looks_local = expanded.startswith((".", os.sep)) or expanded.count("/") > 1
    if looks_local and not os.path.isdir(expanded):
        raise InputError(f"{key}: no such folder: {expanded}", fix="check the path")
    return expanded

"""Any semantic-segmentation model of the Auto classes, from a checkpoint or from a config."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pickle import UnpicklingError
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from segplus.classes import WIDE_IGNORE_INDEX, ClassMap
from segplus.errors import InputError, suggest
from segplus.models.channels import count_channels, set_channels, widen_model
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.freezing import is_head_parameter
from segplus.models.remote_code import refuse_untrusted_code
from segplus.models.stored_files import find_value_that_is_not_finite, refuse_damaged_model
from segplus.models.transfer import Transfer, load_encoder_weights
from segplus.recipe import ModelRecipe
from segplus.recipe.paths import expand_path
from segplus.texts import is_text

# What the Auto classes raise for files and values that are wrong.
_FAILURES = (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError, AttributeError, ArithmeticError)
_FAILURES += (AssertionError, EOFError, SafetensorError, UnpicklingError, StrictDataclassError)  # type: ignore[assignment]


@dataclass
class LoadedModel:
    """A model and which of its weights are new.

    Args:
        model: Float32, on the CPU.
        new_parameters: Names of the parameters that no checkpoint gave.
        checkpoint_channels: Input channels of the checkpoint where the model was widened to others; else None.
        transfer: What the encoder took from a checkpoint of its own; None where there is none.
    """

    model: PreTrainedModel
    new_parameters: list[str]
    checkpoint_channels: int | None = None
    transfer: Transfer | None = None

    def describe(self) -> str:
        """Return one line: architecture, size, which modules start from random weights, and what was widened."""
        total = sum(p.numel() for p in self.model.parameters())
        line = f"{type(self.model).__name__}: {total / 1e6:.2f} M parameters, {self._describe_origin()}"
        if self.transfer is not None:
            line += f"; {self.transfer.describe()}"
        if self.checkpoint_channels is None:
            return line
        now = count_channels(self.model.config)
        verb = "widened" if now > self.checkpoint_channels else "narrowed"
        return f"{line}; first convolution {verb} from {self.checkpoint_channels} to {now} channels"

    def _describe_origin(self) -> str:
        sizes = {name: p.numel() for name, p in self.model.named_parameters()}
        new = [name for name in self.new_parameters if name in sizes]
        if len(new) == len(sizes):
            return "all from random weights"
        if not new:
            return "all from the checkpoint"
        modules = sorted({name.rsplit(".", 1)[0] for name in new})
        shown = ", ".join(modules[:3]) + (f" and {len(modules) - 3} more modules" if len(modules) > 3 else "")
        return f"new: {shown} ({sum(sizes[n] for n in new) / 1e6:.2f} M)"


def load_model(
    recipe: ModelRecipe, classes: ClassMap, *, use_auxiliary_head: bool = True, channels: int = 3
) -> LoadedModel:
    """Return the recipe's model with an output channel for each class and an input channel for each of the images'.

    Args:
        recipe: The model section.
        classes: Names that the model's config will hold.
        use_auxiliary_head: Keep the auxiliary head of models that have one (DPT, UperNet, BEiT).
        channels: Number of channels of the images; the first convolution of a checkpoint that takes others is
            widened.

    Raises:
        InputError: If the checkpoint cannot be loaded, is no semantic-segmentation model, or cannot take the channels.
    """
    config = _build_config(recipe, classes, use_auxiliary_head, channels)
    if recipe.checkpoint is None and isinstance(config, EncoderHeadConfig) and config.backbone is not None:
        return _build_from_encoder(config, recipe, channels)
    if recipe.checkpoint is None:
        fits = count_channels(config) == channels
        model = _build_random_model(config if fits else set_channels(config, channels), recipe)
        return LoadedModel(model.float(), [name for name, _ in model.named_parameters()])
    checkpoint = expand_checkpoint(recipe.checkpoint)
    refuse_damaged_model(checkpoint, "model.checkpoint")
    with quiet_transformers(), explain_failures("model.checkpoint", checkpoint):
        model, info = AutoModelForSemanticSegmentation.from_pretrained(
            checkpoint,
            config=config,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            revision=recipe.revision or "main",
            trust_remote_code=recipe.trust_remote_code,
            **_choose_attention(recipe),
        )
    new = sorted(set(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]})
    _refuse_empty_backbone(model, new, checkpoint)
    _refuse_weights_that_are_not_finite(model, "model.checkpoint", checkpoint)
    given = count_channels(config)
    if given == channels:
        return LoadedModel(model, new)
    with quiet_transformers(), explain_failures("data.channels", checkpoint):
        return LoadedModel(widen_model(model, channels, **_choose_attention(recipe)), new, given)


def load_segmentation_checkpoint(checkpoint: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a fine-tuned model as it was saved, in float32, ready to predict.

    Raises:
        InputError: If it cannot be loaded, is no semantic-segmentation model, or lacks weights.
    """
    checkpoint = expand_checkpoint(checkpoint)
    config = load_config(checkpoint, "checkpoint", trust_remote_code=trust_remote_code)
    with quiet_transformers(), explain_failures("checkpoint", checkpoint):
        refuse_other_tasks(config, f"checkpoint {checkpoint}")
        model, info = AutoModelForSemanticSegmentation.from_pretrained(
            checkpoint,
            config=config,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
        )
    if info["missing_keys"]:
        raise InputError(
            f"checkpoint {checkpoint}: weights are missing",
            found=", ".join(sorted(info["missing_keys"])[:3]),
            fix="this is a backbone; fine-tune it first",
        )
    _refuse_weights_that_are_not_finite(model, "checkpoint", checkpoint)
    return model.eval()


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
        return AutoConfig.from_pretrained(checkpoint, revision=revision or "main", trust_remote_code=trust_remote_code)


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


def _build_config(recipe: ModelRecipe, classes: ClassMap, use_auxiliary_head: bool, channels: int) -> PreTrainedConfig:
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
    values |= {"id2label": classes.id2label, "label2id": classes.label2id}
    values["semantic_loss_ignore_index"] = classes.ignore_index
    if not use_auxiliary_head and "use_auxiliary_head" in known:
        values["use_auxiliary_head"] = False
    if "backbone" in known and isinstance(values.get("backbone"), str):
        values["backbone"] = expand_checkpoint(values["backbone"], "model.config.backbone")
    # from_dict, not setattr: values that depend on each other are checked together, as in a file.
    with quiet_transformers(), explain_config("model.config"):
        return type(config).from_dict({**known, **values})


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
    return sorted({config.model_type for config in AutoModelForSemanticSegmentation._model_mapping})


def _build_random_model(config: PreTrainedConfig, recipe: ModelRecipe) -> PreTrainedModel:
    fix = "correct the values of model.config: they do not fit together"
    explain = (
        explain_config
        if isinstance(config, EncoderHeadConfig)
        else partial(explain_failures, source=config.model_type, fix=fix)
    )
    with explain("model.attn_implementation or model.config" if recipe.attn_implementation else "model.config"):
        return AutoModelForSemanticSegmentation.from_config(config, **_choose_attention(recipe))


def _build_from_encoder(config: EncoderHeadConfig, recipe: ModelRecipe, channels: int) -> LoadedModel:
    """Build the model on the encoder's own number of channels, load its weights, and widen it to the images'."""
    source = str(config.backbone)
    with quiet_transformers(), explain_failures("model.config.backbone", source):
        # The saved config holds all of the encoder's, so nobody asks for the checkpoint, or for this folder, again.
        config.backbone = None
        model = _build_random_model(config, recipe).float()
        transfer = load_encoder_weights(cast("EncoderHeadForSemanticSegmentation", model), source)
        given = count_channels(config)
        if given != channels:
            model = widen_model(model, channels, **_choose_attention(recipe))
    new = [name for name, _ in model.named_parameters() if name.removeprefix("backbone.") not in transfer.loaded]
    return LoadedModel(model, new, None if given == channels else given, transfer)


def _choose_attention(recipe: ModelRecipe) -> dict[str, Any]:
    return {"attn_implementation": recipe.attn_implementation} if recipe.attn_implementation else {}


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
    expected = AutoModelForSemanticSegmentation._model_mapping.get(type(config), None)
    if expected is None:
        raise InputError(
            message,
            found=f"model type '{config.model_type}'",
            allowed=", ".join(_list_model_types()),
            fix="choose a checkpoint that AutoModelForSemanticSegmentation loads",
        )
    saved = (config.architectures or [expected.__name__])[0]
    if is_fine_tuned and saved != expected.__name__:
        raise InputError(
            message, found=saved, allowed=expected.__name__, fix="fine-tune it first, or name a checkpoint that was"
        )


def _refuse_empty_backbone(model: PreTrainedModel, new: list[str], checkpoint: str) -> None:
    backbone = [name for name, _ in model.named_parameters() if not is_head_parameter(model, name)]
    if backbone and set(backbone) <= set(new):
        raise InputError(
            f"model.checkpoint {checkpoint}: no weight of the backbone fits",
            found=f"{len(new)} tensors without a counterpart",
            fix="check that checkpoint and model.config name the same architecture and sizes",
        )


def _refuse_weights_that_are_not_finite(model: PreTrainedModel, key: str, source: str) -> None:
    name = find_value_that_is_not_finite(model.state_dict())
    if name is not None:
        raise InputError(
            f"{key} {source}: its weights hold NaN or infinity",
            found=name,
            fix="use an older checkpoint; this one comes from a training that diverged",
        )


@contextmanager
def explain_config(key: str) -> Iterator[None]:
    """Turn what a config refuses into one message that begins with the recipe's key."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise InputError(f"{key}: {error}") from error
    except OSError as error:
        raise InputError(
            f"{key}: {str(error).splitlines()[0]}", fix="check the name, the connection, or use a local folder"
        ) from error


@contextmanager
def explain_failures(
    key: str, source: str, fix: str = "check the name, the connection, or use a local folder"
) -> Iterator[None]:
    """Turn what the Auto classes raise for a person's mistake into one message.

    Args:
        key: What the message begins with.
        source: The checkpoint, or the type of a model.
        fix: What to do about it.
    """
    try:
        yield
    except InputError:
        raise
    except _FAILURES as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"{key}: cannot load {source}", found=lines[0][:400], fix=fix) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the library's progress bars and its list of new weights, which LoadedModel.describe tells in one line."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()

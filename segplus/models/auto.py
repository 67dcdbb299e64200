"""Any semantic-segmentation model of the Auto classes, from a checkpoint or from a config."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.models.channels import count_channels, set_channels, widen_model
from segplus.models.class_transfer import begin_classes, check_checkpoint_classes
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.freezing import is_head_parameter
from segplus.models.library_failures import explain_config, explain_failures, quiet_transformers
from segplus.models.model_configs import (
    build_config,
    choose_auto_class,
    expand_checkpoint,
    load_config,
    refuse_other_tasks,
)
from segplus.models.stored_files import find_value_that_is_not_finite, refuse_damaged_model
from segplus.models.transfer import Transfer, load_encoder_weights, name_modules
from segplus.recipe import ModelRecipe


@dataclass
class LoadedModel:
    """A model and which of its weights are new.

    Args:
        model: Float32, on the CPU.
        new_parameters: Names of the parameters that no checkpoint gave.
        checkpoint_channels: Input channels of the checkpoint where the model was widened to others; else None.
        transfer: What the encoder took from a checkpoint of its own; None where there is none.
        begun_classes: Names of the classes that begin as classes of the checkpoint.
        left_over: Names of the checkpoint's tensors that the model has no place for, such as a classifier's.
    """

    model: PreTrainedModel
    new_parameters: list[str]
    checkpoint_channels: int | None = None
    transfer: Transfer | None = None
    begun_classes: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line: architecture, size, which modules are new, what was left over, and what was widened."""
        total = sum(p.numel() for p in self.model.parameters())
        line = f"{type(self.model).__name__}: {total / 1e6:.2f} M parameters, {self._describe_origin()}"
        if self.transfer is not None:
            line += f"; {self.transfer.describe()}"
        if self.begun_classes:
            line += f"; {len(self.begun_classes)} of {self.model.config.num_labels} classes begin as the checkpoint's"
        if self.left_over:
            line += f"; left over: {name_modules(self.left_over)}"
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
        return f"new: {name_modules(new)} ({sum(sizes[n] for n in new) / 1e6:.2f} M)"


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
    config = build_config(recipe, classes, use_auxiliary_head, channels)
    if recipe.checkpoint is None and isinstance(config, EncoderHeadConfig) and config.backbone is not None:
        return _build_from_encoder(config, recipe, channels)
    if recipe.checkpoint is None:
        fits = count_channels(config) == channels
        model = _build_random_model(config if fits else set_channels(config, channels), recipe)
        return LoadedModel(model.float(), [name for name, _ in model.named_parameters()])
    checkpoint = expand_checkpoint(recipe.checkpoint)
    refuse_damaged_model(checkpoint, "model.checkpoint")
    with quiet_transformers(), explain_failures("model.checkpoint", checkpoint):
        model, info = choose_auto_class(config).from_pretrained(
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
    begun = _begin_classes(model, recipe, checkpoint)
    told: dict[str, Any] = {
        "left_over": tuple(sorted(info["unexpected_keys"])),
        "begun_classes": tuple(recipe.checkpoint_classes),
    }
    new = [name for name in new if name not in begun]
    given = count_channels(config)
    if given == channels:
        return LoadedModel(model, new, **told)
    with quiet_transformers(), explain_failures("data.channels", checkpoint):
        return LoadedModel(widen_model(model, channels, **_choose_attention(recipe)), new, given, **told)


def load_segmentation_checkpoint(checkpoint: str, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a fine-tuned model as it was saved, in float32, ready to predict.

    Raises:
        InputError: If it cannot be loaded, is no semantic-segmentation model, or lacks weights.
    """
    checkpoint = expand_checkpoint(checkpoint)
    config = load_config(checkpoint, "checkpoint", trust_remote_code=trust_remote_code)
    with quiet_transformers(), explain_failures("checkpoint", checkpoint):
        refuse_other_tasks(config, f"checkpoint {checkpoint}")
        model, info = choose_auto_class(config).from_pretrained(
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


def _build_random_model(config: PreTrainedConfig, recipe: ModelRecipe) -> PreTrainedModel:
    fix = "correct the values of model.config: they do not fit together"
    explain = (
        explain_config
        if isinstance(config, EncoderHeadConfig)
        else partial(explain_failures, source=config.model_type, fix=fix)
    )
    with explain("model.attn_implementation or model.config" if recipe.attn_implementation else "model.config"):
        return choose_auto_class(config).from_config(config, **_choose_attention(recipe))


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


def _begin_classes(model: PreTrainedModel, recipe: ModelRecipe, checkpoint: str) -> list[str]:
    """Let the recipe's classes begin as the checkpoint's; return the parameters whose every class did."""
    if not recipe.checkpoint_classes:
        return []
    with quiet_transformers(), explain_failures("model.checkpoint", checkpoint):
        source = choose_auto_class(model.config).from_pretrained(
            checkpoint,
            dtype=torch.float32,
            revision=recipe.revision or "main",
            trust_remote_code=recipe.trust_remote_code,
        )
    names, known = list(model.config.label2id), list(source.config.label2id)
    check_checkpoint_classes(recipe.checkpoint_classes, names, known)
    return begin_classes(model, source, recipe.checkpoint_classes)


def _choose_attention(recipe: ModelRecipe) -> dict[str, Any]:
    return {"attn_implementation": recipe.attn_implementation} if recipe.attn_implementation else {}


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

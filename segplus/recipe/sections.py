"""The sections of a recipe that are not about data, transforms or evaluation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe
from segplus.recipe.evaluation_section import EvaluationRecipe
from segplus.recipe.postprocess_section import PostprocessRecipe
from segplus.recipe.transforms_section import TransformsRecipe


@dataclass
class ModelRecipe:
    """Which network is trained, and from what.

    Args:
        checkpoint: Hub id or folder of the weights to start from. None: random weights from `config`.
        config: Values of the model's config; without a checkpoint it names `model_type` (segformer, dpt, ...).
        image_processor: Values of the image processor that is saved with the model, such as
            `size: {height: 512, width: 512}`. Evaluation and serving use exactly these.
        checkpoint_classes: Classes that start as the mean of some classes of the checkpoint, such as
            `car: [car, truck, bus]`; others start with random weights.
        revision: Branch, tag or commit of the Hub checkpoint.
        trust_remote_code: Run the model code that lies in the checkpoint.
        attn_implementation: eager, sdpa, flash_attention_2, ...; None leaves the choice to transformers.
        freeze_encoder: Do not train the backbone; the same as `freeze: [encoder]`.
        freeze: Modules that do not learn, by name: encoder, encoder.stem, encoder.stages.0, or any module of the model.
        unfreeze: When frozen modules start to learn, such as `{0.3: [encoder.stages.3]}`; a number below 1 is a share
            of the steps of the training, from 1 on it is a step.
        freeze_batch_norm: Keep BatchNorm statistics as they are in the checkpoint; scale and shift still learn.
        sync_batch_norm: Share BatchNorm statistics between processes (CUDA).
    """

    checkpoint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    image_processor: dict[str, Any] = field(default_factory=dict)
    checkpoint_classes: dict[str, list[str]] = field(default_factory=dict)
    revision: str | None = None
    trust_remote_code: bool = False
    attn_implementation: str | None = None
    freeze_encoder: bool = False
    freeze: list[str] = field(default_factory=list)
    unfreeze: dict[float, list[str]] = field(default_factory=dict)
    freeze_batch_norm: bool = False
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse a model that is named neither by checkpoint nor by type."""
        if self.checkpoint is None and "model_type" not in self.config:
            raise InputError(
                "model: neither a checkpoint nor a config",
                fix="set model.checkpoint, or model.config.model_type for random weights",
            )
        if self.checkpoint_classes and self.checkpoint is None:
            raise InputError("model.checkpoint_classes: there is no model.checkpoint", fix="leave it out")
        if not all(self.checkpoint_classes.values()):
            raise InputError("model.checkpoint_classes: a class without any of the checkpoint's", fix="leave it out")
        for moment in self.unfreeze:
            if moment <= 0 or (moment >= 1 and moment != int(moment)):
                raise InputError(
                    "model.unfreeze", found=moment, allowed="a share of the training above 0 and below 1, or a step"
                )
        if self.unfreeze and not self.frozen_modules:
            raise InputError("model.unfreeze: nothing is frozen", fix="name the modules in model.freeze, too")

    @property
    def frozen_modules(self) -> list[str]:
        """The names of the modules that do not learn where the training begins."""
        return [*(["encoder"] if self.freeze_encoder else []), *self.freeze]


@dataclass
class OptimizerRecipe:
    """Learning-rate groups.

    Args:
        head_learning_rate_multiplier: Learning rate of everything that is not the backbone, as a multiple of
            training.learning_rate.
        layer_decay: Factor between the learning rates of neighbouring layers of the encoder; the last layer learns at
            training.learning_rate, earlier ones slower. 1 gives all layers the same rate.
        no_decay: Parameter names that contain one of these words get no weight decay, beside biases and norms.
    """

    head_learning_rate_multiplier: float = 10.0
    layer_decay: float = 1.0
    no_decay: list[str] = field(default_factory=lambda: ["position_embedding", "pos_embed", "cls_token"])

    def __post_init__(self) -> None:
        """Refuse a negative rate, and a decay that would make the first layers faster."""
        if not 0 < self.layer_decay <= 1:
            raise InputError("optimizer.layer_decay", found=self.layer_decay, allowed="above 0, up to 1")
        if not 0 <= self.head_learning_rate_multiplier < math.inf:
            raise InputError(
                "optimizer.head_learning_rate_multiplier",
                found=self.head_learning_rate_multiplier,
                allowed="a number from 0",
            )


@dataclass
class CardRecipe:
    """What only a person can say on the model card.

    Args:
        license: Licence of the fine-tuned model; None inherits the base model's.
        language: Languages of the data, where it has any.
        tags: Tags in addition to those that segplus sets.
        description: A paragraph on what the model is for.
        dataset_id: Hub id of the data set, for the card's metadata; None uses data.dataset if that is a Hub id.
    """

    license: str | None = None
    language: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    description: str | None = None
    dataset_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse a licence that is not written as the Hub writes it."""
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+_-]*", self.license):
            raise InputError(
                "card.license: not an identifier of the Hub",
                found=self.license,
                allowed="lower-case identifiers such as apache-2.0, mit, cc-by-4.0, other",
                fix="see https://huggingface.co/docs/hub/repositories-licenses",
            )


@dataclass
class Recipe:
    """One run, whole.

    Args:
        data: Where images and masks lie and what the masks mean.
        model: The network and its image processor.
        transforms: Training augmentation.
        losses: Loss terms with weights or parameters, see docs/losses.md; or the dotted path of your own loss.
        class_weights: A formula counted from the training masks, or weights by class name; None: all weigh the same.
        loss_engine: "streamed" never builds the upsampled logits; "plain" does, for comparison.
        auxiliary_loss_weight: Weight of the auxiliary head's loss, for models that have one; 0 removes the head.
        optimizer: Learning-rate groups.
        training: transformers.TrainingArguments under their own names.
        evaluation: Protocol and metrics of the final evaluation.
        postprocess: What is done to a prediction after the network, in evaluation and wherever the model is used.
        early_stopping_patience: Evaluations without a better mIoU before training stops; None never stops early.
        callbacks: Dotted paths of TrainerCallback classes; with arguments, a mapping of the path to the arguments.
        card: The model card.
    """

    data: DataRecipe
    model: ModelRecipe
    transforms: TransformsRecipe = field(default_factory=TransformsRecipe)
    losses: dict[str, Any] | str = field(default_factory=lambda: {"cross_entropy": 1.0})
    class_weights: dict[str, float] | str | None = None
    loss_engine: Literal["streamed", "plain"] = "streamed"
    auxiliary_loss_weight: float = 0.4
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)
    postprocess: PostprocessRecipe = field(default_factory=PostprocessRecipe)
    early_stopping_patience: int | None = None
    callbacks: list[str | dict[str, dict[str, Any]]] = field(default_factory=list)
    card: CardRecipe = field(default_factory=CardRecipe)

    def __post_init__(self) -> None:
        """Refuse sections that do not go together, such as early stopping without evaluations."""
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise InputError(
                "early_stopping_patience", found=self.early_stopping_patience, allowed="1 and more, or null for never"
            )
        if self.early_stopping_patience is not None and self.training.get("eval_strategy") == "no":
            raise InputError(
                "early_stopping_patience: needs evaluations",
                found="training.eval_strategy: no",
                fix="set training.eval_strategy to epoch or steps, or leave early_stopping_patience out",
            )
        crop = self.transforms.crop_size_px
        if crop is not None and crop[0] * crop[1] > self.data.max_image_megapixels * 1e6:
            raise InputError(
                "transforms.crop_size_px: above data.max_image_megapixels",
                found=crop,
                allowed=f"{self.data.max_image_megapixels} megapixels",
            )
        if not self.auxiliary_loss_weight >= 0:
            raise InputError("auxiliary_loss_weight", found=self.auxiliary_loss_weight, allowed="0 and more")
        if self.data.streams_training:
            self._check_stream()

    def _check_stream(self) -> None:
        """Refuse what needs the end of a training split, or every mask of it, where it is a stream."""
        whole = {
            "class_weights": (isinstance(self.class_weights, str), "give weights by class name"),
            "transforms.sampling": (self.transforms.sampling != "uniform", "set it to uniform"),
            "transforms.rare_class_crop": (self.transforms.rare_class_crop > 0, "set it to 0"),
        }
        for key, (is_asked, fix) in whole.items():
            if is_asked:
                raise InputError(
                    f"{key}: it counts every training mask, and a stream is never read whole",
                    found="data.streaming: true",
                    fix=f"{fix}, or set data.max_images.train, or data.streaming: false",
                )
        strategies = [
            f"{name}_strategy" for name in ("eval", "save") if self.training.get(f"{name}_strategy") == "epoch"
        ]
        if strategies or self.training.get("max_steps", 0) < 1:
            found = [f"{key}: {self.training[key]}" for key in ("max_steps", *strategies) if key in self.training]
            raise InputError(
                "training: data.streaming has no epochs, so their number and what happens after each means nothing",
                found=", ".join(found) or "no max_steps",
                fix="set training.max_steps, training.eval_strategy: steps and training.eval_steps",
            )

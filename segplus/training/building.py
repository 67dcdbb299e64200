"""From a recipe's sections to a trainer: everything that may be wrong is found here, before the first step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

from torch.nn import SyncBatchNorm
from transformers import (
    BaseImageProcessor,
    EarlyStoppingCallback,
    IntervalStrategy,
    PreTrainedConfig,
    PreTrainedModel,
    TrainingArguments,
)

from segplus.data import SegmentationData
from segplus.data.statistics import Counts, measure_channels, measure_split
from segplus.errors import InputError, suggest
from segplus.images import DEEP_COLORS, ImageRange, is_deep, show_as_rgb
from segplus.losses import Criterion, build_criterion
from segplus.losses.class_weights import choose_class_weights
from segplus.losses.configuration import read_class_weights
from segplus.models import (
    LoadedModel,
    check_input_size,
    freeze_modules,
    freeze_unused_parameters,
    lay_out_channels_last,
    load_image_processor,
)
from segplus.models.mask_transformers import MatchingLoss, count_queries, is_mask_transformer
from segplus.recipe import ModelRecipe, Recipe
from segplus.reporting.examples import Example
from segplus.training.callbacks import install_log, install_panel, load_callbacks
from segplus.training.criteria import refuse_pixel_losses
from segplus.training.sets import EvaluationSet, build_training_set
from segplus.training.trainer import SegmentationTrainer
from segplus.training.unfreezing import install_unfreezing, plan_unfreezing
from segplus.transforms import BatchMixing, EvaluationTransform
from segplus.transforms.collator import EvaluationCollator, TrainingCollator
from segplus.transforms.serving import try_image_processor

_PANEL_IMAGES = 4
_DEFAULT_LOSSES = {"cross_entropy": 1.0}  # what a recipe that names none has


def build_trainer(
    recipe: Recipe,
    arguments: TrainingArguments,
    data: SegmentationData,
    loaded: LoadedModel,
    image_processor: BaseImageProcessor,
) -> SegmentationTrainer:
    """Return the trainer of a recipe, after the sizes it needs were tried on the model.

    Args:
        recipe: The recipe.
        arguments: From `build_training_arguments`.
        data: Splits train and validation.
        loaded: The model.
        image_processor: Saved with the model.
    Raises:
        InputError: If a loss, a class weight, a callback or a size does not fit.
    """
    with arguments.main_process_first(desc="training set"):
        if arguments.eval_strategy != IntervalStrategy.NO:
            require_monitored_class(str(arguments.metric_for_best_model), data)
        training_set, sampler = build_training_set(recipe, data, image_processor, arguments.seed)
        criterion = build_recipe_criterion(recipe, data, loaded.model)
    check_input_size(loaded.model, training_set.transform.crop_size_px, "transforms.crop_size_px")
    as_served = EvaluationTransform(image_processor, recipe.data.channels)
    if not as_served.serves_one_size():
        arguments = copy.copy(arguments)  # the caller's stay as they are
        arguments.per_device_eval_batch_size = 1
    evaluation_set = EvaluationSet(data.splits["validation"], as_served)
    served = tuple(evaluation_set[0]["pixel_values"].shape[-2:])
    check_input_size(loaded.model, (served[0], served[1]), "model.image_processor.size")
    model = adapt_model(loaded.model, recipe.model, arguments)
    stages = plan_unfreezing(model, recipe.model.unfreeze)
    if stages:
        arguments = copy.copy(arguments)
        arguments.ddp_find_unused_parameters = True  # what is still frozen takes no part in a step
    if arguments.world_size > 1:
        freeze_unused_parameters(model, training_set.transform.crop_size_px)
    callbacks = load_callbacks(recipe.callbacks)
    if recipe.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping_patience))
    mixing = BatchMixing(recipe.transforms, data.classes.ignore_index)
    trainer = SegmentationTrainer(
        model,
        losses=criterion,
        classes=data.classes,
        auxiliary_loss_weight=recipe.auxiliary_loss_weight,
        optimizer_recipe=recipe.optimizer,
        freeze_batch_norm=recipe.model.freeze_batch_norm,
        args=arguments,
        train_dataset=training_set,
        train_sampler=sampler,
        normalization=training_set.transform.normalization,
        eval_dataset=evaluation_set,
        data_collator=TrainingCollator(mixing, arguments.seed, keep_index=True),
        processing_class=image_processor,
        evaluation_collator=EvaluationCollator(data.classes.ignore_index),
        callbacks=callbacks,
    )
    install_log(trainer, data.classes.names)
    install_unfreezing(trainer, stages)
    shown, pixels = _choose_panel(evaluation_set)
    install_panel(trainer, shown, pixels, data.classes)
    return trainer


def build_recipe_criterion(
    recipe: Recipe, data: SegmentationData, model: PreTrainedModel | None = None
) -> Criterion | MatchingLoss | str:
    """Return the losses of a recipe, weighted by the names it gives or by a formula over the training masks' pixels.

    A mask transformer has a loss of its own.

    The dotted path of somebody's own loss stays what it is: the trainer imports it.

    Raises:
        InputError: If a term, a parameter, a formula or a class does not exist.
    """
    if model is not None and is_mask_transformer(model):
        return _build_matching_loss(recipe, data, model)
    if isinstance(recipe.losses, str):
        if recipe.class_weights is not None:
            raise InputError("class_weights: a loss of your own weighs classes itself", found=recipe.losses)
        return recipe.losses
    build = partial(
        build_criterion,
        recipe.losses,
        data.classes.num_classes,
        data.classes.ignore_index,
        class_names=data.classes.names,
        plain=recipe.loss_engine == "plain",
    )
    build()  # a misspelt term is told before the masks are counted
    return build(class_weights=choose_class_weights(recipe.class_weights, partial(_count_pixels, data, "train")))


def _build_matching_loss(recipe: Recipe, data: SegmentationData, model: PreTrainedModel) -> MatchingLoss:
    if recipe.losses != _DEFAULT_LOSSES:
        refuse_pixel_losses(recipe.losses, model.config.model_type)
    classes, queries = data.classes, count_queries(model.config)
    if classes.num_classes > queries and "train" in data.splits:  # of a stream it is told when such an image comes
        most = int((measure_split(data.splits["train"]).counts[:, :-1] > 0).sum(1).max())
        if most > queries:
            raise InputError(
                "model.config.num_queries: an image of the training split holds more classes than there are queries",
                found=f"{most} classes, {queries} queries",
                fix=f"set it to {most} or more",
            )
    chosen = choose_class_weights(recipe.class_weights, partial(_count_pixels, data, "train"))
    weights = read_class_weights("class_weights", chosen, classes.num_classes, classes.names)
    return MatchingLoss(model.config, classes.ignore_index, weights)


def require_monitored_class(metric: str, data: SegmentationData) -> None:
    """Refuse to choose the best checkpoint by the IoU of a class that no evaluation can measure.

    Args:
        metric: training.metric_for_best_model; others than `iou/<class>` are left alone.
        data: Its validation split is measured.
    Raises:
        InputError: If there is no such class, or no pixel of it in the validation split.
    """
    head, _, name = metric.removeprefix("eval_").partition("/")
    if head != "iou":
        return
    names = data.classes.names
    if name not in names:
        raise InputError("training.metric_for_best_model: no such class", found=f"iou/{name}", fix=suggest(name, names))
    pixels = _count_pixels(data, "validation")[0]
    if not pixels[names.index(name)]:
        measured = ", ".join(f"iou/{name}" for name, count in zip(names, pixels, strict=True) if count)
        raise InputError(
            "training.metric_for_best_model: no mask of the validation split holds this class, so it has no IoU",
            found=f"iou/{name}",
            allowed=f"mean_iou, {measured}",
        )


def _count_pixels(data: SegmentationData, split: str) -> Counts:
    return measure_split(data.splits[split]).class_pixels


def adapt_model(model: PreTrainedModel, wishes: ModelRecipe, arguments: TrainingArguments) -> PreTrainedModel:
    """Return the model with frozen modules, shared statistics and memory layout as recipe and machine ask for."""
    if arguments.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise InputError(
            f"training.gradient_checkpointing: {type(model).__name__} cannot", found=True, fix="leave it out"
        )
    if wishes.sync_batch_norm:
        model = share_batch_norm(model, arguments)
    if arguments.use_cpu:
        lay_out_channels_last(model)
    if wishes.frozen_modules:
        freeze_modules(model, wishes.frozen_modules)
    return model


def share_batch_norm(model: PreTrainedModel, arguments: TrainingArguments) -> PreTrainedModel:
    """Return the model with BatchNorm statistics over all processes.

    Raises:
        InputError: On a CPU, where torch has no such layer.
    """
    if arguments.use_cpu:
        raise InputError(
            "model.sync_batch_norm: true",
            found="no CUDA device",
            fix="set it to false, or keep the statistics: model.freeze_batch_norm: true",
        )
    return SyncBatchNorm.convert_sync_batchnorm(model)


def build_image_processor(recipe: Recipe, data: SegmentationData, config: PreTrainedConfig) -> BaseImageProcessor:
    """Return the image processor that is saved with the model; channels other than colours are normalised by the data.

    Args:
        recipe: The recipe.
        data: Its training split is measured, or where that is a stream the validation split.
        config: The model's config.
    Raises:
        InputError: If a value of the processor is wrong, or an image cannot be measured.
    """

    def measure() -> tuple[Sequence[float], Sequence[float]]:
        statistics = measure_channels(data.splits.get("train", data.splits["validation"]))
        return statistics.mean, statistics.std

    image_range = find_data_range(recipe, data)
    processor = load_image_processor(recipe.model, config, image_range=image_range, measure_channels=measure)
    try_image_processor(processor, recipe.data.channels, "model.image_processor")
    return processor


def find_data_range(recipe: Recipe, data: SegmentationData) -> ImageRange | None:
    """Return the range that the recipe states, or the type's own where the images are 16-bit colours or greys."""
    if recipe.data.image_range is not None:
        return ImageRange.parse(recipe.data.image_range)
    split = data.splits.get("train", data.splits["validation"])
    return DEEP_COLORS if recipe.data.channels == 3 and is_deep(split.image(0)) else None


def _choose_panel(evaluation_set: EvaluationSet):  # type: ignore[no-untyped-def]
    """Choose validation images evenly; the same ones at every evaluation."""
    count = min(_PANEL_IMAGES, len(evaluation_set))
    rows = [index * len(evaluation_set) // count for index in range(count)]
    pairs = [evaluation_set.split[row] for row in rows]
    examples = [Example(pair["name"], show_as_rgb(pair["image"]), pair["label"], pair["label"]) for pair in pairs]
    return examples, [evaluation_set[row]["pixel_values"] for row in rows]

"""SegmentationTrainer: transformers.Trainer whose loss and metric never hold a full-resolution logit."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import TrainingArguments
from transformers.trainer_utils import TrainOutput, has_length

from segplus.data.streaming import RowSampler
from segplus.errors import InputError
from segplus.losses import Criterion
from segplus.losses.boundary_head import BoundaryHeadLoss
from segplus.metrics.user_metrics import UserMetric, load_metrics
from segplus.models import expose_auxiliary_logits, find_still_modules, fold_decode_head
from segplus.models.mask_transformers import MatchingLoss, expose_queries, is_mask_transformer
from segplus.recipe import OptimizerRecipe
from segplus.training.annealing import MaskAnnealing
from segplus.training.auxiliary_losses import build_boundary_loss, list_auxiliary_logits, sum_auxiliary_losses
from segplus.training.callbacks import EpochClock, StepClock
from segplus.training.card import write_model_card
from segplus.training.checkpoints import find_resumable_checkpoint
from segplus.training.criteria import Losses, OutputLoss, TrainingLoss, choose_losses, choose_matching_loss
from segplus.training.evaluating import EvaluatingTrainer
from segplus.training.guard import DivergenceGuard
from segplus.training.held_rows import HeldRows
from segplus.training.history import describe_training
from segplus.training.meters import StepMeters
from segplus.training.optimizer import group_parameters
from segplus.training.resumption import ResumableTrainer
from segplus.training.scorekeeper import Scorekeeper
from segplus.training.sets import TrainingSet
from segplus.training.settings import Classes, adapt_arguments, choose_classes, write_class_names
from segplus.training.signals import shield_worker
from segplus.transforms import Normalization
from segplus.transforms.collator import EvaluationCollator, PaddingCollator


class SegmentationTrainer(EvaluatingTrainer, ResumableTrainer):
    """Trains a semantic-segmentation model on samples of `pixel_values` (C, H, W) and `labels` (H, W).

    Every other argument is transformers.Trainer's own. What this class needs of TrainingArguments it sets on a copy.

    Args:
        model: Any model that returns `logits` (N, C, h, w) for `pixel_values` (N, 3, H, W).
        args: TrainingArguments.
        data_collator: Forms the batches; None stacks, and pads labels.
        train_dataset: Any map-style or iterable data set.
        eval_dataset: Likewise, or a dict of them. Scores are measured at the labels' own size.
        losses: Terms with weights as in a recipe, a Criterion, any function of (logits, labels) at full resolution
            that gives a scalar, or the dotted path of one; None is cross-entropy.
        classes: Names, or a ClassMap; None takes the names of the model's config.
        compute_loss_func: Trainer's, instead of `losses`: (outputs, labels, num_items_in_batch=valid pixels).
        compute_metrics: Measures label maps beside our scores: a function of an EvalPrediction, a metric of the
            `evaluate` library, its name or its path, name -> arguments, or a list of these.
        preprocess_logits_for_metrics: Replaces label maps by what it makes of logits at the model's stride.
        auxiliary_loss_weight: Weight of the auxiliary head's loss, where the model has one.
        optimizer_recipe: Learning-rate groups; None is Trainer's way.
        freeze_batch_norm: Keep the statistics of BatchNorm layers.
        train_sampler: Draws the training images; None draws each once an epoch.
        normalization: Makes floats of 8-bit pixel values on the device; None where the samples are floats already.
        evaluation_collator: Forms the batches of evaluations; None takes data_collator, or else pads labels alone.
    """

    current_gradient_accumulation_steps = 1  # until a step sets it
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        losses: Losses | None = None,
        classes: Classes | None = None,
        compute_loss_func: Callable[..., torch.Tensor] | None = None,
        compute_metrics: UserMetric | Sequence[UserMetric] | None = None,
        preprocess_logits_for_metrics: Callable[..., torch.Tensor] | None = None,
        auxiliary_loss_weight: float = 0.4,
        optimizer_recipe: OptimizerRecipe | None = None,
        freeze_batch_norm: bool = False,
        train_sampler: Sampler[Any] | None = None,
        normalization: Normalization | None = None,
        evaluation_collator: Callable[..., Any] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(
            model,
            adapt_arguments(args),
            data_collator,
            train_dataset,
            eval_dataset,
            compute_metrics=self.add_to_scores,
            **arguments,
        )
        self.classes = choose_classes(classes, self.model)
        write_class_names(self.model, self.classes)
        ignored = self.classes.ignore_index
        self.data_collator = data_collator or PaddingCollator(ignored)
        self.evaluation_collator = evaluation_collator or data_collator or EvaluationCollator(ignored)
        # compute_loss divides by the valid pixels of the whole accumulated batch, so Trainer must not divide again.
        self.loss_is_scaled_for_ga = True
        chosen = (
            choose_matching_loss(losses, compute_loss_func, self.classes, self.model)
            if is_mask_transformer(self.model)
            else choose_losses(losses, compute_loss_func, self.classes, self.args.world_size)
        )
        self.criterion = chosen.to(self.args.device)
        self.auxiliary_criterion = copy.deepcopy(self.criterion)
        self.boundary_loss: BoundaryHeadLoss | None = None
        self.auxiliary_loss_weight = auxiliary_loss_weight
        self.optimizer_recipe = optimizer_recipe
        self.freeze_batch_norm = freeze_batch_norm
        self.train_sampler = train_sampler
        self.normalization = normalization
        self.meters = StepMeters()
        self.guard = DivergenceGuard()
        self.logits_preprocessor = preprocess_logits_for_metrics
        self.metrics = load_metrics(compute_metrics, self.classes)
        self._still: list[nn.Module] = []
        self.scores = Scorekeeper(self.classes, [])
        self.add_callback(StepClock(self.meters, self.guard))
        if is_mask_transformer(self.model):
            self.add_callback(MaskAnnealing())
        clocked = [target for target in (train_dataset, train_sampler) if hasattr(target, "set_epoch")]
        if clocked and has_length(train_dataset):  # a stream has no epochs
            self.add_callback(EpochClock(*clocked))

    # Training

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> TrainOutput:
        """Train, or continue; a run that is finished is only loaded, best weights and history.

        Args:
            resume_from_checkpoint: A checkpoint's folder; True for the newest of the output folder that is whole.
            arguments: Trainer's own.
            named: Likewise.
        """
        if resume_from_checkpoint is True:
            newest = find_resumable_checkpoint(Path(self.args.output_dir), self.args.world_size)
            resume_from_checkpoint = True if newest is None else str(newest)
        return super().train(resume_from_checkpoint, *arguments, **named)

    def _inner_training_loop(self, *arguments: Any, **named: Any) -> TrainOutput:
        """Change how the model computes for as long as it trains; model_init may have made it just now."""
        write_class_names(self.model, self.classes)
        self.boundary_loss = build_boundary_loss(self.model, self.criterion)
        self.hold_still()
        has_extra = self.auxiliary_loss_weight > 0 and not isinstance(self.criterion, OutputLoss)
        extra = expose_auxiliary_logits(self.model) if has_extra else contextlib.nullcontext()
        with fold_decode_head(self.model), extra, expose_queries(self.model):
            return super()._inner_training_loop(*arguments, **named)

    def hold_still(self) -> None:
        """Look again which modules do not learn, and so stay in eval mode."""
        self._still = find_still_modules(self.model, freeze_batch_norm=self.freeze_batch_norm)

    def _get_dataloader(self, *arguments: Any, is_training: bool = False, **named: Any) -> DataLoader[Any]:
        """Give each loader the collator of its purpose, a generator of its own, and workers that no signal ends.

        An evaluation drops no image.

        One that draws from the global generator when its workers start, which a resumed run does at another moment,
        would shift the dropout of every later step.
        """
        before = self.data_collator, self.args.dataloader_drop_last
        if not is_training:
            self.data_collator, self.args.dataloader_drop_last = self.evaluation_collator, False
        try:
            loader = super()._get_dataloader(*arguments, is_training=is_training, **named)
        finally:
            self.data_collator, self.args.dataloader_drop_last = before
        loader.base_dataloader.generator = torch.Generator().manual_seed(self.args.seed)
        loader.base_dataloader.worker_init_fn = partial(shield_worker, loader.base_dataloader.worker_init_fn)
        sharded = loader.batch_sampler
        if isinstance(sharded, BatchSamplerShard) and isinstance(sharded.batch_sampler.sampler, RowSampler):
            # Each process draws its own share of a stream already; accelerate would take a share of that share.
            sharded.num_processes, sharded.process_index = 1, 0
        return loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Collect one step's micro-batches, with each loss term's denominator over them and over all processes."""
        began = time.perf_counter()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        self.meters.start_step(began)
        # A scheduled parameter may move a denominator, so the schedules go first.
        for criterion in (self.criterion, self.auxiliary_criterion):
            criterion.set_progress(self.state.global_step / max(self.state.max_steps, 1))
        counted = [self._count_normalizers(batch["labels"].to(device).long()) for batch in batches]
        sums = {name: torch.stack([entry[name] for entry in counted]).sum(0) for name in counted[0]}
        return batches, {name: self.accelerator.reduce(total, "sum") for name, total in sums.items()}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any] | None:
        return self.train_sampler or super()._get_train_sampler(train_dataset)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return this micro-batch's share of the loss of the whole accumulated batch over all processes."""
        for module in self._still:
            module.eval()
        outputs = model(pixel_values=inputs["pixel_values"])
        labels = inputs["labels"]
        terms: dict[str, torch.Tensor] = {}
        with torch.autocast(labels.device.type, enabled=False):
            if isinstance(self.criterion, OutputLoss):
                loss = self.criterion.function(outputs, labels, **(num_items_in_batch or {"num_items_in_batch": None}))
            else:
                loss, terms = self._sum_losses(outputs, labels, num_items_in_batch)
        self.meters.add_terms(terms, images=len(labels))
        # DDP averages gradients over processes, while the denominators above already count all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _sum_losses(
        self, outputs: Any, labels: torch.Tensor, counts: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the main loss with those of the heads that learn beside it, and the values that a line shows."""
        answer = outputs if isinstance(self.criterion, MatchingLoss) else outputs.logits
        loss = self._compute_criterion(self.criterion, answer, labels, counts)
        terms = dict(self.criterion.term_values)
        auxiliary = list_auxiliary_logits(outputs)
        if auxiliary and self.auxiliary_loss_weight > 0:
            extra, extra_terms = sum_auxiliary_losses(
                self.auxiliary_criterion,
                auxiliary,
                lambda one, logits: self._compute_criterion(one, logits, labels, counts),
            )
            loss, terms = loss + self.auxiliary_loss_weight * extra, terms | extra_terms
        if self.boundary_loss is not None:
            shares = self.current_gradient_accumulation_steps * self.accelerator.num_processes
            loss = loss + self.boundary_loss(outputs.logits, outputs.boundary_logits, labels, counts, shares)
            terms |= self.boundary_loss.term_values
        return loss, terms

    def _count_normalizers(self, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        counts = self.criterion.count_normalizers(labels)
        return counts if self.boundary_loss is None else counts | self.boundary_loss.count_normalizers(labels)

    def _compute_criterion(self, criterion: TrainingLoss, logits: Any, labels: torch.Tensor, counts: Any) -> Any:
        criterion.train()
        criterion.set_progress(self.state.global_step / max(self.state.max_steps, 1))
        steps = self.current_gradient_accumulation_steps
        return criterion(logits, labels, normalizers=counts, accumulation_steps=steps)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one micro-batch; a loss that stays NaN ends the run with the batch's file names.

        Whether the loss is finite is all that an accelerator is waited for.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            if isinstance(self.criterion, Criterion):
                self.criterion.check_labels(inputs["labels"])
            names = [self._name_training_row(index) for index in inputs["index"].tolist()] if "index" in inputs else []
            self.guard.watch_loss(float(loss), self.state.global_step + 1, names)
        return loss

    def _name_training_row(self, index: int) -> str:
        if isinstance(self.train_sampler, RowSampler):
            return self.train_sampler.name(index)
        if isinstance(self.train_dataset, TrainingSet):
            return self.train_dataset.split.name(index)
        return f"sample {index}"

    def list_held_rows(self) -> list[tuple[HeldRows, Callable[[int], str]]]:
        """Return what the loaders' workers hold, with what names it."""
        sets = ((self.train_dataset, self._name_training_row), (self.eval_dataset, self.eval_dataset.split.name))
        return [(data.held, name) for data, name in sets]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Leave out a step whose gradient norm is not finite: without gradients the optimizer changes nothing."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # In float16 the loss scaler looks for overflows itself and lowers its scale.
        if not self.args.fp16 and not self.guard.watch_gradient(float(norm), self.state.global_step + 1):
            model.zero_grad(set_to_none=True)
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return Trainer's optimizer, or with an optimizer_recipe one over backbone and head groups."""
        if self.optimizer_recipe is None or self.optimizer is not None:
            return super().create_optimizer(model)
        cls, values = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, self.model)
        if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)) or "params" in values:
            raise InputError(f"training.optim: {self.args.optim} makes its own groups", fix="use adamw_torch or sgd")
        rate, decay = self.args.learning_rate, self.args.weight_decay
        self.optimizer = cls(group_parameters(self.model, self.optimizer_recipe, rate, decay), **values)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Leave a step behind the warm-up, also of a run of one step: polynomial decay divides by what is left."""
        if self.args.get_warmup_steps(num_training_steps) >= num_training_steps:
            self.args.warmup_steps = num_training_steps - 1
        if self.args.get_warmup_steps(num_training_steps) == 1:  # it begins at 0: the one step would learn nothing
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms of the loss, images per second and the share of time spent waiting to a training line."""
        if "loss" in logs:
            logs.update(self.meters.report(self.accelerator))
            if self.guard.skipped_steps:
                logs["skipped_steps"] = self.guard.skipped_steps
        super().log(logs, start_time)

    def describe_training(self) -> dict[str, Any]:
        """Return the facts of a finished training, over all the runs that a killed one was resumed in."""
        return describe_training(self)

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write our model card, with the scores of the last evaluation, to the output folder; Trainer's arguments."""
        if self.is_world_process_zero():
            write_model_card(self, self.scores, *arguments, **named)

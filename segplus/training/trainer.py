"""SegmentationTrainer: transformers.Trainer whose loss and metric never hold a full-resolution logit."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerState
from transformers.trainer_utils import TrainOutput

from segplus.classes import ClassMap
from segplus.data.streaming import RowSampler
from segplus.errors import InputError
from segplus.losses import Criterion
from segplus.metrics import compute_scores, confusion_matrices, label_map
from segplus.models import AuxiliaryLogits, find_batch_norms, fold_decode_head
from segplus.recipe import OptimizerRecipe
from segplus.training.auxiliary import build_boundary_loss, list_auxiliary_logits, sum_auxiliary_losses
from segplus.training.callbacks import EpochClock, StepClock
from segplus.training.checkpoints import is_finished
from segplus.training.guard import DivergenceGuard
from segplus.training.meters import StepMeters
from segplus.training.optimizer import group_parameters
from segplus.transforms import Normalization
from segplus.transforms.collator import EvaluationCollator


class SegmentationTrainer(Trainer):
    """Trains a semantic-segmentation model on batches of `pixel_values` and `labels`.

    Args:
        model: Any model that returns `logits` (N, C, h, w) for `pixel_values` (N, 3, H, W).
        criterion: The weighted sum of losses.
        classes: The classes; their ignore index is the labels'.
        auxiliary_loss_weight: Weight of the auxiliary head's loss, where the model has one.
        optimizer_recipe: Learning-rate groups; None keeps one rate.
        freeze_batch_norm: Keep the statistics of BatchNorm layers.
        train_sampler: Draws the training images; None draws each once an epoch.
        normalization: Makes floats of 8-bit pixel values on the device; None where the samples are floats already.
        arguments: The rest is transformers.Trainer's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        criterion: Criterion,
        classes: ClassMap,
        auxiliary_loss_weight: float = 0.4,
        optimizer_recipe: OptimizerRecipe | None = None,
        freeze_batch_norm: bool = False,
        train_sampler: Sampler[Any] | None = None,
        normalization: Normalization | None = None,
        **arguments: Any,
    ) -> None:
        fold_decode_head(model)
        super().__init__(model=model, compute_metrics=self._add_to_scores, **arguments)
        self.evaluation_collator = EvaluationCollator(classes.ignore_index)
        # compute_loss divides by the valid pixels of the whole accumulated batch, so Trainer must not divide again.
        self.loss_is_scaled_for_ga = True
        self.classes = classes
        self.criterion = criterion.to(self.args.device)
        self.auxiliary_criterion = copy.deepcopy(self.criterion)
        self.boundary_loss = build_boundary_loss(model, self.criterion)
        self.auxiliary_loss_weight = auxiliary_loss_weight
        self.optimizer_recipe = optimizer_recipe or OptimizerRecipe(head_learning_rate_multiplier=1.0)
        self.train_sampler = train_sampler
        self.normalization = normalization
        self.meters = StepMeters()
        self.guard = DivergenceGuard()
        self._auxiliary_logits = AuxiliaryLogits(model)
        self._still = find_batch_norms(model) if freeze_batch_norm else []
        # A backbone that does not learn keeps its statistics and drops nothing.
        self._still += [module for module in model.children() if not any(p.requires_grad for p in module.parameters())]
        self._matrix: torch.Tensor | None = None
        self.add_callback(StepClock(self.meters, self.guard))
        clocked = [target for target in (self.train_dataset, train_sampler) if hasattr(target, "set_epoch")]
        if clocked:  # a stream has no epochs
            self.add_callback(EpochClock(*clocked))

    # Training

    def train(self, resume_from_checkpoint: Any = None, **arguments: Any) -> TrainOutput:
        """Train, or continue; a run that is finished is only loaded, best weights and history.

        transformers takes one more step where a finished `max_steps` run is resumed.
        """
        if resume_from_checkpoint is None or not is_finished(Path(resume_from_checkpoint)):
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **arguments)
        self.state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / "trainer_state.json"))
        best = self.state.best_model_checkpoint
        self._load_from_checkpoint(best if self.args.load_best_model_at_end and best else resume_from_checkpoint)
        return TrainOutput(self.state.global_step, 0.0, {})

    def _get_dataloader(self, *arguments: Any, **named: Any) -> DataLoader[Any]:
        """Give each loader a generator of its own.

        One that draws from the global generator when its workers start, which a resumed run does at another moment,
        would shift the dropout of every later step.
        """
        loader = super()._get_dataloader(*arguments, **named)
        loader.base_dataloader.generator = torch.Generator().manual_seed(self.args.seed)
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

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move a batch to the device, and there make floats of 8-bit pixel values and int64 of labels."""
        inputs = super()._prepare_inputs(inputs)
        if self.normalization is not None and inputs["pixel_values"].dtype == torch.uint8:
            inputs["pixel_values"] = self.normalization.apply_to_batch(inputs["pixel_values"])
        inputs["labels"] = inputs["labels"].long()
        return inputs

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
        with torch.autocast(outputs.logits.device.type, enabled=False):
            loss = self._compute_criterion(self.criterion, outputs.logits, inputs["labels"], num_items_in_batch)
            parts = dict(self.criterion.term_values)
            auxiliary = list_auxiliary_logits(self._auxiliary_logits.take(), outputs)
            if auxiliary and self.auxiliary_loss_weight > 0:
                extra, extra_parts = sum_auxiliary_losses(
                    self.auxiliary_criterion,
                    auxiliary,
                    lambda one, logits: self._compute_criterion(one, logits, inputs["labels"], num_items_in_batch),
                )
                loss, parts = loss + self.auxiliary_loss_weight * extra, parts | extra_parts
            if self.boundary_loss is not None:
                shares = self.current_gradient_accumulation_steps * self.accelerator.num_processes
                loss = loss + self.boundary_loss(
                    outputs.logits, outputs.boundary_logits, inputs["labels"], num_items_in_batch, shares
                )
                parts |= self.boundary_loss.term_values
        self.meters.add_parts(parts, images=len(inputs["labels"]))
        # DDP averages gradients over processes, while the denominators above already count all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _count_normalizers(self, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        counts = self.criterion.count_normalizers(labels)
        return counts if self.boundary_loss is None else counts | self.boundary_loss.count_normalizers(labels)

    def _compute_criterion(self, criterion: Criterion, logits: torch.Tensor, labels: torch.Tensor, counts: Any) -> Any:
        criterion.train()
        criterion.set_progress(self.state.global_step / max(self.state.max_steps, 1))
        steps = self.current_gradient_accumulation_steps
        return criterion(logits, labels, normalizers=counts, accumulation_steps=steps)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one micro-batch; a loss that stays NaN ends the run with the batch's file names."""
        indices = inputs.pop("index").tolist()
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            named = self.train_sampler if isinstance(self.train_sampler, RowSampler) else self.train_dataset.split
            names = [named.name(index) for index in indices]
            self.guard.watch_loss(float(loss), self.state.global_step + 1, names)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Leave out a step whose gradient norm is not finite: without gradients the optimizer changes nothing."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # In float16 the loss scaler looks for overflows itself and lowers its scale.
        if not self.args.fp16 and not self.guard.watch_gradient(float(norm), self.state.global_step + 1):
            model.zero_grad(set_to_none=True)
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer that training.optim names, over backbone and head groups."""
        if self.optimizer is None:
            cls, values = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)) or "params" in values:
                raise InputError(
                    f"training.optim: {self.args.optim} makes its own groups", fix="use adamw_torch or sgd"
                )
            groups = group_parameters(
                self.model, self.optimizer_recipe, self.args.learning_rate, self.args.weight_decay
            )
            self.optimizer = cls(groups, **values)
        return self.optimizer

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load weights as from_pretrained does.

        save_pretrained may write other names than the modules have (SegFormer's, in transformers 5), and Trainer's own
        load_state_dict(strict=False) would then leave the model as it was, with no more than a warning.
        """
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        """Load the best checkpoint's weights, by the same way."""
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, images per second and the share of time spent waiting to a training line."""
        if "loss" in logs:
            logs.update(self.meters.report(self.accelerator))
            if self.guard.skipped_steps:
                logs["skipped_steps"] = self.guard.skipped_steps
        super().log(logs, start_time)

    def describe_training(self) -> dict[str, Any]:
        """Return the facts of a finished training, over all the runs that a killed one was resumed in."""
        entries = [entry for entry in self.state.log_history if "images_per_second" in entry]
        rates = sorted(entry["images_per_second"] for entry in entries)
        best = self.state.best_model_checkpoint
        return {
            "seconds": sum(entry["seconds"] for entry in entries) + self.meters.seconds,
            "steps": self.state.global_step,
            "epochs": self._count_epochs(),
            "images_per_second": rates[len(rates) // 2] if rates else None,
            "processes": self.args.world_size,
            "precision": "bfloat16" if self.args.bf16 else "float16" if self.args.fp16 else "float32",
            "skipped_steps": max((entry.get("skipped_steps", 0) for entry in self.state.log_history), default=0),
            "best_checkpoint": Path(best).name if best else None,
        }

    def _count_epochs(self) -> float | None:
        """Return how often each image was seen, or None of a stream that was not seen to its end."""
        if not isinstance(self.train_sampler, RowSampler):
            return round(self.state.epoch or 0.0, 2)
        if self.train_sampler.rows_per_pass is None:
            return None
        drawn = self.state.global_step * self.args.gradient_accumulation_steps * self.args.train_batch_size
        return round(drawn / self.train_sampler.rows_per_pass, 2)

    # Evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the loader of an evaluation: images as served, masks at their original size."""
        training, self.data_collator = self.data_collator, self.evaluation_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the loss, a confusion matrix an image (N, C, C) at its original size, and the images' indices (N,)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(pixel_values=inputs["pixel_values"]).logits.float()
        self.criterion.eval()
        losses, matrices = [], []
        for row, (height, width) in enumerate(inputs["sizes"].tolist()):
            labels = inputs["labels"][row : row + 1, :height, :width]
            one = logits[row : row + 1]
            with torch.no_grad():
                losses.append(self.criterion(one, labels))
            predicted = label_map(one, (height, width))
            matrices.append(confusion_matrices(predicted, labels, self.classes.num_classes, self.classes.ignore_index))
        loss = torch.stack(losses).mean()
        return (loss, None, None) if prediction_loss_only else (loss, torch.cat(matrices), inputs["index"])

    def _add_to_scores(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        """Sum the matrices of a batch; after the last batch, give the scores. Only one C x C matrix is kept."""
        total = prediction.predictions.sum(0)
        self._matrix = total if self._matrix is None else self._matrix + total
        if not compute_result:
            return {}
        scores, self._matrix = compute_scores(self._matrix), None
        named = {
            f"iou/{name}": value
            for name, value in zip(self.classes.names, scores["per_category_iou"], strict=True)
            if value == value  # an absent class has no IoU
        }
        means = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_dice", "frequency_weighted_iou")
        return {key: scores[key] for key in means} | named

"""The evaluating half of the trainer: scores at the labels' own size, with one confusion matrix in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import EvalLoopOutput, has_length

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.metrics import confusion_matrices, label_maps
from segplus.metrics.user_metrics import MetricFunction
from segplus.models import fold_decode_head
from segplus.models.mask_transformers import MatchingLoss, predict_queries
from segplus.training.criteria import TrainingLoss
from segplus.training.scorekeeper import Scorekeeper
from segplus.transforms import Normalization


class EvaluatingTrainer(Trainer):
    """A Trainer whose evaluations count confusion matrices, and whose predictions are label maps.

    Whoever builds on it passes `compute_metrics=self.add_to_scores` to Trainer.
    """

    classes: ClassMap
    criterion: TrainingLoss
    metrics: Sequence[MetricFunction]
    # Trainer's own attribute of that name must stay None: the loop would hand it confusion matrices.
    logits_preprocessor: Callable[..., torch.Tensor] | None
    scores: Scorekeeper
    normalization: Normalization | None

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return the loader of an evaluation.

        Trainer keeps loaders with persistent workers under one name, whatever data set it is handed.
        """
        if eval_dataset is None or isinstance(eval_dataset, str):
            return super().get_eval_dataloader(eval_dataset)
        return self.get_test_dataloader(eval_dataset)

    def evaluation_loop(
        self, dataloader: DataLoader[Any], description: str, *arguments: Any, **named: Any
    ) -> EvalLoopOutput:
        """Start new scores; a prediction gives label maps and labels, not what the loop would keep."""
        if not has_length(dataloader) and self.args.world_size > 1:
            raise InputError(
                "evaluation: over several processes it needs a data set with a length",
                fix="evaluate with one process, or give a map-style data set",
            )
        predicts = description == "Prediction"
        self.scores = Scorekeeper(self.classes, self.metrics, "test" if predicts else "validation", keeps_maps=predicts)
        with fold_decode_head(self.model):
            # The loop would keep every confusion matrix of what is called Prediction.
            output = super().evaluation_loop(dataloader, "Inference" if predicts else description, *arguments, **named)
        if not predicts:
            return output
        return output._replace(predictions=self.scores.predictions, label_ids=self.scores.labels or None)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Move a batch to the device, and there make floats of 8-bit pixel values and int64 of labels."""
        inputs = super()._prepare_inputs(inputs)
        if self.normalization is not None and inputs["pixel_values"].dtype == torch.uint8:
            inputs["pixel_values"] = self.normalization.apply_to_batch(inputs["pixel_values"])
        elif not inputs["pixel_values"].is_floating_point():
            raise InputError("pixel_values: not normalised", found=inputs["pixel_values"].dtype, allowed="floats")
        if "labels" in inputs:
            inputs["labels"] = inputs["labels"].long()
        return inputs

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the loss, a confusion matrix an image (N, C, C) at its labels' size, and their valid pixels (N,)."""
        inputs = self._prepare_inputs(inputs)
        pixel_values, padded = inputs["pixel_values"], inputs.get("labels")
        if self.args.bf16_full_eval or self.args.fp16_full_eval:
            pixel_values = pixel_values.to(next(model.parameters()).dtype)
        with torch.no_grad(), self.compute_loss_context_manager():
            scores, answer = self._predict(model, pixel_values)
        size = (pixel_values if padded is None else padded).shape[-2:]
        sizes = inputs["sizes"].tolist() if "sizes" in inputs else [list(size)] * len(scores)
        predicted = label_maps(scores, sizes)
        labels = None if padded is None else [one[:h, :w] for one, (h, w) in zip(padded, sizes, strict=True)]
        loss = None if labels is None else self._measure_loss(answer, labels)
        if prediction_loss_only:
            return loss, None, None
        if self.scores.wants_maps:
            replace = self.logits_preprocessor
            self._gather_maps(predicted if replace is None else list(replace(scores, padded)), labels)
        if labels is None:
            return None, None, None
        matrices = confusion_matrices(predicted, labels, self.classes.num_classes, self.classes.ignore_index)
        return loss, matrices, matrices.sum((1, 2))

    def _predict(self, model: nn.Module, pixel_values: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return the scores that are served, (N, C, h, w), and what the loss is measured on."""
        if not isinstance(self.criterion, MatchingLoss):
            logits = model(pixel_values=pixel_values).logits.float()
            return logits, logits
        prediction = predict_queries(model, pixel_values)
        return prediction.score_classes(), prediction

    @torch.no_grad()
    def _measure_loss(self, answer: Any, labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mean of the images' own losses."""
        self.criterion.eval()
        if isinstance(self.criterion, MatchingLoss):
            pairs = zip(answer.iterate_images(), labels, strict=True)
            return torch.stack(
                [self.criterion(one.queries, one.fit_labels(label[None])) for one, label in pairs]
            ).mean()
        pairs = zip(answer, labels, strict=True)
        return torch.stack([self.criterion(one[None], label[None]) for one, label in pairs]).mean()

    def _gather_maps(self, predictions: Sequence[torch.Tensor], labels: Sequence[torch.Tensor] | None) -> None:
        """Hand the label maps of all processes to the scores, without the images that fill up the last batch."""
        ids = self.classes.label_dtype
        shown = [one.cpu().numpy() for one in predictions]
        if self.logits_preprocessor is None:
            shown = [one.astype(ids, copy=False) for one in shown]
        truths = [] if labels is None else [one.cpu().numpy().astype(ids) for one in labels]
        state = self.accelerator.gradient_state
        if self.accelerator.num_processes > 1:
            shown, truths = gather_object(shown), gather_object(truths)
            if state.end_of_dataloader and state.remainder > 0:
                shown, truths = shown[: state.remainder], truths[: state.remainder]
        self.scores.add_maps(shown, None if labels is None else truths, is_last=state.end_of_dataloader)

    def add_to_scores(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        """Count the matrices of a batch; after the last batch, give the scores. Only one C x C matrix is kept."""
        self.scores.add_matrices(prediction.predictions)
        return self.scores.compute() if compute_result else {}

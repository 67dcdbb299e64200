"""A Trainer whose checkpoints are whole or not used: how they are written, and what is loaded from them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerState
from transformers.trainer_utils import SaveStrategy, TrainOutput, rotate_checkpoints

from segplus.models.manifest import list_model_files, write_manifest
from segplus.models.mask_transformers import save_task_tokenizer
from segplus.models.stored_files import find_model_damage
from segplus.training.checkpoints import RECIPE_FILE, STATE_FILE, is_finished
from segplus.training.guard import require_finite_weights
from segplus.training.interruption import (
    EvaluationInterruptedError,
    OwedWork,
    read_owed_work,
    write_owed_work,
)
from segplus.training.space import explain_full_disk

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """Ends each checkpoint with a manifest, and verifies what it loads."""

    owed: OwedWork | None = None  # at the step of the checkpoint that is loaded, or written because of a signal
    saved_step = -1  # of the newest checkpoint that was written as planned

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> TrainOutput:
        """Train, or continue; a run that is finished is only loaded, best weights and history.

        transformers takes one more step where a finished `max_steps` run is resumed.
        """
        self.owed = None
        if isinstance(resume_from_checkpoint, bool | None):
            return super().train(resume_from_checkpoint, *arguments, **named)
        self.owed = read_owed_work(Path(resume_from_checkpoint))
        if not is_finished(Path(resume_from_checkpoint)):
            return super().train(resume_from_checkpoint, *arguments, **named)
        self.state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / STATE_FILE))
        self._load_from_checkpoint(resume_from_checkpoint)
        if self.owed is not None and self.owed.evaluates:
            is_best = self._determine_best_metric(self._evaluate(None, None), None)
            if is_best and self.owed.saves:
                self.state.best_model_checkpoint = resume_from_checkpoint
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        """Begin with the evaluation that was broken off when the checkpoint was written."""
        owed, self.owed = self.owed, None
        if owed is not None and owed.evaluates:
            self._load_rng_state(named["resume_from_checkpoint"])  # for the checkpoint that may be written again
            self.control.should_evaluate, self.control.should_save = True, owed.saves
            learnt = {name: named[name] for name in ("model", "trial", "epoch", "ignore_keys_for_eval", "start_time")}
            self._maybe_log_save_evaluate(self._tr_loss, None, **learnt)
            self.control.should_evaluate = self.control.should_save = False
            if self.control.should_training_stop:
                return
        super()._run_epoch(*arguments, **named)

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: nn.Module, trial: Any, epoch: float, *arguments: Any, **named: Any
    ) -> None:
        """Write a checkpoint, too, where a signal breaks off the evaluation: who goes on from it begins with that."""
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, epoch, *arguments, **named)
        except EvaluationInterruptedError:
            ends_epoch = self.args.save_strategy == SaveStrategy.EPOCH and self.state.epoch == int(self.state.epoch)
            is_planned = self.control.should_save if self.owed is None else self.owed.saves
            self.owed = OwedWork(evaluates=True, saves=is_planned or ends_epoch)
            self._save_checkpoint(model, trial)
            raise

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, its manifest last; only then may an older one go.

        Raises:
            TrainingDivergedError: If a weight is not finite; nothing is written.
            InputError: If the disk is full; the checkpoints before stay.
        """
        output_dir = Path(self.args.output_dir)
        folder = output_dir / f"checkpoint-{self.state.global_step}"
        require_finite_weights(self.model, self.state.global_step)
        with (
            self._keep_older_checkpoints(),
            self._pass_over_unplanned(output_dir),
            explain_full_disk(output_dir, self._count_bytes(), folder),
        ):
            super()._save_checkpoint(model, trial)
        self.saved_step = self.state.global_step if self.owed is None else self.saved_step
        self.accelerator.wait_for_everyone()  # every process has written its random state
        if self.args.should_save:
            with explain_full_disk(output_dir, self._count_bytes(), folder):
                if (output_dir / RECIPE_FILE).is_file():
                    shutil.copyfile(output_dir / RECIPE_FILE, folder / RECIPE_FILE)
                write_owed_work(folder, self.owed)
                write_manifest(folder)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(output_dir), self.args.save_total_limit, best, use_mtime=True)
        self.accelerator.wait_for_everyone()  # a process that ends now ends none that still writes

    @contextmanager
    def _keep_older_checkpoints(self) -> Iterator[None]:
        """Let the library delete none: it would before the other processes have written their part."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = limit

    @contextmanager
    def _pass_over_unplanned(self, output_dir: Path) -> Iterator[None]:
        """Let the best step have no checkpoint, as in an undisturbed run, where only a signal had one written."""
        best = self.state.best_global_step
        owed = self.owed if best == self.state.global_step else read_owed_work(output_dir / f"checkpoint-{best}")
        if owed is None or owed.saves:
            yield
            return
        self.state.best_global_step = None
        try:
            yield
        finally:
            self.state.best_global_step = best

    def _count_bytes(self) -> int:
        """Count what a checkpoint takes: weights and the optimizer's state."""
        entries = self.optimizer.state_dict()["state"].values()
        states = [value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]
        return sum(tensor.nbytes for tensor in [*self.model.state_dict().values(), *states])

    def floating_point_ops(self, inputs: Any) -> int:
        """Return the library's estimate; 0 for OneFormer, whose two inputs it cannot look up."""
        is_known = isinstance(vars(type(self.model)).get("main_input_name", ""), str)
        return int(super().floating_point_ops(inputs)) if is_known else 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the tokenizer of OneFormer's task, too: transformers' pipeline asks for one."""
        super()._save(output_dir, state_dict=state_dict)
        if isinstance(self.model, PreTrainedModel) and self.model.config.model_type == "oneformer":
            save_task_tokenizer(output_dir or str(self.args.output_dir), self.model.config.task_seq_len)

    def save_final_model(self) -> None:
        """Write the model into the run's folder, with a manifest of its files.

        Raises:
            TrainingDivergedError: If a weight is not finite.
            InputError: If the disk is full; the checkpoints stay.
        """
        require_finite_weights(self.model, self.state.global_step)
        output_dir = Path(self.args.output_dir)
        weights = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        with explain_full_disk(output_dir, weights):
            self.save_model()
            if self.args.should_save:
                write_manifest(output_dir, list_model_files(output_dir))
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load weights as from_pretrained does.

        save_pretrained may write other names than the modules have (SegFormer's, in transformers 5), and Trainer's own
        load_state_dict(strict=False) would then leave the model as it was, with no more than a warning.
        """
        if not isinstance(self.model, PreTrainedModel):  # Trainer takes plain modules, too
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        """Load the best checkpoint's weights, by the same way; where they are damaged, the last ones stay."""
        best = str(self.state.best_model_checkpoint)
        damage = find_model_damage(Path(best))
        if damage is None:
            self._load_from_checkpoint(best)
            return
        logger.warning("the best checkpoint %s is not whole (%s); the last weights are kept", Path(best).name, damage)
        self.state.best_model_checkpoint = None

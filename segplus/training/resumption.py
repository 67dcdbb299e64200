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
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from segplus.models.manifest import list_model_files, write_manifest
from segplus.models.stored_files import find_model_damage
from segplus.training.checkpoints import RECIPE_FILE, STATE_FILE, is_finished
from segplus.training.guard import require_finite_weights
from segplus.training.space import explain_full_disk

logger = logging.getLogger(__name__)


class ResumableTrainer(Trainer):
    """Ends each checkpoint with a manifest, and verifies what it loads."""

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> TrainOutput:
        """Train, or continue; a run that is finished is only loaded, best weights and history.

        transformers takes one more step where a finished `max_steps` run is resumed.
        """
        if isinstance(resume_from_checkpoint, bool | None) or not is_finished(Path(resume_from_checkpoint)):
            return super().train(resume_from_checkpoint, *arguments, **named)
        self.state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / STATE_FILE))
        self._load_from_checkpoint(resume_from_checkpoint)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, its manifest last; only then may an older one go.

        Raises:
            TrainingDivergedError: If a weight is not finite; nothing is written.
            InputError: If the disk is full; the checkpoints before stay.
        """
        output_dir = Path(self.args.output_dir)
        folder = output_dir / f"checkpoint-{self.state.global_step}"
        require_finite_weights(self.model, self.state.global_step)
        with self._keep_older_checkpoints(), explain_full_disk(output_dir, self._count_bytes(), folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process has written its random state
        if self.args.should_save:
            with explain_full_disk(output_dir, self._count_bytes(), folder):
                if (output_dir / RECIPE_FILE).is_file():
                    shutil.copyfile(output_dir / RECIPE_FILE, folder / RECIPE_FILE)
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

    def _count_bytes(self) -> int:
        """Count what a checkpoint takes: weights and the optimizer's state."""
        entries = self.optimizer.state_dict()["state"].values()
        states = [value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]
        return sum(tensor.nbytes for tensor in [*self.model.state_dict().values(), *states])

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

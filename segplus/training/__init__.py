"""Training: transformers' Trainer with losses on the upsampled grid and evaluation at the original resolution."""

from __future__ import annotations

from segplus.training.arguments import build_training_arguments, choose_precision, prepare_process
from segplus.training.building import build_image_processor, build_recipe_criterion, build_trainer
from segplus.training.callbacks import install_log, install_panel, load_callbacks
from segplus.training.checkpoints import claim_output_dir, find_resumable_checkpoint
from segplus.training.guard import TrainingDivergedError
from segplus.training.optimizer import group_parameters
from segplus.training.sets import EvaluationSet, TrainingSet
from segplus.training.trainer import SegmentationTrainer

__all__ = [
    "EvaluationSet",
    "SegmentationTrainer",
    "TrainingDivergedError",
    "TrainingSet",
    "build_image_processor",
    "build_recipe_criterion",
    "build_trainer",
    "build_training_arguments",
    "choose_precision",
    "claim_output_dir",
    "find_resumable_checkpoint",
    "group_parameters",
    "install_log",
    "install_panel",
    "load_callbacks",
    "prepare_process",
]

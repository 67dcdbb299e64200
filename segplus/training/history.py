"""The facts of a finished training, from its history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer

from segplus.data.streaming import RowSampler


def describe_training(trainer: Trainer) -> dict[str, Any]:
    """Return the facts of a finished training, over all the runs that a killed one was resumed in.

    Args:
        trainer: A SegmentationTrainer.
    """
    history, arguments = trainer.state.log_history, trainer.args
    entries = [entry for entry in history if "images_per_second" in entry]
    rates = sorted(entry["images_per_second"] for entry in entries)
    best = trainer.state.best_model_checkpoint
    return {
        "seconds": sum(entry["seconds"] for entry in entries) + trainer.meters.seconds,
        "steps": trainer.state.global_step,
        "epochs": _count_epochs(trainer),
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "processes": arguments.world_size,
        "precision": "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else "float32",
        "skipped_steps": max((entry.get("skipped_steps", 0) for entry in history), default=0),
        "best_checkpoint": Path(best).name if best else None,
    }


def _count_epochs(trainer: Trainer) -> float | None:
    """Return how often each image was seen, or None of a stream that was not seen to its end."""
    sampler = trainer.train_sampler
    if not isinstance(sampler, RowSampler):
        return round(trainer.state.epoch or 0.0, 2)
    if sampler.rows_per_pass is None:
        return None
    drawn = trainer.state.global_step * trainer.args.gradient_accumulation_steps * trainer.args.train_batch_size
    return round(drawn / sampler.rows_per_pass, 2)

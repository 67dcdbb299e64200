"""TrainingArguments from a recipe, with what the machine at hand does well."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from segplus.errors import InputError
from segplus.recipe import Recipe


def build_training_arguments(recipe: Recipe) -> TrainingArguments:
    """Return transformers' arguments; bf16 is chosen where the recipe leaves it open, and written into the recipe.

    Raises:
        InputError: If TrainingArguments refuses a value.
    """
    values = recipe.training
    own: dict[str, Any] = {
        # A log file full of redrawn bars helps nobody.
        "disable_tqdm": values.get("disable_tqdm", not sys.stderr.isatty()),
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "batch_eval_metrics": True,
        # With "end" the run itself pushes once, when card, scores and report lie beside the model.
        "push_to_hub": values.get("push_to_hub", False) and values["hub_strategy"] != "end",
        "dataloader_pin_memory": values.get("dataloader_pin_memory", torch.cuda.is_available()),
    }
    if "bf16" not in values and "fp16" not in values:
        values["bf16"] = has_fast_bfloat16()
    if not torch.accelerator.is_available():
        # transformers takes bfloat16 on a CPU only where the CPU was asked for.
        own["use_cpu"] = True
        # Subnormal numbers made one step of a pretrained MobileNetV2 take 56 s instead of 1.8 on a CPU.
        torch.set_flush_denormal(True)
        _use_all_cores()
    try:
        return TrainingArguments(**{**values, **own, "output_dir": str(Path(values["output_dir"]))})
    except (ValueError, TypeError, ImportError, KeyError) as error:
        raise InputError(f"training: {str(error).splitlines()[0]}", fix="see transformers.TrainingArguments") from None


def _use_all_cores() -> None:
    """Undo accelerate launch's default of one thread a process, which halves the speed of two cores."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1":
        local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_processes))


def has_fast_bfloat16() -> bool:
    """Tell whether this machine multiplies bfloat16 in hardware: CUDA from Ampere on, CPUs with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    if torch.backends.mps.is_available():
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

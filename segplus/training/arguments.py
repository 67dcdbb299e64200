"""TrainingArguments from a recipe, with what the machine at hand does well."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
from transformers import TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import logging as transformers_logging

from segplus.data.parallel import count_cores
from segplus.errors import InputError, suggest
from segplus.recipe import Recipe
from segplus.training.settings import refuse_odd_environment, refuse_sharding
from segplus.transforms.steps import NO_UPDATE_CHECK


def prepare_process() -> None:
    """Set what a training run changes for its whole process; a library call leaves all of it alone.

    OpenCV keeps to one thread, as data-loader workers are the parallelism; albumentations asks no network, in spawned
    workers either; transformers shows no bars for loading and saving weights, as training has its own. Where a CPU
    trains, it flushes subnormal numbers to zero, and uses all cores in spite of accelerate launch's one thread.
    """
    cv2.setNumThreads(0)  # before workers are forked; 0 and not 1: see segplus.training.sets
    os.environ.setdefault(NO_UPDATE_CHECK, "1")
    transformers_logging.disable_progress_bar()
    if not torch.accelerator.is_available():
        # Subnormal numbers made one step of a pretrained MobileNetV2 take 56 s instead of 1.8 on a CPU.
        torch.set_flush_denormal(True)
        # accelerate launch's default of one thread a process halves the speed of two cores.
        if "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
            torch.set_num_threads(max(1, count_cores() // _count_local_processes()))


def choose_precision(recipe: Recipe) -> Recipe:
    """Return the recipe with `training.bf16` as suits the machine, where it leaves the precision open."""
    if "bf16" in recipe.training or "fp16" in recipe.training:
        return recipe
    return replace(recipe, training=recipe.training | {"bf16": has_fast_bfloat16()})


def build_training_arguments(recipe: Recipe) -> TrainingArguments:
    """Return transformers' arguments.

    Where the recipe leaves them open, precision (`choose_precision`) and workers follow from the machine.

    Raises:
        InputError: If TrainingArguments refuses a value.
    """
    values = choose_precision(recipe).training
    own: dict[str, Any] = {
        # A log file full of redrawn bars helps nobody.
        "disable_tqdm": values.get("disable_tqdm", not sys.stderr.isatty()),
        # With "end" the run itself pushes once, when card, scores and report lie beside the model.
        "push_to_hub": values.get("push_to_hub", False) and values["hub_strategy"] != "end",
        "dataloader_pin_memory": values.get("dataloader_pin_memory", torch.cuda.is_available()),
    }
    if not torch.accelerator.is_available():
        # transformers takes bfloat16 on a CPU only where the CPU was asked for.
        own["use_cpu"] = True
    trains_elsewhere = torch.accelerator.is_available() and not values.get("use_cpu", False)
    own |= choose_workers(values, count_cores(), _count_local_processes(), trains_elsewhere)
    try:
        arguments = TrainingArguments(**{**values, **own, "output_dir": str(Path(values["output_dir"]))})
    except (ValueError, TypeError, ImportError, KeyError, OSError) as error:  # OSError: files that are named
        raise InputError(f"training: {str(error).splitlines()[0]}", fix="see transformers.TrainingArguments") from None
    refuse_sharding(arguments)
    refuse_odd_environment()
    _check_schedule(arguments)
    _check_trackers(arguments.report_to)
    return arguments


def choose_workers(
    values: Mapping[str, Any], cores: int, processes: int = 1, has_accelerator: bool = False
) -> dict[str, Any]:
    """Return TrainingArguments' keys on data-loader workers; what the recipe says stays.

    On a machine with an accelerator each process has its share of the cores but one, which feeds the accelerator, as
    workers (1 to 16), each four batches ahead. On a CPU the cores train, so a quarter of them (1 to 16) load, two
    batches ahead: one worker hides the loading of a step that takes longer than it.

    Args:
        values: The recipe's `training` section.
        cores: Cores of this machine that may be used.
        processes: Training processes on this machine.
        has_accelerator: Whether training runs elsewhere than on the cores.
    """
    share = cores // processes
    chosen = min(max(share - 1 if has_accelerator else share // 4, 1), 16)
    workers = values.get("dataloader_num_workers", chosen)
    if workers == 0:
        return {"dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    ahead = 4 if has_accelerator else 2
    return {
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": values.get("dataloader_persistent_workers", True),
        "dataloader_prefetch_factor": values.get("dataloader_prefetch_factor", ahead),
    }


def _check_schedule(arguments: TrainingArguments) -> None:
    """Build the learning-rate schedule once over nothing, so that a wrong parameter is told before training."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=0,
            num_training_steps=10,
            scheduler_specific_kwargs=dict(arguments.lr_scheduler_kwargs or {}),
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"training.lr_scheduler_type {arguments.lr_scheduler_type.value}: {error}",
            found=f"learning_rate {arguments.learning_rate}, lr_scheduler_kwargs {arguments.lr_scheduler_kwargs}",
            fix="see transformers.get_scheduler",
        ) from None


def _check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that transformers does not know or that is not installed."""
    installed = get_available_reporting_integrations()
    for name in names:
        if not isinstance(name, str) or name not in INTEGRATION_TO_CALLBACK:
            fix = suggest(str(name), [*INTEGRATION_TO_CALLBACK, "none", "all"])
            raise InputError("training.report_to: no such tracker", found=name, fix=fix)
        if name in installed:
            continue
        try:
            INTEGRATION_TO_CALLBACK[name]()  # says which package it wants
        except (RuntimeError, ImportError, ValueError) as error:
            others = ", ".join([*installed, "none"])
            raise InputError(
                f"training.report_to: {name} is not installed", found=error, fix=f"install it, or choose among {others}"
            ) from None


def _count_local_processes() -> int:
    """Count the training processes on this machine; the launcher tells."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def has_fast_bfloat16() -> bool:
    """Tell whether this machine multiplies bfloat16 in hardware: CUDA from Ampere on, CPUs with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    if torch.backends.mps.is_available():
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

"""The output folder: whose run it holds, and the newest checkpoint that is whole."""

from __future__ import annotations

import json
import logging
import pickle
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open

from segplus.errors import InputError
from segplus.files import is_leftover
from segplus.recipe import (
    DataRecipe,
    ModelRecipe,
    OptimizerRecipe,
    Recipe,
    TransformsRecipe,
    format_recipe,
    save_recipe,
)
from segplus.recipe.differences import find_difference, keep_learning_keys
from segplus.recipe.paths import is_fold_folder

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"


def claim_output_dir(recipe: Recipe, output_dir: Path) -> None:
    """Save the recipe in an empty folder, or check that the folder holds this same run.

    What is measured, said or pushed after training may change: a push that failed can be repeated with the fix. So may
    the number of workers: the machine may be another.

    Raises:
        InputError: If the folder holds another run, or files that no run wrote.
    """
    saved = output_dir / RECIPE_FILE
    if not saved.exists():
        if output_dir.is_dir() and not all(_may_stand_beside(path.name) for path in output_dir.iterdir()):
            raise InputError(
                f"training.output_dir {output_dir}: not empty and no run's folder", fix="choose another folder"
            )
        save_recipe(recipe, saved)
        return
    before, now = yaml.safe_load(saved.read_text()), yaml.safe_load(format_recipe(recipe))
    difference = find_difference(_fill_defaults(_keep_training(before)), _keep_training(now))
    if difference:
        key, was, is_now = difference
        raise InputError(
            f"training.output_dir {output_dir}: holds another run",
            found=f"{key} was {was!r} there, is {is_now!r} here",
            fix="choose another training.output_dir, or repeat that run's own command to continue it",
        )
    if before != now:
        save_recipe(recipe, saved)


def _may_stand_beside(name: str) -> bool:
    """Return whether a file may lie in a run's folder before the run: what was half written, folds, their summary."""
    return is_leftover(name) or name in ("folds.json", "folds.md") or is_fold_folder(name)


def _fill_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Give the keys that did not exist yet when a run was started the values that leave it as it was."""
    sections = {"data": DataRecipe, "model": ModelRecipe, "transforms": TransformsRecipe, "optimizer": OptimizerRecipe}
    return recipe | {
        name: {key.name: key.default for key in fields(section) if key.default is not MISSING} | recipe[name]
        for name, section in sections.items()
        if name in recipe
    }


def _keep_training(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out what does not change the weights."""
    return {key: value for key, value in recipe.items() if key not in ("evaluation", "card")} | {
        "training": keep_learning_keys(recipe.get("training", {}))
    }


def is_finished(checkpoint: Path) -> bool:
    """Tell whether nothing is left to train after this checkpoint: all steps were taken, or early stopping ended it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {})
    return state["global_step"] >= state["max_steps"] or bool(control.get("args", {}).get("should_training_stop"))


def find_resumable_checkpoint(output_dir: Path, num_processes: int = 1) -> Path | None:
    """Return the newest checkpoint that was written whole; a process may have died while it wrote the last one.

    Args:
        output_dir: The run's folder.
        num_processes: Each of them has a random state of its own in the checkpoint.
    """
    numbered = [p for p in output_dir.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    for folder in sorted(numbered, key=lambda p: int(p.name.removeprefix("checkpoint-")), reverse=True):
        damage = _find_damage(folder, num_processes)
        if damage is None:
            return folder
        logger.warning("%s is not whole (%s); an older checkpoint is used", folder.name, damage)
    return None


def _find_damage(folder: Path, num_processes: int) -> str | None:
    """Name the first file of a checkpoint that is missing or cut short."""
    ranks = [""] if num_processes == 1 else [f"_{rank}" for rank in range(num_processes)]
    pickled = [folder / f"rng_state{rank}.pth" for rank in ranks]
    pickled += [folder / "scheduler.pt", folder / "optimizer.pt"]
    for path in (folder / "model.safetensors", *pickled, folder / "trainer_state.json"):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.suffix == ".json":
                json.loads(path.read_text())
            else:
                # The zip directory stands at the end of the file; mmap reads no tensor.
                torch.load(path, map_location="cpu", mmap=True, weights_only=False)
        except (OSError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
            return f"{path.name}: {type(error).__name__}"
    return None

"""The output folder: whose run it holds, and the newest checkpoint that is whole."""

from __future__ import annotations

import logging
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, cast

import yaml

from segplus.errors import InputError
from segplus.files import is_leftover
from segplus.models.manifest import MANIFEST_FILE, find_altered_file
from segplus.models.stored_files import find_file_damage, read_json_object
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
from segplus.training.interruption import OWED_FILE

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
STATE_FILE = "trainer_state.json"


def claim_output_dir(recipe: Recipe, output_dir: Path) -> None:
    """Save the recipe in an empty folder, or check that the folder holds this same run.

    What is measured, said or pushed after training may change: a push that failed can be repeated with the fix. So may
    the number of workers: the machine may be another.

    Raises:
        InputError: If the folder holds another run, files that no run wrote, or a recipe that is damaged or gone.
    """
    saved = output_dir / RECIPE_FILE
    if not saved.exists():
        if output_dir.is_dir() and not all(_may_stand_beside(path.name) for path in output_dir.iterdir()):
            if _list_checkpoints(output_dir):
                raise _refuse_recipe(output_dir, "gone")
            raise InputError(
                f"training.output_dir {output_dir}: not empty and no run's folder", fix="choose another folder"
            )
        save_recipe(recipe, saved)
        return
    before, now = _read_saved_recipe(output_dir), yaml.safe_load(format_recipe(recipe))
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


def _read_saved_recipe(output_dir: Path) -> dict[str, Any]:
    """Return the sections of the recipe that a run saved."""
    try:
        sections = yaml.safe_load((output_dir / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise _refuse_recipe(output_dir, "damaged") from None
    is_recipe = isinstance(sections, dict) and isinstance(sections.get("data"), dict)
    if not is_recipe or not isinstance(sections.get("training", {}), dict):
        raise _refuse_recipe(output_dir, "damaged")
    return cast("dict[str, Any]", sections)


def _refuse_recipe(output_dir: Path, state: str) -> InputError:
    copies = [folder / RECIPE_FILE for folder in _list_checkpoints(output_dir) if (folder / RECIPE_FILE).is_file()]
    fix = (
        f"copy {copies[0]} to {output_dir / RECIPE_FILE}, then repeat the command to go on"
        if copies
        else "no checkpoint holds a copy: choose another folder; model.checkpoint may name a checkpoint of this one"
    )
    return InputError(f"training.output_dir {output_dir}: the run's {RECIPE_FILE} is {state}", fix=fix)


def _may_stand_beside(name: str) -> bool:
    """Return whether a file may lie in a run's folder before the run: what was half written, folds, their summary."""
    return is_leftover(name) or name in ("folds.json", "folds.md") or is_fold_folder(name)


def _fill_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Give the keys that did not exist yet when a run was started the values that leave it as it was."""
    sections = {"data": DataRecipe, "model": ModelRecipe, "transforms": TransformsRecipe, "optimizer": OptimizerRecipe}
    return recipe | {
        name: {key.name: _find_default(key) for key in fields(section)} | recipe[name]
        for name, section in sections.items()
        if isinstance(recipe.get(name), dict)
    }


def _find_default(key: Field[Any]) -> Any:
    """Return a key's value where nobody chose one."""
    return key.default if key.default_factory is MISSING else key.default_factory()


def _keep_training(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out what does not change the weights."""
    return {key: value for key, value in recipe.items() if key not in ("evaluation", "card")} | {
        "training": keep_learning_keys(recipe.get("training", {}))
    }


def is_finished(checkpoint: Path) -> bool:
    """Tell whether nothing is left to train after this checkpoint: all steps were taken, or early stopping ended it."""
    state = read_json_object(checkpoint / STATE_FILE)
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {})
    return state["global_step"] >= state["max_steps"] or bool(control.get("args", {}).get("should_training_stop"))


def find_resumable_checkpoint(output_dir: Path, num_processes: int = 1) -> Path | None:
    """Return the newest checkpoint that is whole; a process may have died while it wrote the last one.

    Args:
        output_dir: The run's folder.
        num_processes: Each of them has a random state of its own in the checkpoint.
    """
    for folder in _list_checkpoints(output_dir):
        damage = _find_damage(folder, num_processes)
        if damage is not None:
            logger.warning("%s is not whole (%s); an older checkpoint is used", folder.name, damage)
            continue
        if not (folder / MANIFEST_FILE).exists():
            logger.warning("%s has no %s, so flipped bits in it would not be seen", folder.name, MANIFEST_FILE)
        return folder
    return None


def _list_checkpoints(output_dir: Path) -> list[Path]:
    """List a run's checkpoints, the newest first."""
    numbered = [p for p in output_dir.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(numbered, key=lambda p: int(p.name.removeprefix("checkpoint-")), reverse=True)


def _find_damage(folder: Path, num_processes: int) -> str | None:
    """Name the first file of a checkpoint that is missing, damaged or altered."""
    ranks = [""] if num_processes == 1 else [f"_{rank}" for rank in range(num_processes)]
    states = [*(f"rng_state{rank}.pth" for rank in ranks), "scheduler.pt", "optimizer.pt", STATE_FILE]
    optional = [name for name in ("scaler.pt", OWED_FILE) if (folder / name).exists()]
    for name in ("config.json", "model.safetensors", *states, *optional):
        damage = find_file_damage(folder / name)
        if damage is not None:
            return f"{name}: {damage}"
    state = read_json_object(folder / STATE_FILE)
    if not all(isinstance(state.get(key), int) for key in ("global_step", "max_steps")):
        return f"{STATE_FILE}: no count of steps"
    return find_altered_file(folder)

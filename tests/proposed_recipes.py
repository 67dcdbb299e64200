"""A folder's recipe as `segplus inspect` prints it, and two training steps of a tiny model with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from launching import TINY


def propose(folder: str) -> dict[str, Any]:
    return yaml.safe_load(json.loads(_run_segplus("inspect", folder, "--json").stdout)["recipe"])


def train_two_steps(proposed: dict[str, Any]) -> None:
    """Train in the working directory, which is to be empty but for the data."""
    recipe = {**proposed, "model": {**proposed["model"], "checkpoint": None, "config": TINY["model"]["config"]}}
    recipe["training"] = {**TINY["training"], "output_dir": "run", "max_steps": 2}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    trained = _run_segplus("train", "recipe.yaml")
    assert trained.returncode == 0, trained.stderr
    (state,) = Path("run").rglob("trainer_state.json")
    assert json.loads(state.read_text(encoding="utf-8"))["global_step"] == 2


def _run_segplus(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "segplus", *arguments], capture_output=True, text=True, check=False)

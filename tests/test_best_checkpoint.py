"""Which checkpoint is the best one, and when training stops for want of a better one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import write_recipe
from safetensors.torch import load_file

import run_segmentation
from segplus.errors import InputError
from segplus.recipe import load_recipe, save_recipe


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each run a cache of its own."""
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


def read_state(run: Path) -> dict[str, Any]:
    """Return the state of the last checkpoint."""
    folders = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state: dict[str, Any] = json.loads((folders[-1] / "trainer_state.json").read_text())
    return state


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("mean_iou", True), ("eval_mean_iou", True), ("iou/weight_loss", True), ("loss", False), ("eval_loss", False)],
)
def test_the_direction_follows_from_the_metric(tmp_path: Path, metric: str, greater: bool) -> None:
    path = write_recipe(tmp_path)
    for arguments in ([], ["--greater_is_better", "null"], ["--greater_is_better", str(greater).lower()]):
        recipe = load_recipe(path, ["--metric_for_best_model", metric, *arguments])
        assert recipe.training["greater_is_better"] is greater
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    with pytest.raises(InputError, match=f"training.greater_is_better\n  found: {not greater}\n  fix: leave it out"):
        load_recipe(path, ["--metric_for_best_model", metric, "--greater_is_better", str(not greater).lower()])


@pytest.mark.slow
def test_the_lowest_loss_is_kept_and_a_falling_loss_stops_nothing(tmp_path: Path) -> None:
    changes = {"early_stopping_patience": 1, "training": {"num_train_epochs": 3, "metric_for_best_model": "loss"}}
    assert run_segmentation.main([str(write_recipe(tmp_path, changes))]) == 0
    state = read_state(tmp_path / "run")
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    assert list(losses.values()) == sorted(losses.values(), reverse=True)
    assert list(losses) == [5, 10, 15]
    assert state["best_metric"] == min(losses.values())
    assert Path(state["best_model_checkpoint"]).name == "checkpoint-15"
    best = load_file(tmp_path / "run" / "checkpoint-15" / "model.safetensors")
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(best[name], saved[name]) for name in best)


def test_early_stopping_ends_a_run_that_does_not_improve(tmp_path: Path) -> None:
    """Nothing moves, so the second of four evaluations is no better than the first; repeating the run adds no step."""
    changes = {
        "early_stopping_patience": 1,
        "model": {"freeze_batch_norm": True},
        "training": {"num_train_epochs": 4, "learning_rate": 0.0, "lr_scheduler_type": "constant"},
    }
    recipe = write_recipe(tmp_path, changes)
    for _ in range(2):
        assert run_segmentation.main([str(recipe)]) == 0
        assert read_state(tmp_path / "run")["global_step"] == 10
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert (metrics["training"]["steps"], metrics["training"]["epochs"]) == (10, 2.0)
        assert metrics["training"]["best_checkpoint"] == "checkpoint-5"


@pytest.mark.parametrize("patience", [0, -1])
def test_a_patience_that_stops_at_once_is_refused(tmp_path: Path, patience: int) -> None:
    with pytest.raises(InputError, match=f"early_stopping_patience\n  found: {patience}\n  allowed: 1 and more"):
        load_recipe(write_recipe(tmp_path), ["--early_stopping_patience", str(patience)])


def test_checkpoints_that_nothing_resumes_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training.save_only_model is not for recipes\n  fix: without the optimizer"):
        load_recipe(write_recipe(tmp_path), ["--save_only_model", "true"])

"""Seconds, images per second and skipped steps: steps alone count, all of them, also over a resume."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launching import write_recipe
from moving_clock import Clock

import run_segmentation
from segplus.training import meters, trainer


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    for module in (meters, trainer):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: Clock.now))
    Clock.dies_at = None


# Five steps an epoch, so a line every three falls on no evaluation.
CHANGES = {
    "callbacks": ["moving_clock.MoveClock", "moving_clock.SpoilTwoSteps"],
    "training": {"logging_steps": 3},
}


def read_lines(run: Path) -> list[dict[str, float]]:
    state = json.loads((run / "checkpoint-10" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


def read_training(run: Path) -> dict[str, Any]:
    training: dict[str, Any] = json.loads((run / "metrics.json").read_text())["training"]
    return training


def test_evaluating_and_saving_count_in_no_rate(tmp_path: Path) -> None:
    assert run_segmentation.main([str(write_recipe(tmp_path, CHANGES))]) == 0
    lines = read_lines(tmp_path / "run")
    assert [(line["step"], line["seconds"]) for line in lines] == [(3, 6.0), (5, 4.0), (6, 2.0), (9, 6.0), (10, 2.0)]
    assert [line["images_per_second"] for line in lines] == [1.0] * 5
    training = read_training(tmp_path / "run")
    assert training["seconds"] == 20.0
    assert training["images_per_second"] == 1.0
    assert training["skipped_steps"] == 2


@pytest.mark.slow
def test_a_run_without_lines_still_knows_its_seconds(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, {**CHANGES, "training": {"logging_strategy": "no"}})
    assert run_segmentation.main([str(recipe)]) == 0
    training = read_training(tmp_path / "run")
    assert training["seconds"] == 20.0
    assert training["images_per_second"] is None


def test_a_resumed_run_adds_up_seconds_and_skipped_steps(tmp_path: Path) -> None:
    """It died in step 8; what came after the checkpoint of step 5 is done again and counted once."""
    recipe = write_recipe(tmp_path, CHANGES)
    Clock.dies_at = 7
    with pytest.raises(RuntimeError, match="killed"):
        run_segmentation.main([str(recipe)])
    Clock.dies_at = None
    assert run_segmentation.main([str(recipe)]) == 0
    assert [line["step"] for line in read_lines(tmp_path / "run")] == [3, 5, 6, 9, 10]
    training = read_training(tmp_path / "run")
    assert training["seconds"] == 20.0
    assert training["skipped_steps"] == 2

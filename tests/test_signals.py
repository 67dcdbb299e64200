"""Ctrl-C and SIGTERM end training with a checkpoint, and the same command goes on to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import ROOT, build_command, build_environment, run, write_recipe
from safetensors.torch import load_file
from tiny_model import Squares, build_arguments, build_model
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from segplus.commands.train import main
from segplus.training import SegmentationTrainer
from segplus.training.checkpoints import find_resumable_checkpoint
from segplus.training.interruption import TrainingInterruptedError
from segplus.training.resumption import ResumableTrainer
from segplus.training.signals import _StopAfterCheckpoint, stop_on_signals

MANY_STEPS = {
    "training": {"dataloader_num_workers": 1, "num_train_epochs": 40, "save_strategy": "no", "eval_strategy": "no"}
}


def build_stop() -> _StopAfterCheckpoint:
    """Return the callback of a trainer that has taken no step."""
    trainer = object.__new__(ResumableTrainer)
    trainer.state = TrainerState()
    return _StopAfterCheckpoint(trainer)


def step(stop: _StopAfterCheckpoint, folder: Path, epoch: float) -> TrainerControl:
    """Tell the callback of the end of a step."""
    arguments = TrainingArguments(output_dir=str(folder), report_to=[], use_cpu=True)
    state, control = TrainerState(epoch=epoch, global_step=7, is_world_process_zero=True), TrainerControl()
    stop.on_step_end(arguments, state, control)
    return control


def test_a_checkpoint_is_asked_for_once_a_signal_came(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stop, before = build_stop(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert not step(stop, tmp_path, 0.5).should_save
    try:
        stop.take(signal.SIGTERM, None)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # a second one ends at once
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert "SIGTERM: a checkpoint is written after this step" in capfd.readouterr().err
    control = step(stop, tmp_path, 0.5)
    assert (control.should_save, control.should_log, control.should_training_stop) == (True, True, False)
    with pytest.raises(TrainingInterruptedError, match="SIGTERM: stopped at step 7, .* repeat the command to go on"):
        stop.on_save(None, TrainerState(global_step=7, is_world_process_zero=False), control)


def test_the_last_step_of_an_epoch_waits_for_its_evaluation(tmp_path: Path) -> None:
    stop = build_stop()
    stop.received = signal.SIGINT
    assert not step(stop, tmp_path, 2.0).should_save
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    control = TrainerControl()
    stop.on_epoch_end(arguments, TrainerState(epoch=2.0), control)
    assert control.should_save


def signal_in_training(recipe: Path, processes: int, number: int, group: bool) -> tuple[int, str]:
    """Start a run, send a signal once it trains, and return its exit code and what it said."""
    with (recipe.parent / "run.log").open("w+") as log:
        process = subprocess.Popen(
            build_command(recipe, processes=processes),
            stdout=log,
            stderr=log,
            env=build_environment(recipe.parent),
            start_new_session=True,
            cwd=ROOT,
        )
        deadline = time.monotonic() + 250
        while "step 3/" not in (recipe.parent / "run.log").read_text() and time.monotonic() < deadline:
            assert process.poll() is None, (recipe.parent / "run.log").read_text()[-3000:]
            time.sleep(0.01)
        (os.killpg if group else os.kill)(process.pid, number)
        return process.wait(200), (recipe.parent / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "number", "code"),
    [(1, signal.SIGINT, 130), (1, signal.SIGTERM, 143), (2, signal.SIGTERM, 1), (2, signal.SIGINT, 1)],
)
def test_a_signal_ends_training_with_a_checkpoint(tmp_path: Path, processes: int, number: int, code: int) -> None:
    recipe = write_recipe(tmp_path, MANY_STEPS)
    # Alone the whole process group gets it, workers too, as from a terminal; a launcher hands it on itself.
    found, said = signal_in_training(recipe, processes, number, group=processes == 1)
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert found == code, said[-3000:]
    assert f"stopped at step {checkpoint.name.removeprefix('checkpoint-')}, after a checkpoint" in said
    assert "repeat the command to go on" in said
    assert (checkpoint / "manifest.json").is_file()
    assert processes == 2 or "Traceback" not in said


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stop, before = build_stop(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def train(*_: object) -> None:
        signal.signal(signal.SIGINT, stop.take)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("segplus.commands.train.find_recipe", train)
    try:
        assert main(["recipe.yaml"]) == 130
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert "interrupted (Ctrl-C): nothing is half written; repeat the command to go on" in capsys.readouterr().err


class SignalAt(TrainerCallback):
    """Sends this process a signal in the second batch of an evaluation."""

    def __init__(self, global_step: int) -> None:
        self.global_step, self.batches = global_step, 0

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.batches += state.global_step == self.global_step
        if self.batches == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def train_squares(folder: Path, signal_at: int | None = None, **values: Any) -> tuple[SegmentationTrainer, int]:
    """Train six steps, three an epoch; return the trainer and the number of batches that it evaluated."""
    settings = {"max_steps": 6, "per_device_train_batch_size": 3, "per_device_eval_batch_size": 2, "report_to": "none"}
    settings |= {"use_cpu": True, "learning_rate": 0.01, "logging_strategy": "no"} | values
    counted = SignalAt(-1 if signal_at is None else signal_at)
    model = build_model(classifier_dropout_prob=0.3)
    early = EarlyStoppingCallback(early_stopping_patience=1)
    trainer = SegmentationTrainer(
        model, build_arguments(folder, **settings), train_dataset=Squares(), eval_dataset=Squares(seed=1),
        callbacks=[counted, early] if settings.get("load_best_model_at_end") else [counted],
    )  # fmt: skip
    checkpoint = find_resumable_checkpoint(folder)
    with stop_on_signals(trainer):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer, counted.batches


EVERY_EPOCH = {"eval_strategy": "epoch", "save_strategy": "epoch"}
BEST = {"load_best_model_at_end": True, "metric_for_best_model": "mean_iou", "greater_is_better": True}
SELDOM_SAVED = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4}


@pytest.mark.parametrize(
    ("values", "signal_at"),
    [
        pytest.param(EVERY_EPOCH, 3, marks=pytest.mark.slow),
        pytest.param(EVERY_EPOCH | BEST, 3, marks=pytest.mark.slow),
        pytest.param(SELDOM_SAVED, 4, marks=pytest.mark.slow),
        (EVERY_EPOCH | BEST, 6),
        pytest.param(SELDOM_SAVED | BEST, 2, marks=pytest.mark.slow),
        (SELDOM_SAVED | {"save_strategy": "no", "lr_scheduler_type": "reduce_lr_on_plateau"}, 2),
    ],
)
def test_a_signal_breaks_off_an_evaluation_and_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], values: dict[str, Any], signal_at: int
) -> None:
    whole, _ = train_squares(tmp_path / "whole", **values)
    with pytest.raises(TrainingInterruptedError, match=f"SIGTERM: stopped at step {signal_at}, after a checkpoint"):
        train_squares(tmp_path / "run", signal_at, **values)
    assert capfd.readouterr().out.count("repeat the command to go on") == 1
    assert (tmp_path / "run" / f"checkpoint-{signal_at}" / "interrupted.json").is_file()
    run, _ = train_squares(tmp_path / "run", **values)
    weights = [trainer.model.state_dict() for trainer in (whole, run)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    told = [[(entry["step"], entry["eval_mean_iou"]) for entry in trainer.state.log_history if "eval_loss" in entry]
            for trainer in (whole, run)]  # fmt: skip
    assert told[0] == told[1]
    best = [trainer.state.best_model_checkpoint and Path(trainer.state.best_model_checkpoint).name
            for trainer in (whole, run)]  # fmt: skip
    assert best[0] == best[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    changes = {"training": {"dataloader_num_workers": 1, "num_train_epochs": 4}}
    for name in ("whole", "interrupted"):
        (tmp_path / name).mkdir()
    assert run(write_recipe(tmp_path / "whole", changes)).returncode == 0
    recipe = write_recipe(tmp_path / "interrupted", changes)
    assert signal_in_training(recipe, 1, signal.SIGTERM, group=True)[0] == 143
    done = run(recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = [load_file(tmp_path / name / "run" / "model.safetensors") for name in ("whole", "interrupted")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

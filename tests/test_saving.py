"""Saving a checkpoint: a full disk, weights that are not finite, a best checkpoint that is damaged, a lost worker."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from launching import write_recipe
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset
from transformers import TrainerCallback, TrainerState

import run_segmentation
from segplus.errors import EXIT_CODE_DIVERGED, EXIT_CODE_INPUT, InputError
from segplus.models.manifest import find_altered_file, write_manifest
from segplus.training.held_rows import HeldRows, explain_lost_worker
from segplus.training.resumption import ResumableTrainer
from segplus.training.signals import shield_worker
from segplus.training.space import explain_full_disk

EVERY_SECOND_STEP = ["--eval_strategy", "no", "--save_strategy", "steps", "--save_steps", "2"]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _limits() -> Iterator[None]:
    """Give the process its limit on file sizes back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit_file_size(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class LimitFileSize(TrainerCallback):
    """Leave no space for weights once a checkpoint is written."""

    def on_save(self, args, state, control, **kwargs) -> None:
        limit_file_size(100_000)


class SpoilWeights(TrainerCallback):
    """Make a weight NaN before the first checkpoint."""

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        if state.global_step == 2:
            next(model.parameters()).data.view(-1)[0] = float("nan")


@pytest.mark.usefixtures("_limits")
@pytest.mark.parametrize("save", [torch.save, lambda values, path: save_file(values, path)])
def test_no_space_is_told_and_the_unfinished_checkpoint_goes(tmp_path: Path, save) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    limit_file_size(1 << 20)
    with (
        pytest.raises(InputError, match=r"no space left; [\s\S]* about 4 MiB, 3 MiB more than there are"),
        explain_full_disk(tmp_path, 4 << 20, folder),
    ):
        save({"weight": torch.ones(1 << 20)}, folder / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_quota_is_no_space_and_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no space left"), explain_full_disk(tmp_path, 10):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(RuntimeError, match="a defect"), explain_full_disk(tmp_path, 10):
        raise RuntimeError("a defect")


@pytest.mark.usefixtures("_limits")
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, {"callbacks": ["test_saving.LimitFileSize"]})
    limit = ["--save_total_limit", "1"]
    assert run_segmentation.main([str(recipe), *EVERY_SECOND_STEP, *limit]) == EXIT_CODE_INPUT
    said = capsys.readouterr().err
    assert "no space left; the checkpoints that were written before are kept" in said
    assert "Traceback" not in said
    (kept,) = (tmp_path / "run").glob("checkpoint-*")
    assert kept.name == "checkpoint-2"
    assert find_altered_file(kept) is None


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, {"callbacks": ["test_saving.SpoilWeights"]})
    assert run_segmentation.main([str(recipe), *EVERY_SECOND_STEP]) == EXIT_CODE_DIVERGED
    assert "the weights are not finite after step 2" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_damaged_best_checkpoint_leaves_the_last_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({"weight": torch.ones(10)}, tmp_path / "model.safetensors")
    write_manifest(tmp_path)
    save_file({"weight": torch.zeros(10)}, tmp_path / "model.safetensors")
    trainer = ResumableTrainer.__new__(ResumableTrainer)
    trainer.state = TrainerState(best_model_checkpoint=str(tmp_path))
    trainer._load_best_model()
    assert trainer.state.best_model_checkpoint is None
    assert "model.safetensors: its content changed after it was saved); the last weights are kept" in caplog.text


class DeadlyRows(Dataset):
    """Rows of which the fifth kills the worker that reads it, as the system does where memory runs out."""

    def __init__(self) -> None:
        self.held = HeldRows()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        self.held.hold(index)
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_killed_worker_names_its_file() -> None:
    rows = DeadlyRows()
    with (
        pytest.raises(InputError, match=r"was killed while it held image-5.png\n[\s\S]*repeat the command"),
        explain_lost_worker([(HeldRows(), str), (rows.held, lambda row: f"image-{row}.png")]),
    ):
        list(DataLoader(rows, batch_size=1, num_workers=2))


class HeldOver(Dataset):
    """Rows of which the fifth cannot be handed over, as where the system gives no shared memory."""

    def __init__(self) -> None:
        self.held = HeldRows()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> object:
        self.held.hold(index)
        return (lambda: index) if index == 5 else index


def test_a_batch_that_cannot_be_handed_over_is_not_waited_for() -> None:
    rows = HeldOver()
    with (
        pytest.raises(InputError, match=r"was killed while it held image-5.png"),
        explain_lost_worker([(rows.held, lambda row: f"image-{row}.png")]),
    ):
        list(
            DataLoader(
                rows, 1, num_workers=1, prefetch_factor=1, collate_fn=list, worker_init_fn=partial(shield_worker, None)
            )
        )

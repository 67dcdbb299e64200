"""What the machine at hand decides: cores, data-loader workers, and what a run's folder keeps of them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import pytest
import torch
from launching import write_recipe
from transformers.utils import logging

from segplus.data import parallel
from segplus.errors import InputError
from segplus.recipe import format_recipe, load_recipe
from segplus.training import arguments, build_training_arguments, choose_precision, prepare_process
from segplus.training.arguments import choose_workers
from segplus.training.checkpoints import claim_output_dir
from segplus.training.settings import refuse_odd_environment

KEYS = ("dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor")


@pytest.mark.parametrize(
    ("cores", "processes", "accelerator", "workers", "ahead"),
    [
        (2, 1, False, 1, 2),
        (2, 2, False, 1, 2),
        (8, 1, False, 2, 2),
        (64, 2, False, 8, 2),
        (256, 1, False, 16, 2),
        (1, 1, True, 1, 4),
        (2, 1, True, 1, 4),
        (8, 1, True, 7, 4),
        (16, 4, True, 3, 4),
        (64, 8, True, 7, 4),
        (128, 1, True, 16, 4),
    ],
)
def test_workers_follow_from_cores_and_processes(
    cores: int, processes: int, accelerator: bool, workers: int, ahead: int
) -> None:
    chosen = choose_workers({}, cores, processes, accelerator)
    assert tuple(chosen[key] for key in KEYS) == (workers, True, ahead)


def test_what_the_recipe_says_stays() -> None:
    said = {"dataloader_num_workers": 3, "dataloader_persistent_workers": False, "dataloader_prefetch_factor": 8}
    assert choose_workers(said, 64, 1, True) == said
    none = {"dataloader_num_workers": 0, "dataloader_persistent_workers": False}
    assert choose_workers({"dataloader_num_workers": 0}, 64, 1, True) == none


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ],
)
def test_a_containers_share_of_the_processors_is_known(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert parallel._read_quota(tmp_path) == quota


def test_cores_are_those_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for quota, cores in ((math.inf, 64), (1.5, 2), (0.2, 1), (100.0, 64)):
        monkeypatch.setattr(parallel, "_read_quota", lambda quota=quota: quota)
        assert parallel.count_cores() == cores


def test_a_run_gets_the_machines_workers_and_its_recipe_keeps_none_of_them(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    assert recipe.training.pop("dataloader_num_workers") == 0  # of the tests' own recipe
    built = build_training_arguments(recipe)
    expected = choose_workers({}, parallel.count_cores())
    assert {key: vars(built)[key] for key in KEYS} == expected
    assert not any(key in recipe.training for key in KEYS)


def test_arguments_change_neither_the_recipe_nor_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    del recipe.training["bf16"]
    monkeypatch.setattr(arguments, "has_fast_bfloat16", lambda: False)
    subnormal, before, threads = torch.tensor(1e-40), format_recipe(recipe), cv2.getNumThreads()
    assert not build_training_arguments(recipe).bf16
    assert format_recipe(recipe) == before
    assert (cv2.getNumThreads(), float(subnormal * 0.5) > 0) == (threads, True)
    assert choose_precision(recipe).training == recipe.training | {"bf16": False}


def test_a_run_prepares_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "")  # so that it is put back
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    threads, had_bars = cv2.getNumThreads(), logging.is_progress_bar_enabled()
    try:
        prepare_process()
        assert (cv2.getNumThreads(), logging.is_progress_bar_enabled()) == (1, False)
        assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
        assert float(torch.tensor(1e-40) * 0.5) == 0
    finally:
        cv2.setNumThreads(threads if threads > 1 else 0)
        if had_bars:
            logging.enable_progress_bar()


def test_a_prefetch_without_workers_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path), ["--dataloader_prefetch_factor", "4"])
    with pytest.raises(InputError, match="training: --dataloader_prefetch_factor can only be set when"):
        build_training_arguments(recipe)


def test_another_number_of_workers_continues_the_same_run(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    claim_output_dir(load_recipe(path), tmp_path / "out")
    changed = load_recipe(path, ["--dataloader_num_workers", "5", "--dataloader_prefetch_factor", "3"])
    claim_output_dir(changed, tmp_path / "out")
    assert load_recipe(tmp_path / "out" / "recipe.yaml") == changed
    dropped = load_recipe(path, ["--dataloader_drop_last", "true"])
    with pytest.raises(InputError, match="training.dataloader_drop_last was None there, is True here"):
        claim_output_dir(dropped, tmp_path / "out")


def test_an_unknown_precision_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "x")
    with pytest.raises(InputError, match="ACCELERATE_MIXED_PRECISION\n  found: x"):
        refuse_odd_environment()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    refuse_odd_environment()

"""Training on a stream: each row once a pass, the same order whoever decodes, and the same weights after a resume."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from launching import kill_when, run, write_recipe
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import run_segmentation
from segplus.data import load_segmentation_dataset
from segplus.data.parallel import read_ahead
from segplus.data.streaming import RowSampler
from segplus.errors import InputError
from segplus.inspection import inspect_dataset
from segplus.recipe import load_recipe

ROWS = (9, 5, 6)  # in each file
NAMES = {f"train, file {file}, row {row}" for file, count in enumerate(ROWS) for row in range(count)}
STREAM = {"streaming": True, "shuffle_buffer_images": 8, "classes": ["a", "b", "c"]}
STEPS = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 3, "save_total_limit": None}


def encode(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


def write_parquet(
    folder: Path, bad: tuple[int, int] | None = None, split: str = "train", path: str | None = None
) -> Path:
    """Write a data set as the Hub has it: parquet files; an image's grey value is its number. One mask may be bad."""
    rng, number = np.random.default_rng(0), 0
    folder.mkdir(exist_ok=True)
    for file, count in enumerate(ROWS):
        rows = []
        for row in range(count):
            mask = rng.integers(0, 3, (48, 64)).astype(np.uint8)
            mask[0, 0] = 77 if (file, row) == bad else 255
            image = np.full((48, 64, 3), number, dtype=np.uint8)
            rows.append(
                {"image": {"bytes": encode(image), "path": None}, "label": {"bytes": encode(mask), "path": path}}
            )
            number += 1
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(str(folder / f"{split}-{file:05d}-of-{len(ROWS):05d}.parquet"))
    return folder


def open_stream(folder: Path, **more: Any) -> Any:
    return load_segmentation_dataset({"dataset": str(folder), **STREAM, "max_images": {"validation": 4}, **more})


def write_run(folder: Path, data: Path, **training: Any) -> Path:
    section = {"dataset": str(data), **STREAM, "max_images": {"validation": 4}}
    changes = {"data": section, "losses": {"dice": 0.5}, "training": {**STEPS, **training}}
    return write_recipe(folder, changes)


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    return write_parquet(tmp_path / "data")


def test_the_head_of_the_stream_is_validation_and_the_rest_is_trained_on(parquet: Path) -> None:
    data = open_stream(parquet, max_images={"validation": 11})
    assert list(data.splits) == ["validation"]
    assert [int(np.asarray(pair["image"]).max()) for pair in data.splits["validation"]] == list(range(11))
    pairs = list(data.stream)
    assert [int(np.asarray(pair["image"]).max()) for pair in pairs] == list(range(11, 20))
    assert pairs[0]["name"] == "train, file 1, row 2"
    assert pairs[0]["label"].shape == (48, 64)
    assert pairs[0]["label"][0, 0] == 255
    assert "train: a stream of 3 files, nothing is kept of it" in data.found


def test_a_validation_split_that_is_there_is_used(parquet: Path) -> None:
    write_parquet(parquet, split="validation")
    data = open_stream(parquet)
    assert len(data.splits["validation"]) == 4
    assert {pair["name"] for pair in data.stream} == NAMES


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_drawn_once_a_pass_over_all_processes(parquet: Path, processes: int) -> None:
    write_parquet(parquet, split="validation")
    data = open_stream(parquet)
    drawn = []
    for index in range(processes):
        rows = data.stream.draw_rows(5, index, processes)
        drawn += itertools.takewhile(lambda row: row["number_of_pass"] < 2, rows)
    for number_of_pass in (0, 1):
        assert sorted(row["name"] for row in drawn if row["number_of_pass"] == number_of_pass) == sorted(NAMES)
    assert len({row["position"] for row in drawn}) == 40
    passes = [[row["name"] for row in drawn if row["number_of_pass"] == number] for number in (0, 1)]
    assert passes[0] != passes[1]


def test_two_workers_decode_each_row_once_a_pass_in_the_order_of_none(parquet: Path) -> None:
    data = open_stream(parquet)

    class Names(torch.utils.data.Dataset):
        def __getitem__(self, row: Any) -> tuple[str, int, int]:
            worker = torch.utils.data.get_worker_info()
            return data.stream.read(row)["name"], row["number_of_pass"], -1 if worker is None else worker.id

    seen = {}
    for workers in (0, 2):
        sampler = RowSampler(data.stream, seed=3)
        loader = DataLoader(Names(), batch_size=4, sampler=sampler, num_workers=workers, collate_fn=list)
        batches = list(itertools.islice(loader, 8))  # two passes of 16 rows
        assert all(len(batch) == 4 for batch in batches)
        seen[workers] = [sample for batch in batches for sample in batch]
    assert [sample[:2] for sample in seen[0]] == [sample[:2] for sample in seen[2]]
    assert {sample[2] for sample in seen[2]} == {0, 1}
    for number_of_pass in (0, 1):
        names = [name for name, drawn_in, _ in seen[2] if drawn_in == number_of_pass]
        assert len(names) == 16
        assert set(names) == NAMES - {f"train, file 0, row {row}" for row in range(4)}


def test_the_sampler_remembers_names_and_the_length_of_a_pass(parquet: Path) -> None:
    sampler = RowSampler(open_stream(parquet).stream, seed=3, process_index=1, num_processes=2)
    rows = list(itertools.islice(sampler, 20))
    assert [row["position"] for row in rows] == list(range(1, 41, 2))
    assert sampler.name(rows[7]["position"]) == rows[7]["name"]
    assert sampler.name(1000) == "row 1000 of the stream"
    assert sampler.rows_per_pass == 8


def test_a_reader_that_fails_tells_where_it_is_waited_for() -> None:
    def fail() -> Any:
        yield {"position": 0}
        raise InputError("the connection broke")

    rows = read_ahead(fail(), 4)
    assert next(rows) == {"position": 0}
    with pytest.raises(InputError, match="the connection broke"):
        next(rows)


def test_a_bad_mask_is_named_by_file_and_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_stream(write_parquet(tmp_path / "data", bad=(1, 2)))
    with pytest.raises(InputError, match=r"mask of train, file 1, row 2.*\n  found: .*77"):
        list(data.stream)
    named = open_stream(write_parquet(tmp_path / "named", bad=(2, 1), path="park.png"))
    with pytest.raises(InputError, match=r"park.png \(train, file 2, row 1\)"):
        list(named.stream)


def test_a_bad_mask_ends_a_run_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    recipe = write_run(tmp_path, write_parquet(tmp_path / "data", bad=(1, 2)), max_steps=20, dataloader_num_workers=1)
    assert run_segmentation.main([str(recipe)]) == 2
    message = capsys.readouterr().err
    assert message.count("error:") == 1
    assert "mask of train, file 1, row 2" in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_a_run_on_a_stream_repeats_and_resumes_to_the_same_weights(parquet: Path, tmp_path: Path) -> None:
    """16 rows in batches of 2: a pass is over after 8 steps. Killed at 3, and run with other workers."""
    recipe = write_run(tmp_path, parquet, max_steps=10, eval_steps=5)
    assert run_segmentation.main([str(recipe)]) == 0
    output = tmp_path / "run"
    whole = load_file(output / "checkpoint-10" / "model.safetensors")
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["training"]["steps"] == 10
    assert metrics["training"]["epochs"] == 1.25
    assert metrics["evaluations"]["validation"]["images"] == 4

    shutil.rmtree(output / "checkpoint-10")
    assert run_segmentation.main([str(recipe)]) == 0
    resumed = load_file(output / "checkpoint-10" / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    elsewhere = ["--training.output_dir", str(tmp_path / "other"), "--dataloader_num_workers", "2"]
    assert run_segmentation.main([str(recipe), *elsewhere]) == 0
    other = load_file(tmp_path / "other" / "checkpoint-10" / "model.safetensors")
    assert all(torch.equal(whole[name], other[name]) for name in whole)


@pytest.mark.slow
def test_a_run_that_is_terminated_twice_ends_in_the_same_weights(parquet: Path, tmp_path: Path) -> None:
    weights = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        recipe = write_run(tmp_path / name, parquet, max_steps=9, dataloader_num_workers=2)
        output = tmp_path / name / "run"
        if name == "killed":
            kill_when(lambda path=output / "checkpoint-3": path.is_dir(), recipe, how=signal.SIGTERM)
            kill_when(lambda path=output / "checkpoint-6" / "optimizer.pt": path.is_file(), recipe, how=signal.SIGTERM)
        done = run(recipe)
        assert done.returncode == 0, done.stderr[-3000:]
        weights[name] = load_file(output / "model.safetensors")
    assert all(torch.equal(weights["whole"][key], weights["killed"][key]) for key in weights["whole"])


@pytest.mark.slow
def test_two_processes_share_a_stream(parquet: Path, tmp_path: Path) -> None:
    done = run(write_run(tmp_path, parquet, max_steps=6, gradient_accumulation_steps=2), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["training"]["epochs"] == 3.0  # 6 steps of 2 batches of 2, 8 of 16 rows for each process


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_steps", "-1"], r"training: data.streaming has no epochs.*\n.*max_steps: -1\n.*set training.max_steps"),
        (
            ["--eval_strategy", "epoch", "--save_strategy", "epoch"],
            "found: max_steps: 6, eval_strategy: epoch, save_strat",
        ),
        (["--class_weights", "enet"], "class_weights: it counts every training mask.*\n.*\n.*weights by class name"),
        (["--transforms.sampling", "repeat_factor"], "transforms.sampling: it counts every training mask"),
        (["--rare_class_crop", "0.5"], "transforms.rare_class_crop: it counts every training mask"),
        (["--folds", "2"], r"data.folds: folds are made over a whole training split.*\n.*\n.*leave data.folds out"),
        (["--data.cache", "here"], "data.cache: pixels are cached over a whole training split"),
        (["--stratify", "true"], "data.stratify: classes are balanced over"),
        (["--test_share", "0.1"], "data.test_share: a share is taken over"),
        (["--group_pattern", "(a)"], "data.group_pattern: groups are kept together over"),
        (["--shuffle_buffer_images", "0"], "data.shuffle_buffer_images: outside its range"),
    ],
)
def test_what_needs_a_whole_pass_is_refused_by_its_key(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(write_run(tmp_path, tmp_path), arguments)


def test_the_head_of_a_stream_may_do_all_that_a_split_does(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, tmp_path, max_steps=-1, eval_strategy="epoch")
    head = ["--data.max_images", "{train: 9, validation: 3}", "--class_weights", "enet", "--rare_class_crop", "0.5"]
    assert load_recipe(recipe, head).data.streams_training is False


def test_streams_that_cannot_be_opened_are_told(parquet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data.max_images.validation: a stream is read up to a number"):
        open_stream(parquet, max_images={})
    with pytest.raises(InputError, match="a stream needs one"):
        open_stream(parquet, validation_split="none")
    rows = open_stream(parquet, max_images={"validation": 20}).stream.draw_rows(0)
    with pytest.raises(InputError, match="no row is left to train on"):
        next(rows)
    (tmp_path / "folders" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="data.streaming: only what the `datasets` library loads"):
        open_stream(tmp_path / "folders", layout="folders")


def test_inspect_says_that_a_stream_is_not_read_whole(parquet: Path) -> None:
    section = {"dataset": str(parquet), **STREAM, "max_images": {"validation": 4}}
    (finding,) = inspect_dataset(section, progress=False).report["findings"]
    assert "a stream is never read whole" in str(finding)
    section["max_images"] = {"train": 6, "validation": 4}
    report = inspect_dataset(section, progress=False).report
    assert report["splits"]["train"]["pairs"] == 4

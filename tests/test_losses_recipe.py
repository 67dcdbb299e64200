"""Losses as a recipe names them: weights by class, the plain engine, and mistakes told before training starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from launching import write_recipe
from PIL import Image

import run_segmentation
from segplus.data import load_segmentation_dataset
from segplus.data.statistics import SplitStatistics, count_labels, sum_class_pixels
from segplus.errors import EXIT_CODE_INPUT
from segplus.losses.class_weights import compute_class_weights
from segplus.recipe import load_recipe
from segplus.training import building
from segplus.training.building import build_recipe_criterion


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each run a cache of its own."""
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def build(folder: Path, *arguments: str):
    """Return the criterion of the tiny recipe, and its data."""
    recipe = load_recipe(write_recipe(folder), list(arguments))
    data = load_segmentation_dataset(recipe.data)
    return build_recipe_criterion(recipe, data), data


def test_weights_by_class_name(tmp_path: Path) -> None:
    criterion, data = build(tmp_path, "--class_weights", "{road: 2.0, sky: 3.0}")
    expected = [{"road": 2.0, "sky": 3.0}.get(name, 1.0) for name in data.classes.names]
    assert {2.0, 3.0} <= set(expected)
    assert criterion.class_weights.tolist() == expected


@pytest.mark.parametrize("formula", ["inverse_frequency", "median_frequency", "effective_number", "enet"])
def test_weights_by_formula_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formula: str) -> None:
    criterion, data = build(tmp_path, "--class_weights", formula)
    train = data.splits["train"]
    labels = [count_labels(train.label(index), data.classes.num_classes)[:-1] for index in range(len(train))]
    counts = sum_class_pixels(np.stack(labels))
    assert criterion.class_weights.tolist() == compute_class_weights(counts, formula).tolist()
    (cached,) = (tmp_path / "cache" / "statistics").iterdir()
    assert train.fingerprint in cached.name
    stored = SplitStatistics.unpack(cached.read_bytes()[16:])  # behind its digest
    assert stored.class_pixels.tolist() == counts.tolist()
    monkeypatch.setattr(type(train), "label", None)  # not read again
    again, _ = build(tmp_path, "--class_weights", formula)
    assert again.class_weights.tolist() == criterion.class_weights.tolist()


def test_other_data_are_counted_anew(tmp_path: Path) -> None:
    first, _ = build(tmp_path, "--class_weights", "median_frequency")
    other, _ = build(tmp_path, "--class_weights", "median_frequency", "--data.seed", "5")
    assert len(list((tmp_path / "cache" / "statistics").iterdir())) == 2
    assert first.class_weights.tolist() != other.class_weights.tolist()


def test_the_engine_is_streamed_unless_the_recipe_says_plain(tmp_path: Path) -> None:
    assert not build(tmp_path)[0].plain
    assert build(tmp_path, "--loss_engine", "plain")[0].plain


def test_both_engines_train_the_same_model(tmp_path: Path) -> None:
    """Two runs of the script, from the same seed: every logged loss and term is the same."""
    logs = []
    for engine in ("streamed", "plain"):
        (tmp_path / engine).mkdir()
        recipe = write_recipe(tmp_path / engine)
        assert run_segmentation.main([str(recipe), "--loss_engine", engine, "--max_steps", "4"]) == 0
        (state,) = (tmp_path / engine / "run").rglob("checkpoint-4/trainer_state.json")
        history = json.loads(state.read_text())["log_history"]
        logs.append([entry for entry in history if "loss" in entry])
    assert len(logs[0]) == len(logs[1]) == 4
    for streamed, plain in zip(*logs, strict=True):
        for key in ("loss", "loss/cross_entropy", "loss/dice", "grad_norm"):
            assert streamed[key] == pytest.approx(plain[key], rel=1e-4), key
        assert streamed["loss"] == pytest.approx(streamed["loss/cross_entropy"] + 0.5 * streamed["loss/dice"], rel=1e-5)


MISTAKES = [
    (["--losses", "{cros_entropy: 1.0}"], ["losses: no such term", "found: cros_entropy", "'cross_entropy'"]),
    (["--losses", "{focal: {gama: 2.0}}"], ["losses.focal: no such parameter", "found: gama", "'gamma'"]),
    (["--losses", "{dice: {weight: {schedule: cosin, to: 1}}}"], ["losses.dice.weight.schedule", "'cosine'"]),
    (["--losses", "{dice: -1}"], ["losses.dice.weight", "found: -1", "0 or more"]),
    (["--class_weights", "{rod: 2.0}"], ["class_weights: no such class", "found: rod", "'road'"]),
    (["--class_weights", "{road: -2.0}"], ["class_weights: a weight is negative", "-2.0", "0 or more"]),
    (["--class_weights", "medan_frequency"], ["class_weights: no such formula", "'median_frequency'"]),
    (["--losses", "{cros_entropy: 1.0}", "--class_weights", "enet"], ["losses: no such term", "found: cros_entropy"]),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_ends_the_run_before_training(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: list[str],
) -> None:
    monkeypatch.setattr(building, "measure_split", None)  # no mask is counted for a recipe that is wrong
    assert run_segmentation.main([str(write_recipe(tmp_path)), *arguments]) == EXIT_CODE_INPUT
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    for text in told:
        assert text in said[said.index("error: ") :]
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_labels_of_one_class_take_no_softmax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.full((48, 64, 3), 40 * number, np.uint8)).save(data / "images" / f"{number}.png")
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(data / "masks" / f"{number}.png")
    (data / "id2label.json").write_text(json.dumps({"0": "thing"}))
    recipe = write_recipe(tmp_path, {"data": {"dataset": str(data)}})
    assert run_segmentation.main([str(recipe)]) == EXIT_CODE_INPUT
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "losses.cross_entropy: it needs at least two classes" in said

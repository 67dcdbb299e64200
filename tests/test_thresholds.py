"""Thresholds that are chosen on a split: curves by hand, rules, and the command with what it writes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference_commands import find_images, read_label, refuse, write_data, write_model

from segplus.__main__ import main
from segplus.commands.thresholds import place_results
from segplus.inference.checkpoint import find_checkpoint
from segplus.inference.decision_file import DECISION_FILE
from segplus.inference.threshold_curves import OBJECT_THRESHOLDS, Curve, ThresholdCounts, find_threshold

CURVE = Curve(
    *(np.array(row, dtype=float) for row in ([0.1, 0.2, 0.3, 0.4], [9, 8, 6, 2], [20, 4, 1, 0], [1, 2, 4, 8]))
)


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("recall", 0.9, 0),
        ("recall", 0.8, 1),
        ("recall", 0.61, 1),
        ("recall", 0.1, 3),
        ("recall", 0.95, None),
        ("f_beta", 1.0, 1),  # 16 / 22 beside 12 / 17
        ("f_beta", 0.5, 2),
        ("cost", 1.0, 2),
        ("cost", 2.0, 1),
        ("cost", 100.0, 0),
    ],
)
def test_rules_on_a_curve_by_hand(rule, value, expected):
    assert find_threshold(CURVE, rule, value) == expected


def test_figures_of_a_curve():
    np.testing.assert_allclose(CURVE.recall, [0.9, 0.8, 0.6, 0.2])
    np.testing.assert_allclose(CURVE.precision, [9 / 29, 8 / 12, 6 / 7, 1])
    np.testing.assert_allclose(CURVE.score_f(2)[1], 5 * 8 / (5 * 8 + 4 * 2 + 4))
    nothing = Curve(CURVE.thresholds, np.zeros(4), CURVE.false, np.zeros(4))
    assert find_threshold(nothing, "recall", 0.5) is None
    assert np.isnan(nothing.recall).all()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "scenes", [(40, 60), (33, 47)])


def test_the_command_writes_what_every_verb_applies(model, data, tmp_path, capsys):
    checkpoint = str(shutil.copytree(model, tmp_path / "model"))
    common = ["--data.validation_share", "0", "--split", "train"]
    command = [
        "thresholds",
        checkpoint,
        str(data),
        "--for",
        "road",
        "--recall",
        "0.8",
        "-o",
        str(tmp_path / "out"),
        *common,
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    stored = json.loads((tmp_path / "model" / DECISION_FILE).read_text())
    assert stored == json.loads((tmp_path / "out" / DECISION_FILE).read_text())
    threshold, reached = stored["thresholds"]["road"], stored["chosen_on"]["reached"]["road"]
    assert f"road: from {threshold:g} on, by pixels: recall {100 * reached['recall']:.2f} %" in said
    assert main(["predict", checkpoint, str(data / "images"), "-o", str(tmp_path / "labels")]) == 0
    hits = truths = found = 0
    for name, labels in find_images(tmp_path / "labels").items():
        truth = read_label(data / "masks" / name)
        valid = truth != 255
        hits += int(((labels == 1) & (truth == 1)).sum())
        truths, found = truths + int((truth == 1).sum()), found + int(((labels == 1) & valid).sum())
    assert (hits, found - hits, truths - hits) == (reached["hits"], reached["false"], reached["missed"])
    assert hits / truths == reached["recall"] >= 0.8
    with (tmp_path / "out" / "thresholds.csv").open() as file:
        rows = list(csv.DictReader(file))
    higher = next(row for row in rows if row["by"] == "pixels" and float(row["threshold"]) > threshold)
    assert float(higher["recall"]) < 0.8
    assert sum(row["by"] == "objects" for row in rows) == len(OBJECT_THRESHOLDS)
    page = (tmp_path / "out" / "thresholds.html").read_text()
    assert page.count("<svg") == 4
    assert "http" not in page.replace("http://www.w3.org", "")
    assert main([*command[:5], "--recall", "0.9", *command[7:]]) == 0  # its own results are written over
    assert "no class 'raod'" in refuse(capsys, *command[:4], "raod", *command[5:])
    assert "--recall\n  found: 1.5" in refuse(capsys, *command[:6], "1.5", *command[7:])


def test_results_lie_in_the_checkpoints_folder_or_one_of_its_name(model, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = str(shutil.copytree(model, tmp_path / "folds" / "fold-0"))
    assert place_results(["folds"]) == Path("folds/thresholds")
    assert place_results(["someone/net"]) == Path("runs/thresholds/someone-net")
    assert place_results([checkpoint, "../b"]) == Path("runs/thresholds") / f"{checkpoint[1:].replace('/', '-')}+b"
    decision = tmp_path / "folds" / "fold-0" / DECISION_FILE
    decision.write_text('{"fallback": "sky"}')
    command = ["thresholds", "folds/fold-0", str(data), "--split", "train", "--data.validation_share", "0"]
    assert "--for sky: it is the fallback" in refuse(capsys, *command, "--for", "sky", "--cost", "2")
    assert main([*command, "--for", "road", "--for", "car", "--cost", "2"]) == 0
    written = sorted(path.name for path in Path("folds/fold-0/thresholds").iterdir())
    assert written == [DECISION_FILE, "thresholds.csv", "thresholds.html"]
    stored = json.loads(decision.read_text())
    assert stored["fallback"] == "sky"
    assert stored["thresholds"].keys() == stored["chosen_on"]["reached"].keys() == {"road", "car"}


def test_objects_are_counted_as_they_would_be_deployed(model, data):
    predictor = find_checkpoint(model).load()
    counts = ThresholdCounts(predictor, [1], 255, overlap=0.0)
    from PIL import Image

    with Image.open(data / "images" / "0.png") as image:
        pixels = image.convert("RGB")
    probabilities = predictor.predict_probabilities(pixels)
    truth = torch.full(probabilities.shape[1:], 0, dtype=torch.uint8)
    truth[2:6, 2:6] = truth[20:30, 30:50] = 1
    counts.update(pixels, truth)
    curve = counts.draw(1)["objects"]
    for position, threshold in enumerate(OBJECT_THRESHOLDS):
        guess = probabilities[1] >= threshold
        found = int(guess[2:6, 2:6].any()) + int(guess[20:30, 30:50].any())
        assert curve.hits[position] <= found  # one predicted object finds one of the truth
        assert curve.hits[position] + curve.missed[position] == 2
    assert curve.hits[0] >= 1

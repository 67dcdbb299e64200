"""The worked examples of docs/predict.md, run from the commands as printed, and a folder that is killed three times."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from launching import ROOT, TINY
from PIL import Image, ImageDraw
from test_docs_code import read_blocks
from test_inference_commands import find_images, write_model

from segplus.__main__ import main
from segplus.inference.decision_file import DECISION_FILE


def draw_parts(folder: Path, count: int, *, drawn_on: bool) -> None:
    """Write photos of grey parts with dark cracks and brown rust, and what labelme would write beside them."""
    folder.mkdir()
    rng = np.random.default_rng(count)
    for number in range(count):
        image = Image.fromarray(rng.integers(140, 180, (96, 128, 3), dtype=np.uint8))
        draw, shapes = ImageDraw.Draw(image), []
        for label, color in (("crack", (20, 20, 20)), ("rust", (150, 70, 20))):
            left, top = (int(one) for one in rng.integers(5, 60, 2))
            width, height = (50, 8) if label == "crack" else (24, 20)
            corners = [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]
            draw.polygon([tuple(corner) for corner in corners], fill=color)
            shapes.append({"label": label, "points": corners, "shape_type": "polygon"})
        name = f"{number:02}.png"
        image.save(folder / name)
        content = {"imagePath": name, "imageHeight": 96, "imageWidth": 128, "shapes": shapes}
        if drawn_on:
            (folder / f"{number:02}.json").write_text(json.dumps(content))


@pytest.mark.slow
def test_the_inspectors_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the network is a smaller one, and the training shorter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    draw_parts(tmp_path / "parts", 30, drawn_on=True)
    draw_parts(tmp_path / "belt", 5, drawn_on=False)
    page = (ROOT / "docs" / "predict.md").read_text()
    story = next(block for block in read_blocks("docs/predict.md", "bash") if block.startswith("segplus new parts"))
    assert story in page.partition("## An inspector's story")[2]
    for line in story.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
        if line.startswith("segplus new"):
            recipe = yaml.safe_load((tmp_path / "parts.yaml").read_text())
            training = {**recipe.get("training", {}), **TINY["training"], "num_train_epochs": 20, "learning_rate": 2e-3}
            recipe |= {"model": TINY["model"], "training": training}
            recipe["training"]["output_dir"] = "runs/parts"
            recipe.setdefault("transforms", {})["crop_size_px"] = [64, 64]
            (tmp_path / "parts.yaml").write_text(yaml.safe_dump(recipe))
    decision = json.loads((tmp_path / "runs" / "parts" / DECISION_FILE).read_text())
    assert decision["chosen_on"]["reached"]["crack"]["recall"] >= 0.95
    with (tmp_path / "inspected" / "areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"{number:02}.png" for number in range(5)]
    assert all(float(row["area_mm2/crack"]) == pytest.approx(int(row["area_px/crack"]) * 0.0025) for row in rows)
    assert (tmp_path / "inspected" / "index.html").read_text().count("<li data-number") == 5


@pytest.mark.slow
def test_a_folder_killed_three_times_is_whole_in_the_end(tmp_path: Path, test_data: Path) -> None:
    """CamVid's test split: 233 images."""
    model = write_model(tmp_path / "model")
    photos = test_data / "camvid" / "test" / "images"
    command = [sys.executable, "-m", "segplus", "predict", model, str(photos), "-o", str(tmp_path / "out")]
    command += ["--measure", "areas.csv", "--gallery", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for wanted in (10, 60, 120):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and len(list((tmp_path / "out").glob("*.png"))) < wanted:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        find_images(tmp_path / "out")  # each can be read
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert len(find_images(tmp_path / "out")) == 233
    with (tmp_path / "out" / "areas.csv").open() as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert len(names) == len(set(names)) == 233
    assert not list((tmp_path / "out").glob(".segplus-*.part"))

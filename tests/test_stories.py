"""The worked examples of the pages, run from the commands as printed, and a folder that is killed three times."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from launching import ROOT, TINY
from PIL import Image, ImageDraw
from test_docs_code import read_blocks
from test_inference_commands import find_images, write_model
from test_map_scale import UTM, write_geotiff

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


def draw_patients(folder: Path, patients: range, *, with_masks: bool) -> None:
    """Write two 16-bit slices a patient, noise of 400 to 1200 with a disc of 2500 to 3500, the tumour."""
    for kind in ("images", "masks") if with_masks else ("",):
        (folder / kind).mkdir(parents=True)
    y, x = np.mgrid[:48, :64]
    for patient in patients:
        rng = np.random.default_rng(patient)
        for number in range(2):
            middle, radius = rng.integers((14, 14), (34, 50)), 6 + 2 * number
            tumour = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2
            values = rng.integers(400, 1200, (48, 64)) + tumour * rng.integers(2100, 2300)
            name = f"patient_{patient:02}_s{number:02}.png"
            Image.fromarray(values.astype(np.uint16)).save(folder / ("images" if with_masks else "") / name)
            if with_masks:
                Image.fromarray(tumour.astype(np.uint8)).save(folder / "masks" / name)


def list_commands(block: str) -> list[str]:
    """Return the commands of a block of a page, those of its loop once for every value."""
    listed, values = [], [""]
    for line in block.splitlines():
        loop = re.fullmatch(r"for fold in (.*); do", line)
        if loop:
            values = loop[1].split()
        elif line == "done":
            values = [""]
        else:
            listed += [line.strip().replace("$fold", value) for value in values]
    return listed


@pytest.mark.slow
def test_the_physicians_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the network is a smaller one, and the training shorter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    draw_patients(tmp_path / "scans" / "train", range(10), with_masks=True)
    draw_patients(tmp_path / "scans" / "test", range(10, 16), with_masks=True)
    draw_patients(tmp_path / "new_scans", range(16, 18), with_masks=False)
    (tmp_path / "scans" / "id2label.json").write_text('{"0": "tissue", "1": "tumour"}')
    recipe = yaml.safe_load(read_blocks("docs/example_medical.md", "yaml")[0])
    training = {**TINY["training"], "num_train_epochs": 4, "learning_rate": 2e-3, "output_dir": "runs/scans"}
    recipe |= {"model": TINY["model"], "training": training, "transforms": {"crop_size_px": [32, 32]}}
    (tmp_path / "scans.yaml").write_text(yaml.safe_dump(recipe))
    commands = [line for block in read_blocks("docs/example_medical.md", "bash") for line in list_commands(block)]
    assert len(commands) == 9
    for line in commands:
        is_open = line.startswith("segplus inspect")  # nobody stated the range of the values yet
        assert main(shlex.split(line)[1:]) == int(is_open), line
    scores = json.loads((tmp_path / "runs" / "scans" / "ensemble" / "metrics.json").read_text())["evaluations"]["test"]
    low, high = scores["intervals"]["mean_dice"]
    assert scores["groups"] == 6
    assert 0.5 < low < scores["mean_dice"] < high <= 1
    with (tmp_path / "runs" / "scans" / "ensemble" / "per_group.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["images"]) for row in rows] == [(f"patient_{one}", "2") for one in range(10, 16)]
    found = find_images(tmp_path / "masks" / "ids")
    assert found.keys() == {f"patient_{patient}_s0{number}.png" for patient in (16, 17) for number in range(2)}
    assert all(0 < (labels == 1).mean() < 0.3 for labels in found.values())
    assert len(find_images(tmp_path / "masks" / "disagreement")) == 4


def draw_town(images: Path, masks: Path, seed: int, side: int) -> None:
    """Write a GeoTIFF of green ground with grey buildings and a blue lake, pixels of 10 cm, and its mask."""
    rng, name = np.random.default_rng(seed), f"part_{seed}.tif"
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    left, top = (int(one) for one in rng.integers(0, side // 2, 2))
    draw.ellipse([left, top, left + side // 3, top + side // 3], fill=2)
    for left, top in rng.integers(0, side - 30, (6, 2)).tolist():
        draw.rectangle([left, top, left + 29, top + 19], fill=1)
    labels = np.asarray(mask)
    pixels = np.array([[70, 120, 60], [150, 140, 140], [40, 70, 140]])[labels] + rng.integers(-25, 26, (side, side, 3))
    for folder, values in ((images, pixels.astype(np.uint8)), (masks, labels)):
        folder.mkdir(parents=True, exist_ok=True)
        write_geotiff(folder / name, values, UTM)


@pytest.mark.slow
def test_the_surveyors_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the network and the images are smaller ones, and the training shorter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    parts = {"train": (range(4), 256), "validation": (range(10, 14), 96), "test": (range(20, 21), 200)}
    for split, (seeds, side) in parts.items():
        for seed in seeds:
            draw_town(tmp_path / "town" / split / "images", tmp_path / "town" / split / "masks", seed, side)
    draw_town(tmp_path / "new_flight", tmp_path / "truth", 30, 200)
    (tmp_path / "town" / "id2label.json").write_text('{"0": "ground", "1": "building", "2": "water"}')
    recipe = yaml.safe_load(read_blocks("docs/example_aerial.md", "yaml")[0])
    recipe["model"] = {"config": TINY["model"]["config"], "image_processor": recipe["model"]["image_processor"]}
    recipe["transforms"]["crop_size_px"] = recipe["evaluation"]["protocol"]["window_px"] = [64, 64]
    recipe["training"] |= {**TINY["training"], "learning_rate": 2e-3, "max_steps": 120, "eval_steps": 60}
    (tmp_path / "town.yaml").write_text(yaml.safe_dump(recipe))
    commands = [line for block in read_blocks("docs/example_aerial.md", "bash") for line in list_commands(block)]
    assert len(commands) == 4
    for line in commands:
        assert main(shlex.split(line)[1:]) == 0, line
    for folder, overlap in (("town", 0.25), ("town_overlap", 0.5)):
        scores = json.loads((tmp_path / "runs" / folder / "metrics.json").read_text())["evaluations"]["test"]
        assert (scores["protocol"]["name"], scores["protocol"]["overlap"]) == ("sliding", overlap)
        assert scores["mean_iou"] > 0.7
    with (tmp_path / "land" / "areas.csv").open() as file:
        (row,) = csv.DictReader(file)
    truth = tifffile.imread(tmp_path / "truth" / "part_30.tif")
    found = find_images(tmp_path / "land" / "ids")["part_30.png"]
    assert found.shape == truth.shape == (200, 200)
    for number, name in enumerate(("ground", "building", "water")):
        assert float(row[f"area_m2/{name}"]) == pytest.approx((found == number).sum() * 0.01)
        assert float(row[f"area_m2/{name}"]) == pytest.approx((truth == number).sum() * 0.01, rel=0.3)


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

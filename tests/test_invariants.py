"""What must hold on every path: a perfect prediction scores exactly 1, with two processes, void ids and odd sizes."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import perfect
import pytest
from launching import build_launcher

SIZES = [(37, 53), (41, 29), (16, 61), (53, 37), (29, 41), (31, 47)]
RUN = Path(__file__).with_name("perfect_run.py")


def run_perfect(folder: Path, encoding: str, processes: int, count: int = 5) -> dict:
    """Score the perfect model on pairs of odd sizes; three of the six pairs are the validation split."""
    perfect.write_images(folder / "data", SIZES, count, kind=encoding)
    output = folder / "output"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SEGPLUS_CACHE": str(folder / "cache")}
    command = [*build_launcher(processes), str(RUN), str(folder / "data"), str(output), encoding, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / "scores.json").read_text())


def assert_perfect(scores: dict, images: int, processes: int) -> None:
    assert scores["processes"] == processes
    assert scores["images"] == images
    for key in ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_dice", "frequency_weighted_iou"):
        assert scores["trainer"][f"eval_{key}"] == 1.0
    for name, served in scores["served"].items():
        assert served["images"] == images, name
        for key, value in served.items():
            if key.startswith(("mean_", "overall_", "frequency_", "per_image_", "surface_dice")):
                assert value == 1.0, (name, key)
        assert served["hausdorff_95"] == 0.0
        assert set(served["trimap_iou"].values()) == {1.0}
        intervals = [served["intervals"][key] for key in served["intervals"] if key != "per_category_iou"]
        assert all(interval in ([1.0, 1.0], [None, None]) or math.isnan(interval[0]) for interval in intervals)
        assert all(value == 1.0 for value in served["per_category_iou"] if not math.isnan(value))


@pytest.mark.parametrize(
    "encoding", ["reduced", pytest.param("void", marks=pytest.mark.slow), pytest.param("ids", marks=pytest.mark.slow)]
)
def test_a_perfect_prediction_scores_exactly_one(tmp_path: Path, encoding: str) -> None:
    assert_perfect(run_perfect(tmp_path, encoding, processes=1), images=3, processes=1)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["reduced", "void"])
def test_two_processes_score_a_perfect_prediction_exactly_one(tmp_path: Path, encoding: str) -> None:
    assert_perfect(run_perfect(tmp_path, encoding, processes=2), images=3, processes=2)

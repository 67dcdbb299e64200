"""What a person sees while a model trains: the panel and the scalars in TensorBoard, and the lines of the log."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from launching import write_recipe
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import run_segmentation
from segplus.data import load_segmentation_dataset
from segplus.recipe import load_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of five steps on ten drawn scenes, each followed by an evaluation; what was said lies in said.txt."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPLUS_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        said = io.StringIO()
        patch.setattr("sys.stdout", said)
        # Fast enough for the prediction to change between the two evaluations.
        recipe = write_recipe(folder, {"training": {"learning_rate": 2e-2}})
        assert run_segmentation.main([str(recipe)]) == 0
    (folder / "run" / "said.txt").write_text(said.getvalue())
    return folder / "run"


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "logs"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def read_history(run: Path) -> list[dict[str, float]]:
    history: list[dict[str, float]] = json.loads((run / "checkpoint-10" / "trainer_state.json").read_text())[
        "log_history"
    ]
    return [entry for entry in history if "eval_mean_iou" in entry]


def test_the_panel_is_drawn_at_every_evaluation(events: EventAccumulator) -> None:
    panels = events.Images("validation")
    assert [panel.step for panel in panels] == [5, 10]
    images = [np.array(Image.open(io.BytesIO(panel.encoded_image_string))) for panel in panels]
    assert images[0].shape == images[1].shape
    height, width, channels = images[0].shape
    assert (width, channels) == (4 * 320 + 3 * 8 + 2 * 14, 3)
    # The same photographs and truths at both steps: only predictions and errors change.
    left = slice(None), slice(0, 14 + 2 * 320 + 8)
    drawn = height - 60  # without the legend, which names the classes that occur
    np.testing.assert_array_equal(images[0][:drawn][left], images[1][:drawn][left])
    assert (images[0][:drawn, width // 2 :] != images[1][:drawn, width // 2 :]).any()


def test_the_iou_of_each_class_is_a_scalar(run: Path, events: EventAccumulator) -> None:
    names = load_segmentation_dataset(load_recipe(run.parent / "recipe.yaml").data).classes.names
    tags = {tag.removeprefix("eval/iou/") for tag in events.Tags()["scalars"] if tag.startswith("eval/iou/")}
    history = read_history(run)
    present = {key.removeprefix("eval_iou/") for entry in history for key in entry if key.startswith("eval_iou/")}
    assert tags == present <= set(names)
    assert len(tags) >= 5
    for name in tags:
        seen = [(scalar.step, scalar.value) for scalar in events.Scalars(f"eval/iou/{name}")]
        logged = [(entry["step"], entry[f"eval_iou/{name}"]) for entry in history if f"eval_iou/{name}" in entry]
        assert seen == [(step, pytest.approx(value, abs=1e-6)) for step, value in logged]
    means = [scalar.value for scalar in events.Scalars("eval/mean_iou")]
    assert means == pytest.approx([entry["eval_mean_iou"] for entry in history], abs=1e-6)


def test_one_line_names_the_best_and_the_worst_class(run: Path) -> None:
    lines = [line for line in (run / "said.txt").read_text().splitlines() if line.startswith("evaluation")]
    history = read_history(run)
    assert len(lines) == len(history) == 2
    for line, entry in zip(lines, history, strict=True):
        iou = {key.removeprefix("eval_iou/"): value for key, value in entry.items() if key.startswith("eval_iou/")}
        best, worst = max(iou.values()), min(iou.values())
        found = re.search(r"best class (.+) \(IoU ([\d.]+) %\), worst (.+) \(([\d.]+) %\)$", line)
        assert found is not None, line
        assert iou[found[1]] == best
        assert float(found[2]) == pytest.approx(100 * best, abs=0.051)
        assert iou[found[3]] == worst
        assert float(found[4]) == pytest.approx(100 * worst, abs=0.051)
        assert f"mIoU {100 * entry['eval_mean_iou']:.2f} %" in line

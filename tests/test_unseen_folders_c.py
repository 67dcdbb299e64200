"""Ten folders of public data sets and tools, as they are unpacked: those that plain `segplus inspect` reads right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from launching import TINY
from unseen_folders_c import FOLDERS, Truth

from segplus.__main__ import main
from segplus.data import load_segmentation_dataset

# The other five became right only once they had been seen.
RIGHT = [
    "KolektorSDD2", "mapillary-vistas-dataset_public_v1.2", "airbus-ship-detection",
    "task_bridge_segmentation_mask", "TACO",
    "cholecseg8k", "Warwick_QU_Dataset", "Dataset_BUSI_with_GT", "IDD_Segmentation", "LoveDA",
]  # fmt: skip
# What a person answers to the question which of several kinds of masks are meant.
ANSWERS = {"cholecseg8k": {"image_pattern": r"^(.*)(?<!_mask)\.png$", "mask_pattern": r"^(.*)_watershed_mask\.png$"}}
VOID_PX = {"IDD_Segmentation": {"train": 12 * 300, "validation": 8 * 300}}  # the car itself, 255
SPLITS = {"training": "train", "val": "validation"}


def count_pixels(section: dict) -> tuple[dict[str, list[int]], list[str]]:
    """Return the pixels of each class id of each split of a data section, the ignored ones last, and the names."""
    data = load_segmentation_dataset(section)
    names = data.classes.names
    counts = {}
    for split, pairs in data.splits.items():
        sums = sum(np.bincount(np.asarray(pair["label"]).ravel(), minlength=256) for pair in pairs)
        counts[split] = [*sums[: len(names)].tolist(), int(sums[len(names) :].sum())]
    return counts, names


def expect_pixels(truth: Truth) -> dict[str, list[int]]:
    """Return what `count_pixels` should find where no pixel is ignored."""
    lower = {split.lower(): classes for split, classes in truth.items()}
    return {SPLITS.get(split, split): [*classes.values(), 0] for split, classes in lower.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
@pytest.mark.parametrize("name", RIGHT)
def test_the_proposal_reads_every_pixel_right_and_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    truth = FOLDERS[name](tmp_path / name)
    answers = [word for key, value in ANSWERS.get(name, {}).items() for word in (f"--data.{key}", value)]
    assert main(["inspect", str(tmp_path / name), "--json", "-q", *answers]) == 0
    recipe = yaml.safe_load(json.loads(capsys.readouterr().out)["recipe"])
    found, names = count_pixels(recipe["data"])
    expected = expect_pixels(truth)
    for split, pixels in VOID_PX.get(name, {}).items():
        expected[split][-1] = pixels
    if "validation" not in expected:  # it was drawn from the training split
        found["train"] = np.add(found["train"], found.pop("validation")).tolist()
    assert found == expected
    if name in ("task_bridge_segmentation_mask", "TACO"):  # the names lie beside the masks
        assert list(names) == list(truth["train"])
    steps = {**TINY["training"], "output_dir": str(tmp_path / "run"), "max_steps": 2}
    recipe |= {"model": {**recipe["model"], "config": TINY["model"]["config"]}, "training": steps}
    del recipe["model"]["checkpoint"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", str(tmp_path / "recipe.yaml"), "-q"]) == 0
    assert json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2

"""Folders nobody prepared for segplus: what plain `segplus inspect` prints is saved, counts exactly, and trains."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from launching import TINY
from unseen_folders import FOLDERS, Truth

from segplus.__main__ import main
from segplus.data import load_segmentation_dataset
from segplus.recipe import load_recipe

pytestmark = pytest.mark.slow
HEADING = "A recipe that fits:\n"
# What makes two steps cheap, and nothing that says what the data mean; the proposed checkpoint would be downloaded.
CHEAP = {key: TINY["training"][key] for key in ("per_device_train_batch_size", "bf16", "dataloader_num_workers")} | {
    "output_dir": "run",
    "max_steps": 2,
    "report_to": "none",
}


def inspect(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what inspect says of a folder; where it prints lines instead of a recipe, once more with these lines."""
    main(["inspect", name, "--quiet"])
    said = capsys.readouterr().out
    if HEADING not in said:
        lines = re.findall(r"fix: set (data\.\w+): (.+)", said)
        assert lines, f"neither a recipe nor lines for one:\n{said}"
        main(["inspect", name, "--quiet", *(word for key, value in lines for word in (f"--{key}", value))])
        said = capsys.readouterr().out
    assert HEADING in said, f"no recipe, with the lines that were printed:\n{said}"
    return said


def save_recipe(said: str, truth: Truth) -> Path:
    """Save the recipe as it is printed, with the owner's names where it had to invent some."""
    text = textwrap.dedent(said.partition(HEADING)[2])
    for invented, name in truth.answers.items():
        text = re.sub(rf"\b{re.escape(invented)}\b", name, text)
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return Path("recipe.yaml")


def count_pixels(recipe: Path) -> dict[str, dict[str, int]]:
    """Return the pixels of each class that has any, split by split; what is ignored is counted under `ignored`."""
    data = load_segmentation_dataset(load_recipe(recipe).data)
    counted = {}
    for split, pairs in data.splits.items():
        labels = np.concatenate([np.asarray(pairs[index]["label"]).ravel() for index in range(len(pairs))])
        values, pixels = np.unique(labels, return_counts=True)
        names = [data.classes.names[value] if value < data.classes.num_classes else "ignored" for value in values]
        counted[split] = dict(zip(names, pixels.tolist(), strict=True))
    return counted


def join_splits(counted: dict[str, dict[str, int]], truth: Truth) -> dict[str, dict[str, int]]:
    """Add up the splits that the folder does not have itself: a share of its training images became them."""
    joined: dict[str, dict[str, int]] = {}
    for split, pixels in counted.items():
        sums = joined.setdefault(split if split in truth.pixels else next(iter(truth.pixels)), {})
        for name, count in pixels.items():
            sums[name] = sums.get(name, 0) + count
    return joined


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
@pytest.mark.parametrize("name", FOLDERS)
def test_the_printed_recipe_counts_exactly_and_trains_two_steps(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    truth = FOLDERS[name](tmp_path / name)
    recipe = save_recipe(inspect(name, capsys), truth)
    expected = {split: dict(zip(truth.names, pixels.tolist(), strict=True)) for split, pixels in truth.pixels.items()}
    assert join_splits(count_pixels(recipe), truth) == expected
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    del values["model"]["checkpoint"]
    values["model"]["config"] = TINY["model"]["config"]
    values["training"] = values.get("training", {}) | CHEAP
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert main(["train", "recipe.yaml", "--quiet"]) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "model.safetensors").is_file()

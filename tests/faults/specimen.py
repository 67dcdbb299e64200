"""The tiny data set and the tiny trained run that every fault is a damaged copy of."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SIZE = (32, 48)
NAMES = {"0": "ground", "1": "thing"}
RECIPE: dict[str, Any] = {
    "data": {"dataset": "data", "validation_share": 0.5},
    "model": {
        "config": {
            "model_type": "segformer",
            "hidden_sizes": [4, 4, 8, 8],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 8,
            "num_attention_heads": [1, 1, 2, 2],
        },
        "image_processor": {"size": {"height": 32, "width": 48}},
    },
    "transforms": {"preset": "none", "crop_size_px": [32, 32]},
    "training": {
        "output_dir": "out/run",
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "bf16": False,
        "dataloader_num_workers": 0,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
    },
    "evaluation": {"bootstrap_resamples": 0},
}
SAVING = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None}


@dataclass(frozen=True)
class Place:
    """A fault's own folder, into which copies of the specimen are put.

    Args:
        folder: Empty at first; the command runs in it.
        specimen: From `build_specimen`.
    """

    folder: Path
    specimen: Path

    def put_data(self) -> Path:
        """Copy the data set to data/."""
        return Path(shutil.copytree(self.specimen / "data", self.folder / "data"))

    def put_model(self, name: str = "model", with_manifest: bool = True) -> Path:
        """Copy the finished run, without its checkpoints; without a manifest it is as others save and edit models."""
        manifest = () if with_manifest else ("*manifest*",)
        skipped = shutil.ignore_patterns("checkpoint-*", "pictures", "images", "report.html", *manifest)
        return Path(shutil.copytree(self.specimen / "out" / "run", self.folder / name, ignore=skipped))

    def put_run(self) -> Path:
        """Copy the run as it was when its process died after step 2 of 3: checkpoints, and no final model."""
        target = self.folder / "out" / "run"
        shutil.copytree(self.specimen / "died" / "out" / "run", target)
        return target

    def put_resumable_recipe(self) -> None:
        """Copy the recipe whose command continues the run of `put_run`."""
        shutil.copy(self.specimen / "died" / "recipe.yaml", self.folder / "recipe.yaml")

    def put_recipe(self, changes: dict[str, Any] | None = None) -> Path:
        """Write the tiny recipe with values at dotted keys; a value of `...` removes the key."""
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(change_recipe(changes or {})), encoding="utf-8")
        return path


def change_recipe(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the tiny recipe with values at dotted keys."""
    values = copy.deepcopy(RECIPE)
    for dotted, value in changes.items():
        *sections, leaf = dotted.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        if value is ...:
            inner.pop(leaf, None)
        else:
            inner[leaf] = value
    return values


def write_data(folder: Path, pairs: int = 4, seed: int = 0) -> Path:
    """Write a data set of two classes, ids 0 and 1, in images/ and masks/ with id2label.json."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(seed)
    for number in range(pairs):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.jpg")
        Image.fromarray(rng.integers(0, 2, SIZE, dtype=np.uint8)).save(folder / "masks" / f"{number}.png")
    (folder / "id2label.json").write_text(json.dumps(NAMES))
    return folder


def build_specimen(folder: Path) -> Path:
    """Write the data set and train the tiny model on it; needs no network and some seconds."""
    from segplus.commands.train import main

    write_data(folder / "data")
    before = Path.cwd()
    try:
        for place, steps in ((folder, 2), (folder / "died", 3)):
            place.mkdir(parents=True, exist_ok=True)
            os.chdir(place)
            if not Path("data").exists():
                shutil.copytree(folder / "data", "data")
            values = change_recipe({f"training.{key}": value for key, value in SAVING.items()})
            values["training"]["max_steps"] = steps
            Path("recipe.yaml").write_text(yaml.safe_dump(values))
            assert main(["recipe.yaml"]) == 0
    finally:
        os.chdir(before)
    _forget_the_end(folder / "died" / "out" / "run")
    return folder


def _forget_the_end(run: Path) -> None:
    """Leave what lay there when a run of three steps died after the second."""
    for path in run.iterdir():
        if path.name in ("checkpoint-1", "checkpoint-2", "recipe.yaml"):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()

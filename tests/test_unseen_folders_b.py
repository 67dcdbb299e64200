"""Folders of other people's making: what plain `segplus inspect` proposes counts exactly, and trains two steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import unseen_folders_b as unseen
import yaml

from segplus.__main__ import main
from segplus.data import load_segmentation_dataset

READ = {  # what is read right, and the question that is asked with it, if any
    unseen.write_commutators: "what are the two classes called? background and foreground stand in",
    unseen.write_glands: "what are the two classes called? background and object stand in",
    unseen.write_land_cover: "what are these classes called?",
    unseen.write_dashcam: "what are these classes called?",
    unseen.write_optic_discs: "what are these classes called?",
    unseen.write_rosettes: "which masks are meant, _label, _centers, _fg? data.mask_pattern takes one kind. And",
    unseen.write_drones: None,
    unseen.write_rf_masks: None,
    unseen.write_video_masks: None,
    unseen.write_cars: "which layout is meant, run_lengths (train_masks.csv); folders (train + train_masks)?",
}


@pytest.mark.slow
@pytest.mark.parametrize("write", READ, ids=lambda write: write.__name__.removeprefix("write_"))
def test_the_proposed_recipe_counts_every_pixel_and_trains(
    write: unseen.Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    truth = write(tmp_path / "data")

    assert main(["inspect", str(tmp_path / "data"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)

    assert not [finding for finding in answer["findings"] if finding["level"] == "error"]
    question = READ[write]
    assert not answer["question"] if question is None else answer["question"].startswith(question)
    recipe = yaml.safe_load(answer["recipe"])
    data = load_segmentation_dataset(recipe["data"])
    void = recipe["data"].get("void", [])  # "unlabeled", which the truth counts as a class
    if truth.names is not None:
        kept = [position for position, name in enumerate(truth.names) if name not in void]
        assert list(data.classes.names) == [truth.names[position] for position in kept]
        truth.pixels = {split: counts[kept] for split, counts in truth.pixels.items()}
    classes = len(data.classes.names)
    found: dict[str, np.ndarray] = {}
    for split, pairs in data.splits.items():
        key = "all" if "all" in truth.pixels else split
        for pair in pairs:
            label = np.asarray(pair["label"])
            label = label[label < classes]
            found[key] = found.get(key, np.zeros(classes, int)) + np.bincount(label.ravel(), minlength=classes)
    assert {split: counts.tolist() for split, counts in found.items()} == {
        split: counts.tolist() for split, counts in truth.pixels.items()
    }

    tiny_model.build_model().save_pretrained(tmp_path / "model")
    recipe["model"]["checkpoint"] = str(tmp_path / "model")
    recipe["training"] = {"output_dir": str(tmp_path / "run"), "max_steps": 2, "report_to": "none"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert main(["train", str(tmp_path / "recipe.yaml"), "--quiet"]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()

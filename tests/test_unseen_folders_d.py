"""Folders of data sets, tools and competitions: the recipe that inspect prints counts every pixel right and trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from proposed_recipes import propose, train_two_steps
from unseen_folders_d import Truth, make_folder

from segplus.data import load_segmentation_dataset

RIGHT = [
    "kitti", "paddleseg", "lgg", "nnunet", "cellpose", "label_studio", "labelme2voc", "deepglobe", "arcgis", "clouds",
]  # fmt: skip
STAND_INS = {"foreground", "object"}


def compare_pairs(section: dict[str, Any], truth: Truth) -> dict[int, str]:
    """Return the name of the class that each true value became, the same in every image; splits hold their images."""
    _, splits, ignored = truth
    data = load_segmentation_dataset(section)
    names: dict[int, str] = {}
    met = {split: [pair["name"] for pair in pairs] for split, pairs in data.splits.items()}
    drawn = [] if "validation" in splits else met.pop("validation")
    assert {split: len(found) + len(drawn) * (split == "train") for split, found in met.items()} == {
        split: len(labels) for split, labels in splits.items()
    }
    for split, pairs in data.splits.items():
        labels = splits.get(split, splits["train"])
        for pair in pairs:
            (stem,) = [stem for stem in labels if stem in pair["name"]]
            found = np.asarray(pair["label"])
            for value in np.unique(labels[stem]).tolist():
                (ids,) = np.unique(found[labels[stem] == value]).tolist()
                assert ids != 255 or value in (ignored, 255)
                name = "ignored" if ids == 255 else data.classes.names[ids]
                assert names.setdefault(value, name) == name
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
@pytest.mark.parametrize("name", RIGHT)
def test_the_printed_recipe_is_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    truth = make_folder(name, tmp_path / name)
    proposed = propose(name)
    names = compare_pairs(proposed["data"], truth)
    assert len(set(names.values())) == len(names)
    for value, found in names.items():
        assert found in {truth[0].get(value), "ignored", f"value {value}", *STAND_INS}
    train_two_steps(proposed)

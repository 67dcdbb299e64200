"""A split becomes a table of the `datasets` library that reads back as the same split."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest

from segplus.data import load_segmentation_dataset


def test_a_split_becomes_a_dataset_that_holds_the_same_pixels_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = load_segmentation_dataset(
        {"dataset": "synthetic", "synthetic_size_px": [24, 32], "synthetic_images": {"train": 3, "validation": 2}}
    )
    split = data.splits["train"]
    table = split.to_dataset()
    assert isinstance(table.features["image"], datasets.Image)
    assert table.features["classes"].feature.names == list(data.classes.names)
    assert table["name"][:] == split.names
    datasets.DatasetDict({"train": table, "validation": data.splits["validation"].to_dataset()}).save_to_disk(
        tmp_path / "saved"
    )
    again = load_segmentation_dataset({"dataset": str(tmp_path / "saved"), "void": [255]})
    assert again.classes.names == data.classes.names
    for before, after in zip(split, again.splits["train"], strict=True):
        assert np.array_equal(np.asarray(before["image"]), np.asarray(after["image"]))
        assert np.array_equal(before["label"], after["label"])

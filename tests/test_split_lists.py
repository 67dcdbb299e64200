"""train.txt, val.txt and test.txt beside images and masks: the splits are theirs, whatever form a line has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segplus.data import load_segmentation_dataset
from segplus.data.loading import read_source
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

SPLITS = {"train": range(5), "val": range(5, 7), "test": range(7, 9)}


def make_pairs(root: Path) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(9):
        image = np.full((8, 8, 3), 20 * number, np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number}.jpg")
        Image.fromarray((image[..., 0] > 60).astype(np.uint8)).save(root / "masks" / f"{number}.png")


def read_splits(root: Path) -> dict[str, list[str]]:
    data = load_segmentation_dataset({"dataset": str(root), "classes": ["low", "high"]})
    return {split: [pairs.name(index) for index in range(len(pairs))] for split, pairs in data.splits.items()}


@pytest.mark.parametrize("folder", [".", "splits", "ImageSets/Segmentation"])
@pytest.mark.parametrize(
    "line", ["images/{n}.jpg masks/{n}.png", "{n}", "/data/old/{n}.jpg,{n}.png", "images\\{n}.jpg\r"]
)
def test_lists_are_the_splits(folder: str, line: str, tmp_path: Path) -> None:
    make_pairs(tmp_path)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for split, numbers in SPLITS.items():
        lines = "\n".join(line.format(n=number) for number in numbers)
        (tmp_path / folder / f"{split}.txt").write_text(lines + "\n", encoding="utf-8")
    (tmp_path / folder / "trainval.txt").write_text("0\n5\n", encoding="utf-8")
    expected = {name: [str(number) for number in numbers] for name, numbers in SPLITS.items()}
    assert read_splits(tmp_path) == {
        "train": expected["train"],
        "validation": expected["val"],
        "test": expected["test"],
    }


def test_pairs_in_no_list_are_trained_on_where_no_list_is_for_training(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    (tmp_path / "valid.txt").write_text("1.jpg\n4.jpg\n", encoding="utf-8")
    assert read_splits(tmp_path) == {"validation": ["1", "4"], "train": ["0", "2", "3", "5", "6", "7", "8"]}
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "train.txt").write_text("7\n8\n", encoding="utf-8")
    (tmp_path / "splits" / "val.txt").write_text("0\n", encoding="utf-8")
    assert read_splits(tmp_path) == {"train": ["7", "8"], "validation": ["0"]}


def test_a_text_that_lists_something_else_divides_nothing(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    (tmp_path / "train.txt").write_text("learning rate 0.1\n", encoding="utf-8")
    assert sum(map(len, read_splits(tmp_path).values())) == 9
    assert read_source(DataRecipe(dataset=str(tmp_path))).notes[-1] == "train.txt names none of the pairs, not read"


def test_a_stem_that_two_images_have_divides_nothing_and_is_said(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder / "b").mkdir()
        for path in list((tmp_path / folder).glob("0.*")):
            (tmp_path / folder / "b" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "train.txt").write_text("0\n1\n", encoding="utf-8")
    source = read_source(DataRecipe(dataset=str(tmp_path)))
    assert len(source.splits["train"]) == 10
    assert source.notes[-1] == "train.txt not read: images of several folders share a name"


def test_names_with_spaces(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    for path in [*tmp_path.glob("images/0.*"), *tmp_path.glob("masks/0.*")]:
        path.rename(path.with_stem("first one"))
    (tmp_path / "train.txt").write_text("images/first one.jpg\n1\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("2\n", encoding="utf-8")
    assert sorted(read_splits(tmp_path)["train"]) == ["1", "first one"]


def test_pairs_in_no_list_are_left_out(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    (tmp_path / "train.txt").write_text("0\n1\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("2\n", encoding="utf-8")
    assert read_splits(tmp_path) == {"train": ["0", "1"], "validation": ["2"]}
    assert read_source(DataRecipe(dataset=str(tmp_path))).notes[-1] == "6 pairs are in no list, left out"


def test_what_lists_cannot_mean_is_refused(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    (tmp_path / "train.txt").write_text("0\n1\n99\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"train.txt: lists images that have no pair\n  found: 1 of 3: 99"):
        read_splits(tmp_path)
    (tmp_path / "train.txt").write_text("0\n1\n2\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("2\n3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"name an image twice\n  found: 2, in train.txt, val.txt"):
        read_splits(tmp_path)

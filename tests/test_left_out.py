"""Splits under many names, folders that are not read, names of images and masks that differ: nothing is left unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layout_specimens import count, draw_ids, save_image, save_mask, whole

from segplus.data import load_segmentation_dataset
from segplus.errors import InputError


def write_split(folder: Path, things: int, images: str = "images", masks: str = "masks") -> None:
    save_image(folder / images / "a.png")
    save_mask(folder / masks / "a.png", draw_ids(things))


def find_splits(section: dict[str, Any]) -> dict[str, list[str]]:
    return {name: split.names for name, split in load_segmentation_dataset(section).splits.items()}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train_val", None, "TEST"),
        ("TrainVal", None, "testing"),
        ("Training", "validate", "test"),
        ("trn", "DEV", None),
    ],
)
def test_folders_of_splits_have_many_names(
    tmp_path: Path, train: str, validation: str | None, test: str | None
) -> None:
    folders = {"train": train, "validation": validation, "test": test}
    for things, folder in enumerate(filter(None, folders.values()), start=1):
        write_split(tmp_path / folder, things)
    section = whole(tmp_path)
    assert list(find_splits(section)) == [split for split, folder in folders.items() if folder]
    assert count(section) == [23, 1, 0]
    assert count(section, list(find_splits(section))[-1])[1] > 1
    template = whole(tmp_path, images="{split}/images", masks="{split}/masks")
    assert find_splits(template) == find_splits(section)


def test_training_images_alone_come_before_those_joined_with_validation(tmp_path: Path) -> None:
    for things, folder in enumerate(("train", "trainval", "val"), start=1):
        write_split(tmp_path / folder, things)
    assert count(whole(tmp_path)) == [23, 1, 0]
    assert "not used: trainval" in load_segmentation_dataset(whole(tmp_path)).found[-1]


def test_a_folder_with_pairs_beside_those_that_were_read_is_asked_about(tmp_path: Path) -> None:
    write_split(tmp_path / "TEST", 1)
    write_split(tmp_path / "pool_a", 4)
    section = whole(tmp_path)
    with pytest.raises(InputError, match=r"is not read\n  found: pool_a, beside TEST(?s:.*)data.train_split: pool_a"):
        load_segmentation_dataset(section)
    assert count(section | {"train_split": "pool_a"}) == [20, 4, 0]
    assert count(section | {"train_split": "pool_a"}, "test") == [23, 1, 0]
    section |= {"layout": "folders"}
    assert "not read: pool_a, which hold pairs" in load_segmentation_dataset(section).found


def test_pairs_above_a_split_are_asked_about(tmp_path: Path) -> None:
    write_split(tmp_path, 3)
    write_split(tmp_path / "test", 1)
    with pytest.raises(InputError, match=r"is not read\n  found: images, beside test"):
        load_segmentation_dataset(whole(tmp_path))


@pytest.mark.parametrize("folder", ["{}/images", "images/{}", "{}/case_1/img"])
def test_a_split_of_images_without_masks_is_left_out_and_named(tmp_path: Path, folder: str) -> None:
    write_split(
        tmp_path, 2, folder.format("train"), folder.format("train").replace("images", "masks").replace("img", "gt")
    )
    if "case" in folder:
        write_split(tmp_path / "train" / "case_2", 3, "img", "gt")
    save_image(tmp_path / folder.format("test") / "b.png")
    found = load_segmentation_dataset(whole(tmp_path))
    assert list(found.splits) == ["train"]
    assert "test: images and no masks, left out" in found.found
    assert count(whole(tmp_path))[1] == (5 if "case" in folder else 2)


def test_a_competitions_stage_without_masks_is_named(tmp_path: Path) -> None:
    for case in ("a1", "b2"):
        save_image(tmp_path / "stage1_train" / case / "images" / f"{case}.png")
        save_image(tmp_path / "stage1_test" / f"{case}x" / "images" / f"{case}x.png")
        for number in (1, 2):
            save_mask(tmp_path / "stage1_train" / case / "masks" / f"{number}{case}.png", draw_ids(0, 0))
    found = load_segmentation_dataset({"dataset": str(tmp_path), "validation_share": 0.0})
    assert found.splits["train"].names == ["a1", "b2"]
    assert "not read: stage1_test, which hold images and no masks" in found.found


def test_training_images_without_masks_are_an_error(tmp_path: Path) -> None:
    write_split(tmp_path / "test", 2)
    save_image(tmp_path / "train" / "images" / "b.png")
    with pytest.raises(InputError, match="a split has images and no masks"):
        load_segmentation_dataset(whole(tmp_path))


@pytest.mark.parametrize(
    ("images", "masks"), [("img", "seg"), ("rgb", "labels"), ("Image", "gt"), ("photos", "annotations")]
)
@pytest.mark.parametrize("ending", ["", "_seg"])
def test_folders_in_the_folder_of_a_patient(tmp_path: Path, images: str, masks: str, ending: str) -> None:
    for patient in ("pat002", "pat005"):
        for number in (1, 2):
            save_image(tmp_path / patient / images / f"x_{number}.png")
            save_mask(tmp_path / patient / masks / f"x_{number}{ending}.png", draw_ids(number))
    assert count(whole(tmp_path)) == [4 * 24 - 6, 6, 0]


def test_the_level_below_stands_in_the_patterns_of_a_recipe(tmp_path: Path) -> None:
    for parcel in ("p1", "p2"):
        save_image(tmp_path / "survey [1]" / parcel / "rgb.png")
        save_mask(tmp_path / "survey [1]" / parcel / "labels.png", draw_ids(2))
    (tmp_path / "survey [1]" / "names.txt").write_text("ground\nthing\n")
    (tmp_path / "__MACOSX" / "survey [1]").mkdir(parents=True)
    stated = {"images": "survey [1]/*/rgb.png", "masks": "survey [1]/*/labels.png", "classes": "names.txt"}
    assert find_splits(whole(tmp_path, **stated)) == {"train": ["p1", "p2"]}
    assert find_splits(whole(tmp_path)) == {"train": ["p1", "p2"]}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}_img", "{}_masks"),
        ("{}_image", "{}_label"),
        ("{}_rgb", "{}_seg"),
        ("img_{}", "mask_{}"),
        ("{}-sat", "{}-gt"),
    ],
)
def test_both_names_have_an_ending(tmp_path: Path, image: str, mask: str) -> None:
    for number in (1, 2, 3):
        save_image(tmp_path / f"{image.format(f'00{number}')}.png")
        save_mask(tmp_path / f"{mask.format(f'00{number}')}.png", draw_ids(number))
    assert count(whole(tmp_path)) == [3 * 24 - 6, 6, 0]


def test_patterns_that_fit_are_printed_where_files_do_not_pair(tmp_path: Path) -> None:
    for number in range(4):
        save_image(tmp_path / f"00{number}_shot.tif")
        save_mask(tmp_path / f"00{number}_seg.png", draw_ids(number))
    (tmp_path / "003_seg.png").unlink()
    lines = {"image_pattern": r"^(.*)_shot\.tif$", "mask_pattern": r"^(.*)_seg\.png$"}
    with pytest.raises(InputError) as refused:
        load_segmentation_dataset(whole(tmp_path))
    assert refused.value.fix == "set " + " and ".join(f"data.{key}: '{line}'" for key, line in lines.items())
    (tmp_path / "003_shot.tif").unlink()
    assert count(whole(tmp_path, **lines)) == [3 * 24 - 3, 3, 0]


def test_many_folders_that_could_be_the_data_set_are_not_listed(tmp_path: Path) -> None:
    for number in range(6):
        write_split(tmp_path / f"case{number}", 1, "images" if number else "photos")
    with pytest.raises(InputError, match=r"found: case0, case1, case2 and 3 more\n(?s:.*)data.masks: '\*/masks'"):
        load_segmentation_dataset(whole(tmp_path))

"""Folders as people leave them: what inspect reads, proposes or asks, each on a small specimen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from layout_specimens import count, draw_ids, save_image, save_mask, whole
from PIL import Image

from segplus.commands.proposing import audit_for_training
from segplus.data import load_segmentation_dataset
from segplus.data.checking import check_splits
from segplus.data.decoding.polygons import fill_runs
from segplus.errors import InputError
from segplus.inspection.measurements import compare_edges, reduce_colors, reduce_to_grey
from segplus.recipe.data_section import DataRecipe

SIZE_PX = (32, 48)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


def inspect_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the data section that is proposed, and the report; no error is found."""
    report = audit_for_training(DataRecipe(dataset=str(folder))).report
    assert not [finding for finding in report["findings"] if finding["level"] == "error"]
    return yaml.safe_load(report["recipe"])["data"], report


def number_things(things: int) -> np.ndarray:
    """Return a mask of so many squares, numbered from 1."""
    ids = np.zeros(SIZE_PX, dtype=np.uint8)
    for number in range(things):
        row, column = divmod(number, 4)
        ids[2 + 10 * row : 10 + 10 * row, 2 + 11 * column : 10 + 11 * column] = number + 1
    return ids


def photograph(path: Path, seed: int, size_px: tuple[int, int] = SIZE_PX) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_px, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("has_palette", [False, True])
def test_a_few_numbers_of_things_are_no_classes(tmp_path: Path, has_palette: bool) -> None:
    for index, things in enumerate((2, 5, 3, 6, 4, 5)):
        photograph(tmp_path / "images" / f"{index}.png", index)
        mask = Image.fromarray(number_things(things))
        if has_palette:
            mask.putpalette([0, 0, 0, *range(60, 120), *[9] * 705])
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{index}.png")
    data, report = inspect_folder(tmp_path)
    assert (data["classes"], data["encoding"], data["threshold"]) == (["background", "object"], "binary", 1)
    assert "values 1 to 6 without gaps, each one connected piece in 6 masks" in report["reasons"][0]
    assert sum(split["pixel_counts"]["object"] for split in report["splits"].values()) == 64 * 25


def test_numbers_that_may_be_classes_are_asked_about(tmp_path: Path) -> None:
    for index, things in enumerate((1, 2, 2, 1, 2, 2)):
        photograph(tmp_path / "images" / f"{index}.png", index)
        save_mask(tmp_path / "masks" / f"{index}.png", number_things(things))
    data, report = inspect_folder(tmp_path)
    assert data["classes"] == {0: "value 0", 1: "value 1", 2: "value 2"}
    assert report["question"].startswith("are 0, 1, 2 classes, or numbers of things of one kind")
    assert "encoding: binary, threshold: 1" in report["question"]


def write_runs(mask: np.ndarray, order: str) -> str:
    flat = mask.ravel(order="C" if order == "rows" else "F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]]))) + 1
    return " ".join(f"{start} {end - start}" for start, end in zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_the_order_of_runs_is_seen_from_the_objects(tmp_path: Path, order: str) -> None:
    lines, masks = ["img,rle_mask"], []
    for index in range(3):
        save_image(tmp_path / "train" / f"{index}.png", SIZE_PX)
        masks.append(number_things(5 + index) > 0)
        lines.append(f"{index}.png,{write_runs(masks[-1], order)}")
    (tmp_path / "train_masks.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "metadata.csv").write_text("id,year\n00,2012\n")  # a table of something else
    section = {"dataset": str(tmp_path), "validation_share": 0.0}
    split = load_segmentation_dataset(section).splits["train"]
    assert [np.array_equal(split.label(index), mask) for index, mask in enumerate(masks)] == [True] * 3
    other = "columns" if order == "rows" else "rows"
    stated = load_segmentation_dataset({**section, "run_order": other}).splits["train"]
    assert not np.array_equal(stated.label(0), masks[0])
    assert inspect_folder(tmp_path)[0]["run_order"] == order


def test_the_order_of_runs_of_square_images_is_that_of_columns() -> None:
    assert fill_runs("2 2", 2, 2).tolist() == [[False, True], [True, False]]
    assert fill_runs("1 3", 2, 2).tolist() == [[True, True], [True, False]]
    assert fill_runs("2 3", 2, 3).tolist() == [[False, True, False], [True, True, False]]
    assert fill_runs("2 3", 2, 3, along_rows=True).tolist() == [[False, True, True], [True, False, False]]


def test_a_legend_in_each_split(tmp_path: Path) -> None:
    for split, things in (("train", 3), ("valid", 2)):
        for index in range(2):
            save_image(tmp_path / split / f"{index}.jpg", value=40 * index + 20)
            save_mask(tmp_path / split / f"{index}_mask.png", draw_ids(things))
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, ground\n1, crack\n")
    data, report = inspect_folder(tmp_path)
    assert (data["classes"], report["question"]) == ("_classes.csv", "")
    assert load_segmentation_dataset(data).classes.names == ("ground", "crack")
    (tmp_path / "valid" / "_classes.csv").write_text("Pixel Value, Class\n0, crack\n1, ground\n")
    assert "what are these classes called?" in inspect_folder(tmp_path)[1]["question"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{split}/Urban/images_png", "{split}/Urban/masks_png"),
        ("images/10k/{split}", "labels/sem_seg/masks/{split}"),
        ("{split}_images", "{split}_masks"),
        ("ISIC_{split}_Input", "ISIC_{split}_GroundTruth"),
        ("stage1_{split}/images", "stage1_{split}/masks"),
    ],
)
def test_where_the_split_stands_in_a_path(tmp_path: Path, images: str, masks: str) -> None:
    for split, things in (("train", 5), ("val", 7), ("test", None)):
        save_image(tmp_path / images.replace("{split}", split) / "a.jpg")
        if things is not None:
            save_mask(tmp_path / masks.replace("{split}", split) / "a.png", draw_ids(things))
    if "sem_seg" in masks:
        save_mask(tmp_path / "labels/sem_seg/colormaps/train/a.png", draw_ids(1))
    if "Urban" in images:
        for folder in ("images_png/b.png", "masks_png/b.png"):
            save_image(tmp_path / "train/Rural" / folder)
            save_mask(tmp_path / "train/Rural" / folder, draw_ids(0))
        assert count(whole(tmp_path)) == [43, 5, 0]
    else:
        assert count(whole(tmp_path)) == [19, 5, 0]
    assert count(whole(tmp_path), "validation") == [17, 7, 0]
    assert "test" not in load_segmentation_dataset(whole(tmp_path)).splits


def test_words_in_the_names_of_folders(tmp_path: Path) -> None:
    save_image(tmp_path / "original_images" / "a.jpg")
    save_mask(tmp_path / "label_images_semantic" / "a.png", draw_ids(4))
    assert count(whole(tmp_path)) == [20, 4, 0]


def test_two_colours_of_one_brightness_have_an_edge() -> None:
    labels = np.zeros((64, 96), dtype=np.uint8)
    labels[20:44, 30:60] = 1
    image = Image.fromarray(np.array([[150, 90, 90], [90, 120, 92]], dtype=np.uint8)[labels])
    grey = reduce_to_grey(image)
    assert np.ptp(grey) < 3
    profile, _ = compare_edges(reduce_colors(image, grey), labels)
    assert profile is not None
    assert np.unravel_index(profile.argmax(), profile.shape) == (12, 12)
    assert profile[12, 12] > 0.8


# Files of case {} -> what they hold; what the proposal then states, and how the question begins.
TREES = {
    "kinds": (
        {"A1/p{}_rgb.png": "image", "A1/p{}_label.png": "ids", "A1/p{}_fg.png": "binary"},
        {"image_pattern": r"^(.*)_rgb\.png$", "mask_pattern": r"^(.*)_label\.png$"},
        "which masks are meant, _label, _fg? Set data.image_pattern: ",
    ),
    "two observers": (
        {"Image_{}L.jpg": "image", "Image_{}L_1stHO.png": "binary", "Image_{}L_2ndHO.png": "binary"},
        {"image_pattern": r"^(.*)\.jpg$", "mask_pattern": r"^(.*)_1stHO\.png$"},
        "which masks are meant, _1stHO, _2ndHO?",
    ),
    "sequences": (
        {"B{}/B{}_t1.png": "image", "B{}/B{}_t2.png": "image", "B{}/B{}_seg.png": "ids"},
        {"image_pattern": r"^(.*)_t1\.png$", "mask_pattern": r"^(.*)_seg\.png$"},
        "which images are meant, _t1, _t2? Set ",
    ),
    "longer endings": (
        {"v{}/f_endo.png": "image", "v{}/f_endo_mask.png": "ids", "v{}/f_endo_my_mask.png": "binary"},
        {"image_pattern": r"^(.*)(?<!_mask)\.png$", "mask_pattern": r"^(.*)(?<!_my)_mask\.png$"},
        "which masks are meant, _mask, _my_mask?",
    ),
    "nobody's words": ({"{}_shot2.png": "image", "{}_zz.png": "binary"}, {}, "what are the two classes called?"),
    "called alike": (
        {"raw/s{}/cam/f.png": "image", "raw/s{}/cam_label_color/f.png": "binary", "raw/s{}/cam_label_id/f.png": "ids"},
        {"images": "*/cam", "masks": "*/cam_label_color"},
        "which folder holds the masks, cam_label_color, cam_label_id? data.masks names it",
    ),
}


def draw_tree(folder: Path, files: dict[str, str], cases: int = 4) -> None:
    """Write the files of so many cases: an image, or a mask of as many squares and 2 more, 64 pixels each."""
    for index in range(cases):
        mask = number_things(index + 2)
        for name, kind in files.items():
            path = folder / name.replace("{}", str(index))
            if kind == "image":
                photograph(path, 17 * len(name) + index)
            else:
                save_mask(path, mask if kind == "ids" else (mask > 0) * np.uint8(255))


@pytest.mark.parametrize("name", TREES)
def test_what_is_proposed_for_a_tree(name: str, tmp_path: Path) -> None:
    files, keys, question = TREES[name]
    draw_tree(tmp_path / "set", files)
    data, report = inspect_folder(tmp_path / "set")
    assert {key: data[key] for key in keys} == keys
    assert report["question"].startswith(question)
    counts = [split["pixel_counts"] for split in report["splits"].values()]
    assert sum(sum(one.values()) - next(iter(one.values())) for one in counts) == 64 * (2 + 3 + 4 + 5)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{split}crop/{}.jpg", "{split}crop/{}.png"),
        ("leftImg8bit/{split}/a/{}_leftImg8bit.png", "gtFine/{split}/a/{}_gtFine_myIds.png"),
        ("S_frames-with-annotations/{split}/{}.png", "S_annotations/{split}/{}.png"),
        ("{split}A_{}.png", "{split}A_{}_anno.png"),
    ],
)
def test_splits_are_never_mixed(tmp_path: Path, image: str, mask: str) -> None:
    for split, cases in (("train", 3), ("val", 2)):
        files = {image.replace("{split}", split): "image", mask.replace("{split}", split): "binary"}
        draw_tree(tmp_path / "set", files, cases)
    splits = load_segmentation_dataset(inspect_folder(tmp_path / "set")[0]).splits
    sums = {name: sum(int((split.label(i) == 1).sum()) for i in range(len(split))) for name, split in splits.items()}
    assert sums == {"train": 64 * (2 + 3 + 4), "validation": 64 * (2 + 3)}


def test_a_choice_that_nobody_made_is_an_error_with_the_lines(tmp_path: Path) -> None:
    draw_tree(tmp_path, TREES["kinds"][0])
    with pytest.raises(InputError, match=r"nothing tells them apart(?s:.*)data.mask_pattern: '\^\(\.\*\)_label"):
        load_segmentation_dataset({"dataset": str(tmp_path)})


@pytest.mark.parametrize("things", [1, 2])
def test_a_second_mask_is_united_only_if_both_show_things_of_one_kind(tmp_path: Path, things: int) -> None:
    draw_tree(tmp_path, {"a/a ({}).png": "image", "a/a ({})_mask.png": "binary"})
    second = np.zeros(SIZE_PX, dtype=np.uint8)
    second[22:30, 2:10], second[22:30, 13:21] = 255, (0, 100)[things - 1]
    save_mask(tmp_path / "a/a (1)_mask_1.png", second)
    if things == 2:
        with pytest.raises(InputError, match=r"1 images have further masks(?s:.*)a \(1\)_mask_1.png"):
            load_segmentation_dataset({"dataset": str(tmp_path)})
        return
    splits = inspect_folder(tmp_path)[1]["splits"].values()
    assert sum(split["pixel_counts"]["object"] for split in splits) == 64 * (14 + 1)


def test_two_folders_of_masks_are_one_question(tmp_path: Path) -> None:
    for folder in ("masks", "labels"):
        for index in range(3):
            photograph(tmp_path / "images" / f"{index}.png", index)
            save_mask(tmp_path / folder / f"{index}.png", (number_things(3) > 0) * np.uint8(255))
    data, report = inspect_folder(tmp_path)
    assert report["question"].startswith("which folder holds the masks, labels, masks? data.masks names it")
    assert data["masks"] == "labels"


def test_one_range_is_stated_for_all_splits_by_inspect_and_before_training(tmp_path: Path) -> None:
    for split, most in (("train", 2000), ("val", 9000)):
        for index in range(2):
            deep = np.random.default_rng(index).integers(0, most, SIZE_PX, dtype=np.uint16)
            (tmp_path / split / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(deep).save(tmp_path / split / "images" / f"{index}.png")
            save_mask(tmp_path / split / "masks" / f"{index}.png", number_things(2 + index))
    splits = load_segmentation_dataset({"dataset": str(tmp_path), "classes": ["a", "b", "c", "d"]}).splits
    with pytest.raises(InputError, match=r"train, validation: 4 images deeper(?s:.*)image_range: \[0, 16383\]"):
        check_splits(splits, progress=False)
    report = audit_for_training(DataRecipe(dataset=str(tmp_path))).report
    assert yaml.safe_load(report["recipe"])["data"]["image_range"] == [0, 16383]
    bright = np.random.default_rng(2).integers(0, 65536, SIZE_PX, dtype=np.uint16)
    Image.fromarray(bright).save(tmp_path / "val" / "images" / "1.png")
    section = {"dataset": str(tmp_path), "classes": ["a", "b", "c", "d"]}
    assert check_splits(load_segmentation_dataset(section).splits, progress=False)["train"].images == 2


def test_what_was_counted_asks_for_keys(tmp_path: Path) -> None:
    for index in range(12):
        photograph(tmp_path / "images" / f"{index}.png", index, (96, 128))
        mask = np.zeros((96, 128), dtype=np.uint8)
        if index < 2:
            mask[8:12, 8:12] = mask[20:24, 8:12] = 255
        save_mask(tmp_path / "masks" / f"{index}.png", mask)
    report = audit_for_training(DataRecipe(dataset=str(tmp_path), split_seed=1)).report
    recipe = yaml.safe_load(report["recipe"])
    assert recipe["data"]["stratify"] is True
    assert "stratify: a class is in 2 of 12 images" in report["reasons"]
    assert recipe["evaluation"] == {"metrics": ["objects"]}
    assert recipe["transforms"]["crop_size_px"] == [96, 96]
    assert "rare_class_crop" not in recipe["transforms"]  # a crop holds more than half of an image
    before = report["recipe"].split("\nmodel:")[0].splitlines()[-1]
    assert before.startswith("# About 14 MB, fetched from the Hub once")
    for index in range(12):
        photograph(tmp_path / "images" / f"{index}.png", index, (96, 400))
        mask = np.zeros((96, 400), dtype=np.uint8)
        mask[8:12, 8:12] = 255
        save_mask(tmp_path / "masks" / f"{index}.png", mask)
    recipe = yaml.safe_load(audit_for_training(DataRecipe(dataset=str(tmp_path))).report["recipe"])
    assert recipe["transforms"]["rare_class_crop"] == 0.5
    assert "stratify" not in recipe["data"]
    assert "evaluation" not in recipe  # one piece an image


def test_clips_in_folders_of_videos_are_all_read(tmp_path: Path) -> None:
    for clip in ("video01/01_00080", "video01/01_00160", "video09/09_01301"):
        save_image(tmp_path / clip / "frame_80_endo.png")
        save_mask(tmp_path / clip / "frame_80_endo_watershed_mask.png", draw_ids(2))
    assert count(whole(tmp_path)) == [66, 6, 0]


def test_a_second_part_of_a_mask_is_never_dropped(tmp_path: Path) -> None:
    for name in ("benign (1)", "benign (2)"):
        save_image(tmp_path / f"{name}.png")
        save_mask(tmp_path / f"{name}_mask.png", draw_ids(2))
    save_mask(tmp_path / "benign (2)_mask_1.png", draw_ids(3))
    section = whole(tmp_path, image_pattern=r"^(.*\))\.png$", mask_pattern=r"^(.*)_mask\.png$")
    with pytest.raises(InputError, match=r"1 masks without an image \(benign \(2\)_mask_1.png\)"):
        load_segmentation_dataset(section)
    (tmp_path / "benign (2)_mask_1.png").unlink()
    assert count(section) == [44, 4, 0]


def test_ids_that_are_not_those_of_cityscapes_are_asked_about(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for index in range(2):
            photograph(tmp_path / "leftImg8bit" / split / "a" / f"a_{index}_leftImg8bit.png", index + 2 * len(split))
            ids = np.tile(np.arange(12, dtype=np.uint8).repeat(2), (32, 2))  # 0 to 6, 9 and 10 are void there
            save_mask(tmp_path / "gtFine" / split / "a" / f"a_{index}_gtFine_labelIds.png", ids)
    data = load_segmentation_dataset({"dataset": str(tmp_path)})
    with pytest.raises(InputError, match=r"hardly its own(?s:.*)75 % of the pixels are void, and 16 of its 19 classes"):
        check_splits(data.splits, progress=False)
    stated = load_segmentation_dataset({"dataset": str(tmp_path), "layout": "cityscapes"})
    assert check_splits(stated.splits, progress=False, warn=False)["train"].images == 2
    report = audit_for_training(DataRecipe(dataset=str(tmp_path))).report
    assert "names of a benchmark" in [finding["kind"] for finding in report["findings"]]
    assert list(yaml.safe_load(report["recipe"])["data"]["classes"]) == list(range(12))


def test_a_choice_one_folder_down(tmp_path: Path) -> None:
    for index in range(3):
        photograph(tmp_path / "DRIVE/training/images" / f"{index}_training.tif", index)
        for folder, ending in (("1st_manual", "manual1"), ("mask", "training_mask")):
            mask = (number_things(2 + len(ending) % 3) > 0) * np.uint8(255)
            save_mask(tmp_path / "DRIVE/training" / folder / f"{index}_{ending}.gif", mask)
    photograph(tmp_path / "DRIVE/test/images" / "7_test.tif", 7)
    save_mask(tmp_path / "DRIVE/test/mask" / "7_test_mask.gif", number_things(1) * np.uint8(255))
    data, report = inspect_folder(tmp_path)
    assert report["question"].startswith("which folder holds the masks, 1st_manual, mask?")
    assert (data["masks"], data["dataset"]) == ("1st_manual", str(tmp_path / "DRIVE"))


def test_runs_beside_the_masks_that_they_describe(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_image(tmp_path / "stage1_train" / name / "images" / f"{name}.png")
        save_mask(tmp_path / "stage1_train" / name / "masks" / f"{name}1.png", draw_ids(2))
    (tmp_path / "labels.csv").write_text("ImageId,EncodedPixels\nx,1 2\ny,1 2\n")
    section = {"dataset": str(tmp_path), "layout": "run_lengths", "validation_share": 0.0}
    assert count(section) == [44, 4, 0]

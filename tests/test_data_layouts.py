"""Every layout: a specimen of two classes with exact pixel counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import datasets
import numpy as np
import pytest
from layout_specimens import build_coco, count, draw_ids, save_image, save_mask, save_palette, whole
from PIL import Image

from segplus.data import load_segmentation_dataset
from segplus.data.loading import _READERS
from segplus.errors import InputError
from segplus.recipe.data_section import Layout


@pytest.mark.parametrize(
    "below", ["{split}/images|{split}/masks", "images/{split}|masks/{split}", "{split}|{split}annot"]
)
def test_folders_per_split(tmp_path: Path, below: str) -> None:
    images, masks = below.split("|")
    for split, things in (("train", 5), ("val", 7), ("test", 9)):
        save_image(tmp_path / images.replace("{split}", split) / "a.jpg")
        save_mask(tmp_path / masks.replace("{split}", split) / "a.png", draw_ids(things, 2))
    assert count(whole(tmp_path)) == [17, 5, 2]
    assert count(whole(tmp_path), "validation") == [15, 7, 2]
    assert count(whole(tmp_path), "test") == [13, 9, 2]


def test_unsplit_folders_under_any_name_nested_with_repeated_stems(tmp_path: Path) -> None:
    for city, things in (("north", 3), ("south", 4)):
        save_image(tmp_path / "Photos" / city / "0001.JPG")
        save_mask(tmp_path / "ground_truth" / city / "0001.png", draw_ids(things))
    assert count(whole(tmp_path)) == [41, 7, 0]
    data = load_segmentation_dataset(whole(tmp_path))
    assert data.splits["train"].names == ["north/0001", "south/0001"]


def test_suffixes_are_discovered(tmp_path: Path) -> None:
    for number in (21, 22, 30):
        save_image(tmp_path / "images" / f"{number}_training.tif")
        save_mask(tmp_path / "1st_manual" / f"{number}_manual1.gif", draw_ids(number - 20))
    data = load_segmentation_dataset(whole(tmp_path, encoding="palette"))
    assert data.splits["train"].names == ["21", "22", "30"]
    assert "_training" in " ".join(data.found)
    assert "_manual1" in " ".join(data.found)
    assert count(whole(tmp_path, encoding="palette")) == [72 - 13, 13, 0]


def test_mask_suffix_in_one_folder(tmp_path: Path) -> None:
    for stem, things in (("x", 1), ("y_2", 2)):
        save_image(tmp_path / f"{stem}.jpg")
        save_mask(tmp_path / f"{stem}_mask.png", draw_ids(things))
    assert count(whole(tmp_path)) == [45, 3, 0]


def test_two_candidates_are_not_chosen_between(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    for folder in ("masks", "labels"):
        save_mask(tmp_path / folder / "a.png", draw_ids(3 if folder == "masks" else 8))
    with pytest.raises(InputError, match="more than one folder could hold the masks"):
        load_segmentation_dataset(whole(tmp_path))
    assert count(whole(tmp_path, masks="labels")) == [16, 8, 0]
    save_image(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match="two files for one key"):
        load_segmentation_dataset(whole(tmp_path, masks="labels"))


def test_patterns_choose_among_files(tmp_path: Path) -> None:
    save_image(tmp_path / "in" / "im_a_v1.png")
    save_image(tmp_path / "in" / "im_a_v2.png")
    save_mask(tmp_path / "out" / "seg-a.png", draw_ids(6))
    section = whole(tmp_path, images="in", masks="out", image_pattern=r"im_(\w)_v2", mask_pattern=r"seg-(\w)")
    assert count(section) == [18, 6, 0]
    with pytest.raises(InputError, match="no file name matches"):
        load_segmentation_dataset({**section, "image_pattern": "(nothing)"})


def test_orphans_are_named(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / "images" / f"{stem}.jpg")
    for stem in ("b", "c"):
        save_mask(tmp_path / "masks" / f"{stem}.png", draw_ids(1))
    with pytest.raises(InputError, match=r"1 images without a mask \(a.jpg\); 1 masks without an image \(c.png\)"):
        load_segmentation_dataset(whole(tmp_path))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_imagefolder_with_metadata(tmp_path: Path, suffix: str) -> None:
    for split, things in (("train", 4), ("test", 8)):
        save_image(tmp_path / split / "a.png")
        save_mask(tmp_path / split / "m" / "a.png", draw_ids(things))
        lines = (
            '{"file_name": "a.png", "mask": "m/a.png"}\n' if suffix == "jsonl" else "file_name,mask\na.png,m/a.png\n"
        )
        (tmp_path / split / f"metadata.{suffix}").write_text(lines)
    assert count(whole(tmp_path)) == [20, 4, 0]
    assert count(whole(tmp_path), "test") == [16, 8, 0]


def test_manifest(tmp_path: Path) -> None:
    for stem, things in (("a", 2), ("b", 5)):
        save_image(tmp_path / "x" / f"{stem}.png")
        save_mask(tmp_path / "y" / f"{stem}.png", draw_ids(things))
    path = tmp_path / "pairs.csv"
    path.write_text("shot,mask,split\nx/a.png,y/a.png,train\nx/b.png,y/b.png,val\n")
    section = whole(path, image_column="shot")
    assert count(section) == [22, 2, 0]
    assert count(section, "validation") == [19, 5, 0]
    path.write_text("shot,mask\nx/a.png,y/none.png\n")
    with pytest.raises(InputError, match="row 1: no such file"):
        load_segmentation_dataset(section)


def build_table(things: list[int]) -> datasets.Dataset:
    images = [Image.fromarray(np.full((4, 6, 3), 40, dtype=np.uint8)) for _ in things]
    masks = [Image.fromarray(draw_ids(number)) for number in things]
    features = datasets.Features(
        {
            "pixel_values": datasets.Image(),
            "label": datasets.Image(),
            "scene": datasets.ClassLabel(names=["park", "street"]),
            "present": datasets.Sequence(datasets.ClassLabel(names=["ground", "thing"])),
        }
    )
    rows = {"pixel_values": images, "label": masks, "scene": [0] * len(things), "present": [[0, 1]] * len(things)}
    return datasets.Dataset.from_dict(rows, features=features)


def test_saved_dataset_names_its_classes(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": build_table([3, 4]), "validation": build_table([5])}).save_to_disk(
        str(tmp_path / "d")
    )
    section = {"dataset": str(tmp_path / "d")}
    assert load_segmentation_dataset(section).classes.names == ("ground", "thing")
    assert count(section) == [41, 7, 0]
    assert count(section, "validation") == [19, 5, 0]


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    build_table([3, 4]).to_parquet(str(tmp_path / "d" / "train.parquet"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert count(whole(tmp_path / "d" / "train.parquet")) == [41, 7, 0]
    assert count(whole(tmp_path / "d")) == [41, 7, 0]


def test_streaming_reads_the_first_images(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    build_table([3, 4, 5, 6]).to_parquet(str(tmp_path / "d" / "train.parquet"))
    section = whole(tmp_path / "d", streaming=True, max_images={"train": 3})
    assert count(section) == [60, 12, 0]
    with pytest.raises(InputError, match=r"data.max_images.validation: a stream"):
        load_segmentation_dataset(whole(tmp_path / "d", streaming=True))


def test_a_hub_id_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'nobody/nothing-here' could not be opened"):
        load_segmentation_dataset({"dataset": "nobody/nothing-here"})


def test_a_repository_that_is_a_script_is_read_as_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, config: str | None, *, revision: str | None, streaming: bool) -> datasets.DatasetDict:
        asked.append((name, config, revision))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found x.py")
        return datasets.DatasetDict({"train": build_table([3, 4])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    section = {"dataset": "someone/scripted", "dataset_config": "parsing", "validation_share": 0.0}
    assert count(section) == [41, 7, 0]
    assert asked == [("someone/scripted", "parsing", None), ("someone/scripted", "parsing", "refs/convert/parquet")]


def test_voc(tmp_path: Path) -> None:
    for stem, value in (("2007_01", 1), ("2007_02", 20)):
        save_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
        ids = draw_ids(5, 3)
        ids[ids == 1] = value
        save_palette(tmp_path / "SegmentationClass" / f"{stem}.png", ids, [0, 0, 0, 128, 0, 0])
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_01\n")
    (lists / "val.txt").write_text("2007_02\n")
    (lists / "trainval.txt").write_text("2007_01\n2007_02\n")
    section = {"dataset": str(tmp_path)}
    counts = count(section)
    assert (counts[0], counts[1], counts[-1], sum(counts)) == (16, 5, 3, 24)
    counts = count(section, "validation")
    assert (counts[0], counts[20], counts[-1]) == (16, 5, 3)
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nred:128,0,0::\nground:0,0,0::\n")
    # By colour now: index 1 is red; every other index is black here, the void index too.
    assert count(section) == [5, 19, 0]
    assert count(section, "validation") == [0, 24, 0]


@pytest.mark.parametrize(("suffix", "thing"), [("labelIds", 26), ("labelTrainIds", 13)])
def test_cityscapes(tmp_path: Path, suffix: str, thing: int) -> None:
    ids = np.full((4, 6), 7 if suffix == "labelIds" else 0, dtype=np.uint8)
    ids.flat[:5] = thing
    ids.flat[5:7] = 4 if suffix == "labelIds" else 255
    save_image(tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_000_leftImg8bit.png")
    save_mask(tmp_path / "gtFine" / "train" / "ulm" / f"ulm_000_gtFine_{suffix}.png", ids)
    counts = count({"dataset": str(tmp_path), "masks": suffix, "validation_share": 0.0})
    assert (counts[0], counts[13], counts[-1], len(counts)) == (17, 5, 2, 20)


@pytest.mark.parametrize("reduce_labels", [False, True])
def test_ade20k(tmp_path: Path, reduce_labels: bool) -> None:
    for split in ("training", "validation"):
        save_image(tmp_path / "images" / split / "ADE_1.jpg")
        save_mask(tmp_path / "annotations" / split / "ADE_1.png", draw_ids(9))
    (tmp_path / "objectInfo150.csv").write_text(
        "Idx,Ratio,Train,Val,Stuff,Name\n1,0.1,1,1,1,wall\n2,0.1,1,1,1,building\n"
    )
    assert count({"dataset": str(tmp_path), "reduce_labels": reduce_labels}) == [9, 0, 15]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
@pytest.mark.parametrize("first_id", [0, 17])
def test_coco(tmp_path: Path, first_id: int) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / "train2017" / f"{stem}.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(build_coco(first_id)))
    (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    section = {"dataset": str(tmp_path), "validation_share": 0.0}
    assert load_segmentation_dataset(section).classes.names == ("background", "cat", "dog")
    assert count(section) == [38, 6, 4, 0]
    assert count({**section, "unlabelled": "ignore"}) == [6, 4, 14]
    assert count({**section, "classes": ["dog"]}) == [44, 4, 0]
    (tmp_path / "annotations" / "stuff_train2017.json").write_text(json.dumps(build_coco(first_id)))
    with pytest.raises(InputError, match="more than one annotation file for train"):
        load_segmentation_dataset(section)
    assert count({**section, "annotations": "annotations/stuff_{split}2017.json"}) == [38, 6, 4, 0]


def test_labelme(tmp_path: Path) -> None:
    save_image(tmp_path / "a.jpg", (20, 30))
    shapes = [
        {"label": "cat", "points": [[2, 3], [11, 3], [11, 8], [2, 8]], "shape_type": "polygon"},
        {"label": "dog", "points": [[20, 10], [24, 14]], "shape_type": "rectangle"},
        {"label": "__ignore__", "points": [[0, 19], [29, 19], [29, 19]], "shape_type": "polygon"},
    ]
    (tmp_path / "a.json").write_text(
        json.dumps({"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 20, "imageWidth": 30})
    )
    section = {"dataset": str(tmp_path), "validation_share": 0.0}
    # A labelme outline belongs to its shape: 10 x 6, 5 x 5 and 30 x 1 pixels.
    assert count(section) == [600 - 60 - 25 - 30, 60, 25, 30]
    assert load_segmentation_dataset(section).classes.names == ("background", "cat", "dog")
    assert count({**section, "unlabelled": "ignore", "classes": ["dog", "cat"]}) == [25, 60, 515]
    with pytest.raises(InputError, match="a label that no class has"):
        load_segmentation_dataset({**section, "classes": ["cat"]})


def test_more_than_one_layout_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    save_mask(tmp_path / "masks" / "a.png", draw_ids(3))
    (tmp_path / "metadata.csv").write_text("file_name,mask\nimages/a.jpg,masks/a.png\n")
    with pytest.raises(InputError, match="more than one layout fits"):
        load_segmentation_dataset(whole(tmp_path))
    assert count(whole(tmp_path, layout="folders")) == [21, 3, 0]
    assert count(whole(tmp_path, layout="metadata")) == [21, 3, 0]


def test_synthetic() -> None:
    section = {
        "dataset": "synthetic",
        "synthetic_images": {"train": 3, "test": 2},
        "synthetic_size_px": [64, 96],
        "void": ["sky"],
    }
    data = load_segmentation_dataset(section)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "test": 2}
    pair = data.splits["train"][0]
    assert (pair["image"].size, pair["label"].shape) == ((96, 64), (64, 96))
    assert "sky" not in data.classes.names
    assert (data.splits["train"].label(0) == pair["label"]).all()


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such", "./none"])
def test_missing_folder(name: str) -> None:
    with pytest.raises(InputError, match="no such folder or file"):
        load_segmentation_dataset({"dataset": name})


def test_unset_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGPLUS_NOWHERE", raising=False)
    with pytest.raises(InputError, match="SEGPLUS_NOWHERE is not set"):
        load_segmentation_dataset({"dataset": "${SEGPLUS_NOWHERE}/x"})


@pytest.mark.parametrize("template", ["/abs/x.json", "a**b.json", "nothing/*.json", "annotations"])
def test_annotations_that_are_no_files_below_the_data(tmp_path: Path, template: str) -> None:
    (tmp_path / "annotations").mkdir()
    with pytest.raises(InputError, match="data.annotations: "):
        load_segmentation_dataset({"dataset": str(tmp_path), "layout": "coco", "annotations": template})


@pytest.mark.parametrize("layout", ["folders", "flat", "metadata", "saved", "voc", "cityscapes", "coco", "labelme"])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, layout: str) -> None:
    (tmp_path / "pairs.csv").write_text("image,mask\n")
    with pytest.raises(InputError, match=f"data.layout: {layout} is a folder\n  found: .*pairs.csv, a file"):
        load_segmentation_dataset({"dataset": str(tmp_path / "pairs.csv"), "layout": layout})


def test_a_folder_where_a_list_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data.layout: manifest is a file that lists pairs\n  found: .*, a folder"):
        load_segmentation_dataset({"dataset": str(tmp_path), "layout": "manifest"})
    (tmp_path / "pairs.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(InputError, match="not a table of text"):
        load_segmentation_dataset({"dataset": str(tmp_path / "pairs.csv")})


def test_every_layout_of_a_recipe_has_its_reader() -> None:
    assert {*_READERS, "auto", "hub", "synthetic"} == set(get_args(Layout))


def test_a_folder_in_the_place_of_a_mask_is_named(tmp_path: Path) -> None:
    for stem in "ab":
        save_image(tmp_path / "images" / f"{stem}.jpg")
    save_mask(tmp_path / "masks" / "a.png", draw_ids(3))
    (tmp_path / "masks" / "b.png").mkdir()
    with pytest.raises(InputError, match=r"masks/b.png: no such file\n  found: a folder"):
        load_segmentation_dataset(whole(tmp_path))


def test_two_categories_of_one_name_are_told_with_the_file(tmp_path: Path) -> None:
    content = build_coco(1)
    content["categories"][1]["name"] = content["categories"][0]["name"]
    (tmp_path / "all.json").write_text(json.dumps(content))
    for image in content["images"]:
        save_image(tmp_path / image["file_name"])
    with pytest.raises(InputError, match=r"all.json: a name stands for two values"):
        load_segmentation_dataset({"dataset": str(tmp_path), "layout": "coco"})


def test_a_mistyped_folder_is_not_sought_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "camvid").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no such folder or file\n  found: data/camvit\n  fix: did you mean 'camvid'"):
        load_segmentation_dataset({"dataset": "data/camvit"})


def test_one_image_makes_no_two_splits(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    save_mask(tmp_path / "masks" / "a.png", draw_ids(3))
    with pytest.raises(InputError, match=r"data: 1 images cannot make 2 splits") as error:
        load_segmentation_dataset({"dataset": str(tmp_path), "classes": ["ground", "thing"]})
    assert "group_pattern" not in str(error.value)

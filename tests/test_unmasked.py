"""Images without a mask: an error by default, the first class all over where the recipe says so, never in silence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from layout_specimens import count, draw_ids, save_image, save_mask, whole
from PIL import Image

from segplus.classes import ClassMap
from segplus.commands.proposing import audit_for_training
from segplus.data import load_segmentation_dataset
from segplus.data.cache import open_cache
from segplus.data.checking import check_split, check_splits
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.decoding.stored import stand_in_for_mask
from segplus.data.statistics import measure_split
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

SIZE_PX = (32, 48)
NAMES = {"classes": ["background", "thing"]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


def photograph(path: Path, width_px: int = SIZE_PX[1]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(str(path.relative_to(path.parents[2])).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE_PX[0], width_px, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def draw_mask(path: Path) -> None:
    """Write a mask of 0 and 255 with 8 x 8 marked pixels."""
    mask = np.zeros(SIZE_PX, np.uint8)
    mask[8:16, 20:28] = 255
    save_mask(path, mask)


# Images with a mask and the mask, images without one, {} their number; keys that are proposed; whether it is evident.
TREES: dict[str, tuple[str, str, str, dict[str, Any], bool]] = {
    "defects beside good parts": (
        "test/cut/{}.png", "ground_truth/cut/{}_mask.png", "test/good/{}.png",
        {"images": "test", "masks": "ground_truth"}, True,
    ),
    "one folder of masks": ("Images/Anomaly/{}.jpg", "Masks/Anomaly/{}.png", "Images/Normal/{}.jpg", {}, True),
    "masks below the images": ("a/{}.png", "a/Label/{}_label.png", "a/1{}.png", {"masks": "Label"}, False),
    "side by side": ("benign/b ({}).png", "benign/b ({})_mask.png", "normal/n ({}).png", {}, True),
    "by suffix": ("x/{}.jpg", "x/{}.png", "x/no_defect/n{}.jpg", {}, True),
    "by ending": ("all/{}.png", "all/{}_GT.png", "all/1{}.png", {}, False),
    "plain folders": ("images/{}.png", "masks/{}.png", "images/1{}.png", {}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_what_is_proposed(name: str, tmp_path: Path) -> None:
    image, mask, alone, keys, is_evident = TREES[name]
    root = tmp_path / "set"
    for number in range(4):
        photograph(root / image.format(number))
        draw_mask(root / mask.format(number))
    for number in range(3):
        photograph(root / alone.format(number), 40)
    report = audit_for_training(DataRecipe(dataset=str(root), split_seed=1)).report
    assert not [finding for finding in report["findings"] if finding["level"] == "error"]
    assert "3 of 7 images have no mask: read as background" in report["found"]
    data = yaml.safe_load(report["recipe"])["data"]
    assert {key: data[key] for key in keys} == keys
    assert (data["unmasked"], data["encoding"]) == ("background", "binary")
    assert data["classes"] == ["background", "foreground"]
    assert ("3 of 7 images have no mask: do they show background alone" in report["question"]) is not is_evident
    assert sum(split["pixel_counts"]["foreground"] for split in report["splits"].values()) == 4 * 64
    splits = load_segmentation_dataset(data).splits.values()
    labels = [pair["label"] for split in splits for pair in split if pair["image"].width == 40]
    assert [label.shape for label in labels] == [(32, 40)] * 3
    assert not np.any(labels)


def test_splits_of_defects_with_masks_below_them(tmp_path: Path) -> None:
    for split in ("Train", "Test"):
        for number in range(4):
            photograph(tmp_path / "set" / split / f"{number}.PNG")
        draw_mask(tmp_path / "set" / split / "Label" / "2_label.PNG")
    section = {"dataset": str(tmp_path / "set"), **NAMES, "encoding": "binary", "unmasked": "background"}
    data = load_segmentation_dataset({**section, "validation_share": 0.0})
    assert {name: measure_split(split).images_with for name, split in data.splits.items()} == {
        "train": [4, 1, 0],
        "test": [4, 1, 0],
    }
    assert "6 of 8 images have no mask: read as background" in data.found


def write_set(root: Path, lacking: int, pairs: int = 4) -> None:
    for number in range(pairs + lacking):
        save_image(root / "images" / f"{number}.png")
        if number < pairs:
            save_mask(root / "masks" / f"{number}.png", draw_ids(5))


@pytest.mark.parametrize(
    ("classes", "named"), [(["background", "crack"], "background"), (["road", "crack"], ""), (["ok", "crack"], "ok")]
)
def test_by_default_they_are_an_error_that_names_the_key_where_it_fits(
    tmp_path: Path, classes: list[str], named: str
) -> None:
    write_set(tmp_path, lacking=2)
    with pytest.raises(InputError, match=r"2 images without a mask \(4.png, 5.png\)") as caught:
        load_segmentation_dataset(whole(tmp_path, classes=classes))
    assert (f"data.unmasked: {named}" in str(caught.value.fix)) is bool(named)


def test_a_single_missing_mask_is_an_error_of_inspect(tmp_path: Path) -> None:
    write_set(tmp_path, lacking=1)
    audit = audit_for_training(DataRecipe(dataset=str(tmp_path)))
    assert audit.exit_code == 1
    assert "recipe" not in audit.report


def test_many_missing_masks_without_a_class_around_things_are_an_error_of_inspect(tmp_path: Path) -> None:
    write_set(tmp_path, lacking=4)
    audit = audit_for_training(DataRecipe(dataset=str(tmp_path), classes=["road", "car"]))
    assert audit.exit_code == 1
    assert "recipe" not in audit.report


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"unmasked": "thing"}, "data.unmasked: not the first class"),
        ({"unmasked": "background", "classes": ["road", "thing"]}, "allowed: 'road', if images"),
        ({"unmasked": "background", "images": "more"}, "data.unmasked: no image lacks a mask"),
    ],
)
def test_what_the_key_cannot_mean(tmp_path: Path, more: dict[str, Any], told: str) -> None:
    write_set(tmp_path, lacking=2)
    for number in range(4):
        save_image(tmp_path / "more" / f"{number}.png")
    with pytest.raises(InputError, match=told):
        load_segmentation_dataset(whole(tmp_path, **{**NAMES, **more}))


def test_a_file_called_as_a_mask_never_becomes_an_image(tmp_path: Path) -> None:
    write_set(tmp_path, lacking=2)
    save_image(tmp_path / "images" / "9_mask.png")
    with pytest.raises(InputError, match=r"9_mask.png: called as a mask is"):
        load_segmentation_dataset(whole(tmp_path, **NAMES, unmasked="background"))


def test_no_mask_at_all_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("image,mask\na.png,\n")
    section = whole(tmp_path / "list.csv", **NAMES)
    with pytest.raises(InputError, match=r"1 images without a mask \(a.png\)"):
        load_segmentation_dataset(section)
    with pytest.raises(InputError, match=r"no image has a mask"):
        load_segmentation_dataset({**section, "unmasked": "background"})


def test_it_is_said_once_and_all_that_reads_a_split_agrees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path / "set", lacking=2)
    section = whole(tmp_path / "set", **NAMES, unmasked="background")
    data = load_segmentation_dataset(section)
    with caplog.at_level(logging.WARNING):
        found = check_splits(data.splits, progress=False)
        assert not caplog.messages  # what was found is printed
        check_split(data.splits["train"])
    assert [line for line in caplog.messages if "no mask" in line] == [
        "2 of 6 images have no mask: read as background (data.unmasked)"
    ]
    split = data.splits["train"]
    assert found["train"].pixels == count(section) == [6 * 24 - 4 * 5, 4 * 5, 0]
    assert split.describe_encoding(5) == ("PNG RGB", "none")
    opened = split.open(5)
    assert opened.label((1, 2, 3, 4)).tolist() == [[0] * 4] * 3
    cached = open_cache(split, tmp_path / "pixels")
    assert all(np.array_equal(cached[index]["label"], split.label(index)) for index in range(6))
    assert np.asarray(split.to_dataset()[5]["label"]).tolist() == [[0] * 6] * 4


@pytest.mark.parametrize("layout", ["lists", "cases", "names"])
def test_other_ways_to_lie(tmp_path: Path, layout: str) -> None:
    section = whole(tmp_path, **NAMES, unmasked="background")
    expected = {"train": [67, 5, 0]}
    if layout == "lists":
        write_set(tmp_path, lacking=3, pairs=1)
        for split, lines in {"train": "2\n0\n1\n", "val": "3\n"}.items():
            (tmp_path / f"{split}.txt").write_text(lines)
        expected = {"train": [67, 5, 0], "validation": [24, 0, 0]}
    elif layout == "cases":
        section |= {"images": "*/img", "masks": "*/seg"}
        for number in range(3):
            save_image(tmp_path / f"case_{number}" / "img" / "a.png")
        save_mask(tmp_path / "case_1" / "seg" / "a.png", draw_ids(5))
    else:
        for name in ("train_1", "train_2", "train_3", "testA_1", "testA_2"):
            photograph(tmp_path / "all" / f"{name}.png", 6)
            if name[-1] == "1":
                save_mask(tmp_path / "all" / f"{name}_anno.png", np.pad(draw_ids(5), ((0, 28), (0, 0))))
        section |= {"dataset": str(tmp_path / "all")}
        expected = {"train": [3 * 192 - 5, 5, 0], "test": [2 * 192 - 5, 5, 0]}
    assert {split: count(section, split) for split in load_segmentation_dataset(section).splits} == expected


@pytest.mark.parametrize(
    ("names", "settings", "encoding"),
    [
        ({0: "a", 1: "b"}, {}, "binary"),
        ({7: "a", 26: "b"}, {}, "instances"),
        ({0: "a", 1: "b"}, {"reduce_labels": True}, "ids"),
        ({0xFF0000: "a", 0: "b"}, {"legend": True}, "colors"),
        ({0: "a", 1: "b"}, {}, "one_hot"),
        ({0: "v", 3: "a", 4: "b"}, {"void": [0]}, "palette"),
    ],
)
def test_the_first_class_of_every_encoding(
    tmp_path: Path, names: dict[int, str], settings: dict[str, Any], encoding: str
) -> None:
    save_image(tmp_path / "a.png")
    decoder = MaskDecoder(ClassMap.build(names, **settings), encoding=encoding, planes=2)
    assert decoder.classes.names[0] == "a"
    label = decoder.read(stand_in_for_mask(str(tmp_path / "a.png")), "mask of a.png")
    assert (label.dtype, label.tolist()) == (np.uint8, [[0] * 6] * 4)

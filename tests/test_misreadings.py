"""Masks that pass as ids, colours or two classes and mean something else: each is refused, with what fixes it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_sets import draw_ids, draw_instances, draw_objects, draw_photo, draw_voc, paint, save, save_palette
from PIL import Image

from segplus.commands.proposing import audit_for_training
from segplus.data import check_splits, load_segmentation_dataset
from segplus.data.misreadings import name_voc_color
from segplus.errors import InputError
from segplus.recipe import DataRecipe

COUNT = 6


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


def save_set(root: Path, masks: list[np.ndarray], images: list[np.ndarray] | None = None) -> Path:
    """Save pairs as images/N.png and masks/N.png."""
    for number, mask in enumerate(masks):
        photo = draw_photo(number, np.zeros(mask.shape[:2], dtype=np.uint8)) if images is None else images[number]
        save(root / "images" / f"{number}.png", photo)
        save(root / "masks" / f"{number}.png", mask)
    return root


def refuse(section: dict[str, Any]) -> str:
    """Return the message with which training ends, and see that inspect ends with 1 for the same reason."""
    with pytest.raises(InputError) as raised:
        check_splits(load_segmentation_dataset(section).splits, progress=False)
    audit = audit_for_training(DataRecipe(**section))
    assert audit.exit_code == 1
    assert "recipe" in audit.report  # what mends it
    return str(raised.value)


def test_a_channel_of_a_colour_mask(tmp_path: Path) -> None:
    root = save_set(tmp_path / "d", [paint(draw_ids(seed, 3)) for seed in range(COUNT)])
    text = refuse({"dataset": str(root), "classes": {80: "water", 245: "land", 222: "road"}, "mask_channel": 0})
    assert "data.mask_channel takes one channel of a colour" in text
    assert "3 colours: (80, 227, 194)" in text
    assert "fix: remove data.mask_channel, and give each colour its class in data.colors" in text


def test_a_channel_that_holds_0_and_255_alone(tmp_path: Path) -> None:
    masks = [np.repeat(255 * draw_ids(seed, 2)[..., None], 3, axis=-1) for seed in range(COUNT)]
    text = refuse({"dataset": str(save_set(tmp_path / "d", masks)), "classes": ["a", "b", "c"], "mask_channel": 0})
    assert "masks of 0 and 255, and 255 is ignored" in text
    assert "fix: set data.encoding: binary" in text


def test_instances_of_which_none_reaches_the_divisor(tmp_path: Path) -> None:
    root = tmp_path / "d"
    draw_instances(root)
    text = refuse({"dataset": str(root), "classes": ["ground", "cell"], "encoding": "instances", "void": [2, 3]})
    assert "no mask value reaches data.instance_divisor, and every pixel would be class 0" in text
    assert "fix: set data.encoding: binary and data.threshold: 1" in text


def test_a_threshold_in_the_middle_of_instance_numbers(tmp_path: Path) -> None:
    root = tmp_path / "d"
    draw_instances(root)
    section = {"dataset": str(root), "classes": ["ground", "cell"], "encoding": "binary", "threshold": 5}
    text = refuse(section)
    assert "data.threshold (5) divides numbers of things, and half of them are lost" in text
    assert "4 values below it (1 to 4), 7 from it on (5 to 11)" in text
    assert "fix: set data.threshold: 1" in text
    check_splits(load_segmentation_dataset(section | {"threshold": 1}).splits, progress=False)


def test_a_threshold_in_the_middle_of_soft_masks(tmp_path: Path) -> None:
    rows, columns = np.ogrid[:72, :96]
    masks = [(255 * np.exp(-((rows - 30 - s) ** 2 + (columns - 50) ** 2) / 500)).astype(np.uint8) for s in range(COUNT)]
    section = {"dataset": str(save_set(tmp_path / "d", masks)), "classes": ["a", "b"], "encoding": "binary"}
    text = refuse(section)
    assert "masks of many values, and nothing says from which one on they are foreground" in text
    assert "123 values below it (1 to 127), 97 from it on (129 to 255)" in text
    assert "fix: set data.threshold to the least value of the foreground, such as 128" in text
    check_splits(load_segmentation_dataset(section | {"threshold": 128}).splits, progress=False)


def test_0_and_255_through_the_function_that_loads(tmp_path: Path) -> None:
    root = save_set(tmp_path / "d", [255 * draw_ids(seed, 2) for seed in range(COUNT)])
    with pytest.raises(InputError, match=r"(?s)masks of 0 and 255, and 255 is ignored.*set data.encoding: binary"):
        load_segmentation_dataset({"dataset": str(root), "classes": ["a", "b"]})
    assert load_segmentation_dataset({"dataset": str(root), "classes": ["a", "b"], "void": [255]}).splits
    assert load_segmentation_dataset({"dataset": str(root), "classes": ["a", "b"], "encoding": "binary"}).splits


def test_the_first_ids_of_a_benchmark(tmp_path: Path) -> None:
    draw_voc(tmp_path / "d")
    text = refuse({"dataset": str(tmp_path / "d")})
    assert "folders of Pascal VOC, and masks that hold only the first of its ids, or other colours" in text
    assert "ids 0, 1, 2, 3, id 1 in another colour; Pascal VOC calls id 3 'bird'" in text
    assert "fix: name your classes: data.classes: {0: ..., 1: ..., 2: ..., 3: ...}" in text
    named = load_segmentation_dataset({"dataset": str(tmp_path / "d"), "classes": "voc"})
    assert named.classes.names[3] == "bird"
    check_splits(named.splits, progress=False)


def test_a_benchmark_that_is_one(tmp_path: Path) -> None:
    draw_voc(tmp_path / "d")
    palette = [channel for value in range(256) for channel in name_voc_color(value)]
    for path in (tmp_path / "d" / "SegmentationClass").iterdir():
        save_palette(path, np.array([0, 2, 15, 20], dtype=np.uint8)[np.asarray(Image.open(path))], palette)
    data = load_segmentation_dataset({"dataset": str(tmp_path / "d")})
    check_splits(data.splits, progress=False)
    assert name_voc_color(15) == (192, 128, 128)


def test_cityscapes_instance_ids(tmp_path: Path) -> None:
    values = np.array([7, 26001, 23, 4], dtype=np.int32)  # road, a car, sky, static (ignored)
    ids = draw_ids(1, 4)
    for split in ("train", "val"):
        save(tmp_path / "leftImg8bit" / split / "ulm" / "ulm_0_leftImg8bit.png", draw_photo(0, ids))
        save(tmp_path / "gtFine" / split / "ulm" / "ulm_0_gtFine_instanceIds.png", values[ids].astype(np.uint16))
    split = load_segmentation_dataset({"dataset": str(tmp_path)}).splits["train"]
    label = split.label(0)
    counted = np.bincount(ids.ravel())
    assert [(label == class_id).sum() for class_id in (0, 13, 10, 255)] == counted.tolist()


@pytest.mark.parametrize("mode", ["grey", "colour"])
def test_deep_images_that_fill_little_of_their_type(tmp_path: Path, mode: str) -> None:
    ids = [draw_ids(seed, 2) for seed in range(COUNT)]
    images = []
    for seed, one in enumerate(ids):
        grey = draw_photo(seed, one)[..., 0].astype(np.float64)
        images.append((808 + (grey - grey.min()) / np.ptp(grey) * (2633 - 808)).round().astype(np.uint16))
    if mode == "colour":
        for seed, image in enumerate(images):
            (tmp_path / "d" / "images").mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "d" / "images" / f"{seed}.npy", np.repeat(image[..., None], 3, axis=-1))
            save(tmp_path / "d" / "masks" / f"{seed}.png", ids[seed])
    else:
        save_set(tmp_path / "d", ids, images)
    text = refuse({"dataset": str(tmp_path / "d"), "classes": ["a", "b"]})
    assert "images deeper than 8 bits, and no range is stated" in text
    assert "fix: set data.image_range: [" in text
    if mode == "grey":
        assert "values 808 to 2633" in text


def test_what_may_be_right_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    masks = [np.full((72, 96), 255, dtype=np.uint8) for _ in range(COUNT)]
    for mask in masks:
        mask[:30] = 0
    masks[0][0, 0] = masks[1][0, 0] = masks[2][0, 0] = 1
    root = save_set(tmp_path / "d", masks)
    section = {"dataset": str(root), "classes": ["ground", "crack", "dent"], "void": [255]}
    with caplog.at_level(logging.WARNING):
        check_splits(load_segmentation_dataset(section).splits, progress=False)
    told = " ".join(caplog.messages)
    assert len(caplog.messages) == 3
    assert "1 of 3 classes have no pixel in any split: dent" in told
    assert "58.3 % of all pixels are ignored" in told
    assert "99.98 % of all pixels are 'ground'" in told
    caplog.clear()
    check_splits(load_segmentation_dataset(section).splits, progress=False, warn=False)
    audit = audit_for_training(DataRecipe(**section))
    assert [found["level"] for found in audit.report["findings"] if found["kind"] == "odd shares"] == ["warning"] * 3
    assert caplog.messages == []


def test_objects_that_touch_no_other_are_not_taken_for_classes_of_three(tmp_path: Path) -> None:
    masks = []
    for seed in range(COUNT):  # three organs, each one piece in every image: classes, not numbers of things
        mask = np.zeros((72, 96), dtype=np.uint8)
        for value, plane in enumerate(draw_objects(seed)[:3], start=1):
            mask[plane] = value
        masks.append(mask)
    report = audit_for_training(DataRecipe(dataset=str(save_set(tmp_path / "d", masks)))).report
    assert "classes: {0: value 0, 1: value 1, 2: value 2, 3: value 3}" in report["recipe"]


def test_images_of_real_numbers_get_the_range_that_they_have(tmp_path: Path) -> None:
    for seed in range(COUNT):
        ids = draw_ids(seed, 2)
        grey = draw_photo(seed, ids)[..., 0].astype(np.float32) / 500 - 0.1
        grey[0], grey[1] = -0.125, 0.5  # a single pixel would count as a dead one
        save(tmp_path / "d" / "images" / f"{seed}.tif", grey)
        save(tmp_path / "d" / "masks" / f"{seed}.png", ids)
    report = audit_for_training(DataRecipe(dataset=str(tmp_path / "d"), classes=["a", "b"])).report
    assert [finding["kind"] for finding in report["findings"] if finding["level"] == "error"] == ["no range"]
    assert "fix: set data.image_range: [-0.125, 0.5]" in "fix: " + report["findings"][0]["fix"]
    assert "image_range: [-0.125, 0.5]" in report["recipe"]
    assert report["splits"]["train"]["pairs"] + report["splits"]["validation"]["pairs"] == COUNT


def test_deep_images_that_together_fill_their_range_need_none(tmp_path: Path) -> None:
    images = [np.full((72, 96), 10000 * number, dtype=np.uint16) for number in range(COUNT)]
    root = save_set(tmp_path / "d", [draw_ids(seed, 2) for seed in range(COUNT)], images)
    section = {"dataset": str(root), "classes": ["a", "b"]}
    check_splits(load_segmentation_dataset(section).splits, progress=False)
    assert "image_range" not in audit_for_training(DataRecipe(**section)).report["recipe"]

"""Layouts as people have them: a folder a tile, a file an object, run lengths, one folder down; exact pixel counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from layout_specimens import build_coco, count, draw_ids, save_image, save_mask, save_palette, whole

from segplus.data import check_split, load_segmentation_dataset
from segplus.errors import InputError


def test_a_folder_a_tile(tmp_path: Path) -> None:
    for tile, things in (("Tile 1", 3), ("Tile 2", 4)):
        save_image(tmp_path / tile / "images" / "a.jpg")
        save_mask(tmp_path / tile / "masks" / "a.png", draw_ids(things))
    stated = whole(tmp_path, images="*/images", masks="*/masks")
    for section in (whole(tmp_path), stated):
        assert count(section) == [41, 7, 0]
        assert load_segmentation_dataset(section).splits["train"].names == ["Tile 1/a", "Tile 2/a"]
    save_image(tmp_path / "Tile 2" / "images" / "c.jpg")
    save_mask(tmp_path / "Tile 2" / "masks" / "c.png", draw_ids(1))
    (tmp_path / "Tile 2" / "masks" / "a.png").unlink()
    save_mask(tmp_path / "Tile 2" / "masks" / "b.png", draw_ids(1))
    with pytest.raises(InputError, match=r"1 images without a mask \(a.jpg\); 1 masks without an image \(b.png\)"):
        load_segmentation_dataset(stated)
    with pytest.raises(InputError, match=r"patterns that do not go together(?s:.*)as many \* in both"):
        load_segmentation_dataset(whole(tmp_path, images="*/images", masks="masks"))
    with pytest.raises(InputError, match="not a pattern below the data"):
        load_segmentation_dataset(whole(tmp_path, images="../*", masks="*/masks"))


def test_patterns_on_the_path_below_the_folder(tmp_path: Path) -> None:
    for case, things in (("p1", 2), ("p2", 3)):
        save_image(tmp_path / "in" / case / "flair.png")
        save_image(tmp_path / "in" / case / "t1.png")
        save_mask(tmp_path / "out" / f"seg_{case}" / "final.png", draw_ids(things))
    section = whole(tmp_path, images="in", masks="out", image_pattern=r"^(p\d)/flair", mask_pattern=r"^seg_(p\d)/final")
    assert count(section) == [43, 5, 0]
    assert load_segmentation_dataset(section).splits["train"].names == ["p1", "p2"]


def test_one_folder_down(tmp_path: Path) -> None:
    outer = tmp_path / "archive"
    save_image(outer / "data" / "images" / "a.jpg")
    save_mask(outer / "data" / "masks" / "a.png", draw_ids(3))
    (outer / "__MACOSX").mkdir()
    (outer / "id2label.json").write_text('{"0": "ground", "1": "thing"}')
    section = {"dataset": str(outer), "validation_share": 0.0}
    assert count(section) == [21, 3, 0]
    assert "in data, the folder below that holds pairs" in load_segmentation_dataset(section).found
    save_image(outer / "more" / "images" / "a.jpg")
    save_mask(outer / "more" / "masks" / "a.png", draw_ids(3))
    (outer / "docs").mkdir()
    with pytest.raises(InputError, match=r"more than one folder below could be the data set\n  found: data, more"):
        load_segmentation_dataset(section)


def test_a_folder_of_masks_a_class(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.jpg")
    save_image(tmp_path / "images" / "b.jpg")
    first, second = draw_ids(5), draw_ids(7)
    second[0, :3] = 0  # 4 pixels, 2 of them also of the first
    save_mask(tmp_path / "masks" / "scratch" / "a.png", first * 255)
    save_mask(tmp_path / "masks" / "dent" / "a.png", second)
    section = {"dataset": str(tmp_path), "validation_share": 0.0}
    assert load_segmentation_dataset(section).classes.names == ("background", "dent", "scratch")
    with pytest.raises(InputError, match=r"pixels of two classes(?s:.*)2 pixels(?s:.*)a later class lies on top"):
        count(section)
    assert count({**section, "classes": ["scratch", "dent"]}) == [48 - 7, 3, 4, 0]
    assert count({**section, "classes": ["dent", "scratch"]}) == [48 - 7, 2, 5, 0]
    with pytest.raises(InputError, match="no mask file of this class"):
        load_segmentation_dataset({**section, "classes": ["dents"]})


def test_a_changed_file_of_an_object_is_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "d"
    for case in ("x", "y"):
        save_image(root / case / "images" / f"{case}.png")
        for number in range(2):
            save_mask(root / case / "masks" / f"{number}.png", np.roll(draw_ids(3), 6 * number))
    before = load_segmentation_dataset(whole(root, classes=None)).splits["train"]
    assert check_split(before, progress=False).pixels == [48 - 12, 12, 0]
    save_mask(root / "y" / "masks" / "1.png", np.roll(draw_ids(6), 6))
    after = load_segmentation_dataset(whole(root, classes=None)).splits["train"]
    assert before.fingerprint != after.fingerprint
    assert check_split(after, progress=False).pixels == [48 - 15, 15, 0]


def test_run_lengths(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        save_image(tmp_path / "images" / f"{stem}.png")
    path = tmp_path / "masks_rle.csv"
    path.write_text("ImageId,EncodedPixels\na.png,1 4 9 2\nb.png,\n")  # the first column, and two pixels of the third
    section = {"dataset": str(tmp_path), "validation_share": 0.0}
    assert count(section) == [72 - 6, 6, 0]
    label = load_segmentation_dataset(section).splits["train"].label(0)
    assert label.tolist() == [[1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert count({**section, "dataset": str(path)}) == [72 - 6, 6, 0]
    path.write_text("ImageId_ClassId,EncodedPixels\na.png_1,1 4\na.png_3,9 2\nb.png_1,24 1\n")
    assert load_segmentation_dataset(section).classes.names == ("background", "class 1", "class 3")
    assert count(section) == [72 - 7, 5, 2, 0]
    path.write_text("ImageId,EncodedPixels\na.png,24 2\n")
    with pytest.raises(InputError, match=r"run lengths that are no pairs of start and length inside 6 x 4 px"):
        count(section)
    path.write_text("ImageId,EncodedPixels\na.png,1 2\nz.png,1 2\n")
    with pytest.raises(InputError, match=r"not one folder of its images"):
        load_segmentation_dataset(section)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
def test_coco_under_any_name_and_with_a_folder_of_images(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / "pictures of mine" / f"{stem}.jpg")
    (tmp_path / "export.json").write_text(json.dumps(build_coco(3)))
    (tmp_path / "notes.json").write_text('{"images": []}')
    assert count({"dataset": str(tmp_path), "images": "pictures of mine", "validation_share": 0.0}) == [38, 6, 4, 0]


def test_voc_without_lists_is_a_folder_of_pairs(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        save_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
        save_palette(tmp_path / "SegmentationClass" / f"{stem}.png", draw_ids(4), [0, 0, 0, 128, 0, 0])
    assert count(whole(tmp_path)) == [40, 8, 0]


@pytest.mark.parametrize(
    ("file", "named"),
    [("scan.nii.gz", "NIfTI volumes"), ("annotations.xml", "CVAT's XML"), ("ann/a.json", "Supervisely")],
)
def test_what_is_not_read_is_named(tmp_path: Path, file: str, named: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(InputError, match=f"{named}.* are not read(?s:.*)export the masks as PNG"):
        load_segmentation_dataset({"dataset": str(tmp_path)})

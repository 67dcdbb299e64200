"""Loading, checking and splitting."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segplus.classes import ClassMap
from segplus.data import SegmentationSplit, check_split, contents, load_segmentation_dataset
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.masks import MaskDecoder
from segplus.data.layouts.source import build_table
from segplus.data.loading import build_section
from segplus.data.splits import divide, find_groups
from segplus.data.statistics import measure_split
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SEGPLUS_CACHE", str(folder))
    return folder


def save_pairs(root: Path, count: int = 10, size_px: tuple[int, int] = (8, 12)) -> dict[str, Any]:
    """Save pairs whose mask holds index + 1 pixels of class 1, and return the section that reads them."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        name = f"frame_{index // 2}_{index:02d}"
        Image.fromarray(np.full((*size_px, 3), index, dtype=np.uint8)).save(root / "images" / f"{name}.png")
        ids = np.zeros(size_px, dtype=np.uint8)
        ids.flat[: index + 1] = 1
        Image.fromarray(ids).save(root / "masks" / f"{name}.png")
    return {"dataset": str(root), "classes": ["ground", "thing"]}


def test_camvid_counts(test_data: Path) -> None:
    data = load_segmentation_dataset({"dataset": "${SEGPLUS_DATA}/camvid", "void": [11]})
    truth = json.loads((test_data / "camvid" / "counts.json").read_text())
    assert data.classes.names == tuple(truth["classes"][:11])
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        check = check_split(data.splits[split], progress=False)
        assert check.images == truth["splits"][name]["pairs"]
        assert check.pixels == list(truth["splits"][name]["pixel_counts"].values())
        assert check.images_with == list(truth["splits"][name]["images_containing"].values())


def test_a_dict_and_the_dataclass_give_the_same(tmp_path: Path) -> None:
    section = save_pairs(tmp_path)
    first, second = load_segmentation_dataset(section), load_segmentation_dataset(DataRecipe(**section))
    assert first.splits["train"].fingerprint == second.splits["train"].fingerprint
    assert first.splits["train"].names == second.splits["train"].names


def test_a_misspelt_key_is_refused() -> None:
    with pytest.raises(InputError, match=r"(?s)'data.class'.*did you mean 'classes'"):
        load_segmentation_dataset({"class": []})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"validation_share": 1.0}, "validation_share"),
        ({"validation_share": 0.5, "test_share": 0.5}, "nothing to train on"),
        ({"folds": 1}, "data.folds"),
        ({"folds": 3, "fold": 3}, "data.fold"),
        ({"group_pattern": "("}, "not a regular expression"),
        ({"group_pattern": "abc"}, "no group"),
        ({"classes": 3}, "data.classes"),
        ({"image_range": [5, 1]}, "image_range"),
        ({"max_images": {"val": 3}}, "no such split"),
        ({"max_images": {"train": 0}}, "too few"),
    ],
)
def test_values_that_mean_nothing_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_segmentation_dataset(section)


def test_no_class_names(tmp_path: Path) -> None:
    section = save_pairs(tmp_path, 2)
    del section["classes"]
    with pytest.raises(InputError, match="no class names"):
        load_segmentation_dataset(section)
    (tmp_path / "id2label.json").write_text('{"0": "ground", "1": "thing"}')
    assert load_segmentation_dataset(section).classes.names == ("ground", "thing")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    section = save_pairs(tmp_path, 2)
    for key, value in (("void", ["thin"]), ("merge", {"x": ["thin"]}), ("colors", {"thin": [1, 2, 3]})):
        with pytest.raises(InputError, match=r"(?s)thin.*did you mean 'thing'"):
            load_segmentation_dataset({**section, key: value})


def test_a_different_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    section = save_pairs(tmp_path, 3)
    Image.new("RGB", (12, 9)).save(tmp_path / "images" / "frame_0_00.png")
    split = load_segmentation_dataset({**section, "validation_share": 0.0}).splits["train"]
    message = r"frame_0_00.png: image and mask have different sizes\n  found: image 12 x 9, mask 12 x 8 px"
    with pytest.raises(InputError, match=message):
        split[0]
    with pytest.raises(InputError, match=message):
        check_split(split, progress=False)


def test_a_truncated_image_names_itself(tmp_path: Path) -> None:
    section = save_pairs(tmp_path, 3, (64, 64))
    path = tmp_path / "images" / "frame_0_01.png"
    path.write_bytes(path.read_bytes()[:-40])
    split = load_segmentation_dataset({**section, "validation_share": 0.0}).splits["train"]
    with pytest.raises(InputError, match="frame_0_01.png: damaged or truncated"):
        split[1]


def test_the_check_names_every_bad_file_and_remembers_good_splits(tmp_path: Path, cache_folder: Path) -> None:
    section = {**save_pairs(tmp_path, 4), "validation_share": 0.0}
    split = load_segmentation_dataset(section).splits["train"]
    assert check_split(split, progress=False).pixels == [4 * 96 - 10, 10, 0]
    assert len(list(cache_folder.rglob("*.json"))) == 1
    for name in ("frame_0_01", "frame_1_02"):
        Image.fromarray(np.full((8, 12), 9, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    split = load_segmentation_dataset(section).splits["train"]
    with pytest.raises(InputError, match=r"(?s)frame_0_01.png.*2 of 4 pairs.*frame_1_02.png.*9 \(96 pixels\)"):
        check_split(split, progress=False)


def test_a_remembered_check_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {**save_pairs(tmp_path, 4), "validation_share": 0.0}
    first = check_split(load_segmentation_dataset(section).splits["train"], progress=False)
    split = load_segmentation_dataset(section).splits["train"]

    def refuse(self: SegmentationSplit, index: int) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(SegmentationSplit, "raw_label", refuse)
    assert check_split(split, progress=False).counts.tolist() == first.counts.tolist()
    other = load_segmentation_dataset({**section, "void": ["thing"]}).splits["train"]
    with pytest.raises(AssertionError, match="read again"):
        check_split(other, progress=False)


def test_the_fingerprint_is_of_what_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {**save_pairs(tmp_path / "here", 4), "validation_share": 0.0}

    def find_fingerprint(root: str = "here", **changed: Any) -> str:
        data = load_segmentation_dataset({**section, "dataset": str(tmp_path / root), **changed})
        return data.splits["train"].fingerprint

    first = find_fingerprint()
    assert find_fingerprint(void=["thing"]) != first
    assert find_fingerprint(max_images={"train": 3}) != first
    shutil.copytree(tmp_path / "here", tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.png"):
        os.utime(path, (1, 1))
    assert find_fingerprint("moved") == first
    path = tmp_path / "moved" / "images" / "frame_0_01.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # of the same length
    os.utime(path, (2, 2))
    assert find_fingerprint("moved") != first
    monkeypatch.setattr(contents, "_digest_entry", lambda entry: pytest.fail(f"{entry} was read again"))
    assert find_fingerprint() == first


def test_binary_masks_read_as_ids_are_refused(tmp_path: Path) -> None:
    section = {**save_pairs(tmp_path, 2), "validation_share": 0.0}
    for path in (tmp_path / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    with pytest.raises(InputError, match="set data.encoding: binary"):
        check_split(load_segmentation_dataset(section).splits["train"], progress=False)
    split = load_segmentation_dataset({**section, "encoding": "binary"}).splits["train"]
    assert check_split(split, progress=False).pixels == [189, 3, 0]


def test_255_is_void_where_the_recipe_says_so(tmp_path: Path) -> None:
    section = {**save_pairs(tmp_path, 2), "validation_share": 0.0}
    for path in (tmp_path / "masks").iterdir():  # a small split without class 1
        Image.fromarray(np.asarray(Image.open(path)) * 255).save(path)
    for meaning in (
        {"void": [255]},
        {"classes": {0: "ground", 1: "thing", 255: "void"}, "void": ["void"]},
    ):
        split = load_segmentation_dataset({**section, **meaning}).splits["train"]
        assert check_split(split, progress=False).pixels == [189, 0, 3]


def test_binary_masks_that_never_reach_the_threshold_are_refused(tmp_path: Path) -> None:
    section = {**save_pairs(tmp_path, 2), "validation_share": 0.0, "encoding": "binary"}
    with pytest.raises(
        InputError, match=r"(?s)no mask reaches data.threshold.*in 2 masks, such as .*set data.threshold"
    ):
        check_split(load_segmentation_dataset(section).splits["train"], progress=False)
    split = load_segmentation_dataset({**section, "threshold": 1}).splits["train"]
    assert check_split(split, progress=False).pixels == [189, 3, 0]


def test_binary_masks_without_foreground_are_right(tmp_path: Path) -> None:
    section = {**save_pairs(tmp_path, 2), "validation_share": 0.0, "encoding": "binary"}
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "masks").iterdir()):
        path.unlink()
        noise = rng.integers(0, 9, (8, 12), dtype=np.uint8)  # what JPEG leaves of an empty mask
        Image.fromarray(noise).save(path.with_suffix(".jpg"), quality=95)
    split = load_segmentation_dataset(section).splits["train"]
    assert check_split(split, progress=False).pixels == [192, 0, 0]
    for path in (tmp_path / "masks").iterdir():  # drawn in 100, as JPEG: the threshold is too high
        Image.fromarray(np.full((8, 12), 100, dtype=np.uint8)).save(path)
    with pytest.raises(InputError, match=r"no mask reaches data.threshold"):
        check_split(load_segmentation_dataset(section).splits["train"], progress=False)


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    section = {**save_pairs(tmp_path, 2), "validation_share": 0.0}
    palettes = ([0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0])
    for path, palette in zip(sorted((tmp_path / "masks").iterdir()), palettes, strict=True):
        image = Image.fromarray(np.asarray(Image.open(path)))
        image.putpalette(palette)
        image.save(path)
    with pytest.raises(InputError, match="palette index 0 has another colour"):
        check_split(load_segmentation_dataset(section).splits["train"], progress=False)
    colors = {"ground": [0, 0, 0], "thing": [255, 0, 0]}
    split = load_segmentation_dataset({**section, "encoding": "colors", "colors": colors}).splits["train"]
    assert check_split(split, progress=False).pixels == [95 + 2, 1 + 94, 0]


def test_workers_read_what_the_process_reads(tmp_path: Path) -> None:
    split = load_segmentation_dataset({**save_pairs(tmp_path), "validation_share": 0.0}).splits["train"]
    again = pickle.loads(pickle.dumps(split))
    assert again.fingerprint == split.fingerprint
    loader = torch.utils.data.DataLoader(
        split, batch_size=1, num_workers=2, collate_fn=lambda rows: rows[0], multiprocessing_context="fork"
    )
    assert [int((row["label"] == 1).sum()) for row in loader] == list(range(1, 11))


def test_pickled_size_does_not_hold_pixels(tmp_path: Path) -> None:
    split = load_segmentation_dataset({**save_pairs(tmp_path, 4, (600, 800)), "validation_share": 0.0}).splits["train"]
    for index in range(4):
        split[index]
    assert len(pickle.dumps(split)) < 50_000


def test_seven_to_three_and_seeded(tmp_path: Path) -> None:
    section = save_pairs(tmp_path)
    first = load_segmentation_dataset(section)
    assert {name: len(split) for name, split in first.splits.items()} == {"train": 7, "validation": 3}
    assert load_segmentation_dataset(section).splits["train"].names == first.splits["train"].names
    other = load_segmentation_dataset({**section, "split_seed": 1})
    assert other.splits["train"].names != first.splits["train"].names
    names = first.splits["train"].names + first.splits["validation"].names
    assert len(set(names)) == 10


def test_groups_stay_together(tmp_path: Path) -> None:
    data = load_segmentation_dataset({**save_pairs(tmp_path), "group_pattern": r"frame_(\d)_"})
    sets = [{name.split("_")[1] for name in split.names} for split in data.splits.values()]
    assert not sets[0] & sets[1]
    assert sum(map(len, sets)) == 5
    with pytest.raises(InputError, match="an image has no group"):
        load_segmentation_dataset({"dataset": str(tmp_path), "classes": ["a", "b"], "group_pattern": "(clip)"})


def test_folds_cover_everything_once(tmp_path: Path) -> None:
    section = save_pairs(tmp_path)
    held_out: list[str] = []
    for fold in range(5):
        data = load_segmentation_dataset({**section, "folds": 5, "fold": fold})
        assert not set(data.splits["train"].names) & set(data.splits["validation"].names)
        assert len(data.splits["train"]) == 8
        held_out += data.splits["validation"].names
    assert len(held_out) == len(set(held_out)) == 10


def test_max_images_and_unused_splits(tmp_path: Path) -> None:
    section = {**save_pairs(tmp_path), "max_images": {"train": 4}}
    assert {k: len(v) for k, v in load_segmentation_dataset(section).splits.items()} == {"train": 4, "validation": 3}
    section = {**section, "max_images": {}, "validation_split": "none", "test_share": 0.2}
    assert {k: len(v) for k, v in load_segmentation_dataset(section).splits.items()} == {"train": 8, "test": 2}


def test_stratified_shares_hold_for_every_class() -> None:
    rng = np.random.default_rng(0)
    presence = rng.random((1000, 4)) < [0.9, 0.3, 0.05, 0.01]
    parts = divide([str(i) for i in range(1000)], [0.7, 0.3], seed=3, presence=presence)
    assert [len(part) for part in parts] == [700, 300]
    held = presence[parts[1]].sum(axis=0)
    np.testing.assert_allclose(held, presence.sum(axis=0) * 0.3, atol=1.0)


def test_stratified_folds_by_group_keep_groups_and_rare_classes() -> None:
    rng = np.random.default_rng(1)
    groups = [f"g{index // 4}" for index in range(400)]
    presence = np.repeat(rng.random((100, 3)) < [0.8, 0.2, 0.05], 4, axis=0)
    parts = divide(groups, [0.2] * 5, seed=0, presence=presence)
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))
    assert all(len({groups[i] for i in a} & {groups[i] for i in b}) == 0 for a in parts for b in parts if a is not b)
    for part in parts:
        assert abs(presence[part, 2].sum() - presence[:, 2].sum() / 5) <= 4


def test_presence_is_read_from_the_masks(tmp_path: Path) -> None:
    split = load_segmentation_dataset({**save_pairs(tmp_path, 96 // 8), "validation_share": 0.0}).splits["train"]
    assert measure_split(split, progress=False).presence.tolist() == [[True, True]] * 12
    data = load_segmentation_dataset({**save_pairs(tmp_path / "more"), "stratify": True})
    assert len(data.splits["validation"]) == 3


def test_too_few_groups() -> None:
    with pytest.raises(InputError, match="1 groups cannot make 2 splits"):
        divide(find_groups(["a_1", "a_2"], r"(\w)_"), [0.7, 0.3], seed=0)


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """A hundred thousand entries cost their names, under 300 bytes each, and nothing more when they are read."""
    count = 100_000
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png")
    Image.new("L", (8, 8)).save(tmp_path / "m.png")
    rows = build_table(
        (f"frame_{index:06d}", str(tmp_path / "i.png"), str(tmp_path / "m.png")) for index in range(count)
    )
    classes = ClassMap.build(["ground", "thing"])
    split = SegmentationSplit(rows, MaskDecoder(classes), ImageReader(), "train")
    assert rows.data.nbytes < 300 * count
    tracemalloc.start()
    check = [split[index]["label"].sum() for index in range(0, count, 200)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(check) == 0
    assert peak < 2_000_000


def test_sections_in_the_documentation_are_valid() -> None:
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 17
    for block in blocks:
        build_section(yaml.safe_load(block)["data"])

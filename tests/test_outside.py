"""What comes from outside is read into typed values, or refused in one message that names it."""

from __future__ import annotations

import io
import json
import os
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segplus.classes import ClassMap
from segplus.data import load_segmentation_dataset
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.masks import MaskDecoder
from segplus.errors import InputError, suggest
from segplus.losses.configuration import build_criterion
from segplus.recipe import load_recipe

SQUARE = [2, 2, 20, 2, 20, 20, 2, 20]
SIZE = (24, 32)


def load(tmp_path: Path, text: str, *arguments: str) -> Any:
    path = tmp_path / "run.yaml"
    path.write_text("model: {config: {model_type: segformer}}\n" + text, encoding="utf-8")
    return load_recipe(path, arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {seed: !!int 7}", "tag tag:yaml.org,2002:int is not for plain values"),
        ("data: " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("data: " + "[" * 60 + "]" * 60, "40 levels"),
        ("data: &a [*a]", "40 levels"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [" + "*a, " * 50 + "]\nc: [" + "*b, " * 50 + "]", "20000 values"),
        ("data: {? [a] : b}", "a key that is no text or number"),
        ("data: {dataset: a, dataset: b}", "key 'dataset' stands twice"),
        ("data: {seed: " + "9" * 5000 + "}", "not valid YAML"),
        ("data: {dataset: 2024-99-99, seed: 2024-01-01}", r"data.seed has the wrong type\n  found: '2024-01-01'"),
        ("data: {split_seed: -1}", "data.split_seed: outside its range"),
        ("data: {void: [[1, 2]]}", "data.void: no mask value, class name or colour"),
        ("data: {void: [null]}", "data.void: no mask value"),
        ("data: {void: [16777216]}", "data.void: no mask value"),
        ("data: {dataset: 'a\\0b'}".replace("'", '"'), "data.dataset holds a character that is no text"),
        ("card: {description: 'my hf_abcdefghijklmnopqrstuvwxyz0123'}", "card.description holds a Hub token"),
        ("evaluation: {surface_tolerance: .inf}", "evaluation.surface_tolerance is not finite"),
        ("model: {config: {model_type: segformer, drop_path_rate: .nan}}", "model.config.drop_path_rate is not finite"),
        ("training: {weight_decay: nan}", "training.weight_decay is not finite"),
        ("training: {save_steps: 1" + "0" * 30 + "}", "training.save_steps is too large"),
        ("training: {seed: -1}", "training.seed"),
        ("training: {data_seed: 4294967296}", "training.data_seed"),
        ("training: {adam_beta2: 1.0}", "training.adam_beta2"),
        ("training: {max_grad_norm: -1}", "training.max_grad_norm"),
        ("training: {max_steps: 0}", r"training.max_steps\n  found: 0"),
        ("training: {dataloader_num_workers: -1}", "training.dataloader_num_workers"),
        ("training: {dataloader_prefetch_factor: 0}", "training.dataloader_prefetch_factor"),
        ("training: {log_level: x}", "training.log_level: no such level"),
        ("training: {eval_strategy: x}", "training.eval_strategy"),
        ("training: {accelerator_config: missing.json}", "training.accelerator_config: no such file"),
        ("transforms: {crop_size_px: [60000, 60000]}", "above data.max_image_megapixels"),
    ],
)
def test_a_recipe_value_that_no_run_can_be_done_with_is_refused_by_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.yaml"
    head = "" if text.startswith("model") else "model: {config: {model_type: segformer}}\n"
    tail = "" if "data:" in text else "\ndata: {dataset: synthetic}\n"
    path.write_text(head + text + tail, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_dates_and_numbers_are_text_where_text_is_asked_for(tmp_path: Path) -> None:
    recipe = load(tmp_path, "data: {dataset: 2024-01-01, revision: 7}\ntraining: {max_steps: 1}")
    assert (recipe.data.dataset, recipe.data.revision, recipe.training["max_steps"]) == ("2024-01-01", "7", 1)


def test_a_recipe_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(InputError, match=r"run.yaml: no such file\n  found: a FIFO"):
        load_recipe(tmp_path / "run.yaml")


def test_losses_and_class_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(InputError, match="losses: every term weighs 0"):
        build_criterion({"cross_entropy": 0, "dice": 0.0}, 2)
    with pytest.raises(InputError, match="class_weights: every class weighs 0"):
        build_criterion({"cross_entropy": 1.0}, 2, class_weights=[0.0, 0.0])
    build_criterion({"dice": {"schedule": "linear", "to": 1.0}}, 2)


def test_a_long_word_is_compared_with_nothing() -> None:
    assert suggest("x" * 10**6, ["learning_rate"]) == "choose one of: learning_rate"
    assert len(str(InputError("a", found="x" * 10**6))) < 2100


def write_pairs(folder: Path, pairs: int = 2) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(pairs):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "masks" / f"{number}.png")
    (folder / "id2label.json").write_text('{"0": "ground", "1": "thing"}')
    return folder


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "image,mask\nimages/0.png,masks/0.png,more\n", "line 2: more cells than columns"),
        ("a.csv", "image,mask,mask\nimages/0.png,masks/0.png,masks/1.png\n", "columns that stand twice"),
        ("a.tsv", "image\tmask\tx\nimages/0.png\tmasks/0.png\t" + "x" * 200_000, "line 2: not a table"),
        ("a.csv", b"image,mask\nimages/\xe9.png,masks/0.png\n", "not a table of text"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON .nested too deeply"),
        ("a.jsonl", '{"image": ' + "9" * 5000 + "}", "line 1: not JSON"),
        ("a.jsonl", '{"image": "\\ud800", "mask": "x"}', "row 1: no such file"),
    ],
)
def test_a_table_that_is_none_is_refused_by_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    data = write_pairs(tmp_path)
    (data / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=said) as caught:
        load_segmentation_dataset({"dataset": str(data / name)})
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("legend", "said"),
    [
        ({"00": "a", "0": "b"}, "two names for one value"),
        ({"²": "a"}, "not value: name lines"),
        ({"0": None, "1": "b"}, "a name that is no text"),
        ({"0": ["a"]}, "0: not a colour"),
    ],
)
def test_an_id2label_with_odd_keys_is_refused_by_file(tmp_path: Path, legend: dict[str, Any], said: str) -> None:
    data = write_pairs(tmp_path)
    (data / "id2label.json").write_text(json.dumps(legend))
    with pytest.raises(InputError, match=f"id2label.json: {said}"):
        load_segmentation_dataset({"dataset": str(data)})


def test_values_with_gaps_are_classes_and_colours_are_hexadecimal(tmp_path: Path) -> None:
    data = write_pairs(tmp_path)
    (data / "id2label.json").write_text('{"0": "ground", "7": "thing"}')
    assert load_segmentation_dataset({"dataset": str(data)}).classes.names == ("ground", "thing")
    with pytest.raises(InputError, match="data.colors.thing: not a colour"):
        load_segmentation_dataset({"dataset": str(data), "colors": {"ground": "#00ff00", "thing": "#zzzzzz"}})


def write_coco(folder: Path, **changes: Any) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "images/0.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]}],
    }
    for path, value in changes.items():
        member, _, key = path.partition("__")
        if key and value is ...:
            del content[member][0][key]
        elif key:
            content[member][0][key] = value
        else:
            content[member] = value
    write_pairs(folder)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "all.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images__height": ...}, r"images\[0\] .images/0.png., height: not a whole number"),
        ({"images__width": 10**30}, "width: not a whole number"),
        ({"images__id": None}, "id: not a whole number"),
        ({"images": None}, "images: not a list"),
        ({"annotations__image_id": 9}, "annotation 5: no such image"),
        ({"annotations__category_id": None}, "annotation 5, category_id"),
        ({"annotations__segmentation": [[float("nan"), 2, 20, 2, 20, 20]]}, "annotation 5: (a point|not points)"),
        (
            {"annotations__segmentation": [[2, 2, 20, float("nan"), 20, 20]]},
            "annotation 5: a point that is not a number",
        ),
        ({"annotations__segmentation": [[1e300, 2, 20, 2, 20, 20]]}, "annotation 5: not points near the image"),
        ({"annotations__segmentation": [[float("inf"), 2, 20, 2, 20, 20]]}, "annotation 5: not points near the image"),
        ({"annotations__segmentation": [[2, 2, 20, 2]]}, "annotation 5: not a polygon\n  found: 4 numbers"),
        ({"annotations__segmentation": [SQUARE, []]}, "annotation 5: not a polygon"),
        ({"annotations__segmentation": [[0, 0, 1200, 1200] * 500]}, "longer than the image has pixels"),
        ({"annotations__segmentation": {"size": list(SIZE), "counts": [5]}}, "annotation 5: run lengths of 5 pixels"),
        (
            {"annotations__segmentation": {"size": [16, 16], "counts": [256]}},
            "annotation 5: run lengths of another size",
        ),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories of id 1\n  found: a, b"),
        ({"categories": []}, "no categories"),
    ],
)
def test_a_coco_member_that_cannot_be_is_refused_by_file(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_segmentation_dataset({"dataset": str(write_coco(tmp_path, **changes)), "layout": "coco"})
    assert "all.json" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"label": None}, r"shapes\[0\], label: not a name"),
        ({"points": [[1, 2], [3, float("nan")], [5, 6]]}, "a shape of thing: (a point|not points)"),
        ({"points": None}, "points: not a list"),
        ({"shape_type": []}, "a shape without an area"),
    ],
)
def test_a_labelme_shape_that_cannot_be_is_refused_by_file(tmp_path: Path, shape: dict[str, Any], said: str) -> None:
    write_pairs(tmp_path)
    shapes = [{"label": "thing", "points": [[2, 2], [20, 2], [20, 20]], "shape_type": "polygon"} | shape]
    content = {"imagePath": "0.png", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes}
    (tmp_path / "images" / "0.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said) as caught:
        load_segmentation_dataset({"dataset": str(tmp_path / "images"), "layout": "labelme"})
    assert "0.json" in str(caught.value)


def claim_array(shape: tuple[int, ...]) -> bytes:
    """Return a .npy file of some bytes whose header states a shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(64)


def zip_array(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", content)
    return buffer.getvalue()


def test_what_a_file_claims_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    huge = (60_000, 60_000)
    files = {"a.npz": zip_array(claim_array((*huge, 3))), "a.npy": claim_array((*huge, 3))}
    masks: list[Any] = [json.dumps({"size": huge, "background": 0, "shapes": []})]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        masks.append({"bytes": content, "path": name})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in files:
        with pytest.raises(InputError, match=f"{name}: implausibly large image"):
            ImageReader().read(str(tmp_path / name), name)
    for mask in masks:
        with pytest.raises(InputError, match="implausibly large image"):
            MaskDecoder(ClassMap.build(["a", "b"])).read(mask, "mask")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; any of them claims gigabytes


def test_the_limit_is_the_recipes_and_on_what_is_decoded_at_once(tmp_path: Path) -> None:
    data = write_pairs(tmp_path, pairs=4)
    split = load_segmentation_dataset({"dataset": str(data), "max_image_megapixels": 0.0007}).splits["train"]
    with pytest.raises(InputError, match=r"32 x 24 px; at most 0.0007 megapixels"):
        split[0]
    for number in range(4):
        (data / "images" / f"{number}.png").unlink()
        np.save(data / "images" / f"{number}.npy", np.full((*SIZE, 3), number, np.uint8))
        (data / "masks" / f"{number}.png").unlink()
        np.save(data / "masks" / f"{number}.npy", np.zeros(SIZE, np.uint8))
    split = load_segmentation_dataset({"dataset": str(data), "max_image_megapixels": 0.0007}).splits["train"]
    assert split.open(0).image((0, 0, 4, 4)).shape == (4, 4, 3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, under NumPy 2
def test_sizes_are_compared_before_a_mask_is_decoded(tmp_path: Path) -> None:
    write_coco(tmp_path, images__height=12_000, images__width=12_000)
    section = {"dataset": str(tmp_path), "layout": "coco", "validation_share": 0}
    split = load_segmentation_dataset(section).splits
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="image and mask have different sizes"):
        split["train"][0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_fifo_among_the_files_is_not_waited_for(tmp_path: Path, folder: str) -> None:
    data = write_pairs(tmp_path)
    (data / folder / "1.png").unlink()
    os.mkfifo(data / folder / "1.png")
    with pytest.raises(InputError, match=r"1.png: no such file\n  found: a FIFO"):
        load_segmentation_dataset({"dataset": str(data)})

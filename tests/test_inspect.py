"""The data doctor: exact counts, and a specimen of every trouble."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter

from segplus.commands.inspect import inspect
from segplus.data import SegmentationSplit, check_splits, load_segmentation_dataset
from segplus.inspection import inspect_dataset
from segplus.inspection.measurements import lie_between
from segplus.losses.class_weights import FORMULAS
from segplus.recipe import DataRecipe, ModelRecipe, Recipe, load_recipe
from segplus.training.building import build_recipe_criterion

SIZE = (96, 128)


def draw_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of textured blocks and the ids 0, 1, 2 of the blocks."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(SIZE, dtype=np.uint8)
    for class_id in (1, 2, 1, 2):
        top, left = rng.integers(4, SIZE[0] - 44), rng.integers(4, SIZE[1] - 44)
        ids[top : top + rng.integers(20, 40), left : left + rng.integers(20, 40)] = class_id
    colors = np.array([[40, 60, 80], [200, 120, 40], [90, 220, 150]])
    image = colors[ids] + rng.normal(0, 6, (*SIZE, 3)) + rng.integers(-30, 30)
    return np.clip(image, 0, 255).astype(np.uint8), ids


def save_dataset(root: Path, splits: dict[str, list[int]]) -> dict[str, Any]:
    """Save split/images and split/masks of scenes with these seeds, and return the section that reads them."""
    for split, seeds in splits.items():
        for seed in seeds:
            save_pair(root, split, f"scene{seed:03d}", *draw_scene(seed))
    return {"dataset": str(root), "classes": ["ground", "brick", "grass"]}


def save_pair(root: Path, split: str, name: str, image: np.ndarray, ids: np.ndarray) -> None:
    for folder, pixels in (("images", image), ("masks", ids)):
        (root / split / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / split / folder / f"{name}.png")


def list_findings(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return finding by its name."""
    return {finding["kind"]: finding for finding in inspect_dataset(section, progress=False).report["findings"]}


@pytest.fixture
def section(tmp_path: Path) -> dict[str, Any]:
    return save_dataset(tmp_path, {"train": list(range(8)), "val": list(range(100, 104))})


def test_sound_data_have_no_findings_and_exact_counts(section: dict[str, Any]) -> None:
    audit = inspect_dataset(section, progress=False)
    assert audit.report["findings"] == []
    assert audit.exit_code == 0
    for name, split in load_segmentation_dataset(section).splits.items():
        counted = np.sum([np.bincount(pair["label"].ravel(), minlength=3) for pair in split], axis=0)
        assert list(audit.report["splits"][name]["pixel_counts"].values()) == counted.tolist()
        assert audit.report["splits"][name]["pairs"] == len(split)


def test_objects_and_weights_of_a_hand_made_mask(tmp_path: Path) -> None:
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[10:20, 10:20] = 1
    ids[20:22, 20:22] = 1  # touches by a corner: the same object
    ids[50, 60:63] = 1
    ids[80:90, 10:110] = 255
    save_pair(tmp_path, "train", "a", draw_scene(0)[0], ids)
    report = inspect_dataset(
        {"dataset": str(tmp_path), "classes": ["x", "y"], "validation_share": 0}, progress=False
    ).report
    train = report["splits"]["train"]
    assert train["pixel_counts"] == {"x": 96 * 128 - 107 - 1000, "y": 107}
    assert train["ignored_pixels"] == 1000
    assert train["objects"] == {"x": 1, "y": 2}
    assert train["smallest_object_px"] == {"x": 11181, "y": 3}
    assert report["class_frequencies"]["y"] == pytest.approx(107 / 11288, abs=1e-8)
    # 1 / frequency, then divided by the mean of both
    inverse = [11288 / 11181, 11288 / 107]
    assert report["class_weights"]["inverse_frequency"]["y"] == pytest.approx(2 * inverse[1] / sum(inverse), abs=1e-3)


def test_weights_are_those_of_training(
    section: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under each formula's name inspect prints what the criterion of a training on the same data weighs with."""
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    path = Path(section["dataset"]) / "train" / "masks" / "scene003.png"
    ids = np.array(Image.open(path))
    ids[20:60] = 255  # ignored pixels count in no frequency
    Image.fromarray(ids).save(path)
    report = inspect_dataset({**section, "void": [255]}, progress=False).report
    data = load_segmentation_dataset({**section, "void": [255]})
    assert set(report["class_weights"]) == set(FORMULAS)
    for formula, weights in report["class_weights"].items():
        model = ModelRecipe(config={"model_type": "segformer"})
        recipe = Recipe(DataRecipe(), model, losses={"cross_entropy": 1.0}, class_weights=formula)
        criterion = build_recipe_criterion(recipe, data)
        assert not isinstance(criterion, str)
        assert criterion.class_weights is not None
        assert list(weights.values()) == pytest.approx(criterion.class_weights.tolist(), abs=5e-5)


def test_what_was_inspected_is_not_read_again_before_training(
    section: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    read: list[int] = []
    counted = SegmentationSplit.raw_label
    monkeypatch.setattr(
        SegmentationSplit, "raw_label", lambda self, index: (read.append(index), counted(self, index))[1]
    )
    report = inspect_dataset(section, progress=False).report
    assert sorted(read) == sorted([*range(8), *range(4)])  # train and val, each mask once
    splits = load_segmentation_dataset(section).splits
    read.clear()
    found = check_splits(splits, progress=False)
    assert read == []
    for name, statistics in found.items():
        assert statistics.pixels[:-1] == list(report["splits"][name]["pixel_counts"].values())


def test_splits_of_even_classes_are_those_of_training(section: dict[str, Any]) -> None:
    made = {**section, "validation_split": "none", "validation_share": 0.0, "test_share": 0.4, "stratify": True}
    report = inspect_dataset(made, progress=False).report
    for name, split in load_segmentation_dataset(made).splits.items():
        counted = np.sum([np.bincount(pair["label"].ravel(), minlength=3) for pair in split], axis=0)
        assert list(report["splits"][name]["pixel_counts"].values()) == counted.tolist()


def test_values_outside_are_an_error_with_files_and_pixels(section: dict[str, Any]) -> None:
    path = Path(section["dataset"]) / "train" / "masks" / "scene003.png"
    ids = np.array(Image.open(path))
    ids[0, :7] = 9
    Image.fromarray(ids).save(path)
    finding = list_findings(section)["outside the classes"]
    assert finding["level"] == "error"
    assert "9 (7 pixels)" in finding["message"]
    assert finding["files"] == [str(path)]
    assert inspect(section, output=io.StringIO()) == 1
    assert inspect({**section, "unknown": "ignore"}, output=io.StringIO()) == 0


def test_orphans_sizes_and_damage_are_errors_and_the_rest_is_still_counted(section: dict[str, Any]) -> None:
    root = Path(section["dataset"])
    (root / "train" / "masks" / "scene000.png").unlink()
    Image.new("L", (10, 10)).save(root / "train" / "masks" / "scene001.png")
    (root / "train" / "images" / "scene002.png").write_bytes(b"no image")
    findings = list_findings(section)
    assert "1 images without a mask (scene000.png)" in findings["orphans"]["message"]
    assert "image 128 x 96, mask 10 x 10" in findings["sizes differ"]["message"]
    assert "not an image file" in findings["unreadable"]["message"]
    assert inspect_dataset(section, progress=False).report["splits"]["train"]["pairs"] == 6


def test_missing_names_list_the_values(section: dict[str, Any]) -> None:
    del section["classes"]
    audit = inspect_dataset(section, progress=False)
    assert audit.exit_code == 1
    assert audit.report["class_names"] == ["value 0", "value 1", "value 2"]
    assert yaml.safe_load(audit.report["recipe"])["data"]["classes"] == {0: "value 0", 1: "value 1", 2: "value 2"}


def test_shifted_masks(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("*/masks/*.png"):
        Image.fromarray(np.roll(np.array(Image.open(path)), (3, 8), axis=(0, 1))).save(path)
    message = list_findings(section)["shifted masks"]["message"]
    across, down = [int(word) for word in message.replace(",", " ").split() if word.lstrip("+-").isdigit()]
    assert abs(across + 8) <= 1
    assert abs(down + 3) <= 1


def test_flipped_masks(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("*/masks/*.png"):
        Image.fromarray(np.array(Image.open(path))[:, ::-1]).save(path)
    assert "flipped left-right" in list_findings(section)["turned masks"]["message"]


def test_interpolated_masks(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("train/masks/*.png"):
        wide = Image.fromarray(np.array(Image.open(path)) * 20).filter(ImageFilter.BoxBlur(1))
        wide.save(path)
    section["classes"] = {value: f"c{value}" for value in range(256)}
    assert "8 pairs" in list_findings(section)["interpolated mask"]["message"]


COLORS = {"ground": [128, 64, 128], "brick": [0, 0, 0], "grass": [64, 0, 192]}


def paint_masks(section: dict[str, Any]) -> list[Path]:
    """Turn the masks of a data set into colours, and return their paths."""
    paths = sorted(Path(section["dataset"]).glob("*/masks/*.png"))
    for path in paths:
        Image.fromarray(np.array(list(COLORS.values()), dtype=np.uint8)[np.array(Image.open(path))]).save(path)
    section |= {"classes": list(COLORS), "colors": COLORS}
    return paths


@pytest.mark.parametrize(("resample", "factor"), [("BILINEAR", 1.7), ("BICUBIC", 0.6), ("LANCZOS", 2.0), ("BOX", 0.5)])
def test_interpolated_masks_of_colours(section: dict[str, Any], resample: str, factor: float) -> None:
    for path in (path for path in paint_masks(section) if "train" in path.parts):
        for file in (path, path.parent.parent / "images" / path.name):
            image = Image.open(file)
            size = round(image.width * factor), round(image.height * factor)
            image.resize(size, Image.Resampling[resample]).save(file)
    for unknown in ("error", "ignore"):
        assert "8 pairs" in list_findings({**section, "unknown": unknown})["interpolated mask"]["message"]


def test_sharp_masks_of_colours_are_not_called_interpolated(section: dict[str, Any]) -> None:
    paths = paint_masks(section)
    assert list_findings(section) == {}
    for path in paths:  # resized as it should be, and a class that the legend lacks, its colour between two others
        mask = Image.open(path)
        pixels = np.array(
            mask.resize((mask.width // 2, mask.height // 2), Image.Resampling.NEAREST).resize(mask.size, 0)
        )
        pixels[(pixels == COLORS["grass"]).all(axis=-1)] = [64, 32, 64]
        Image.fromarray(pixels).save(path)
    findings = list_findings(section)
    assert "(64, 32, 64)" in findings["outside the classes"]["message"]
    assert "interpolated mask" not in findings


def test_colours_between_others() -> None:
    legend = np.array([[0, 0, 0], [200, 100, 0], [0, 0, 255]], dtype=np.int32)
    colors = np.array(
        [[100, 50, 0], [67, 33, 1], [100, 50, 9], [0, 0, 254], [0, 255, 0], [100, 50, 128]], dtype=np.int32
    )
    assert lie_between(colors, legend).tolist() == [True, True, False, True, False, True]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (lambda ids: np.rot90(ids, -1), "when turned left by 90 degrees"),
        (lambda ids: np.rot90(ids), "when turned right by 90 degrees"),
        (lambda ids: ids.T, "when transposed"),
        (lambda ids: ids[::-1, ::-1].T, "when transposed along the other diagonal"),
    ],
)
def test_quarter_turns_of_square_pairs(tmp_path: Path, turn: Any, said: str) -> None:
    for seed in range(8):
        image, ids = draw_scene(seed)
        save_pair(tmp_path, "train", f"scene{seed}", image[:96, :96], turn(ids[:96, :96]))
    section = {"dataset": str(tmp_path), "classes": ["ground", "brick", "grass"], "validation_share": 0}
    assert list_findings(section)["turned masks"]["message"].endswith(said)


def test_duplicates_within_and_across_splits(section: dict[str, Any]) -> None:
    root = Path(section["dataset"])
    image, ids = draw_scene(2)
    save_pair(root, "train", "copy", image, 2 - ids)
    nudged = np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)
    save_pair(root, "val", "brighter", nudged, ids)
    findings = list_findings(section)
    assert findings["equal images"]["files"] == ["train/copy = train/scene002"]
    assert "1 equal images" in findings["equal images with different masks"]["message"]
    assert "1 images of validation look like one of train" in findings["near-duplicates across splits"]["message"]
    assert findings["near-duplicates across splits"]["files"][0].startswith("validation/brighter ~ train/")


def test_looks_of_images_and_masks(section: dict[str, Any]) -> None:
    root = Path(section["dataset"])
    image, ids = draw_scene(50)
    save_pair(root, "train", "dark", image // 20, ids)
    save_pair(root, "train", "flat", np.full_like(image, 77), ids)
    save_pair(root, "train", "grey", np.repeat(image[..., :1], 3, axis=-1), np.zeros_like(ids))
    save_pair(root, "train", "empty", draw_scene(51)[0], np.full_like(ids, 255))
    findings = list_findings(section)
    for problem, name in (
        ("dark image", "images/dark"),
        ("constant image", "images/flat"),
        ("grey image", "images/grey"),
        ("constant mask", "masks/grey"),
        ("ignored mask", "masks/empty"),
    ):
        assert findings[problem]["files"] == [f"{root}/train/{name}.png"], problem


def test_binary_masks_read_as_ids(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("*/masks/*.png"):
        Image.fromarray(np.where(np.array(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    section["classes"] = ["ground", "thing"]
    assert list_findings(section)["binary masks read as ids"]["level"] == "error"
    proposed = yaml.safe_load(inspect_dataset(section, progress=False).report["recipe"])["data"]
    assert proposed["encoding"] == "binary"
    assert "binary masks read as ids" not in list_findings(proposed)


def test_binary_masks_of_0_and_1(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("*/masks/*.png"):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8)).save(path)
    section |= {"classes": ["ground", "thing"], "encoding": "binary"}
    finding = list_findings(section)["foreground below the threshold"]
    assert finding["level"] == "error"
    assert "data.threshold" in finding["fix"]
    assert inspect(section, output=io.StringIO()) == 1
    assert "foreground below the threshold" not in list_findings({**section, "threshold": 1})


def test_palettes_that_differ(section: dict[str, Any]) -> None:
    for number, path in enumerate(sorted(Path(section["dataset"]).glob("*/masks/*.png"))):
        mask = Image.open(path).copy()
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] if number else [0, 0, 0, 0, 255, 0, 255, 0, 0])
        mask.save(path)
    finding = list_findings(section)["palettes that differ"]
    assert finding["level"] == "error"
    assert "palette index 1 has another colour" in finding["message"]


def test_255_is_void_where_the_recipe_says_so(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("*/masks/*.png"):
        Image.fromarray(np.where(np.array(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    section |= {"classes": ["ground", "thing"], "void": [255]}
    audit = inspect_dataset(section, progress=False)
    assert audit.exit_code == 0
    assert "encoding" not in yaml.safe_load(audit.report["recipe"])["data"]


def test_a_folder_that_cannot_be_opened_is_a_finding(tmp_path: Path) -> None:
    audit = inspect_dataset({"dataset": str(tmp_path / "none")}, progress=False)
    assert audit.exit_code == 1
    assert "no such folder" in audit.report["findings"][0]["message"]


def test_json_and_page(section: dict[str, Any], tmp_path: Path) -> None:
    output, page = io.StringIO(), tmp_path / "page" / "data.html"
    assert inspect(section, as_json=True, page=page, output=output) == 0
    assert json.loads(output.getvalue())["splits"]["train"]["pairs"] == 8
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 6 + 4
    assert "http" not in text
    assert "brick" in text


def test_the_page_shows_suspicious_pairs(section: dict[str, Any], tmp_path: Path) -> None:
    path = Path(section["dataset"]) / "train" / "masks" / "scene007.png"
    Image.fromarray(np.full(SIZE, 9, dtype=np.uint8)).save(path)
    page = tmp_path / "data.html"
    assert inspect(section, page=page, output=io.StringIO()) == 1
    assert "scene007: <b>outside the classes, ignored mask</b>" in page.read_text()
    assert page.read_text().count("data:image/webp;base64,") == 7 + 4


def test_drawn_scenes_can_be_inspected() -> None:
    drawn = {"dataset": "synthetic", "synthetic_images": {"train": 2}, "synthetic_size_px": [96, 128]}
    report = inspect_dataset(drawn, progress=False).report
    assert report["splits"]["train"]["mask_encodings"] == {"PNG L": 2}


@pytest.mark.slow
def test_camvid(test_data: Path, tmp_path: Path) -> None:
    audit = inspect_dataset({"dataset": str(test_data / "camvid")}, progress=False)
    truth = json.loads((test_data / "camvid" / "counts.json").read_text())["splits"]
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        found = audit.report["splits"][split]
        assert found["pairs"] == truth[name]["pairs"]
        assert found["pixel_counts"] == truth[name]["pixel_counts"]
        assert found["images_containing"] == truth[name]["images_containing"]
    findings = {finding["kind"]: finding for finding in audit.report["findings"]}
    assert set(findings) == {"class named like void", "sequences across splits"}
    assert findings["sequences across splits"]["files"] == [
        "0001TP: train 62, test 62",
        "0016E5: train 204, validation 101",
    ]
    path = tmp_path / "proposed.yaml"
    path.write_text(audit.report["recipe"])
    recipe = load_recipe(str(path))
    assert load_segmentation_dataset(recipe.data).classes.num_classes == 11
    assert recipe.losses == {"cross_entropy": 1.0, "tversky": 1.0}
    assert recipe.class_weights == "enet"


def test_a_sentence_is_said_once_with_the_files_below_it(section: dict[str, Any]) -> None:
    for path in Path(section["dataset"]).glob("train/masks/*.png"):
        Image.fromarray(np.stack([np.array(Image.open(path)) * 90] * 2 + [np.zeros(SIZE, np.uint8)], -1)).save(path)
    output = io.StringIO()
    assert inspect(section, output=output) == 1
    text = output.getvalue()
    assert text.count("a colour mask where ids were promised") == 1
    assert "ERROR    train: 8 pairs cannot be read: a colour mask where ids were promised, such as 3 colours:" in text
    assert text.count("give each colour its class in data.colors") == 1
    assert text.count("scene000.png") == 1


def test_many_classes_do_not_flood_the_terminal(section: dict[str, Any]) -> None:
    section["classes"] = ["ground", "brick", "grass", *(f"class {number}" for number in range(147))]
    output = io.StringIO()
    inspect(section, output=output)
    text = output.getvalue()
    assert "grass" in text
    assert text.count("... and 140 classes with fewer pixels: segplus inspect --json, or --page") == 2
    assert "147 of 150 classes have no pixel in any split: class 0, class 1, class 2, class 3, class 4, ..." in text
    assert text.count("\n") < 100  # 17 of them are the names in the recipe
    assert len(inspect_dataset(section, progress=False).report["class_names"]) == 150


def test_the_fix_of_what_cannot_be_opened_is_said_once(tmp_path: Path) -> None:
    output = io.StringIO()
    assert inspect({"dataset": str(tmp_path / "none")}, output=output) == 1
    assert output.getvalue().count("ive a Hub id: owner/name") == 1


def test_a_void_colour_is_shown_as_a_colour(section: dict[str, Any]) -> None:
    paint_masks(section)
    renamed = {"ground": COLORS["ground"], "void": COLORS["brick"], "grass": COLORS["grass"]}
    message = list_findings({**section, "classes": list(renamed), "colors": renamed})["class named like void"][
        "message"
    ]
    assert message == "class 'void' (mask colour (0, 0, 0)) looks like void"

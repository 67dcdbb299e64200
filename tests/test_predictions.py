"""What `segplus predict` writes beside label maps: kinds, measurements, the gallery, and how it goes on."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.measure import regionprops
from test_inference_commands import find_images, read_label, refuse, write_data, write_model

from segplus.__main__ import main
from segplus.commands.chosen_decision import parse_pixel_size
from segplus.commands.predict import predict
from segplus.data import load_segmentation_dataset
from segplus.errors import InputError
from segplus.inference.annotations import annotate_coco
from segplus.inference.checkpoint import find_checkpoint
from segplus.inference.ensemble import find_ensemble
from segplus.inference.object_measurements import measure_classes, measure_objects
from segplus.recipe import DataRecipe
from segplus.recipe.evaluation_section import ProtocolRecipe

NAMES = ["sky", "road", "tree", "car"]
SIZES = [(40, 60), (33, 47), (61, 31)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "scenes", SIZES) / "images"


def test_every_kind_says_what_the_model_says(model, photos, tmp_path):
    kinds = ["ids", "confidence", "uncertainty", "probabilities", "contours", "labelme", "coco"]
    predict(model, photos, tmp_path, kinds=kinds, measure="areas.json", gallery=True, progress=False)
    predictor = find_checkpoint(model).load()
    coco = json.loads((tmp_path / "coco.json").read_text())
    for number, size in enumerate(SIZES):
        name = f"{number}.png"
        with Image.open(photos / name) as image:
            probabilities = predictor.predict_probabilities(image.convert("RGB")).numpy()
            labels = predictor.predict(image.convert("RGB")).numpy()
        np.testing.assert_array_equal(read_label(tmp_path / "ids" / name), labels)
        stored = np.load(tmp_path / "probabilities" / f"{number}.npz")
        assert stored["class_names"].tolist() == NAMES
        assert stored["probabilities"].dtype == np.uint8
        assert np.abs(stored["probabilities"] / 255 - probabilities).max() <= 0.5 / 255 + 1e-5
        confidence = read_label(tmp_path / "confidence" / name) / 255
        assert np.abs(confidence - probabilities.max(0)).max() <= 0.5 / 255 + 1e-5
        entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(4)
        assert np.abs(read_label(tmp_path / "uncertainty" / name) / 255 - entropy).max() <= 0.5 / 255 + 1e-4
        with Image.open(tmp_path / "contours" / name) as drawn, Image.open(photos / name) as photo:
            changed = (np.array(drawn) != np.array(photo)).any(-1)
            assert drawn.size == (size[1], size[0])
            assert 0 < changed.mean() < 1
        listed = [one for one in coco["annotations"] if one["image_id"] == number + 1]
        assert sum(one["area"] for one in listed) == labels.size
    assert [image["file_name"] for image in coco["images"]] == ["0.png", "1.png", "2.png"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("<li data-number") == 3
    assert "http" not in page
    assert all((tmp_path / "thumbnails" / f"{number}.jpg").exists() for number in range(3))


def test_annotations_are_read_back_as_the_same_masks(tmp_path):
    """Run lengths to the pixel; the polygons of labelme to what lies on an outline."""
    labels = np.zeros((24, 30), np.uint8)
    labels[3:12, 4:20] = 1
    labels[6:9, 8:14] = 2
    labels[20:, 25:] = 3
    labels[0, 0] = 2
    for one in annotate_coco(labels, 4):
        flat = np.repeat(np.arange(len(one["segmentation"]["counts"])) % 2, one["segmentation"]["counts"])
        mask = flat.reshape(30, 24).T
        left, top, width, height = one["bbox"]
        assert mask.sum() == one["area"] == (labels == one["category_id"] - 1)[mask > 0].sum()
        assert mask[top : top + height, left : left + width].sum() == mask.sum()
    assert len(annotate_coco(labels, 4)) == 5  # the ground is one object, the second class two


def test_labelme_files_can_be_trained_on(model, tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)).resize((96, 64))
    (tmp_path / "images").mkdir()
    photo.save(tmp_path / "images" / "0.png")
    predict(model, tmp_path / "images", tmp_path / "corrected", kinds="labelme", progress=False)
    predict(model, tmp_path / "images", tmp_path / "masks", progress=False)
    content = json.loads((tmp_path / "corrected" / "0.json").read_text())
    assert content["imagePath"] == "../images/0.png"
    photo.save(tmp_path / "corrected" / "0.png")
    content["imagePath"] = "0.png"
    (tmp_path / "corrected" / "0.json").write_text(json.dumps(content))
    section = DataRecipe(dataset=str(tmp_path / "corrected"), layout="labelme", validation_share=0.0)
    data = load_segmentation_dataset(section)
    drawn = next(iter(data.splits.values()))[0]["label"]
    predicted = read_label(tmp_path / "masks" / "0.png")
    named = np.array([NAMES.index(name) if name in NAMES else 99 for name in data.classes.names])
    assert float((named[drawn] == predicted).mean()) > 0.9


def test_measurements_by_hand():
    labels = np.zeros((10, 12), np.uint8)
    labels[2:6, 3:9] = 1
    labels[8, 1] = labels[9, 2] = 1  # touch by a corner
    labels[0, 11] = 255
    confidence = np.full(labels.shape, 0.5, np.float32)
    confidence[2:6, 3:9] = 0.75
    classes = measure_classes(labels, ["ground", "crack"], (0.5, 0.2))
    assert classes["crack"] == {"area_px": 26, "share": 26 / 120, "area_mm2": pytest.approx(2.6)}
    assert classes["ground"]["area_px"] == 120 - 27
    ground, large, small = measure_objects(labels, ["ground", "crack"], confidence, (0.5, 0.2))
    assert ground["class"] == "ground"
    assert (large["area_px"], large["top_px"], large["left_px"], large["height_px"], large["width_px"]) == (
        24,
        2,
        3,
        4,
        6,
    )
    assert (large["centroid_y_px"], large["centroid_x_px"], large["mean_confidence"]) == (3.5, 5.5, 0.75)
    assert large["area_mm2"] == pytest.approx(2.4)
    assert large["perimeter_px"] == 16  # through the middles of the outer pixels
    assert large["major_axis_px"] == pytest.approx(4 * np.sqrt((6**2) / 12), rel=0.03)
    assert (small["area_px"], small["mean_confidence"]) == (2, 0.5)
    assert len(measure_objects(labels, ["ground", "crack"])) == 3
    (first, second) = measure_objects(labels, ["ground", "crack"], among=["crack"], with_contours=True)
    assert first["contours"] == [[[3, 2], [3, 5], [8, 5], [8, 2]]]
    assert second["contours"] == [[[1, 8], [2, 9]]]
    labels[3:5, 5:7] = 0  # a hole has an outline of its own
    assert len(measure_objects(labels, ["ground", "crack"], among=["crack"], with_contours=True)[0]["contours"]) == 2


def test_areas_of_small_pixels_keep_their_digits():
    labels = np.zeros((10, 10), dtype=np.uint8)
    labels[:3, :5] = 1
    (_, crack) = measure_objects(labels, ["ground", "crack"], pixel_size_mm=(0.0005, 0.0005))
    assert crack["area_mm2"] == 3.75e-6
    assert measure_classes(labels, ["ground", "crack"], (0.05, 0.05))["crack"]["area_mm2"] == 0.0375


def test_tables_hold_a_row_an_image_and_a_row_an_object(model, photos, tmp_path):
    predict(model, photos, tmp_path / "a", measure="areas.csv", pixel_size="50um", progress=False)
    with (tmp_path / "a" / "areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png"]
    with (tmp_path / "a" / "areas_objects.csv").open() as file:
        objects = list(csv.DictReader(file))
    for row, (name, labels) in zip(rows, find_images(tmp_path / "a").items(), strict=True):
        for class_id, kind in enumerate(NAMES):
            mask = labels == class_id
            assert int(row[f"area_px/{kind}"]) == mask.sum()
            assert float(row[f"area_mm2/{kind}"]) == pytest.approx(mask.sum() * 0.0025)
            own = [one for one in objects if one["image"] == name and one["class"] == kind]
            assert int(row[f"objects/{kind}"]) == len(own) == ndimage.label(mask, np.ones((3, 3)))[1]
            assert sum(int(one["area_px"]) for one in own) == mask.sum()
    predict(model, photos, tmp_path / "b", measure="areas.parquet", progress=False)
    assert pq.read_table(tmp_path / "b" / "areas.parquet").num_rows == 3
    assert "area_mm2/sky" not in pq.read_table(tmp_path / "b" / "areas.parquet").column_names


def test_objects_are_of_the_classes_asked_for_and_none_of_the_background(model, photos, tmp_path, capsys):
    model = str(shutil.copytree(model, tmp_path / "model"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["id2label"]["0"], config["label2id"] = "background", {}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    command = ["predict", model, str(photos), "--measure", "areas.csv", "--contours"]
    assert main([*command, "-o", str(tmp_path / "a")]) == 0
    assert main([*command, "-o", str(tmp_path / "b"), "--objects-of", "background", "--objects-of", "car"]) == 0
    listed = {}
    for folder in ("a", "b"):
        with (tmp_path / folder / "areas_objects.csv").open() as file:
            listed[folder] = list(csv.DictReader(file))
        with (tmp_path / folder / "areas.csv").open() as file:
            header = next(csv.reader(file))
        assert ("objects/background" in header, "objects/road" in header) == (folder == "b", folder == "a")
        assert "area_px/background" in header
    assert {one["class"] for one in listed["a"]} <= {"road", "tree", "car"}
    assert "background" in {one["class"] for one in listed["b"]} <= {"background", "car"}
    for one in [*listed["a"], *listed["b"]]:
        x, y, wide, tall = (int(one[f"{key}_px"]) for key in ("left", "top", "width", "height"))
        outer = np.array(json.loads(one["contours"])[0])
        assert outer.min(0).tolist() == [x, y]
        assert outer.max(0).tolist() == [x + wide - 1, y + tall - 1]
    assert "--objects-of: no class 'rust'" in refuse(
        capsys, *command, "-o", str(tmp_path / "c"), "--objects-of", "rust"
    )
    assert "add --measure" in refuse(capsys, *command[:3], "-o", str(tmp_path / "c"), "--contours")


def test_what_is_done_stays_and_what_a_kill_cut_off_is_done_again(model, photos, tmp_path):
    settings = {"measure": "areas.csv", "gallery": True, "progress": False}
    whole = predict(model, photos, tmp_path, **settings)
    tables = (tmp_path / "areas.csv").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in whole}
    records = tmp_path / "segplus_records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:2]) + lines[2][:40])  # as a kill leaves it
    whole[1].unlink()
    assert predict(model, photos, tmp_path, **settings) == whole
    assert (tmp_path / "areas.csv").read_text() == tables
    assert whole[0].stat().st_mtime_ns == stamps[whole[0]]
    assert whole[1].exists()
    with pytest.raises(InputError, match="made otherwise .precision."):
        predict(model, photos, tmp_path, precision="bfloat16", **settings)


def test_a_bad_file_is_told_at_the_end_and_the_rest_is_done(model, photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in photos.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-5000])
    (folder / "text.png").write_text("no image")
    command = ["predict", model, str(folder), "-o", str(tmp_path / "out"), "--measure", "areas.csv"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "2 of 5 images left out, the other 3 are done" in said
    assert "cut.png: damaged or truncated file" in said
    assert "text.png" in said
    assert len(find_images(tmp_path / "out")) == 3
    assert len((tmp_path / "out" / "areas.csv").read_text().splitlines()) == 4


def test_a_list_on_stdin_and_batches(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / '2.png'}\n\n{photos / '0.png'}\n"))
    assert main(["predict", model, "-", "-o", str(tmp_path / "listed"), "--batch", "2"]) == 0
    predict(model, photos, tmp_path / "all", progress=False)
    listed, alone = find_images(tmp_path / "listed"), find_images(tmp_path / "all")
    assert listed.keys() == {"0.png", "2.png"}
    assert all(float((labels == alone[name]).mean()) > 0.999 for name, labels in listed.items())


def test_half_precision_differs_little(model, photos, tmp_path):
    predict(model, photos, tmp_path / "half", precision="bfloat16", progress=False)
    predict(model, photos, tmp_path / "whole", progress=False)
    half, whole = find_images(tmp_path / "half"), find_images(tmp_path / "whole")
    agreement = [float((half[name] == labels).mean()) for name, labels in whole.items()]
    assert min(agreement) > 0.9


def test_disagreement_of_views_models_and_dropout(model, photos, tmp_path):
    other = write_model(tmp_path / "other", 1)
    with Image.open(photos / "0.png") as opened:
        image = opened.convert("RGB")
    for predictor, samples in (
        (find_ensemble([model, other]).load(), 0),
        (find_ensemble(model).load(ProtocolRecipe(flip=True, scales=[0.5, 1.0])), 0),
        (find_ensemble(model).load(), 3),
    ):
        found = predictor.measure_disagreement(image, samples)
        assert found.shape == (40, 60)
        assert 0 <= float(found.min()) < float(found.max()) <= 1
    together = find_ensemble([model, other]).load()
    each = torch.stack([find_checkpoint(one).load().predict_probabilities(image) for one in (model, other)])
    expected = torch.special.entr(each.mean(0)).sum(0) - torch.special.entr(each).sum(1).mean(0)
    torch.testing.assert_close(together.measure_disagreement(image), expected / np.log(4), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="one prediction alone contradicts nothing"):
        find_ensemble(model).load().measure_disagreement(image)


@pytest.mark.parametrize(("text", "expected"), [("0.05mm", 0.05), ("3um", 0.003), ("2 cm", 20.0), ("1e-3m", 1.0)])
def test_sizes_of_a_pixel(text, expected):
    assert parse_pixel_size(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "mm", "0mm", "-1mm", "5", "3 feet", "nanmm", "1e400mm"])
def test_what_is_no_size_of_a_pixel(text):
    with pytest.raises(InputError, match="--pixel-size: not a length"):
        parse_pixel_size(text)


def test_a_resolution_from_the_file(model, tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "scan.png", dpi=(254, 508))
    common = ["predict", model, str(tmp_path / "scan.png"), "-o", str(tmp_path / "out"), "--measure", "a.json"]
    assert main([*common, "--pixel-size", "file"]) == 0
    record = json.loads((tmp_path / "out" / "a.json").read_text())[0]
    total = sum(entry["area_mm2"] for entry in record["classes"].values())
    assert total == pytest.approx(48 * 0.1 * 0.05, rel=1e-3)
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.png")
    assert main(["predict", model, str(tmp_path / "photo.png"), "-o", str(tmp_path / "o"), "--pixel-size", "file"]) == 2
    assert "photo.png: states no resolution" in capsys.readouterr().err
    for options, message in (
        (["--measure", "areas.txt"], "--measure: not a table"),
        (["--measure", "../areas.csv"], "outside of the folder"),
        (["--batch", "0"], "--batch and --dropout-samples"),
    ):
        assert message in refuse(capsys, "predict", model, tmp_path / "scan.png", "-o", tmp_path / "x", *options)


def test_figures_of_objects_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    labels = (ndimage.gaussian_filter(rng.random((90, 70)), 2.5) > 0.5).astype(np.uint8)
    numbers, _ = ndimage.label(labels, np.ones((3, 3)))
    theirs = {tuple(region.bbox): region for region in regionprops(numbers)}
    ours = [one for one in measure_objects(labels, ["ground", "blob"]) if one["class"] == "blob"]
    assert len(ours) == len(theirs) > 5
    for one in ours:
        top, left = one["top_px"], one["left_px"]
        region = theirs[top, left, top + one["height_px"], left + one["width_px"]]
        assert one["area_px"] == region.area
        assert (one["centroid_y_px"], one["centroid_x_px"]) == pytest.approx(region.centroid, abs=1e-4)
        assert one["perimeter_px"] == pytest.approx(region.perimeter, abs=1e-4)
        assert one["major_axis_px"] == pytest.approx(region.axis_major_length, abs=1e-3)
        assert one["minor_axis_px"] == pytest.approx(region.axis_minor_length, abs=1e-3)
        assert one["orientation_rad"] == pytest.approx(region.orientation, abs=1e-3)


def test_images_of_a_data_set_are_those_of_its_files(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted(photos.glob("*.png"))
    content = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    unnamed = [{"bytes": one["bytes"], "path": None} for one in content]
    features = datasets.Features({"scan": datasets.Image(), "thumb": datasets.Image()})
    rows = datasets.Dataset.from_dict({"scan": content, "thumb": unnamed}, features=features)
    datasets.DatasetDict({"train": rows.select([0]), "test": rows}).save_to_disk("saved")
    rows.save_to_disk("one")
    command = ["predict", model, "saved:test", "--image-column", "scan", "--measure", "areas.csv"]
    assert main([*command, "--kind", "ids", "--kind", "labelme", "-o", "a"]) == 0
    assert main(["predict", model, "one", "--image-column", "thumb", "-o", "b"]) == 0
    assert main(["predict", model, str(photos), "-o", "c"]) == 0
    expected = find_images(tmp_path / "c")
    found, numbered = find_images(tmp_path / "a" / "ids"), find_images(tmp_path / "b")
    assert found.keys() == expected.keys() == {path.name for path in files}
    assert list(numbered) == [f"{number:06}.png" for number in range(len(files))]
    for (name, labels), other in zip(sorted(expected.items()), numbered.values(), strict=True):
        np.testing.assert_array_equal(found[name], labels)
        np.testing.assert_array_equal(other, labels)
    assert "saved: which split?\n  allowed: train, test" in refuse(capsys, *command[:2], "saved", "-o", "d")
    assert "saved: which column holds the images?\n  found: scan, thumb" in refuse(capsys, *command[:3], "-o", "d")
    assert "did you mean 'scan'" in refuse(capsys, *command[:4], "scam", "-o", "d")
    assert "the input is no data set" in refuse(capsys, *command[:2], str(photos), *command[3:5], "-o", "d")
    assert "nowhere: no file, and no data set" in refuse(capsys, *command[:2], "nowhere:test", "-o", "d")

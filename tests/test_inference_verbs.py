"""evaluate, predict and compare on saved models."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.classes import ClassMap
from segplus.commands.compare import compare
from segplus.commands.evaluate import evaluate
from segplus.commands.predict import predict
from segplus.data import SegmentationData
from segplus.errors import InputError
from segplus.metrics import ConfusionMatrix
from segplus.metrics.bootstrap import FEWEST
from segplus.recipe import EvaluationRecipe
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.reporting.metrics_file import write_metrics
from segplus.reporting.table import format_comparison_table

CLASSES = ClassMap.build(["sky", "road", "tree", "car"])
# All as far from each other: a mixture of two is nearest to the larger share, whatever the others.
COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
METRICS = ["boundary_iou", "trimap_iou", "hausdorff_95", "surface_dice", "objects", "calibration"]
FAST = EvaluationRecipe(bootstrap_resamples=20)


class ColorConfig(PreTrainedConfig):
    model_type = "segplus_test_color"


class ColorModel(PreTrainedModel):
    """Knows the class of every colour."""

    config_class = ColorConfig

    def __init__(self, config):
        super().__init__(config)
        self.colors = nn.Parameter(torch.tensor(COLORS).float() / 255)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, pixel_values):
        distance = (pixel_values[:, None] - self.colors[:, :, None, None]).square().sum(2)
        return SemanticSegmenterOutput(logits=-1e4 * distance)


AutoConfig.register("segplus_test_color", ColorConfig)
AutoModelForSemanticSegmentation.register(ColorConfig, ColorModel)


class ListedSplit:
    """Images in memory with the face of SegmentationSplit."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]

    def name(self, index):
        return self.pairs[index]["name"]

    def sources(self, index):
        return self.name(index), f"mask of {self.name(index)}"


SIZES = [(40, 60), (33, 47), (64, 31), (1, 50), (37, 1)]


def draw_data(sizes=SIZES, ignored=True):
    rng = np.random.default_rng(0)
    pairs = []
    for index, size in enumerate(sizes):
        label = rng.integers(0, 4, size).astype(np.uint8)
        image = Image.fromarray(np.array(COLORS, dtype=np.uint8)[label])
        if ignored:
            label[rng.random(size) < 0.1] = 255
        pairs.append({"image": image, "label": label, "name": f"part/{index}"})
    return SegmentationData({"train": ListedSplit(pairs[:1]), "test": ListedSplit(pairs)}, CLASSES)


def save(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    config = ColorConfig(id2label=CLASSES.id2label, label2id=CLASSES.label2id)
    processor = SegformerImageProcessorPil(do_resize=False, do_normalize=False)
    return save(tmp_path_factory.mktemp("perfect"), ColorModel(config), processor)


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=16,
        id2label=CLASSES.id2label,
        label2id=CLASSES.label2id,
    )
    model = SegformerForSemanticSegmentation(config)
    nn.init.normal_(model.decode_head.classifier.weight, std=2)
    processor = SegformerImageProcessorPil(size={"height": 64, "width": 96})
    return save(tmp_path_factory.mktemp("random"), model, processor)


def assert_perfect(scores, images):
    means = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_precision", "mean_dice", "frequency_weighted_iou")
    means += ("mean_precision_with_missed", "per_image_mean_iou")
    for name in (*means, "mean_boundary_iou", "surface_dice", "mean_object_f1", "mean_object_quality"):
        assert scores[name] == 1.0, name
    for name in ("iou", "accuracy", "precision", "dice", "boundary_iou", "surface_dice"):
        assert scores[f"per_category_{name}"] == [1.0] * 4, name
    assert set(scores["trimap_iou"].values()) == {1.0}
    assert scores["hausdorff_95"] == 0.0
    assert scores["per_category_hausdorff_95"] == [0.0] * 4
    assert scores["per_category_hausdorff_95_undefined"] == [0] * 4
    assert scores["expected_calibration_error"] == 0.0
    assert set(scores["intervals"]) == {*means, "per_category_iou"}
    if images >= FEWEST:
        assert all(interval == [1.0, 1.0] for interval in scores["intervals"]["per_category_iou"])
        assert all(scores["intervals"][name] == [1.0, 1.0] for name in means)
    else:
        assert np.isnan(scores["intervals"]["mean_iou"]).all()
    assert scores["images"] == images


SLIDING = {"name": "sliding", "window_px": [32, 32]}


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"name": "original"},
        SLIDING,
        {**SLIDING, "blending": "uniform", "overlap": 0.25, "windows_per_batch": 3},
        {**SLIDING, "window_px": [256, 256]},
    ],
    ids=["fixed", "original", "sliding", "uniform", "large windows"],
)
def test_a_perfect_model_scores_one_in_everything(perfect, tmp_path, protocol, flip, average):
    protocol = ProtocolRecipe(**protocol, flip=flip, average=average)
    recipe = EvaluationRecipe(metrics=METRICS, bootstrap_resamples=20, protocol=protocol)
    metrics = evaluate(perfect, draw_data(), tmp_path, recipe=recipe, progress=False)
    assert_perfect(metrics["evaluations"]["test"], images=5)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("protocol", [{}, {"name": "original"}, SLIDING], ids=["fixed", "original", "sliding"])
def test_a_perfect_model_scores_one_at_several_scales(perfect, tmp_path, protocol, average):
    """Twice as large, the four pixels that one becomes are still nearest to its own colour."""
    checkpoint, sizes = perfect, SIZES
    if not protocol:
        checkpoint, sizes = tmp_path / "model", [(40, 60)] * 3
        processor = SegformerImageProcessorPil(size={"height": 40, "width": 60}, do_normalize=False)
        save(checkpoint, ColorModel.from_pretrained(perfect), processor)
    protocol = ProtocolRecipe(**protocol, scales=[1.0, 2.0], flip=True, average=average)
    recipe = EvaluationRecipe(metrics=METRICS, bootstrap_resamples=20, protocol=protocol)
    metrics = evaluate(str(checkpoint), draw_data(sizes), tmp_path / "out", recipe=recipe, progress=False)
    assert_perfect(metrics["evaluations"]["test"], images=len(sizes))


def test_files_of_an_evaluation(random, tmp_path):
    data = draw_data()
    metrics = evaluate(random, data, tmp_path, recipe=FAST, save_predictions="ids", progress=False)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["class_names"] == list(CLASSES.names)
    assert written["class_colors"] == [list(color) for color in CLASSES.colors]
    assert written["evaluations"]["test"]["mean_iou"] == metrics["evaluations"]["test"]["mean_iou"] < 0.9
    assert written["evaluations"]["test"]["protocol"]["name"] == "fixed"
    matrix = ConfusionMatrix(4)
    with (tmp_path / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    for pair, row in zip(data.splits["test"].pairs, rows, strict=True):
        labels = torch.from_numpy(np.array(Image.open(tmp_path / "predictions" / f"{pair['name']}.png")))
        single = ConfusionMatrix(4)
        single.update(labels, torch.from_numpy(pair["label"]))
        matrix.merge(single)
        assert row["name"] == pair["name"]
        assert float(row["mean_iou"]) == pytest.approx(single.compute()["mean_iou"], abs=1e-12)
    assert written["evaluations"]["test"]["confusion_matrix"] == matrix.matrix.tolist()
    assert not list(tmp_path.rglob("*.part*"))


def test_scores_per_image_as_parquet(random, tmp_path):
    evaluate(random, draw_data(), tmp_path, recipe=FAST, per_image="images.parquet", split="train", progress=False)
    table = pq.read_table(tmp_path / "images.parquet")
    assert table.num_rows == 1
    assert table.column_names[:2] == ["name", "mean_iou"]
    assert "iou/car" in table.column_names
    assert table.column_names[-1] == "dice/car"


def test_kinds_of_images(perfect, tmp_path):
    pair = draw_data(ignored=False).splits["test"][0]
    source = tmp_path / "photo.png"
    pair["image"].save(source)
    predict(perfect, source, tmp_path / "ids.png", progress=False)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "ids.png")), pair["label"])
    predict(perfect, source, tmp_path / "palette.png", kinds="palette", classes=CLASSES, progress=False)
    with Image.open(tmp_path / "palette.png") as palette:
        assert palette.mode == "P"
        np.testing.assert_array_equal(np.array(palette), pair["label"])
        np.testing.assert_array_equal(np.array(palette.convert("RGB")), np.array(CLASSES.colors)[pair["label"]])
    predict(perfect, source, tmp_path / "overlay.png", kinds="overlay", progress=False)
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size == pair["image"].size


def test_predictions_have_the_colours_of_the_run(perfect, tmp_path):
    checkpoint = shutil.copytree(perfect, tmp_path / "run")
    colors = [[1, 2, 3], [40, 50, 60], [70, 80, 90], [200, 100, 0]]
    for names, expected in ((list(CLASSES.names), colors[3]), (["a", "b", "c", "d"], list(CLASSES.colors[3]))):
        write_metrics(checkpoint / "metrics.json", {"class_names": names, "class_colors": colors})
        Image.new("RGB", (5, 4), COLORS[3]).save(tmp_path / "photo.png")
        predict(str(checkpoint), tmp_path / "photo.png", tmp_path / "out.png", kinds="palette", progress=False)
        with Image.open(tmp_path / "out.png") as palette:
            assert np.unique(np.array(palette)).tolist() == [3]
            assert list(palette.convert("RGB").getpixel((0, 0))) == expected


def test_what_is_done_is_not_done_again(perfect, random, tmp_path):
    for index, pair in enumerate(draw_data().splits["test"].pairs):
        pair["image"].save(tmp_path / f"{index}.png")
    output = tmp_path / "out"
    pattern = str(tmp_path / "*.png")
    first = predict(perfect, pattern, output, progress=False)
    assert len(first) == 5
    stamp = first[0].stat().st_mtime_ns
    first[1].unlink()
    assert predict(perfect, pattern, output, progress=False) == first
    assert first[0].stat().st_mtime_ns == stamp
    assert first[1].exists()
    with pytest.raises(InputError, match="made otherwise .checkpoint."):
        predict(random, pattern, output, progress=False)
    with pytest.raises(InputError, match="made otherwise .protocol."):
        predict(perfect, pattern, output, protocol=ProtocolRecipe(flip=True), progress=False)
    (output / "segplus_predictions.json").write_text("{}")
    with pytest.raises(InputError, match="made otherwise .checkpoint."):
        predict(perfect, pattern, output, progress=False)


def test_bad_images_are_one_message_before_the_model(perfect, tmp_path, monkeypatch):
    monkeypatch.setattr("segplus.inference.checkpoint.load_segmentation_checkpoint", None)
    with pytest.raises(InputError, match="no image found"):
        predict(perfect, tmp_path, tmp_path / "out")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        predict(perfect, tmp_path, tmp_path / "out")
    Image.new("RGB", (4, 4)).save(tmp_path / "twice.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "twice.jpg")
    with pytest.raises(InputError, match="would both become"):
        predict(perfect, tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="one file for"):
        predict(perfect, str(tmp_path / "twice.*"), tmp_path / "one.png")
    with pytest.raises(InputError, match="mask format"):
        predict(perfect, tmp_path / "twice.png", tmp_path / "one.png", kinds="mask")


def test_bad_data_is_one_message_before_the_model(perfect, tmp_path, monkeypatch):
    monkeypatch.setattr("segplus.inference.checkpoint.load_segmentation_checkpoint", None)
    data = draw_data()
    with pytest.raises(InputError, match="no split 'tset'(.|\n)*did you mean 'test'"):
        evaluate(perfect, data, tmp_path, split="tset")
    fewer = SegmentationData(data.splits, ClassMap.build(["sky", "road"]))
    with pytest.raises(InputError, match="4 classes in the checkpoint, 2 in the data"):
        evaluate(perfect, fewer, tmp_path)
    moved = SegmentationData(data.splits, ClassMap.build(["sky", "tree", "road", "car"]))
    with pytest.raises(InputError, match="class 1 is 'road' in the checkpoint, 'tree' in the data"):
        evaluate(perfect, moved, tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        evaluate(perfect, SegmentationData({"test": ListedSplit([])}, CLASSES), tmp_path)
    with pytest.raises(InputError, match="not a table"):
        evaluate(perfect, data, tmp_path, per_image="scores.xls")
    with pytest.raises(InputError, match=r"per_image ../scores.csv: outside of the folder of results"):
        evaluate(perfect, data, tmp_path, per_image="../scores.csv")
    with pytest.raises(InputError, match="no such folder"):
        evaluate("./nowhere", data, tmp_path)
    with pytest.raises(InputError, match="not several models"):
        compare([perfect], data, tmp_path)


def test_compare(perfect, random, tmp_path):
    data = draw_data()
    recipe = EvaluationRecipe(bootstrap_resamples=199)
    result = compare([perfect, random], data, tmp_path, recipe=recipe, progress=False)
    alone = evaluate(random, data, tmp_path / "alone", recipe=recipe, progress=False)["evaluations"]["test"]
    assert result["scores"][0]["mean_iou"] == 1.0
    assert result["scores"][1]["mean_iou"] == alone["mean_iou"]
    entry = result["differences"][random]["mean_iou"]
    assert entry["difference"] == pytest.approx(alone["mean_iou"] - 1)
    assert entry["low"] <= entry["difference"] <= entry["high"] < 0
    assert entry["p_value"] == 2 / 200
    shares = [row["disagreement"] for row in result["disagreements"]]
    assert shares == sorted(shares, reverse=True)
    assert {row["name"] for row in result["disagreements"]} == {f"part/{index}" for index in range(5)}
    # Against a perfect model an image's disagreement is its error.
    by_name = {row["name"]: row for row in result["disagreements"]}
    with (tmp_path / "alone" / "per_image.csv").open() as file:
        for row in csv.DictReader(file):
            assert by_name[row["name"]]["disagreement"] == pytest.approx(1 - float(row["overall_accuracy"]))
    assert json.loads((tmp_path / "comparison.json").read_text())["models"] == [perfect, random]
    with (tmp_path / "classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert list(classes[0]) == ["class", "iou/1", "iou/2", "difference/2", "low/2", "high/2", "p_value/2"]
    for row, iou in zip(classes, alone["per_category_iou"], strict=True):
        assert (float(row["iou/1"]), float(row["iou/2"])) == (1.0, iou)
        assert float(row["difference/2"]) == pytest.approx(iou - 1)
    assert sorted(path.name for path in (tmp_path / "disagreements").iterdir()) == ["1.png", "2.png", "3.png"]
    with Image.open(tmp_path / "disagreements" / "1.png") as sheet:
        assert sheet.width == 5 * 368 - 8 + 28  # image, truth, two predictions, differences
    table = format_comparison_table(result).splitlines()
    assert table[0].split() == ["class", "IoU", "1", "%", "IoU", "2", "%", "2", "-", "1", "p"]
    first = alone["per_category_iou"][0]
    assert table[2].split() == ["sky", "100.0", f"{100 * first:.1f}", f"{100 * (first - 1):+.1f}", "0.010"]


def test_an_image_of_ignored_pixels_only(perfect, tmp_path):
    data = draw_data()
    data.splits["test"].pairs[1]["label"][:] = 255
    scores = evaluate(perfect, data, tmp_path, recipe=FAST, progress=False)["evaluations"]["test"]
    assert scores["mean_iou"] == scores["per_image_mean_iou"] == 1.0
    with (tmp_path / "per_image.csv").open() as file:
        assert list(csv.DictReader(file))[1]["mean_iou"] == ""


def test_label_maps_stay_inside_their_folder(perfect, tmp_path):
    data = draw_data()
    pairs = data.splits["test"].pairs
    photo = tmp_path / "photos" / "1.png"
    photo.parent.mkdir()
    pairs[0]["image"].save(photo)
    before = photo.read_bytes()
    for pair, name in zip(pairs, [str(photo.with_suffix("")), "../../2", "3", "4", "5"], strict=True):
        pair["name"] = name
    evaluate(perfect, data, tmp_path / "out", recipe=FAST, save_predictions="ids", progress=False)
    written = {path.relative_to(tmp_path / "out" / "predictions") for path in (tmp_path / "out").rglob("?.png")}
    assert written == {
        photo.relative_to("/"),
        *(photo.with_name(f"{name}.png").relative_to(photo.parent) for name in "2345"),
    }
    assert photo.read_bytes() == before
    pairs[3]["name"] = "../2"
    with pytest.raises(InputError, match="would both become"):
        evaluate(perfect, data, tmp_path / "other", recipe=FAST, save_predictions="ids", progress=False)
    assert list((tmp_path / "other").iterdir()) == []
    with pytest.raises(InputError, match="would be written over an input file"):
        evaluate(perfect, str(tmp_path / "per_image.csv"), write_table(tmp_path), progress=False)


def write_table(folder):
    (folder / "per_image.csv").write_text("image,mask\n")
    return folder


def test_predictions_of_other_weights_and_foreign_files_are_refused(perfect, tmp_path):
    model = shutil.copytree(perfect, tmp_path / "model")
    photo, output = tmp_path / "1.png", tmp_path / "out"
    Image.new("RGB", (4, 4)).save(photo)
    output.mkdir()
    (output / "1.png").write_text("a person's")
    with pytest.raises(InputError, match="lies where a prediction would"):
        predict(str(model), photo, output, progress=False)
    assert (output / "1.png").read_text() == "a person's"
    (output / "1.png").unlink()
    predict(str(model), photo, output, progress=False)
    changed = AutoModelForSemanticSegmentation.from_pretrained(model)
    changed.colors.data[0] += 0.1
    changed.save_pretrained(model)
    with pytest.raises(InputError, match="made otherwise .weights."):
        predict(str(model), photo, output, progress=False)
    for damaged in ("", "[1]", '{"a": ' * 100_000):
        (output / "segplus_predictions.json").write_text(damaged)
        with pytest.raises(InputError, match="segplus_predictions.json: damaged"):
            predict(str(model), photo, output, progress=False)
    changed.colors.data[1] = torch.nan
    changed.save_pretrained(model)
    with pytest.raises(InputError, match="NaN or infinity\n  found: colors"):
        predict(str(model), photo, tmp_path / "one.png", progress=False)


def test_groups_are_asked_for_before_anything_is_predicted(perfect, tmp_path):
    recipe = EvaluationRecipe(bootstrap_group_pattern="^(patient)")
    with pytest.raises(InputError, match="evaluation.bootstrap_group_pattern: an image has no group"):
        evaluate(perfect, draw_data(), tmp_path / "one", recipe=recipe, progress=False)
    assert not (tmp_path / "one").exists()
    grouped = EvaluationRecipe(bootstrap_group_pattern=r"^(part)/", bootstrap_resamples=20)
    scores = evaluate(perfect, draw_data(), tmp_path, recipe=grouped, progress=False)["evaluations"]["test"]
    assert scores["groups"] == 1
    with (tmp_path / "per_group.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row.pop("group"), row.pop("images")) == ("part", str(scores["images"]))
    assert {float(value) for value in row.values()} == {1.0}
    assert np.isnan(scores["intervals"]["overall_accuracy"]).all(), "one group gives no interval"
    with pytest.raises(InputError, match="bootstrap_group_pattern: no group"):
        EvaluationRecipe(bootstrap_group_pattern="part")

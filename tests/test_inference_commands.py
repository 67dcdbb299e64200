"""evaluate, compare and predict by the real command: agreement, foreign checkpoints, processes, kills, mistakes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from launching import ROOT, build_launcher
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, SegformerConfig
from transformers import SegformerForSemanticSegmentation as Segformer
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.__main__ import main
from segplus.errors import EXIT_CODE_INPUT
from segplus.reporting.metrics_file import read_metrics

NAMES = {"0": "sky", "1": "road", "2": "tree", "3": "car"}
SIZES = [(40, 60), (33, 47), (61, 31), (1, 50), (37, 1)]  # an odd number of images, primes, one pixel wide
PROTOCOLS = {
    "fixed": [],
    "original": ["--protocol", "original"],
    "sliding": ["--protocol", "sliding", "--evaluation.protocol.window_px", "[32, 32]"],
    "uniform": [
        *[
            "--protocol",
            "sliding",
            "--evaluation.protocol.window_px",
            "[32, 64]",
            "--evaluation.protocol.overlap",
            "0.3",
        ],
        *["--evaluation.protocol.blending", "uniform", "--evaluation.protocol.windows_per_batch", "3"],
    ],
    "flip": ["--evaluation.protocol.flip", "true"],
    "scales": ["--evaluation.protocol.scales", "[0.5, 1.0, 1.5]", "--evaluation.protocol.average", "probabilities"],
    "everything": [
        *["--protocol", "sliding", "--evaluation.protocol.window_px", "[32, 32]", "--evaluation.protocol.flip", "true"],
        *["--evaluation.protocol.scales", "[0.75, 1.25]"],
    ],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


def write_model(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1] * 4,
        num_attention_heads=[1] * 4,
        decoder_hidden_size=16,
        id2label={int(key): name for key, name in NAMES.items()},
        label2id={name: int(key) for key, name in NAMES.items()},
    )
    model = Segformer(config)
    nn.init.normal_(model.decode_head.classifier.weight, std=2)
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 64, "width": 96}).save_pretrained(folder)
    return str(folder)


def write_data(folder: Path, sizes: list[tuple[int, int]] = SIZES) -> Path:
    """Write a data set whose images are drawn at random."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
        label = rng.integers(0, 4, size, dtype=np.uint8)
        label[rng.random(size) < 0.1] = 255
        Image.fromarray(label).save(folder / "masks" / f"{number}.png")
    (folder / "id2label.json").write_text(json.dumps(NAMES))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "scenes")


def read_label(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def find_images(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_label(path) for path in sorted(folder.glob("*.png"))}


def refuse(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """Run a command that must end with one message, and return it."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == EXIT_CODE_INPUT
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    return said[said.index("error: ") :]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_predict_writes_what_evaluate_scores(model: str, data: Path, tmp_path: Path, name: str) -> None:
    options = PROTOCOLS[name]
    scored = ["--split", "train", "--save-predictions", "ids", "--data.validation_share", "0"]
    assert main(["evaluate", model, str(data), "-o", str(tmp_path / "scored"), *scored, *options]) == 0
    assert main(["predict", model, str(data / "images"), "-o", str(tmp_path / "labels"), *options]) == 0
    expected, found = find_images(tmp_path / "scored" / "predictions"), find_images(tmp_path / "labels")
    assert expected.keys() == found.keys() == {f"{number}.png" for number in range(len(SIZES))}
    for image, size in zip(found, SIZES, strict=True):
        assert found[image].shape == size
        np.testing.assert_array_equal(found[image], expected[image])
    matrix = np.zeros((4, 4), dtype=np.int64)
    for image, guess in found.items():
        truth = read_label(data / "masks" / image)
        np.add.at(matrix, (truth[truth != 255], guess[truth != 255]), 1)
    assert (
        read_metrics(tmp_path / "scored" / "metrics.json")["evaluations"]["train"]["confusion_matrix"]
        == matrix.tolist()
    )


@pytest.mark.slow
def test_a_checkpoint_that_segplus_did_not_train(test_data: Path, tmp_path: Path) -> None:
    """The truth is what transformers' own post-processing gives: every score is exactly 1."""
    checkpoint = test_data / "models" / "deeplabv3-mobilenet-v2-voc-hf"
    model = AutoModelForSemanticSegmentation.from_pretrained(checkpoint).eval()
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    for name in ("images", "masks"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    for path in sorted((test_data / "camvid" / "test" / "images").iterdir())[:50:17]:
        image = Image.open(path)
        with torch.no_grad():
            outputs = model(**processor(images=[image], return_tensors="pt"))
        labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[image.size[::-1]])[0]
        image.save(tmp_path / "voc" / "images" / f"{path.stem}.png")
        Image.fromarray(labels.numpy().astype(np.uint8)).save(tmp_path / "voc" / "masks" / f"{path.stem}.png")
    (tmp_path / "voc" / "id2label.json").write_text(json.dumps(model.config.id2label))
    output = tmp_path / "scores"
    command = ["evaluate", str(checkpoint), str(tmp_path / "voc"), "-o", str(output), "--split", "train"]
    options = [
        "--data.validation_share",
        "0",
        "--per-image",
        "images.parquet",
        "--evaluation.metrics",
        "[boundary_iou]",
    ]
    assert main([*command, *options]) == 0
    scores = read_metrics(output / "metrics.json")["evaluations"]["train"]
    assert scores["images"] == 3
    assert 1 < scores["classes_present"] < 21
    for name in ("mean_iou", "overall_accuracy", "per_image_mean_iou", "mean_boundary_iou"):
        assert scores[name] == 1.0
    assert scores["intervals"]["mean_iou"] == [None, None], "three images are too few"
    assert pq.read_table(output / "images.parquet")["mean_iou"].to_pylist() == [1.0, 1.0, 1.0]
    assert "diningtable" in (output / "report.html").read_text(encoding="utf-8")


def test_a_checkpoint_for_another_task_is_one_message(
    test_data: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = test_data / "models" / "mobilenet-v2-imagenet-hf"
    assert "found: MobileNetV2ForImageClassification" in refuse(capsys, "evaluate", backbone, data, "-o", tmp_path)
    assert "is no semantic-segmentation model" in refuse(capsys, "predict", backbone, data, "-o", tmp_path / "out")


@pytest.mark.slow
def test_two_launched_processes_equal_one(model: str, data: Path, tmp_path: Path) -> None:
    metrics = "[boundary_iou, trimap_iou, hausdorff_95, surface_dice, objects, calibration]"
    options = ["--split", "train", "--data.validation_share", "0", "--save-predictions", "palette"]
    options += ["--evaluation.metrics", metrics, "--evaluation.bootstrap_resamples", "50"]
    found = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        command = [
            *build_launcher(processes),
            "-m",
            "segplus",
            "evaluate",
            model,
            str(data),
            "-o",
            str(output),
            *options,
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "SEGPLUS_CACHE": str(tmp_path / f"cache{processes}")}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=200, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("written to") == 1
        written = read_metrics(output / "metrics.json")
        assert written["environment"]["processes"] == processes
        scores = written["evaluations"]["train"]
        assert scores.pop("seconds") > 0
        assert (output / "report.html").stat().st_size > 10_000
        labels = {name: label.tolist() for name, label in find_images(output / "predictions").items()}
        found.append((str(scores), (output / "per_image.csv").read_text(), labels))
    assert found[0] == found[1]
    assert len(found[0][2]) == 5


def test_a_image_a_folder_and_a_pattern(model: str, data: Path, tmp_path: Path) -> None:
    assert main(["predict", model, str(data / "images" / "1.png"), "-o", str(tmp_path / "one.png")]) == 0
    assert main(["predict", model, str(data / "images"), "-o", str(tmp_path / "folder"), "--kind", "palette"]) == 0
    assert (
        main(["predict", model, str(data / "images" / "[12].png"), "-o", str(tmp_path / "some"), "--kind", "overlay"])
        == 0
    )
    labels = read_label(tmp_path / "one.png")
    assert labels.shape == (33, 47)
    assert len(find_images(tmp_path / "folder")) == 5
    with Image.open(tmp_path / "folder" / "1.png") as palette:
        assert palette.mode == "P"
        np.testing.assert_array_equal(np.array(palette), labels)
    assert find_images(tmp_path / "some").keys() == {"1.png", "2.png"}
    with Image.open(tmp_path / "some" / "1.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (47, 33))


def test_predictions_are_no_images_to_predict(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_data(tmp_path / "scenes")
    images = photos / "images"
    for _ in range(2):
        assert main(["predict", model, str(images), "-o", str(images / "labels")]) == 0
    assert len(find_images(images / "labels")) == 5
    assert not (images / "labels" / "labels").exists()
    before = (images / "1.png").read_bytes()
    assert "would be written over an input file" in refuse(capsys, "predict", model, images, "-o", images)
    one = images / "1.png"
    assert "would be written over an input file" in refuse(capsys, "predict", model, one, "-o", one)
    assert one.read_bytes() == before


@pytest.mark.slow
def test_a_killed_command_leaves_whole_files_and_goes_on(model: str, tmp_path: Path) -> None:
    sizes = [(200, 300)] * 60
    photos, output = write_data(tmp_path / "scenes", sizes) / "images", tmp_path / "labels"
    command = [sys.executable, "-m", "segplus", "predict", model, str(photos), "-o", str(output), "--kind", "palette"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        deadline = time.monotonic() + 60
        while len(list(output.glob("*.png"))) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    whole = {path: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert 5 <= len(whole) < 60
    for path in whole:
        with Image.open(path) as image:
            image.load()
            assert image.size == (300, 200)
    assert not [path for path in output.iterdir() if path.suffix == ".png" and path.name.startswith(".")]
    assert main(command[3:]) == 0
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    found = find_images(output)
    assert len(found) == 60
    assert sorted(path.name for path in output.iterdir() if path.suffix != ".png") == ["segplus_predictions.json"]
    main(["predict", model, str(photos), "-o", str(tmp_path / "undisturbed"), "--kind", "palette"])
    for name, label in find_images(tmp_path / "undisturbed").items():
        np.testing.assert_array_equal(found[name], label)


def test_compare_through_the_command(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_model(tmp_path / "other", seed=1)
    options = [
        "--data",
        str(data),
        "--split",
        "train",
        "--data.validation_share",
        "0",
        "-o",
        str(tmp_path / "compared"),
    ]
    assert main(["compare", model, other, *options, "--evaluation.bootstrap_resamples", "99"]) == 0
    said = capsys.readouterr().out
    assert said.count("mIoU") == 2
    assert "p = " in said
    with (tmp_path / "compared" / "disagreements.csv").open() as file:
        rows = list(csv.DictReader(file))
    predicted = {}
    for name, checkpoint in (("a", model), ("b", other)):
        main(["predict", checkpoint, str(data / "images"), "-o", str(tmp_path / name)])
        predicted[name] = find_images(tmp_path / name)
    shares = {}
    for image in predicted["a"]:
        valid = read_label(data / "masks" / image) != 255
        shares[Path(image).stem] = float((predicted["a"][image] != predicted["b"][image])[valid].mean())
    assert {row["name"]: pytest.approx(float(row["disagreement"])) for row in rows} == shares
    assert [row["name"] for row in rows] == sorted(shares, key=lambda name: (-shares[name], name))


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command reads the weights before it has looked at what a person may have got wrong."""
    monkeypatch.setattr("segplus.inference.checkpoint.load_segmentation_checkpoint", None)


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_data_that_are_wrong_are_one_message_before_the_model(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    data = write_data(tmp_path / "scenes", [(20, 30)] * 4)

    def run(*options: str) -> str:
        named = [model, data] if verb == "evaluate" else [model, f"{model}/.", "--data", data]
        return refuse(
            capsys, verb, *named, "--split", "train", "--data.validation_share", "0", "-o", tmp_path / "out", *options
        )

    good = (data / "masks" / "2.png").read_bytes()
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(data / "masks" / "2.png")
    assert "2.png: image and mask have different sizes" in run()
    assert "image 30 x 20, mask 20 x 30 px" in run()
    (data / "masks" / "2.png").write_bytes(good[:60])
    assert "2.png: damaged or truncated file" in run()
    (data / "masks" / "2.png").write_bytes(good)
    photo = (data / "images" / "3.png").read_bytes()
    (data / "images" / "3.png").write_bytes(b"no image")
    assert "3.png" in run()
    (data / "images" / "3.png").write_bytes(photo)
    assert "the data have no split 'tset'" in run("--split", "tset")
    assert "the data have no split 'test'" in run("--split", "test")
    (data / "id2label.json").write_text(json.dumps({**NAMES, "4": "bus"}))
    assert "4 classes in the checkpoint, 5 in the data" in run()
    moved = {"0": "road", "1": "sky", "2": "tree", "3": "car"}
    (data / "id2label.json").write_text(json.dumps(moved))
    assert "class 0 is 'sky' in the checkpoint, 'road' in the data" in run()
    (data / "id2label.json").write_text(json.dumps({**NAMES, "0": "heaven", "1": "tree", "2": "bush"}))
    assert "class 1 is 'road' in the checkpoint, 'tree' in the data" in run()
    for path in (data / "images").iterdir():
        path.unlink()
    assert "no images in this folder" in run()
    assert not (tmp_path / "out").exists()


def test_a_image_that_breaks_half_way_is_one_message(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the header of an image is read before the model is."""
    data = write_data(tmp_path / "scenes", [(200, 300)] * 4)
    image = data / "images" / "2.png"
    image.write_bytes(image.read_bytes()[:-5000])
    common = ["--split", "train", "--data.validation_share", "0", "-o", tmp_path / "out"]
    assert "2.png: damaged or truncated file" in refuse(capsys, "evaluate", model, data, *common)


def test_a_large_image_needs_no_warning(
    model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow warns of images above 89 megapixels; segplus is made for those."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 33 * 47 - 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(["predict", model, str(data / "images" / "1.png"), "-o", str(tmp_path / "one.png")]) == 0
    assert [str(one.message) for one in caught if one.category is Image.DecompressionBombWarning] == []

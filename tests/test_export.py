"""segplus export: preprocessing, graphs, folders, and masks that are the evaluator's where there is no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from PIL import Image
from tiny_model import NAMES, build_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    PreTrainedModel,
)
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.__main__ import main
from segplus.commands.export import export
from segplus.errors import EXIT_CODE_INPUT, InputError
from segplus.export.folder import list_left_out, refuse_foreign_folder
from segplus.export.graphs import choose_places
from segplus.export.parity import choose_evenly, draw_images
from segplus.export.preprocessing import describe_preprocessing, parse_size, set_size
from segplus.export.runner import Network, decide, find_shares, find_size, make_pixel_values, scale_depth
from segplus.export.tracing import capture_program
from segplus.inference import Predictor
from segplus.inference.checkpoint import find_checkpoint
from segplus.inference.decisions import ClassRule, choose_classes
from segplus.metrics import label_map
from segplus.transforms.serving import ServedPixels

PROCESSORS = {
    "fixed": SegformerImageProcessorPil(size={"height": 40, "width": 56}),
    "bicubic": SegformerImageProcessorPil(size={"height": 40, "width": 56}, resample=3),
    "edge": MobileNetV2ImageProcessorPil(size={"shortest_edge": 37}, do_center_crop=False),
    "unresized": SegformerImageProcessorPil(do_resize=False),
    "plain": SegformerImageProcessorPil(size={"height": 40, "width": 56}, do_normalize=False, do_rescale=False),
    "blue first": MobileViTImageProcessorPil(size={"shortest_edge": 40}, do_center_crop=False),
}


def write_checkpoint(folder: Path, model: PreTrainedModel, height: int = 64, width: int = 96) -> str:
    """Write a model whose classes lie well apart, with an image processor of one size."""
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": height, "width": width}).save_pretrained(folder)
    return str(folder)


def build_segnet() -> PreTrainedModel:
    return next(one for one in ARCHITECTURES if one.model_type == "segplus-segnet").build(4)


def refuse(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == EXIT_CODE_INPUT
    return capsys.readouterr().err


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_few_numbers_are_the_image_processor(name: str) -> None:
    processor = PROCESSORS[name]
    known = json.loads(json.dumps(describe_preprocessing(processor, 3)))
    rng = np.random.default_rng(1)
    for height, width in ((51, 76), (90, 33)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = ServedPixels(processor, 3)(Image.fromarray(image)).numpy()
        assert find_size(height, width, known) == expected.shape[2:]
        np.testing.assert_allclose(make_pixel_values(image, known), expected, rtol=1e-6, atol=2e-6)


def test_channels_and_depth_are_the_image_processors() -> None:
    mean = {"image_mean": [0.1, 0.2, 0.3, 0.4], "image_std": [0.5, 0.6, 0.7, 0.8]}
    stated = {"image_range": [100, 900], "image_precision": "float32"}
    processor = SegformerImageProcessorPil.from_dict(
        {**SegformerImageProcessorPil(size={"height": 40, "width": 56}, **mean).to_dict(), **stated}
    )
    known = describe_preprocessing(processor, 4)
    image = np.random.default_rng(0).integers(100, 900, (30, 50, 4)).astype(np.uint16)
    expected = ServedPixels(processor, 4)(image).numpy()
    np.testing.assert_allclose(make_pixel_values(image, known), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(SystemExit, match="outside of the range"):
        scale_depth(image + np.uint16(500), known)
    colors = np.array([[[0, 257, 65535]]], np.uint16)
    assert scale_depth(colors, describe_preprocessing(PROCESSORS["fixed"], 3)).tolist() == [[[0, 1, 255]]]


def test_an_image_processor_that_does_more_is_refused_and_one_size_is_its_end() -> None:
    cropping = MobileNetV2ImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32})
    with pytest.raises(InputError, match=r"does more than to resize.*\n.*\n.*\n.*--size 512x512"):
        describe_preprocessing(cropping, 3)
    known = describe_preprocessing(set_size(cropping, (32, 48)), 3)
    assert known["size"] == {"height": 32, "width": 48}
    padded = SegformerImageProcessorPil(size={"shortest_edge": 40, "longest_edge": 60})
    with pytest.raises(InputError, match="by a rule that the exported program does not know"):
        describe_preprocessing(padded, 3)


def test_sizes_are_height_by_width() -> None:
    assert parse_size("512x1024") == ((512, 1024), False)
    assert parse_size("dynamic") == (None, True)
    assert parse_size(None) == (None, False)
    for wrong in ("512", "0x3", "512x", "large"):
        with pytest.raises(InputError, match="--size"):
            parse_size(wrong)
    assert choose_evenly(10, 3) == [0, 3, 6]
    assert choose_evenly(3, None) == [0, 1, 2]


def test_what_cannot_be_is_told_before_the_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_checkpoint(tmp_path / "model", build_segnet())
    monkeypatch.setattr("segplus.inference.checkpoint.load_segmentation_checkpoint", None)
    out = tmp_path / "out"
    command = ["export", folder, "-o", out, "--format", "torch_export"]
    assert "allowed: none: its numbers stay float32" in refuse(capsys, *command, "--quantize", "static")
    assert "--preprocessing of --format torch_export" in refuse(capsys, *command, "--preprocessing", "inside")
    assert "--parity-images\n  found: 0\n  allowed: 1 and more" in refuse(capsys, *command, "--parity-images", "0")
    assert "allowed: dynamic, or height x width" in refuse(capsys, *command, "--size", "big")
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "holds files that no export wrote" in refuse(capsys, *command)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(InputError, match="stands where the exported folder would"):
        refuse_foreign_folder(tmp_path / "link")


def test_what_no_graph_holds_is_listed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model", build_segnet())
    assert list_left_out(find_checkpoint(folder)) == []
    decision = {"uncertain_below": 0.3, "postprocess": {"smooth_scores_px": 2.0}}
    (tmp_path / "model" / "segplus_decision.json").write_text(json.dumps(decision))
    (tmp_path / "model" / "recipe.yaml").write_text("evaluation: {protocol: {name: sliding}}")
    told = " ".join(list_left_out(find_checkpoint(folder)))
    assert "postprocess: smooth_scores_px 2" in told
    assert "uncertain" not in told
    assert "sliding" in told


def test_a_program_of_torch_gives_the_predictors_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, out = write_checkpoint(tmp_path / "model", build_segnet()), tmp_path / "out"
    decision = {"thresholds": {"LABEL_1": 0.2}, "fallback": "LABEL_0", "uncertain_below": 0.26}
    (tmp_path / "model" / "segplus_decision.json").write_text(json.dumps(decision))
    command = ["export", checkpoint, "-o", str(out), "--format", "torch_export", "--timed-runs", "0"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "| model.pt2 | 4 |" in said
    assert "preprocessing: torch_export has it beside the graph, in run.py" in said
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.pt2", "run.py", "segplus_export.json"]
    facts = json.loads((out / "segplus_export.json").read_text())
    assert facts["checkpoint"] == "model"
    assert str(tmp_path) not in json.dumps(facts) + (out / "README.md").read_text()
    assert facts["parity"]["model.pt2"]["score_difference"] < 1e-5
    assert facts["parity"]["model.pt2"]["differing_pixels"] < 1e-4
    predictor, network = find_checkpoint(checkpoint).load(device="cpu"), Network(out)
    for image in draw_images(3, 2):
        expected = predictor.predict(Image.fromarray(image)).numpy()
        assert (network.label(image) != expected).mean() < 1e-4
        assert {1, 255} <= set(np.unique(expected).tolist())
    assert "LABEL_1 from 0.2, else LABEL_0, uncertain below 0.26" in (out / "README.md").read_text()
    with pytest.raises(SystemExit, match="--graph nothing: there is none; choose one of model.pt2"):
        Network(out, "nothing")


def make_network(channels: int = 3) -> Any:
    """Return an ONNX network whose logits are its pixel values."""
    onnx = pytest.importorskip("onnx")
    from segplus.export.onnx_graph import OPSET

    helper, shape = onnx.helper, ["batch", channels, "h", "w"]
    values = [helper.make_tensor_value_info(name, 1, shape) for name in ("pixel_values", "logits")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["pixel_values"], ["logits"])], "network", *[[v] for v in values]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def run_graph(model: Any, inputs: dict[str, Any]) -> list[Any]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == list(inputs)
    return list(session.run(None, inputs))


@pytest.mark.parametrize(("classes", "size"), [(5, (61, 90)), (5, (9, 7)), (300, (40, 31))])
def test_the_label_map_in_a_graph_is_ours(classes: int, size: tuple[int, int]) -> None:
    network = make_network(classes)
    from segplus.export.onnx_graph import add_label_map

    scores = torch.randn(2, classes, 16, 12, generator=torch.Generator().manual_seed(0))
    labels, logits = run_graph(
        add_label_map(network, classes), {"pixel_values": scores.numpy(), "size": np.array(size)}
    )
    expected = label_map(scores, size).numpy()
    assert labels.shape == (2, *size)
    assert labels.dtype == (np.uint8 if classes <= 256 else np.int32)
    assert (labels != expected).mean() < 1e-3
    np.testing.assert_array_equal(logits, scores.numpy())


DECISIONS: list[tuple[dict[int, float], int | None, float]] = [
    ({1: 0.3}, None, 0.0),
    ({1: 0.3, 2: 0.6}, 0, 0.35),
    ({0: 0.5, 1: 0.3, 2: 0.6, 3: 0.7}, None, 0.3),
    ({}, None, 0.5),
]


@pytest.mark.parametrize(("thresholds", "fallback", "uncertain_below"), DECISIONS)
@pytest.mark.parametrize("kind", ["logits", "class_scores"])
@pytest.mark.parametrize("where", ["onnx", "torch"])
def test_a_decision_in_a_graph_is_ours(
    where: str, kind: str, thresholds: dict[int, float], fallback: int | None, uncertain_below: float
) -> None:
    limits = [thresholds.get(index) for index in range(4)]
    decision = {"scores": kind, "thresholds": limits, "fallback": fallback, "uncertain_below": uncertain_below}
    decision["no_class"] = 255
    scores = 2 * torch.randn(2, 4, 40, 30, generator=torch.Generator().manual_seed(0))
    shares = scores.softmax(1)
    if kind == "class_scores":
        scores = 3 * shares
    if where == "torch":
        labels = decide(find_shares(scores, kind), decision).numpy()
    else:
        network = make_network(4)
        from segplus.export.onnx_graph import add_label_map

        inputs = {"pixel_values": scores.numpy(), "size": np.array((40, 30))}
        labels = run_graph(add_label_map(network, 4, decision), inputs)[0]
        assert labels.dtype == np.uint8
    rule = ClassRule(torch.tensor([torch.nan if one is None else one for one in limits]), fallback)
    chosen = choose_classes(shares.movedim(1, -1), rule)
    confidence = shares.movedim(1, -1).gather(-1, chosen[..., None])[..., 0]
    expected = torch.where(confidence < uncertain_below, 255, chosen).numpy()
    assert (labels != expected).mean() < 1e-3
    assert (expected != shares.argmax(1).numpy()).mean() > 0.05


@pytest.mark.parametrize("name", ["fixed", "bicubic", "edge", "unresized", "plain", "blue first"])
def test_preprocessing_in_a_graph_is_pillows_to_a_grey_level(name: str) -> None:
    network = make_network()
    from segplus.export.onnx_graph import add_label_map, add_preprocessing, can_hold

    known = describe_preprocessing(PROCESSORS[name], 3)
    assert can_hold(known) is None
    image = draw_images(3, 1)[0]
    inputs: dict[str, Any] = {"image": image}
    if "shortest_edge" in (known["size"] or {}):
        inputs["served_size"] = np.array(find_size(image.shape[0], image.shape[1], known))
    labels, logits = run_graph(add_preprocessing(add_label_map(network, 3), known), inputs)
    expected = make_pixel_values(image, known)
    grey_level = max(known["factor"])
    assert labels.shape == (1, *image.shape[:2])
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 2.01 * grey_level
    assert (np.abs(logits - expected) > 0.01 * grey_level).mean() < 0.1


def test_a_filter_that_onnx_lacks_stays_beside() -> None:
    pytest.importorskip("onnx")
    known = describe_preprocessing(SegformerImageProcessorPil(size={"height": 40, "width": 56}, resample=1), 3)
    assert choose_places("onnx", "both", known) == (
        ["beside"],
        ["preprocessing: ONNX has no resize by Pillow's filter lanczos; run.py does it beside the graph"],
    )
    with pytest.raises(InputError, match="use --preprocessing beside"):
        choose_places("onnx", "inside", known)


def test_a_model_that_the_exporter_cannot_follow_is_one_message() -> None:
    class Follows(nn.Module):
        def forward(self, pixel_values: torch.Tensor) -> Any:
            return nn.ModuleDict() if pixel_values.sum().item() > 0 else None

    with pytest.raises(InputError, match=r"Follows cannot be exported at 8 x 8\n  found: .*\n  fix: choose another"):
        capture_program(Follows(), 3, (8, 8))


def list_tiny_models() -> dict[str, Any]:
    small = {"num_labels": 3}
    swin = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4,
            "image_size": 64, "out_features": ["stage1", "stage2", "stage3", "stage4"]}  # fmt: skip
    configs = {
        "segformer": {"hidden_sizes": [8, 8, 8, 16], "depths": [1] * 4, "num_attention_heads": [1] * 4,
                      "decoder_hidden_size": 8},
        "dpt": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16,
                "image_size": 64, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3], "fusion_hidden_size": 8,
                "neck_hidden_sizes": [8, 8, 8, 8], "use_auxiliary_head": False},
        "upernet": {"backbone_config": AutoConfig.for_model(**swin), "hidden_size": 8, "use_auxiliary_head": False},
    }  # fmt: skip
    library = {name: AutoConfig.for_model(name, **small, **values) for name, values in configs.items()}
    return {**{one.model_type: one for one in ARCHITECTURES}, **library}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_tiny_models())
def test_every_architecture_exports_to_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    one = list_tiny_models()[name]
    torch.manual_seed(0)
    model = one.build() if isinstance(one, Architecture) else AutoModelForSemanticSegmentation.from_config(one)
    checkpoint = write_checkpoint(tmp_path / "model", model, 64, 64 if name == "dpt" else 96)
    facts = export(checkpoint, tmp_path / "out", timed_runs=0, progress=False)
    assert list(facts["graphs"]) == ["model.onnx", "image_model.onnx"]
    assert facts["has_dynamic_batch"]
    assert facts["parity"]["model.onnx"]["score_difference"] < 1e-4
    assert facts["parity"]["model.onnx"]["differing_pixels"] < 1e-3


def build_bare_environment(folder: Path, *packages: str) -> dict[str, str]:
    """Return variables under which `python -S` knows these packages and no other."""
    folder.mkdir()
    for name in packages:
        place = Path(__import__(name).__file__ or "").parent
        (folder / name).symlink_to(place)
        for libraries in (f"{name}.libs", "pillow.libs"):
            if (place.parent / libraries).is_dir() and not (folder / libraries).exists():
                (folder / libraries).symlink_to(place.parent / libraries)
    return {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_masks_on_camvid_without_torch_are_the_evaluators(test_data: Path, tmp_path: Path) -> None:
    """Twenty images: under 0.01 % of the pixels differ with preprocessing beside the graph, under 0.5 % inside."""
    for name in ("onnxruntime", "onnx", "onnxscript", "flatbuffers"):
        pytest.importorskip(name)
    source = test_data / "models" / "deeplabv3-mobilenet-v2-voc-hf"
    processor: BaseImageProcessor = set_size(AutoImageProcessor.from_pretrained(source), (544, 720))
    model = AutoModelForSemanticSegmentation.from_pretrained(source)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    images = sorted((test_data / "camvid" / "test" / "images").iterdir())[::11][:20]
    (tmp_path / "images").mkdir()
    for path in images:
        (tmp_path / "images" / path.name).symlink_to(path)
    export(str(tmp_path / "model"), tmp_path / "out", timed_runs=0, progress=False)
    predictor = Predictor(model.eval(), processor)
    expected = {path.stem: predictor.predict(Image.open(path).convert("RGB")).numpy() for path in images}
    bare = build_bare_environment(
        tmp_path / "packages", "numpy", "PIL", "onnxruntime", "flatbuffers", "google", "packaging"
    )
    for package in ("torch", "transformers", "segplus"):
        tried = subprocess.run(
            [sys.executable, "-S", "-c", f"import {package}"], env=bare, cwd=tmp_path, capture_output=True, check=False
        )
        assert tried.returncode != 0
    shares = {}
    for graph in ("model.onnx", "image_model.onnx"):
        command = [sys.executable, "-S", "run.py", "../images", f"../{graph}.masks", "--graph", graph]
        subprocess.run(command, env=bare, cwd=tmp_path / "out", check=True, timeout=300)
        found = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / f"{graph}.masks").iterdir()}
        assert found.keys() == expected.keys()
        shares[graph] = sum((found[name] != expected[name]).sum() for name in found) / sum(map(np.size, found.values()))
    print(f"differing pixels: {shares}")
    assert shares["model.onnx"] < 1e-4
    assert shares["image_model.onnx"] < 5e-3


def write_scenes(folder: Path, predictor: Predictor) -> str:
    """Write drawn images whose masks are what the model predicts, so that it scores 1."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index, image in enumerate(draw_images(3, 12)):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(predictor.predict(Image.fromarray(image)).numpy()).save(folder / "masks" / f"{index}.png")
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    return str(folder)


@pytest.mark.slow
def test_static_int8_is_smaller_and_scored_beside_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    model = build_model(num_labels=4)
    nn.init.normal_(model.decode_head.classifier.weight, std=2)
    checkpoint = write_checkpoint(tmp_path / "model", model)
    data = write_scenes(tmp_path / "scenes", find_checkpoint(checkpoint).load(device="cpu"))
    command = ["export", checkpoint, "-o", str(tmp_path / "out"), "--data", data, "--quantize", "static"]
    options = [
        "--preprocessing",
        "beside",
        "--calibration-images",
        "4",
        "--timed-runs",
        "1",
        "--split",
        "train",
        "--data.validation_share",
        "0.1",
    ]
    assert main([*command, *options]) == 0
    facts = json.loads((tmp_path / "out" / "segplus_export.json").read_text())
    assert list(facts["graphs"])[:2] == ["model_int8.onnx", "model.onnx"]
    assert facts["calibration_images"] == 4
    assert facts["graphs"]["model_int8.onnx"]["float_operators"]["Softmax"] == 4
    parity = facts["parity"]
    assert parity["model.onnx"]["mean_iou"] > 0.999
    assert parity["model_int8.onnx"]["torch_mean_iou"] == 1.0
    assert 0.6 < parity["model_int8.onnx"]["mean_iou"] < 1.0, "random scores lie close together"
    assert facts["cost"].keys() == {"torch", *facts["graphs"]}
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in facts["cost"].values())
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "In float32 beside the 8-bit operators: " in readme
    assert "| model_int8.onnx |" in capsys.readouterr().out


def make_convolution() -> Any:
    """Return an ONNX network of two convolutions and what lies between them."""
    onnx = pytest.importorskip("onnx")
    from segplus.export.onnx_graph import OPSET

    helper, rng = onnx.helper, np.random.default_rng(0)
    weights = {"first": rng.normal(size=(8, 3, 3, 3)), "second": rng.normal(size=(4, 8, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["pixel_values", "first"], ["a"], "one", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "two"),
        helper.make_node("Sigmoid", ["b"], ["c"], "three"),
        helper.make_node("Conv", ["c", "second"], ["logits"], "four"),
    ]
    given, made = (
        [helper.make_tensor_value_info(name, 1, ["batch", channels, 16, 24])]
        for name, channels in (("pixel_values", 3), ("logits", 4))
    )
    stored = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "network", given, made, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def test_static_int8_keeps_the_classifier_and_the_sigmoid_in_float() -> None:
    pytest.importorskip("onnxruntime")
    network = make_convolution()
    from segplus.export.quantization import list_float_operators, quantize_calibrated

    rng = np.random.default_rng(1)
    served = [rng.normal(size=(1, 3, 16, 24)).astype(np.float32) for _ in range(4)]
    smaller = quantize_calibrated(network, served)
    assert list_float_operators(smaller) == {"Conv": 1, "Sigmoid": 1}
    assert list_float_operators(network) == {"Conv": 2, "Relu": 1, "Sigmoid": 1}
    weights = {one.name: one.data_type for one in smaller.graph.initializer}
    assert weights["first_quantized"] == 3, "int8"
    assert weights["second"] == 1, "float32"
    scales = next(one for one in smaller.graph.initializer if one.name == "first_scale")
    assert list(scales.dims) == [8], "one a channel"
    (expected,), (found,) = (run_graph(one, {"pixel_values": served[0]}) for one in (network, smaller))
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_dynamic_int8_is_refused_for_a_network_of_convolutions() -> None:
    pytest.importorskip("onnxruntime")
    from segplus.export.quantization import quantize_weights

    with pytest.raises(InputError, match=r"is for transformers.*\n  found: 0% of the weights.*\n.*\n  fix: .*static"):
        quantize_weights(make_convolution())


@pytest.mark.slow
def test_dynamic_int8_of_a_transformer(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    config = list_tiny_models()["dpt"]
    config.intermediate_size = 1024  # as in a large one, most weights are those of matrix products
    torch.manual_seed(0)
    checkpoint = write_checkpoint(tmp_path / "model", AutoModelForSemanticSegmentation.from_config(config), 64, 64)
    facts = export(checkpoint, tmp_path / "out", preprocessing="beside", quantize="dynamic", timed_runs=0)
    assert list(facts["graphs"]) == ["model_int8.onnx", "model.onnx"]
    # What is left in float has no weights: queries times keys, and their softmax times values.
    assert facts["graphs"]["model_int8.onnx"]["float_operators"]["MatMul"] == 2 * config.num_hidden_layers
    differences = {name: parity["score_difference"] for name, parity in facts["parity"].items()}
    assert differences["model.onnx"] < 1e-4 < differences["model_int8.onnx"] < 0.3  # random weights


@pytest.mark.slow
def test_openvino_gives_the_models_scores(tmp_path: Path) -> None:
    for name in ("openvino", "nncf"):
        pytest.importorskip(name, reason="segplus[openvino] is not installed")
    model = build_model(num_labels=4)
    nn.init.normal_(model.decode_head.classifier.weight, std=2)
    checkpoint = write_checkpoint(tmp_path / "model", model)
    data = write_scenes(tmp_path / "scenes", find_checkpoint(checkpoint).load(device="cpu"))
    facts = export(
        checkpoint, tmp_path / "out", export_format="openvino", quantize="static", data=data, split="train",
        calibration_images=4, timed_runs=0,
    )  # fmt: skip
    assert list(facts["graphs"]) == ["model_int8.xml", "model.xml"]
    assert facts["parity"]["model.xml"]["score_difference"] < 1e-4
    assert facts["parity"]["model.xml"]["mean_iou"] > 0.999
    assert 0.5 < facts["parity"]["model_int8.xml"]["mean_iou"] < 1.0

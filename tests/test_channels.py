"""Images of any number of channels: widened models, normalisation by the data, and what is evaluated is served."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    ConvNextConfig,
    DPTConfig,
    MobileNetV2Config,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerImageProcessorPil,
    UperNetConfig,
)

import run_segmentation
from segplus.__main__ import main
from segplus.classes import ClassMap
from segplus.data import load_segmentation_dataset
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.regions import open_image
from segplus.data.statistics import measure_channels
from segplus.errors import InputError
from segplus.images import ImageRange, show_as_rgb
from segplus.inference import Predictor
from segplus.inference.checkpoint import Checkpoint, find_checkpoint
from segplus.inference.evaluation_data import load_data
from segplus.models import count_channels, load_image_processor, load_model, widen_model
from segplus.models.channels import widen_kernel
from segplus.recipe import DataRecipe, ModelRecipe, TransformsRecipe
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.reporting.metrics_file import read_metrics
from segplus.transforms import PRESETS, EvaluationTransform, TrainingTransform
from segplus.transforms.serving import ServedPixels
from segplus.transforms.steps import build_steps

CLASSES = ClassMap.build(["ground", "water", "house"])
SMALL = {
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 16,
    "num_attention_heads": [1, 1, 2, 2],
}
VIT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 16}
NECK = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16, "backbone_out_indices": [0, 1, 2, 3]}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
CONFIGS: dict[str, PreTrainedConfig] = {
    "segformer": SegformerConfig(**SMALL),
    "dpt": DPTConfig(image_size=64, **VIT, **NECK),
    "mobilenet_v2": MobileNetV2Config(depth_multiplier=0.25),
    "upernet": UperNetConfig(
        backbone_config=ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=STAGES),
        hidden_size=16,
        auxiliary_channels=8,
        auxiliary_in_channels=16,
    ),
}
RANGE = [0, 10000]


def build_model(name: str) -> PreTrainedModel:
    """Return a model whose weights are large enough for its answers to differ."""
    torch.manual_seed(0)
    model = AutoModelForSemanticSegmentation.from_config(CONFIGS[name]).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


def answer(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(pixel_values=pixel_values).logits


# Widening


def test_kernels_by_hand() -> None:
    kernel = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    assert widen_kernel(kernel, 1).flatten().tolist() == [7]
    assert widen_kernel(kernel, 2).flatten().tolist() == [1.5, 3]
    assert widen_kernel(kernel, 5).flatten().tolist() == pytest.approx([0.6, 1.2, 2.4, 0.6, 1.2])
    assert widen_kernel(torch.tensor([6.0]).view(1, 1, 1, 1), 3).flatten().tolist() == [2, 2, 2]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_widened_model_answers_as_before_and_is_saved(name: str, tmp_path: Path) -> None:
    model = build_model(name)
    colour, grey = torch.randn(1, 3, 64, 64), torch.randn(1, 1, 64, 64)
    wanted = answer(model, colour)
    assert wanted.std() > 1e-4
    bound = 1e-5 * float(wanted.abs().max())
    six, one = widen_model(model, 6), widen_model(model, 1)
    assert torch.allclose(answer(six, colour.repeat(1, 2, 1, 1)), wanted, rtol=0, atol=bound)
    assert torch.allclose(answer(one, grey), answer(model, grey.repeat(1, 3, 1, 1)), rtol=0, atol=bound)
    assert widen_model(model, 3) is model

    five = widen_model(model, 5)
    channels = torch.randn(1, 5, 64, 64)
    five.save_pretrained(tmp_path)
    again, info = AutoModelForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert count_channels(again.config) == 5
    assert torch.allclose(answer(again, channels), answer(five, channels), rtol=0, atol=bound)


def test_a_checkpoint_is_widened_to_the_channels_of_the_data(tmp_path: Path) -> None:
    build_model("segformer").save_pretrained(tmp_path)
    recipe = ModelRecipe(checkpoint=str(tmp_path))
    loaded = load_model(recipe, CLASSES, channels=5)
    assert loaded.describe().endswith("; first convolution widened from 3 to 5 channels")
    assert (
        load_model(recipe, CLASSES, channels=1).describe().endswith("; first convolution narrowed from 3 to 1 channels")
    )
    assert "convolution" not in load_model(recipe, CLASSES).describe()
    plain = load_model(recipe, CLASSES).model.state_dict()
    changed = [name for name, weight in loaded.model.state_dict().items() if weight.shape != plain[name].shape]
    assert len(changed) == 1
    loaded.model.save_pretrained(tmp_path / "five")
    five = ModelRecipe(checkpoint=str(tmp_path / "five"))
    assert load_model(five, CLASSES, channels=5).checkpoint_channels is None
    with pytest.raises(InputError, match="a model of 5 channels, images of 3"):
        load_model(five, CLASSES)


def test_random_weights_take_the_channels_of_the_data() -> None:
    backbone = CONFIGS["upernet"].backbone_config.to_dict()
    for config in (
        {"model_type": "segformer", **SMALL},
        {"model_type": "upernet", "backbone_config": backbone, "hidden_size": 16, "auxiliary_in_channels": 16},
    ):
        loaded = load_model(ModelRecipe(config=config), CLASSES, channels=4)
        assert loaded.describe().endswith("all from random weights")
        assert answer(loaded.model, torch.zeros(1, 4, 64, 64)).shape[1] == 3
    with pytest.raises(InputError, match=r"model\.config\.num_channels"):
        load_model(ModelRecipe(config={"model_type": "segformer", **SMALL, "num_channels": 3}), CLASSES, channels=4)


def test_a_model_that_cannot_be_widened_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class FixedSegformer(type(build_model("segformer"))):  # type: ignore[misc]
        def __init__(self, config: SegformerConfig) -> None:
            super().__init__(SegformerConfig(**{**config.to_dict(), "num_channels": 3}))

    with pytest.raises(InputError, match="takes 3 channels, whatever its config says"):
        widen_model(FixedSegformer(SegformerConfig(**SMALL)), 5)


# Normalisation


def write_grey_set(folder: Path) -> Path:
    """Write two splits of one-channel images whose mean and deviation are known: values 10, 20 and 60."""
    for split, rows in (("train", ([[10, 20], [10, 20]], [[60, 60]])), ("validation", ([[0, 0]],))):
        for number, values in enumerate(rows):
            for side in ("images", "masks"):
                path = folder / side / split / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.array(values if side == "images" else np.zeros_like(values), np.uint8)
                Image.fromarray(pixels).save(path)
    return folder


def test_mean_and_deviation_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    root = write_grey_set(tmp_path / "data")
    section = {"dataset": str(root), "channels": 1, "classes": ["ground", "water"]}
    train = load_segmentation_dataset(section).splits["train"]
    statistics = measure_channels(train, progress=False)
    assert statistics.mean == (30.0,)
    assert statistics.std == pytest.approx((np.std([10, 20, 10, 20, 60, 60]),), rel=1e-15)
    with monkeypatch.context() as patch:
        patch.setattr(type(train), "image", None)  # what was measured is not read again
        assert measure_channels(train, progress=False) == statistics


def test_the_processor_is_given_what_the_checkpoint_lacks() -> None:
    config = SegformerConfig(**SMALL, num_channels=2)

    def measure() -> tuple[list[float], list[float]]:
        return [51.0, 102.0], [25.5, 0.0]

    recipe = ModelRecipe(config={"model_type": "segformer"})
    found = load_image_processor(recipe, config, image_range=ImageRange(0, 100), measure_channels=measure).to_dict()
    assert found["image_mean"] == pytest.approx((0.2, 0.4))
    assert found["image_std"] == pytest.approx((0.1, 1 / 255))  # a channel of one value: one grey level
    assert (found["image_range"], found["image_precision"]) == ([0.0, 100.0], "float32")
    own = ModelRecipe(config={"model_type": "segformer"}, image_processor={"image_mean": [0.5, 0.6]})
    found = load_image_processor(own, config, measure_channels=measure).to_dict()
    assert (tuple(found["image_mean"]), "image_range" in found) == ((0.5, 0.6), False)
    assert found["image_std"] == pytest.approx((0.1, 1 / 255))
    colour = load_image_processor(recipe, SegformerConfig(**SMALL), measure_channels=measure).to_dict()
    assert colour["image_mean"] == pytest.approx((0.485, 0.456, 0.406))
    own = ModelRecipe(config={"model_type": "segformer"}, image_processor={"image_std": [0.5, 0.6, 0.7]})
    with pytest.raises(InputError, match="one number a channel: 2"):
        load_image_processor(own, config, measure_channels=measure)
    with pytest.raises(InputError, match=r"set data\.image_range"):
        load_image_processor(ModelRecipe(config={"model_type": "x"}, image_processor={"image_range": [0, 1]}), config)


# Serving


def build_processor(channels: int, **values: Any) -> SegformerImageProcessorPil:
    means, deviations = np.linspace(0.2, 0.6, channels).tolist(), np.linspace(0.1, 0.3, channels).tolist()
    settings = {"size": {"height": 24, "width": 40}, "image_mean": means, "image_std": deviations, **values}
    return SegformerImageProcessorPil(**settings)


@pytest.mark.parametrize("resample", list(Image.Resampling))
def test_channels_are_served_as_the_processor_serves_colours(resample: Image.Resampling) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    wanted = ServedPixels(build_processor(3, resample=resample), 3)(Image.fromarray(image))
    mixed = [0, 1, 2, 1, 0]
    processor = build_processor(5, resample=resample)
    processor.image_mean, processor.image_std = (
        tuple(values[i] for i in mixed) for values in (build_processor(3).image_mean, build_processor(3).image_std)
    )
    served = ServedPixels(processor, 5)(image[..., mixed])
    assert served.shape == (1, 5, 24, 40)
    assert torch.equal(served, wanted[:, mixed])
    assert torch.equal(ServedPixels(build_processor(3, resample=resample))(image), wanted)


@pytest.mark.parametrize("channels", [1, 2, 5, 13])
def test_training_at_scale_one_sees_what_is_served(channels: int) -> None:
    processor = build_processor(channels)
    image = np.random.default_rng(0).integers(0, 256, (48, 80, channels), dtype=np.uint8)
    label = np.zeros((48, 80), np.uint8)
    recipe = TransformsRecipe(preset="none", crop_size_px=[24, 40])
    trained = TrainingTransform(processor, recipe, channels=channels)(image, label)["pixel_values"]
    served = EvaluationTransform(processor, channels)(image, label)["pixel_values"]
    assert torch.equal(trained, served)


def test_images_of_other_channels_or_depths_are_refused() -> None:
    served = ServedPixels(build_processor(2), 2)
    assert served(np.zeros((5, 7, 2), np.uint8)).shape == (1, 2, 24, 40)
    with pytest.raises(InputError, match="not the number of channels"):
        served(Image.new("RGB", (7, 5)))
    with pytest.raises(InputError, match="uint16, values 0..0"):
        served(np.zeros((5, 7, 2), np.uint16))
    assert ServedPixels(build_processor(1), 1)(Image.new("L", (7, 5))).shape == (1, 1, 24, 40)


@pytest.mark.parametrize("name", ["fixed", "original", "sliding"])
def test_every_protocol_takes_channels(name: str) -> None:
    model = widen_model(build_model("segformer"), 5)
    protocol = ProtocolRecipe(name=name, scales=[1.0, 1.5], window_px=[32, 32], flip=True)
    processor = build_processor(5, size={"height": 48, "width": 64})
    predictor = Predictor(model, processor, protocol, channels=5)
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 5), dtype=np.uint8)
    assert predictor.predict(image).shape == (40, 56)


# Augmentation


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_channels(preset: str, channels: int) -> None:
    transform = TrainingTransform(
        build_processor(channels), TransformsRecipe(preset=preset, crop_size_px=[32, 32]), channels=channels
    )
    colours_only = {"HueSaturationValue", "ToGray"} & set(PRESETS[preset].steps)
    assert set(transform.left_out) == colours_only
    image = np.random.default_rng(0).integers(0, 256, (48, 80, channels), dtype=np.uint8)
    sample = transform(image, np.zeros((48, 80), np.uint8), np.random.default_rng(0))
    assert sample["pixel_values"].shape == (channels, 32, 32)


def test_a_step_that_a_person_asks_for_is_not_left_out() -> None:
    recipe = TransformsRecipe(preset="light", crop_size_px=[32, 32], steps={"ToGray": {"p": 0.1}})
    with pytest.raises(InputError, match=r"transforms\.steps\.ToGray"):
        TrainingTransform(build_processor(5), recipe, channels=5)


@pytest.mark.parametrize("name", ["Affine", "ElasticTransform", "GridDistortion", "CoarseDropout"])
def test_what_a_step_fills_has_every_channels_own_value(name: str) -> None:
    fill = (3, 60, 90, 120, 150, 180, 210)
    arguments = {**(PRESETS["medical"].steps | PRESETS["strong"].steps)[name], "p": 1.0}
    steps = build_steps({name: arguments}, 255, fill, (64, 64))
    steps.set_random_seed(1)
    changed = steps(image=np.full((64, 64, 7), 255, np.uint8), mask=np.zeros((64, 64), np.uint8))
    outside = changed["mask"] == 255
    assert outside.any()
    assert (changed["image"][outside] == fill).all()
    assert (changed["image"][32, 32] == 255).all()


# What people look at


def test_channels_are_drawn() -> None:
    rows = np.linspace(0, 255, 100, dtype=np.uint8)[:, None, None].repeat(4, axis=1)  # (100, 4, 1)
    grey = np.asarray(show_as_rgb(rows))
    assert (grey == grey[..., :1]).all()
    assert (grey[0, 0, 0], grey[-1, 0, 0]) == (0, 255)
    two = np.asarray(show_as_rgb(np.concatenate([rows, 255 - rows], axis=2)))
    assert np.array_equal(two, grey)
    five = show_as_rgb(np.concatenate([rows, 255 - rows, rows // 2, rows, rows], axis=2))
    assert np.abs(np.asarray(five, np.int16)[..., 1] - grey[::-1, :, 1]).max() <= 1


# From files to scores


def write_set(folder: Path, channels: int) -> Path:
    """Write twelve images whose channels show the class: five channels of 16 bits as TIFF, one as PNG."""
    rng = np.random.default_rng(0)
    for number in range(12):
        split = "train" if number < 8 else "validation"
        label = np.zeros((40, 48), np.uint8)
        top, left = rng.integers(0, 20, 2)
        label[top : top + 18, left : left + 22] = 1
        label[:, 40:] = 2
        for side in ("images", "masks"):
            (folder / side / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(label).save(folder / "masks" / split / f"{number}.png")
        image = draw_channels(label, channels, rng)
        path = folder / "images" / split / str(number)
        if channels == 1:
            Image.fromarray(image[..., 0]).save(path.with_suffix(".png"))
        else:
            pages = [Image.fromarray(page) for page in np.moveaxis(image, 2, 0)]
            pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    return folder


def draw_channels(label: npt.NDArray[np.uint8], channels: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Return the channels of a mask: 16 bits of 0..10000 for several, 8 bits for one."""
    levels = np.array([[1000, 5000, 9000], [8000, 2000, 300], [100, 9000, 4000], [500, 700, 900], [9000, 100, 5000]])
    values = levels[:channels, label].transpose(1, 2, 0) + rng.integers(-90, 90, (*label.shape, channels))
    return (values / 40).astype(np.uint8) if channels == 1 else values.astype(np.uint16)


def write_recipe(folder: Path, channels: int, model: dict[str, Any], **data: Any) -> Path:
    recipe = {
        "data": {
            "dataset": str(write_set(folder / "data", channels)),
            "classes": list(CLASSES.names),
            "channels": channels,
            **data,
        },
        "model": {"image_processor": {"size": {"height": 32, "width": 40}}, **model},
        "transforms": {"preset": "standard", "crop_size_px": [32, 32]},
        "auxiliary_loss_weight": 0.0,
        "training": {
            "output_dir": str(folder / "run"),
            "per_device_train_batch_size": 4,
            "max_steps": 6,
            "eval_strategy": "steps",
            "eval_steps": 6,
            "learning_rate": 1e-2,
            "bf16": False,
            "dataloader_num_workers": 0,
            "disable_tqdm": True,
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def evaluate_again(run: Path, output: Path, *arguments: str) -> list[list[int]]:
    assert main(["evaluate", str(run), *arguments, "--output", str(output), "--split", "validation"]) == 0
    return read_metrics(output / "metrics.json")["evaluations"]["validation"]["confusion_matrix"]


def test_five_channels_of_sixteen_bits_from_files_to_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    build_model("segformer").save_pretrained(tmp_path / "rgb")
    SegformerImageProcessorPil().save_pretrained(tmp_path / "rgb")
    recipe = write_recipe(tmp_path, 5, {"checkpoint": str(tmp_path / "rgb")}, image_range=RANGE)
    assert run_segmentation.main([str(recipe)]) == 0
    told = capsys.readouterr().out
    assert "first convolution widened from 3 to 5 channels" in told
    assert "not for 5 channels of more than 8 bits, left out: HueSaturationValue" in told

    run = tmp_path / "run"
    reported = read_metrics(run / "metrics.json")["evaluations"]["validation"]["confusion_matrix"]
    matrix = np.array(reported)
    assert matrix.sum() == 4 * 40 * 48
    assert np.count_nonzero(matrix.sum(0)) > 1  # else equal matrices would say little
    settings = json.loads((run / "preprocessor_config.json").read_text())
    assert (settings["image_range"], settings["image_precision"]) == (RANGE, "float32")
    data = load_segmentation_dataset(DataRecipe(**yaml.safe_load(recipe.read_text())["data"]))
    channels = np.concatenate([data.splits["train"].image(i).reshape(-1, 5) for i in range(8)]) / RANGE[1]
    assert settings["image_mean"] == pytest.approx(channels.mean(0), rel=1e-6)  # scaled as float32
    assert settings["image_std"] == pytest.approx(channels.std(0), rel=1e-6)

    root = str(tmp_path / "data")
    assert evaluate_again(run, tmp_path / "again", root) == reported
    # Where no recipe travels along, channels and range are the checkpoint's own.
    (run / "recipe.yaml").rename(tmp_path / "moved.yaml")
    names = "--data.classes", str(list(CLASSES.names))
    assert evaluate_again(run, tmp_path / "bare", root, *names) == reported
    check_predictions(run, tmp_path, data.splits["validation"])
    card = (run / "README.md").read_text()
    assert "pipeline(" not in card
    assert "takes 5 channels" in card
    assert "0 to 10000 become 0 to 255" in card
    assert not (run / "pictures" / "input.png").exists()


def check_predictions(run: Path, folder: Path, split: Any) -> None:
    """Predicted files equal what the predictor says of the images as training read them; npy as TIFF."""
    sources = folder / "data" / "images" / "validation"
    assert main(["predict", str(run), str(sources), "--output", str(folder / "masks")]) == 0
    predictor = find_checkpoint(str(run)).load()
    for index in range(len(split)):
        wanted = predictor.predict(split.image(index)).numpy()
        name = Path(split.sources(index)[0]).stem
        assert np.array_equal(np.asarray(Image.open(folder / "masks" / f"{name}.png")), wanted)
    stored = np.stack([np.asarray(page) for page in iterate_pages(Path(split.sources(index)[0]))])  # (5, H, W)
    np.save(folder / "one.npy", stored)
    assert main(["predict", str(run), str(folder / "one.npy"), "-o", str(folder / "one.png")]) == 0
    assert np.array_equal(np.asarray(Image.open(folder / "one.png")), wanted)
    assert main(["predict", str(run), str(sources), "-o", str(folder / "seen"), "--kind", "overlay"]) == 0
    assert np.asarray(Image.open(folder / "seen" / f"{name}.png")).std() > 0
    np.save(folder / "one.npy", stored + 10000)
    assert main(["predict", str(run), str(folder / "one.npy"), "-o", str(folder / "one.png")]) == 2


def iterate_pages(path: Path) -> list[Image.Image]:
    with Image.open(path) as image:
        return [image.copy() for page in range(image.n_frames) if image.seek(page) is None]


def test_grey_images_from_files_to_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path, 1, {"config": {"model_type": "segformer", **SMALL}})
    values = ["--data.cache", str(tmp_path / "pixels"), "--transforms.preset", "medical"]
    assert run_segmentation.main([str(recipe), *values]) == 0
    run = tmp_path / "run"
    reported = read_metrics(run / "metrics.json")["evaluations"]["validation"]["confusion_matrix"]
    assert evaluate_again(run, tmp_path / "again", str(tmp_path / "data")) == reported
    assert len(AutoImageProcessor.from_pretrained(run).image_mean) == 1


def test_what_a_person_gets_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path, 5, {"config": {"model_type": "segformer", **SMALL}})
    assert run_segmentation.main([str(recipe)]) == 2
    told = capsys.readouterr().err
    assert "no range is stated" in told
    assert "set data.image_range: [0, " in told
    values = ["--data.dataset", "synthetic", "--data.classes", "null"]
    assert run_segmentation.main([str(recipe), *values]) == 2
    assert "data.channels: these images are in colour" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("value_range", [ImageRange(0, 10000), None])
def test_colours_of_sixteen_bits_keep_them(suffix: str, value_range: ImageRange | None) -> None:
    colors = np.random.default_rng(0).integers(0, 10000, (20, 30, 3), dtype=np.uint16)
    stored = {"bytes": cv2.imencode(suffix, colors[..., ::-1])[1].tobytes(), "path": f"a{suffix}"}
    reader = ImageReader(3, value_range)
    for wanted in (colors, np.rint(colors / 10000 * 255).astype(np.uint8)):
        found = np.asarray(reader.read(stored, "a"))
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
        assert np.array_equal(open_image(reader, stored, "a").read((3, 5, 10, 12)), wanted[3:13, 5:17])
        reader = ImageReader(3, ImageRange(0, 10000, round=True))


def test_transparent_colours_of_sixteen_bits_lie_on_white() -> None:
    colors = np.full((2, 2, 4), 10000, np.uint16)
    colors[..., 3] = [[0, 65535], [65535, 65535 // 5]]
    stored = {"bytes": cv2.imencode(".png", colors)[1].tobytes(), "path": "a.png"}
    read = np.asarray(ImageReader(3, ImageRange(0, 20000)).read(stored, "a"))
    assert np.array_equal(read, np.repeat([[[20000], [10000]], [[10000], [18000]]], 3, axis=2))


def test_pages_of_one_channel_are_not_taken_for_grey(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 6), 10 * page) for page in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="5 pages of one channel"):
        ImageReader(3).read(str(tmp_path / "a.tif"), "a")
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[pages[1].resize((4, 3))])
    assert ImageReader(3).read(str(tmp_path / "b.tif"), "b").size == (8, 6)


def test_inspect_asks_for_a_range_and_proposes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    root = write_set(tmp_path / "data", 5)
    values = ["--data.channels", "5", "--data.classes", str(list(CLASSES.names))]
    assert main(["inspect", str(root), "--json", *values]) == 1
    report = json.loads(capsys.readouterr().out)
    errors = [finding for finding in report["findings"] if finding["level"] == "error"]
    assert [finding["kind"] for finding in errors] == ["no range"]
    stored = [np.asarray(page) for path in (root / "images").rglob("*.tif") for page in iterate_pages(path)]
    proposed = yaml.safe_load(report["recipe"])["data"]
    assert (proposed["image_range"], int(np.max(stored)).bit_length()) == ([0, 2**14 - 1], 14)
    assert proposed["channels"] == 5
    values += ["--data.image_range", str(proposed["image_range"]), "--page", str(tmp_path / "page.html")]
    assert main(["inspect", str(root), *values]) == 0
    assert "data:image/webp" in (tmp_path / "page.html").read_text()


def test_one_channel_of_palettes_and_bits() -> None:
    reader = ImageReader(1)
    grey = Image.new("P", (2, 2))
    grey.putpalette([10, 10, 10, 90, 90, 90])
    grey.putdata([1, 0, 0, 1])
    bits = Image.new("1", (2, 2))
    bits.putdata([0, 255, 255, 0])
    for image, wanted in ((grey, [90, 10]), (bits, [0, 255])):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        assert reader.read({"bytes": buffer.getvalue(), "path": "a.png"}, "a")[0, :, 0].tolist() == wanted
    grey.putpalette([10, 10, 10, 90, 0, 90])
    buffer = io.BytesIO()
    grey.save(buffer, "PNG")
    with pytest.raises(InputError, match="not an image of 1 channels"):
        reader.read({"bytes": buffer.getvalue(), "path": "a.png"}, "a")


def test_checkpoints_of_other_channels_are_refused() -> None:
    colours = Checkpoint("a", SegformerConfig(), build_processor(3))
    processor = build_processor(5, image_range=[0, 100], image_precision="float32")
    channels = Checkpoint("b", SegformerConfig(num_channels=5), processor)
    assert channels.fit_section(DataRecipe()) == DataRecipe(channels=5, image_range=[0, 100])
    assert channels.fit_section(DataRecipe(image_range=[0, 100])).image_range == [0, 100]
    with pytest.raises(InputError, match=r"another range of values\n  found: data.image_range: \[0, 50\]"):
        channels.fit_section(DataRecipe(image_range=[0, 50]))
    eight_bits = Checkpoint("c", SegformerConfig(num_channels=5), build_processor(5, image_range=[0, 100]))
    assert eight_bits.fit_section(DataRecipe()).image_range == {"low": 0, "high": 100, "round": True}
    stated = eight_bits.fit_section(DataRecipe(image_range=[0, 50])).image_range
    assert stated == {"low": 0, "high": 50, "round": True}
    assert colours.fit_section(DataRecipe()) == DataRecipe()
    with pytest.raises(InputError, match=r"found: data\.channels: 4"):
        channels.fit_section(DataRecipe(channels=4))
    with pytest.raises(InputError, match="3 channels, range None and 5 channels, range"):
        load_data({"dataset": "synthetic"}, [colours, channels])

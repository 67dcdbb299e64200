"""Images of more than 8 bits keep their precision: on disk, in the cache, in crops, as served, and to the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from torch.nn import functional as F
from transformers import SegformerImageProcessorPil

from segplus.classes import ClassMap
from segplus.commands.proposing import audit_for_training
from segplus.data import check_split, load_segmentation_dataset
from segplus.data.cache import open_cache
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.statistics import measure_channels
from segplus.errors import InputError
from segplus.images import ImageRange, describe_range, read_image_range
from segplus.inference import Predictor
from segplus.inspection import inspect_dataset
from segplus.models import load_image_processor, load_model
from segplus.recipe import DataRecipe, ModelRecipe, TransformsRecipe
from segplus.transforms import PRESETS, EvaluationTransform, TrainingTransform
from segplus.transforms.serving import ServedPixels

LOW, HIGH = 20_000, 40_000  # 78 grey levels of 16 bits are one of 8
NEAR, FAR = 30_010, 30_030  # two classes, 20 grey levels apart, one and the same of 8 bits


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


def write_pairs(root: Path, count: int = 4, values: tuple[int, int] = (NEAR, FAR), suffix: str = "png") -> Path:
    """Write grey images of 16 bits, 32 x 40, whose two values are the two classes."""
    rng = np.random.default_rng(0)
    for index in range(count):
        label = np.zeros((32, 40), np.uint8)
        label[rng.integers(4, 12) : rng.integers(18, 28), rng.integers(4, 14) : rng.integers(22, 36)] = 1
        for folder, pixels in (("images", np.array(values, np.uint16)[label]), ("masks", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{index}.{suffix if folder == 'images' else 'png'}")
    return root


def load(root: Path, **values: Any) -> Any:
    section = {"dataset": str(root), "classes": ["ground", "thing"], "validation_share": 0.0}
    return load_segmentation_dataset({**section, **values}).splits["train"]


def build_processor(
    image_range: ImageRange | None, channels: int = 1, size: tuple[int, int] = (32, 40)
) -> SegformerImageProcessorPil:
    values = {
        "size": {"height": size[0], "width": size[1]},
        "image_mean": [0.5] * channels,
        "image_std": [0.25] * channels,
    }
    return SegformerImageProcessorPil(**values, **describe_range(image_range))


def test_ranges() -> None:
    assert ImageRange.parse([1, 5]) == ImageRange(1.0, 5.0)
    assert ImageRange.parse({"low": 1, "high": 5, "clip": True}) == ImageRange(1.0, 5.0, clip=True)
    for wrong in ([1], [5, 1], [0, float("inf")], {"low": 1}, {"low": 0, "high": 1, "clip": 3}):
        with pytest.raises(ValueError):
            ImageRange.parse(wrong)
    values = np.array([10, 20, 30, 60], np.uint16)
    assert ImageRange(10, 30, clip=True).scale(values).tolist() == [0, 127.5, 255, 255]
    with pytest.raises(ValueError, match=r"outside .* \(values 10\.\.60\); .* \{low: 10, high: 30, clip: true\}"):
        ImageRange(10, 30).refuse_outside(values)
    wide = np.array([2**40, 2**40 + 1], np.int64)  # float32 would take the two for one
    assert ImageRange(2**40, 2**40 + 2).scale(wide).tolist() == [0, 127.5]


@pytest.mark.parametrize("channels", [1, 3])
def test_files_cache_and_crops_keep_the_type(tmp_path: Path, channels: int) -> None:
    split = load(write_pairs(tmp_path / "data"), channels=channels, image_range=[LOW, HIGH])
    image = split.image(0)
    assert image.dtype == np.uint16
    assert image.shape == (32, 40, channels)
    assert np.unique(image).tolist() == [NEAR, FAR]
    cached = open_cache(split, tmp_path / "pixels")
    box = (3, 5, 20, 30)
    for held in (cached[0]["image"][3:23, 5:35], split.open(0).image(box), cached.open(0).image(box)):
        assert held.dtype == np.uint16
        np.testing.assert_array_equal(held, image[3:23, 5:35])


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.6])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_training_pixels_are_scaled_after_the_cut_and_never_rounded(scale: float, channels: int) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(LOW, HIGH, (32, 40, channels)).astype(np.uint16)
    recipe = TransformsRecipe(preset="none", scale=[scale, scale], crop_size_px=[16, 16])
    processor = build_processor(ImageRange(LOW, HIGH), channels)
    transform = TrainingTransform(processor, recipe, channels=channels, normalize=False, deep=True)
    sample = transform(pixels, np.zeros((32, 40), np.uint8), np.random.default_rng(2))["pixel_values"]
    assert sample.dtype == torch.float32
    # The same cut of the same values as float64, on a scale a thousand times finer than 8 bits.
    fine = TrainingTransform(build_processor(ImageRange(0, 2e7), channels), recipe, channels=channels, deep=True)
    wanted = fine((pixels.astype(np.float64) - LOW) * 1000, np.zeros((32, 40), np.uint8), np.random.default_rng(2))
    assert torch.allclose(sample, wanted["pixel_values"], rtol=0, atol=2e-5)
    assert len(np.unique(sample.numpy())) > 200


def test_photometric_steps_work_on_floats_or_are_refused_by_name() -> None:
    processor = build_processor(ImageRange(LOW, HIGH), 3, (64, 64))
    pixels = np.full((64, 64, 3), NEAR, np.uint16)
    pixels[:, 32:] = FAR
    label = np.zeros((64, 64), np.uint8)
    for preset in PRESETS:
        transform = TrainingTransform(processor, TransformsRecipe(preset=preset, crop_size_px=[64, 64]), deep=True)
        for seed in range(3):
            sample = transform(pixels, label, np.random.default_rng(seed))["pixel_values"]
            assert sample.dtype == torch.float32, preset
            assert torch.isfinite(sample).all(), preset
    refused = TransformsRecipe(preset="none", steps={"Equalize": {"p": 1.0}}, crop_size_px=[64, 64])
    with pytest.raises(InputError, match=r"transforms\.steps\.Equalize: rounds images to 8 bits"):
        TrainingTransform(processor, refused, deep=True)
    steps = {"RandomBrightnessContrast": {"brightness_limit": 0.1, "contrast_limit": 0.0, "p": 1.0}}
    recipe = TransformsRecipe(preset="none", steps=steps, crop_size_px=[64, 64])
    changed = TrainingTransform(processor, recipe, deep=True)(pixels, label, np.random.default_rng(0))["pixel_values"]
    step = (changed[0, 0, 40] - changed[0, 0, 10]).item()
    assert step == pytest.approx((FAR - NEAR) / (HIGH - LOW) / 0.25, rel=0.3)  # changed in brightness, still apart


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_evaluated_is_what_is_predicted(tmp_path: Path, channels: int) -> None:
    root = write_pairs(tmp_path / "data", values=(20_001, 39_998))
    stated = ImageRange(LOW, HIGH)
    processor = build_processor(stated, channels)
    pair = load(root, channels=channels, image_range=[LOW, HIGH])[1]
    evaluated = EvaluationTransform(processor, channels)(pair["image"], pair["label"])["pixel_values"]
    read = ImageReader(channels, stated).read(str(root / "images" / "1.png"), "1.png")
    assert torch.equal(ServedPixels(processor, channels)(read)[0], evaluated)
    wanted = ((np.asarray(read, np.float64) - LOW) / (HIGH - LOW) - 0.5) / 0.25
    assert np.allclose(evaluated.numpy(), np.moveaxis(wanted, -1, 0), rtol=0, atol=2e-6)


def test_a_checkpoint_trained_on_8_bits_is_served_as_it_was_trained() -> None:
    pixels = np.array([[[NEAR], [FAR], [LOW], [HIGH]]], np.uint16).repeat(8, axis=0).repeat(2, axis=1)
    processor = build_processor(ImageRange(LOW, HIGH))
    del processor.image_precision  # as earlier versions saved it
    assert read_image_range(processor.to_dict()) == ImageRange(LOW, HIGH, round=True)
    served = ServedPixels(processor, 1)(pixels, do_resize=False)
    levels = np.rint((pixels.astype(np.float64) - LOW) * 255 / (HIGH - LOW)).astype(np.uint8)
    assert torch.equal(served, ServedPixels(processor, 1)(levels, do_resize=False))
    assert len(np.unique(served.numpy())) == 3
    deep = ServedPixels(build_processor(ImageRange(LOW, HIGH)), 1)(pixels, do_resize=False)
    assert len(np.unique(deep.numpy())) == 4


def test_the_processor_is_saved_with_its_marker(tmp_path: Path) -> None:
    recipe = ModelRecipe(config={"model_type": "segplus-unet", "width": 8, "depth": 2})
    config = load_model(recipe, ClassMap.build(["ground", "thing"])).model.config
    for stated in (ImageRange(1, 5, clip=True), ImageRange(1, 5), ImageRange(1, 5, round=True), None):
        processor = load_image_processor(recipe, config, image_range=stated)
        processor.save_pretrained(tmp_path)
        loaded = type(processor).from_pretrained(tmp_path)
        assert read_image_range(loaded.to_dict()) == stated


def test_an_unused_range_is_an_error_with_the_range_that_fits(tmp_path: Path) -> None:
    split = load(write_pairs(tmp_path / "narrow", values=(808, 2633)))
    with pytest.raises(InputError, match=r"4 images deeper than 8 bits.*\n.*808 to 2633\n.*\[0, 4095\]"):
        check_split(split, progress=False)
    grey = load(write_pairs(tmp_path / "grey", values=(100, 60_000)), channels=1)
    with pytest.raises(InputError, match=r"image_range: \[0, 60000\]"):
        check_split(grey, progress=False)
    with pytest.raises(InputError, match=r"values 100\.\.60000"):
        measure_channels(grey, progress=False)
    full = load(write_pairs(tmp_path / "full", values=(100, 60_000)))
    assert check_split(full, progress=False).images == 4
    hot = write_pairs(tmp_path / "hot", values=(808, 2633))
    pixels = np.asarray(Image.open(hot / "images" / "2.png")).copy()
    pixels[0, 0] = 65_535
    Image.fromarray(pixels).save(hot / "images" / "2.png")
    with pytest.raises(InputError, match=r"image_range: \{low: 0, high: 2633, clip: true\}"):
        check_split(load(hot, channels=1), progress=False)
    clipped = load(hot, channels=1, image_range={"low": 0, "high": 2633, "clip": True})
    assert check_split(clipped, progress=False).images == 4
    with pytest.raises(
        InputError, match=r"outside data\.image_range 0\.\.2633 would be clipped\n  found: values 808\.\.65535"
    ):
        check_split(load(hot, channels=1, image_range=[0, 2633]), "values", progress=False)


def test_a_tiny_model_tells_20_of_65536_grey_levels_apart(tmp_path: Path) -> None:
    """Both classes are one grey level of 8 bits, so that no model could."""
    root = write_pairs(tmp_path / "data", count=6)
    rounded = load(root, channels=1, image_range={"low": LOW, "high": HIGH, "round": True})
    assert np.ptp(rounded.image(0)) == 0
    split = load(root, channels=1, image_range=[LOW, HIGH])
    recipe = ModelRecipe(
        config={"model_type": "segplus-unet", "width": 8, "depth": 2},
        image_processor={"size": {"height": 32, "width": 40}},
    )
    torch.manual_seed(0)
    model = load_model(recipe, ClassMap.build(["ground", "thing"]), channels=1).model
    statistics = measure_channels(split, progress=False)
    measure = lambda: (statistics.mean, statistics.std)  # noqa: E731
    stated = ImageRange(LOW, HIGH)
    processor = load_image_processor(recipe, model.config, image_range=stated, measure_channels=measure)
    transform = TrainingTransform(
        processor, TransformsRecipe(preset="none", crop_size_px=[32, 40]), channels=1, normalize=False, deep=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model.train()
    for step in range(60):
        samples = [transform.read_sample(split.open(i), np.random.default_rng([step, i])) for i in range(4)]
        pixel_values = torch.stack([sample["pixel_values"] for sample in samples])
        labels = torch.stack([sample["labels"] for sample in samples]).long()
        loss = F.cross_entropy(model(pixel_values=pixel_values).logits, labels, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predictor = Predictor(model, processor, channels=1)
    for index in (4, 5):  # not seen
        labels = predictor.predict(split.image(index)).numpy()
        truth = split.label(index)
        for label in (0, 1):
            shared, either = ((labels == label) & (truth == label)).sum(), ((labels == label) | (truth == label)).sum()
            assert shared / either > 0.9


@pytest.mark.parametrize(("dtype", "high"), [("float32", 0.8), ("float64", 0.8), ("int16", 3000), ("uint32", 90_000)])
def test_colours_that_no_type_bounds_ask_for_a_range(tmp_path: Path, dtype: str, high: float) -> None:
    """Without a range they are refused in one message, with the one that inspect proposes they are read as they lie."""
    rng = np.random.default_rng(0)
    written = [(rng.random((32, 40, 3)) * high).astype(dtype) for _ in range(4)]
    for index, pixels in enumerate(written):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "images" / f"{index}.tif", pixels, photometric="rgb")
        Image.fromarray((pixels[..., 0] > high / 2).astype(np.uint8)).save(tmp_path / "masks" / f"{index}.png")
    with pytest.raises(InputError) as refused:
        load(tmp_path)[0]
    assert f"0.tif: values of type {dtype}, and nothing says which become 0 and 255" in str(refused.value)
    assert "set data.image_range: [low, high]" in str(refused.value)
    section = {"dataset": str(tmp_path), "classes": ["ground", "thing"], "validation_share": 0.0}
    report = inspect_dataset(section, progress=False).report
    assert [finding["kind"] for finding in report["findings"] if finding["level"] == "error"] == ["no range"]
    proposed = yaml.safe_load(report["recipe"])["data"]["image_range"]
    assert proposed == [min(map(np.min, written)), max(map(np.max, written))]
    split = load(tmp_path, image_range=proposed)
    assert split[1]["image"].dtype == dtype
    assert np.array_equal(split[1]["image"], written[1])
    assert np.array_equal(split.open(1).image((3, 4, 9, 8)), written[1][3:12, 4:12])


@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_four_bands_are_proposed_with_the_rest_of_the_recipe(tmp_path: Path, dtype: str) -> None:
    labels = np.zeros((32, 40), np.uint8)
    labels[8:20, 10:30] = 1
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    bands = []
    for number in range(4):
        bands.append(
            rng.integers(1, 250, (32, 40, 4)).astype(dtype) * np.dtype(dtype).type(1 + 9 * (dtype == "uint16"))
        )
        kind = {"photometric": "minisblack"} if dtype == "uint16" else {"photometric": "rgb", "extrasamples": [0]}
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", bands[-1], planarconfig="contig", **kind)
        Image.fromarray(labels).save(tmp_path / "labels" / f"{number}.png")
    report = audit_for_training(DataRecipe(dataset=str(tmp_path))).report
    data = yaml.safe_load(report["recipe"])["data"]
    assert (data["channels"], data.get("image_range")) == (4, [0, 4095] if dtype == "uint16" else None)
    assert data["classes"] == ["background", "foreground"]
    split = load_segmentation_dataset(data).splits["train"]
    np.testing.assert_array_equal(split[0]["image"], bands[int(split.name(0))])

"""Training images: no label from nowhere, fill is the ignore index, image and mask aligned, draws that repeat."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.data.synthetic.scenes import SyntheticScenes
from segplus.errors import InputError
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.training.sets import EvaluationSet, TrainingSet
from segplus.transforms import PRESETS, EvaluationTransform, TrainingTransform, WholePair
from segplus.transforms.geometry import ServedSize, cut_image, cut_label, draw_cut, find_box
from segplus.transforms.normalization import Normalization
from segplus.transforms.steps import build_steps

AS_IT_IS = SegformerImageProcessorPil(do_resize=False)
EVERY_STEP = [(preset, name) for preset, content in PRESETS.items() for name in content.steps]
LEVELS = np.array([20, 70, 120, 170, 220], np.uint8)


def draw_blocks(height: int = 96, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Return an image whose grey value tells the class: blocks of five classes, and a margin that is ignored."""
    y, x = np.mgrid[:height, :width]
    label = ((y // 24 + 2 * (x // 32)) % 5).astype(np.uint8)
    image = np.repeat(LEVELS[label][..., None], 3, axis=2)
    label[:, :3] = 255
    return image, label


class Blocks:
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = SyntheticScenes(7, (48, 64), seed=2).draw(index)
        return {"image": Image.fromarray(image), "label": label, "name": str(index)}

    def open(self, index: int) -> WholePair:
        return WholePair(self[index]["image"], self[index]["label"])


def find_inner(label: np.ndarray, reach: int = 3) -> np.ndarray:
    """Pixels whose neighbourhood holds one class."""
    inner = np.ones(label.shape, bool)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            inner &= np.roll(label, (dy, dx), (0, 1)) == label
    inner[:reach], inner[-reach:], inner[:, :reach], inner[:, -reach:] = False, False, False, False
    return inner


@pytest.mark.parametrize(("preset", "name"), EVERY_STEP)
@pytest.mark.parametrize("ignore_index", [255, 65535])
def test_every_step_of_every_preset_makes_no_label(preset: str, name: str, ignore_index: int) -> None:
    arguments = {**PRESETS[preset].steps[name], "p": 1.0}
    steps = build_steps({name: arguments}, ignore_index, (124, 116, 104), (96, 96))
    assert steps is not None
    image, label = draw_blocks()
    wide = label.astype(np.uint8 if ignore_index == 255 else np.uint16)
    wide[label == 255] = ignore_index
    wide[wide == 4] = 4 if ignore_index == 255 else 300
    allowed = set(np.unique(wide).tolist())
    for seed in range(12):
        steps.set_random_seed(seed)
        changed = steps(image=image, mask=wide)
        assert set(np.unique(changed["mask"]).tolist()) <= allowed
        assert changed["mask"].dtype == wide.dtype


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_image_and_mask_stay_aligned(preset: str) -> None:
    """The colour of the image still tells its class, away from edges, after all of a preset's movements."""
    moves = ("HorizontalFlip", "VerticalFlip", "D4", "Affine", "Perspective", "ElasticTransform", "GridDistortion")
    dropped = {name: None for name in PRESETS[preset].steps if name not in moves}
    recipe = TransformsRecipe(preset=preset, crop_size_px=[80, 80], steps=dropped)  # type: ignore[arg-type]
    transform = TrainingTransform(AS_IT_IS, recipe, normalize=False)
    image, label = draw_blocks()
    checked = 0
    for seed in range(25):
        sample = transform(Image.fromarray(image), label, np.random.default_rng(seed))
        labels, pixels = sample["labels"].numpy(), sample["pixel_values"].numpy()[0].astype(int)
        sure = find_inner(labels) & (labels != 255)
        assert set(np.unique(labels).tolist()) <= {0, 1, 2, 3, 4, 255}
        assert np.abs(pixels[sure] - LEVELS[labels[sure]]).max(initial=0) <= 4
        checked += int(sure.sum())
    assert checked > 25 * 1000


def test_enlarged_borders_are_ignored_and_filled_with_the_mean() -> None:
    recipe = TransformsRecipe(preset="none", crop_size_px=[8, 8])
    transform = TrainingTransform(AS_IT_IS, recipe)
    label = np.array([[0, 1], [2, 3]], np.uint8)
    sample = transform(np.full((2, 2, 3), 255, np.uint8), label, np.random.default_rng(0))
    values, counts = np.unique(sample["labels"].numpy(), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 1, 1: 1, 2: 1, 3: 1, 255: 60}
    outside = sample["pixel_values"][:, sample["labels"] == 255]
    assert outside.abs().max() < 0.01


@pytest.mark.parametrize("size", [(33, 50), (64, 64), (97, 31)])
@pytest.mark.parametrize(
    "processor",
    [
        SegformerImageProcessorPil(size={"height": 40, "width": 56}),
        DPTImageProcessorPil(size={"height": 48, "width": 48}, keep_aspect_ratio=True, ensure_multiple_of=8),
        MobileNetV2ImageProcessorPil(size={"shortest_edge": 36}, do_center_crop=False),
        AS_IT_IS,
    ],
)
def test_served_size_is_what_the_processor_gives(processor: Any, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.zeros((*size, 3), np.uint8))
    served = processor(image, return_tensors="pt")["pixel_values"].shape[-2:]
    assert ServedSize(processor).find(*size) == tuple(served)


@pytest.mark.parametrize(
    "processor", [AS_IT_IS, DPTImageProcessorPil(), MobileNetV2ImageProcessorPil(do_center_crop=False)]
)
def test_pixel_values_have_the_bits_of_the_processor(processor: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    wanted = processor(image, do_resize=False, return_tensors="pt", input_data_format="channels_last")["pixel_values"][
        0
    ]
    normalization = Normalization(processor)
    assert torch.equal(normalization.apply(image), wanted)
    on_device = normalization.apply_to_batch(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    assert torch.allclose(on_device[0], wanted, atol=2e-6)


def test_training_at_scale_one_sees_what_is_served() -> None:
    processor = SegformerImageProcessorPil(size={"height": 48, "width": 64})
    image, label = SyntheticScenes(1, (96, 128)).draw(0)
    transform = TrainingTransform(processor, TransformsRecipe(preset="none"))
    assert transform.crop_size_px == (48, 64)
    trained = transform(Image.fromarray(image), label)
    served = EvaluationTransform(processor)(Image.fromarray(image), label)
    assert torch.equal(trained["pixel_values"], served["pixel_values"])
    assert served["labels"].shape == (96, 128)
    assert served["sizes"].tolist() == [96, 128]
    assert np.array_equal(trained["labels"].numpy(), label[1::2, 1::2])


def test_enlarging_is_bilinear_in_both_libraries() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    cut = draw_cut(np.random.default_rng(0), (20, 30), (50, 75), (50, 75), None)
    assert find_box(cut, (20, 30), Image.Resampling.BILINEAR) == (0, 0, 20, 30)
    enlarged = cut_image(image, cut.source, cut, (50, 75), (0, 0, 0), Image.Resampling.BILINEAR)
    wanted = np.asarray(Image.fromarray(image).resize((75, 50), Image.Resampling.BILINEAR))
    assert np.abs(enlarged.astype(int) - wanted).max() <= 1


def test_nearest_labels_by_hand() -> None:
    label = np.array([[0, 1, 2, 3]], np.uint8)
    whole = draw_cut(np.random.default_rng(0), (1, 4), (1, 2), (1, 2), None)
    assert cut_label(label, whole, (1, 2), 255).tolist() == [[1, 3]]
    doubled = draw_cut(np.random.default_rng(0), (1, 4), (2, 8), (2, 8), None)
    assert cut_label(label, doubled, (2, 8), 255).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 2


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.3])
def test_a_focus_is_in_the_crop(scale: float) -> None:
    label = np.zeros((60, 80), np.uint8)
    label[41, 7] = 1
    transform = TrainingTransform(
        AS_IT_IS, TransformsRecipe(preset="none", scale=[scale, scale], crop_size_px=[30, 30])
    )
    rng = np.random.default_rng(0)
    found = [1 in transform(np.zeros((60, 80, 3), np.uint8), label, rng, (41, 7))["labels"] for _ in range(50)]
    # A single pixel may fall between the samples where the image shrinks; else it is always there.
    assert np.mean(found) == 1.0 if scale >= 1 else np.mean(found) > 0.05


def test_a_class_does_not_fill_the_crop() -> None:
    label = np.zeros((64, 256), np.uint8)
    label[:, 192:] = 1
    image = np.zeros((64, 256, 3), np.uint8)
    shares = {}
    for limit in (1.0, 0.75):
        recipe = TransformsRecipe(preset="none", crop_size_px=[64, 64], max_class_share=limit)
        transform = TrainingTransform(AS_IT_IS, recipe)
        draws = [transform(image, label, np.random.default_rng(s))["labels"].float().mean() for s in range(60)]
        shares[limit] = np.mean([0.2 < float(d) < 0.8 for d in draws])
    assert shares[1.0] < 0.3
    assert shares[0.75] > 0.7


def read_all(loader: Any) -> list[torch.Tensor]:
    return [tensor for batch in loader for tensor in (batch["pixel_values"], batch["labels"])]


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    transform = TrainingTransform(AS_IT_IS, TransformsRecipe(preset="strong", crop_size_px=[32, 32]))
    dataset = TrainingSet(Blocks(), transform, seed=5)
    sampler = [3, 1, 0, 6, 5, 2]
    options: dict[str, Any] = {"batch_size": 2, "sampler": sampler}
    plain = torch.utils.data.DataLoader(dataset, **options)
    workers = torch.utils.data.DataLoader(dataset, num_workers=2, persistent_workers=True, **options)
    epochs = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        alone, beside = read_all(plain), read_all(workers)
        assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))
        epochs.append(alone)
    assert not torch.equal(epochs[0][0], epochs[1][0])
    again = TrainingSet(Blocks(), transform, seed=5)
    again.set_epoch(1)
    assert torch.equal(again[3]["pixel_values"], epochs[1][0][0])
    assert not torch.equal(TrainingSet(Blocks(), transform, seed=6)[3]["pixel_values"], epochs[0][0][0])


def test_steps_draw_apart_from_each_other() -> None:
    """Both flips on, both off, and one of each occur: one seed for all steps would give the first two alone."""
    recipe = TransformsRecipe(
        preset="none", crop_size_px=[2, 2], steps={"HorizontalFlip": {"p": 0.5}, "VerticalFlip": {"p": 0.5}}
    )
    transform = TrainingTransform(AS_IT_IS, recipe)
    label = np.array([[0, 1], [2, 3]], np.uint8)
    corners = [
        int(transform(np.zeros((2, 2, 3), np.uint8), label, np.random.default_rng(s))["labels"][0, 0])
        for s in range(80)
    ]
    assert np.bincount(corners, minlength=4).min() >= 8


def test_evaluation_set_is_what_the_pipeline_hands_to_the_model() -> None:
    processor = SegformerImageProcessorPil(size={"height": 32, "width": 40})
    dataset = EvaluationSet(Blocks(), EvaluationTransform(processor))
    item, source = dataset[4], Blocks()[4]
    assert len(dataset) == 7
    assert torch.equal(
        item["pixel_values"], processor(images=[source["image"]], return_tensors="pt")["pixel_values"][0]
    )
    assert np.array_equal(item["labels"].numpy(), source["label"])
    assert item["index"].item() == 4


def test_which_processors_serve_one_size() -> None:
    fixed, shortest = SegformerImageProcessorPil(), MobileNetV2ImageProcessorPil(do_center_crop=False)
    free = DPTImageProcessorPil(keep_aspect_ratio=True, ensure_multiple_of=32)
    answers = [
        EvaluationTransform(p).serves_one_size() for p in (fixed, DPTImageProcessorPil(), free, shortest, AS_IT_IS)
    ]
    assert answers == [True, True, False, False, False]


def test_the_callers_arrays_stay_as_they_are() -> None:
    transform = TrainingTransform(AS_IT_IS, TransformsRecipe(preset="strong", crop_size_px=[48, 64], scale=[1, 1]))
    image, label = SyntheticScenes(1, (48, 64)).draw(0)
    image.setflags(write=False)
    label.setflags(write=False)
    for seed in range(20):
        transform(image, label, np.random.default_rng(seed))
    assert np.array_equal(image, SyntheticScenes(1, (48, 64)).draw(0)[0])


def test_five_channels() -> None:
    processor = SegformerImageProcessorPil(
        do_resize=False, image_mean=[0.1] * 5, image_std=[0.2] * 5, do_convert_rgb=False
    )
    recipe = TransformsRecipe(preset="none", crop_size_px=[16, 16], scale=[0.5, 0.5])
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 5), dtype=np.uint8)
    sample = TrainingTransform(processor, recipe, channels=5)(image, np.zeros((32, 32), np.uint8))
    assert sample["pixel_values"].shape == (5, 16, 16)
    served = EvaluationTransform(processor)(image, np.zeros((32, 32), np.uint8))
    assert torch.allclose(
        served["pixel_values"], (torch.from_numpy(image).permute(2, 0, 1) / 255 - 0.1) / 0.2, atol=1e-5
    )


def test_wide_labels_stay_wide() -> None:
    label = np.full((8, 8), 300, np.uint16)
    transform = TrainingTransform(
        AS_IT_IS, TransformsRecipe(preset="standard", crop_size_px=[12, 12], scale=[1, 1]), 65535
    )
    labels = transform(np.zeros((8, 8, 3), np.uint8), label, np.random.default_rng(0))["labels"]
    assert labels.dtype == torch.int32
    assert set(labels.unique().tolist()) == {300, 65535}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"HorizontlFlip": {}}, "did you mean 'HorizontalFlip'"),
        ({"Rotate": {"limits": 10}}, "limits"),
        ({"Rotate": {"limit": "much"}}, "transforms.steps.Rotate"),
        ({"Rotate": {"fill_mask": 0}}, "the ignore index"),
        ({"Rotate": {"mask_interpolation": 1}}, "nearest"),
        ({"Rotate": 10}, "argument: value lines"),
        ({"Normalize": {}}, "the image processor normalises"),
        ({"ToTensorV2": {}}, "no longer 8-bit"),
        ({"Resize": {"height": 8, "width": 8}}, "changes the image's size"),
        ({"RandomRotate90": {}}, "square crop"),
        ({"Morphological": {"scale": (3, 3)}, "GaussianBlur": None}, "nothing to remove"),
        ({"OneOf": {"p": 1.0}}, "no transforms"),
        ({"OneOf": {"transforms": {"Blurr": {}}}}, "did you mean 'Blur'"),
        ({"TemplateTransform": {}}, "TemplateTransform"),
    ],
)
def test_bad_steps_are_told_before_training(steps: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingTransform(AS_IT_IS, TransformsRecipe(preset="light", crop_size_px=[32, 40], steps=steps))


def test_steps_replace_remove_and_append() -> None:
    group = {"OneOf": {"p": 0.5, "transforms": {"GaussianBlur": {"p": 1.0}, "RandomGamma": {"p": 1.0}}}}
    recipe = TransformsRecipe(
        preset="light",
        crop_size_px=[32, 32],
        steps={"HorizontalFlip": {"p": 1.0}, "RandomBrightnessContrast": None, **group},
    )
    steps = TrainingTransform(AS_IT_IS, recipe).steps
    assert [type(step).__name__ for step in steps.transforms] == ["HorizontalFlip", "OneOf"]
    assert steps.transforms[0].p == 1.0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="crop_size_px: not given"):
        TrainingTransform(AS_IT_IS, TransformsRecipe())
    with pytest.raises(InputError, match="one way at most"):
        TransformsRecipe(mixup=0.6, cutmix=0.6)
    transform = TrainingTransform(AS_IT_IS, TransformsRecipe(preset="none", crop_size_px=[8, 8]))
    with pytest.raises(InputError, match="differ in size"):
        transform(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        transform(np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.uint8))


def test_albumentations_asks_no_network_and_warns_of_nothing() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from segplus.transforms.steps import load_albumentations\n"
        "print(load_albumentations().__version__)\n"
        "import os; assert 'NO_ALBUMENTATIONS_UPDATE' not in os.environ"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

"""Batches stay 8-bit up to the device, where the trainer makes of them what the image processor would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_gradients import KeepGradient
from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainingArguments
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.data import load_segmentation_dataset
from segplus.data.synthetic.scenes import CLASS_NAMES
from segplus.losses import build_criterion
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.training import SegmentationTrainer
from segplus.training.sets import TrainingSet
from segplus.transforms import BatchMixing, Normalization, TrainingTransform
from segplus.transforms.collator import TrainingCollator

PROCESSORS = {
    "ImageNet": SegformerImageProcessorPil(do_resize=False),
    "half": SegformerImageProcessorPil(do_resize=False, image_mean=[0.5] * 3, image_std=[0.25, 0.5, 0.75]),
    "not normalised": SegformerImageProcessorPil(do_resize=False, do_normalize=False),
    "as it is": SegformerImageProcessorPil(do_resize=False, do_normalize=False, do_rescale=False),
    "channels": SegformerImageProcessorPil(do_resize=False, image_mean=[0.1, 0.9] * 3, image_std=[0.02, 0.4] * 3),
}


@pytest.mark.parametrize("name", list(PROCESSORS))
def test_every_value_is_what_the_processor_makes_of_it(name: str) -> None:
    channels = 6 if name == "channels" else 3
    normalization = Normalization(PROCESSORS[name], channels)
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, channels, 1, 1)
    table = torch.from_numpy(normalization.table).view(channels, 16, 16)
    made = normalization.apply_to_batch(values)
    assert made.dtype == torch.float32
    assert made.shape == (2, channels, 16, 16)
    # two roundings of float32, of numbers up to the range of the table
    assert (made - table).abs().max() <= 2 * torch.finfo(torch.float32).eps * np.ptp(normalization.table, axis=1).max()
    assert values.dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_channels_of_8_bits_come_first(channels: int) -> None:
    processor = SegformerImageProcessorPil(do_resize=False, image_mean=[0.5] * channels, image_std=[0.5] * channels)
    image = np.random.default_rng(0).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    image.setflags(write=False)
    pixel_values = Normalization(processor, channels).split_channels(image)
    assert pixel_values.dtype == torch.uint8
    assert np.array_equal(pixel_values.numpy(), image.transpose(2, 0, 1))


def build_trainer(folder: Path, normalize: bool, **transforms: Any) -> tuple[SegmentationTrainer, KeepGradient]:
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        num_labels=len(CLASS_NAMES),
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )
    data = load_segmentation_dataset(
        {"dataset": "synthetic", "synthetic_size_px": [80, 96], "synthetic_images": {"train": 4, "validation": 1}}
    )
    recipe = TransformsRecipe(preset="light", crop_size_px=[64, 64], **transforms)
    transform = TrainingTransform(PROCESSORS["ImageNet"], recipe, normalize=normalize)
    keeper = KeepGradient()
    trainer = SegmentationTrainer(
        SegformerForSemanticSegmentation(config),
        losses=build_criterion({"cross_entropy": 1.0, "dice": 1.0}, len(CLASS_NAMES)),
        classes=data.classes,
        freeze_batch_norm=True,
        normalization=None if normalize else transform.normalization,
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            max_steps=1,
            learning_rate=0.0,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_grad_norm=0.0,
            remove_unused_columns=False,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=TrainingSet(data.splits["train"], transform, seed=3),
        data_collator=TrainingCollator(BatchMixing(recipe, 255), keep_index=True),
        callbacks=[keeper],
    )
    return trainer, keeper


def test_an_8_bit_batch_gives_the_gradient_of_a_normalised_one(tmp_path: Path) -> None:
    gradients = []
    for normalize in (True, False):
        trainer, keeper = build_trainer(tmp_path, normalize)
        trainer.train()
        gradients.append(keeper.gradient)
    before, after = gradients
    assert before.keys() == after.keys()
    largest = max(float(gradient.abs().max()) for gradient in before.values())
    for name, gradient in before.items():
        assert torch.allclose(gradient, after[name], rtol=1e-3, atol=1e-5 * largest), name


def test_a_batch_of_the_loader_is_8_bit_and_the_models_is_not(tmp_path: Path) -> None:
    trainer, _ = build_trainer(tmp_path, normalize=False)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].dtype == batch["labels"].dtype == torch.uint8
    prepared = trainer._prepare_inputs(dict(batch))
    assert prepared["pixel_values"].dtype == torch.float32
    assert prepared["labels"].dtype == torch.int64
    assert torch.equal(prepared["labels"], batch["labels"].long())
    floats, _ = build_trainer(tmp_path, normalize=True)
    wanted = floats._prepare_inputs(next(iter(floats.get_train_dataloader())))
    assert torch.allclose(prepared["pixel_values"], wanted["pixel_values"], atol=2e-6)
    assert torch.equal(prepared["labels"], wanted["labels"])


def test_mixed_8_bit_batches_are_mixed_floats_to_half_a_step(tmp_path: Path) -> None:
    batches = []
    for normalize in (True, False):
        trainer, _ = build_trainer(tmp_path, normalize, mixup=1.0)
        batches.append(trainer._prepare_inputs(next(iter(trainer.get_train_dataloader()))))
    step = np.ptp(Normalization(PROCESSORS["ImageNet"]).table, axis=1).max() / 255
    assert (batches[0]["pixel_values"] - batches[1]["pixel_values"]).abs().max() <= 0.5 * step + 1e-5
    assert torch.equal(batches[0]["labels"], batches[1]["labels"])

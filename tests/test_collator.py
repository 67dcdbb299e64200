"""Batches: exact shapes and padding, mixes that make no label, mixes that repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from segplus.errors import InputError
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.transforms import BatchMixing
from segplus.transforms.collator import EvaluationCollator, TrainingCollator
from segplus.transforms.mixing import class_mix, cut_mix, make_mosaic, mix_up

MIXES = {"mixup": mix_up, "cutmix": cut_mix, "classmix": class_mix, "mosaic": make_mosaic}


def make_batch(count: int = 4, size: int = 16, dtype: torch.dtype = torch.uint8) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and label both say class and image: value = 10 * image + class."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.kron(rng.integers(0, 4, (count, size // 4, size // 4)), np.ones((4, 4), np.int64)))
    pixels = (10.0 * torch.arange(count)[:, None, None] + labels)[:, None].expand(-1, 3, -1, -1).clone()
    labels[:, 0] = 255
    return pixels, labels.to(dtype)


def make_samples(sizes: list[tuple[int, int]], served: list[tuple[int, int]]) -> list[dict[str, Any]]:
    return [
        {
            "pixel_values": torch.full((3, *shown), float(row)),
            "labels": torch.full(size, row, dtype=torch.uint8),
            "sizes": torch.tensor(size),
            "index": torch.tensor(row),
            "epoch": torch.tensor(0),
        }
        for row, (size, shown) in enumerate(zip(sizes, served, strict=True))
    ]


def test_training_batch() -> None:
    samples = make_samples([(4, 6)] * 3, [(4, 6)] * 3)
    batch = TrainingCollator()(samples)
    assert set(batch) == {"pixel_values", "labels"}
    assert batch["labels"].dtype == torch.uint8
    assert batch["labels"][:, 0, 0].tolist() == [0, 1, 2]
    assert TrainingCollator(keep_index=True)(samples)["index"].tolist() == [0, 1, 2]


def test_evaluation_batch_pads_masks_alone() -> None:
    batch = EvaluationCollator(65535)(make_samples([(2, 3), (3, 2)], [(5, 5), (5, 5)]))
    assert batch["labels"].tolist() == [
        [[0, 0, 0], [0, 0, 0], [65535, 65535, 65535]],
        [[1, 1, 65535], [1, 1, 65535], [1, 1, 65535]],
    ]
    assert batch["labels"].dtype == torch.int64
    assert batch["sizes"].tolist() == [[2, 3], [3, 2]]
    assert batch["index"].tolist() == [0, 1]
    assert batch["pixel_values"].shape == (2, 3, 5, 5)


def test_unequal_served_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="4x8, 5x5"):
        EvaluationCollator()(make_samples([(2, 3), (3, 2)], [(5, 5), (4, 8)]))


@pytest.mark.parametrize("name", sorted(MIXES))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_mixes_make_no_label(name: str, dtype: torch.dtype) -> None:
    pixels, labels = make_batch(dtype=dtype)
    before, before_labels = pixels.clone(), labels.clone()
    changed = 0
    for seed in range(30):
        mixed, mixed_labels = MIXES[name](pixels, labels, np.random.default_rng(seed), 255)
        assert mixed.shape == pixels.shape
        assert mixed_labels.shape == labels.shape
        assert mixed_labels.dtype == dtype
        assert set(mixed_labels.unique().tolist()) <= {0, 1, 2, 3, 255}
        changed += int(not torch.equal(mixed, pixels))
    assert changed > 20
    assert torch.equal(pixels, before)
    assert torch.equal(labels, before_labels)


@pytest.mark.parametrize("name", ["cutmix", "classmix", "mosaic"])
def test_pasted_pixels_bring_their_labels(name: str) -> None:
    pixels, labels = make_batch()
    for seed in range(30):
        mixed, mixed_labels = MIXES[name](pixels, labels, np.random.default_rng(seed), 255)
        known = mixed_labels != 255
        assert torch.equal((mixed[:, 0] % 10)[known], mixed_labels[known].float())


def test_mix_up_by_hand() -> None:
    pixels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2).clone()
    labels = torch.tensor([[[0, 1]], [[2, 1]]])
    clear = set()
    for seed in range(60):
        mixed, mixed_labels = mix_up(pixels, labels, np.random.default_rng(seed), 255)
        weight = 1 - float(mixed[0, 0, 0, 0])
        assert weight >= 0.5
        assert torch.allclose(mixed[1, 0, 0], torch.full((2,), weight))
        clear.add(weight >= 2 / 3)
        assert mixed_labels.tolist() == (labels.tolist() if weight >= 2 / 3 else [[[255, 1]], [[255, 1]]])
    assert clear == {True, False}


def test_class_mix_pastes_half_of_the_classes_whole() -> None:
    pixels, labels = make_batch(2)
    mixed, _ = class_mix(pixels, labels, np.random.default_rng(1), 255)
    pasted = (mixed[0, 0] // 10) == 1
    there = labels[1] != 255
    chosen = set(labels[1][pasted].tolist())
    assert 255 not in chosen
    assert len(chosen) == (len(labels[1][there].unique()) + 1) // 2
    assert torch.equal(pasted, torch.isin(labels[1], torch.tensor(sorted(chosen), dtype=torch.uint8)))


def test_mixing_follows_the_probabilities_and_repeats() -> None:
    pixels, labels = make_batch()
    never, always = BatchMixing(TransformsRecipe(), 255), BatchMixing(TransformsRecipe(cutmix=1.0), 255)
    assert torch.equal(never(pixels, labels, np.random.default_rng(0))[0], pixels)
    assert torch.equal(always(pixels[:1], labels[:1], np.random.default_rng(0))[0], pixels[:1])
    often = BatchMixing(TransformsRecipe(mosaic=0.25, classmix=0.25), 255)
    mixed = [not torch.equal(often(pixels, labels, np.random.default_rng(s))[0], pixels) for s in range(200)]
    assert 0.4 < np.mean(mixed) < 0.6
    samples = [
        {"pixel_values": p, "labels": label, "index": torch.tensor(row), "epoch": torch.tensor(2)}
        for row, (p, label) in enumerate(zip(pixels, labels, strict=True))
    ]
    first, again = (TrainingCollator(always, seed=1)(samples) for _ in range(2))
    other = TrainingCollator(always, seed=2)(samples)
    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert not torch.equal(first["pixel_values"], other["pixel_values"])
    assert first["labels"].dtype == torch.uint8

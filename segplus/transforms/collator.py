"""Batches: of equal sizes for training, of padded masks for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from segplus.classes import IGNORE_INDEX
from segplus.errors import InputError

Sample = dict[str, torch.Tensor]
MixBatch = Callable[[torch.Tensor, torch.Tensor, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


class TrainingCollator:
    """Stack training samples, and mix the batch where a mixing is given.

    Args:
        mixing: `segplus.transforms.BatchMixing`; takes (pixel_values, labels, rng), returns the first two.
        seed: Another seed mixes otherwise. The mixing of a batch depends on seed, epoch and the samples in it alone.
        keep_index: Also give "index", int64, shape (N,): the images' positions in the split, to name a file by.
    """

    def __init__(self, mixing: MixBatch | None = None, seed: int = 0, keep_index: bool = False) -> None:
        self.mixing, self.seed, self.keep_index = mixing, seed, keep_index

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Return pixel_values (N, C, H, W) and labels (N, H, W) in the samples' own types: 8-bit ones travel fast."""
        pixel_values = torch.stack([sample["pixel_values"] for sample in samples])
        labels = torch.stack([sample["labels"] for sample in samples])
        if self.mixing is not None:
            index = [int(sample["index"]) for sample in samples]
            rng = np.random.default_rng([self.seed, int(samples[0]["epoch"]), *index])
            pixel_values, labels = self.mixing(pixel_values, labels, rng)
        batch = {"pixel_values": pixel_values, "labels": labels}
        if self.keep_index:
            batch["index"] = torch.stack([sample["index"] for sample in samples])
        return batch


class PaddingCollator:
    """Stack anybody's training samples; where images differ in size, images and labels are padded to the largest.

    Args:
        ignore_index: The label of padded pixels; the images there are 0.
    """

    def __init__(self, ignore_index: int = IGNORE_INDEX) -> None:
        self.ignore_index = ignore_index

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return pixel_values (N, C, H, W), labels int64 (N, H', W'), and index (N,) where the samples have one.

        Raises:
            InputError: If a sample lacks a key or holds something else, or labels of different sizes are not of their
                images' sizes: padding would move them apart.
        """
        read = [read_sample(sample, needs_labels=True) for sample in samples]
        sizes = {(*sample["pixel_values"].shape[-2:], *sample["labels"].shape) for sample in read}
        if len(sizes) > 1 and any(size[:2] != size[2:] for size in sizes):
            raise InputError(
                "training samples: labels of different sizes that are not their images' sizes",
                found=", ".join(f"labels {h}x{w} of pixel_values {y}x{x}" for y, x, h, w in sorted(sizes)[:3]),
                fix="give images and labels of a batch one size, as a crop does",
            )
        return {
            "pixel_values": _pad([sample["pixel_values"] for sample in read], 0),
            "labels": _pad([sample["labels"].long() for sample in read], self.ignore_index),
            **_stack_index(read),
        }


class EvaluationCollator:
    """Stack images as served, and pad masks of different sizes with the ignore index.

    Images that the processor serves at different sizes are not padded: a model's answer depends on what surrounds an
    image, and the pipeline sees each by itself. Such a batch is refused; batches of one evaluate them.

    Args:
        ignore_index: The label that is ignored.
    """

    def __init__(self, ignore_index: int = IGNORE_INDEX) -> None:
        self.ignore_index = ignore_index

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return pixel_values (N, C, h', w'), sizes int64 (N, 2), and where the samples have them labels and index.

        Labels are int64, shape (N, H, W), padded; a size is that of the labels, or else of the pixel values.

        Raises:
            InputError: If the pixel values differ in size, or a sample lacks them or holds something else.
        """
        read = [read_sample(sample, needs_labels=False) for sample in samples]
        served = {tuple(sample["pixel_values"].shape[-2:]) for sample in read}
        if len(served) > 1:
            raise InputError(
                "evaluation: the image processor serves the images of one batch at different sizes",
                found=", ".join(f"{height}x{width}" for height, width in sorted(served)),
                fix="set training.per_device_eval_batch_size: 1, or a fixed model.image_processor.size",
            )
        has_labels = all("labels" in sample for sample in read)
        shown = "labels" if has_labels else "pixel_values"
        batch = {
            "pixel_values": torch.stack([sample["pixel_values"] for sample in read]),
            "sizes": torch.tensor([sample[shown].shape[-2:] for sample in read]),
            **_stack_index(read),
        }
        if has_labels:
            batch["labels"] = _pad([sample["labels"].long() for sample in read], self.ignore_index)
        return batch


def read_sample(sample: Mapping[str, Any], *, needs_labels: bool) -> dict[str, torch.Tensor]:
    """Return anybody's sample as tensors: pixel_values (C, H, W), labels (H, W) and index, where it has them.

    Args:
        sample: Tensors, arrays, nested lists, or labels as a PIL image of class ids.
        needs_labels: Whether a sample without them is refused.
    Raises:
        InputError: If a key is missing, or a value has another shape or type.
    """
    needed = ("pixel_values", "labels") if needs_labels else ("pixel_values",)
    for key in needed:
        if key not in sample:
            raise InputError(f"data set: a sample has no '{key}'", found=", ".join(map(str, sample)), allowed=needed)
    pixel_values = _read_tensor(sample["pixel_values"])
    read = {"pixel_values": pixel_values}
    if pixel_values.ndim != 3:
        raise InputError("pixel_values", found=f"shape {tuple(pixel_values.shape)}", allowed="(C, H, W)")
    if "labels" in sample:
        read["labels"] = labels = _read_tensor(sample["labels"])
        if labels.ndim != 2 or labels.is_floating_point():
            found = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise InputError("labels", found=found, allowed="class ids, integers of shape (H, W)")
    if "index" in sample:
        read["index"] = torch.as_tensor(sample["index"])
    return read


def _read_tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    array = np.array(value)  # a copy: what lies in a cache or a file may not be written to
    if array.dtype == np.uint16:  # torch computes with uint8, but not with uint16
        array = array.astype(np.int32)
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _pad(tensors: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Stack tensors (..., H, W), padded at the right and the bottom to the largest."""
    height, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (-2, -1))
    padding = [(0, width - tensor.shape[-1], 0, height - tensor.shape[-2]) for tensor in tensors]
    pairs = zip(tensors, padding, strict=True)
    return torch.stack([F.pad(tensor, by, value=value) if any(by) else tensor for tensor, by in pairs])


def _stack_index(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    has_index = all("index" in sample for sample in samples)
    return {"index": torch.stack([sample["index"] for sample in samples])} if has_index else {}

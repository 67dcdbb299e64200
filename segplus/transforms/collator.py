"""Batches: of equal sizes for training, of padded masks for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

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


class EvaluationCollator:
    """Stack images as served, and pad masks of different sizes with the ignore index.

    Images that the processor serves at different sizes are not padded: a model's answer depends on what surrounds an
    image, and the pipeline sees each by itself. Such a batch is refused; batches of one evaluate them.

    Args:
        ignore_index: The label that is ignored.
    """

    def __init__(self, ignore_index: int = IGNORE_INDEX) -> None:
        self.ignore_index = ignore_index

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """Return pixel_values (N, C, h', w'), labels int64 (N, H, W) padded, sizes int64 (N, 2), index int64 (N,).

        Raises:
            InputError: If the pixel values differ in size.
        """
        served = {tuple(sample["pixel_values"].shape[-2:]) for sample in samples}
        if len(served) > 1:
            raise InputError(
                "evaluation: the image processor serves the images of one batch at different sizes",
                found=", ".join(f"{height}x{width}" for height, width in sorted(served)),
                fix="set training.per_device_eval_batch_size: 1, or a fixed model.image_processor.size",
            )
        sizes = torch.stack([sample["sizes"] for sample in samples])
        height, width = sizes.amax(dim=0).tolist()
        labels = torch.full((len(samples), height, width), self.ignore_index, dtype=torch.int64)
        for row, sample in enumerate(samples):
            rows, columns = sample["labels"].shape
            labels[row, :rows, :columns] = sample["labels"]
        return {
            "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
            "labels": labels,
            "sizes": sizes,
            "index": torch.stack([sample["index"] for sample in samples]),
        }

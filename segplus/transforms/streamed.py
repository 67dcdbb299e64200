"""A streamed split with a transform: what the data loader's workers decode and augment."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from segplus.transforms.pair_transforms import OpenPair, TrainingTransform
from segplus.transforms.sets import calm_opencv


class RowReader(Protocol):
    """Reads rows."""

    def open(self, row: Any) -> OpenPair:
        """Return the pair of a row, of which nothing is decoded yet where the format allows."""
        ...


class StreamedTrainingSet(Dataset[dict[str, torch.Tensor]]):
    """Training samples of rows that a sampler draws; a sample depends on the seed and the row's position alone.

    Args:
        split: Reads rows; of each, only what the crop needs.
        transform: The augmentation.
        seed: Another seed gives other augmentations.
    """

    def __init__(self, split: RowReader, transform: TrainingTransform, seed: int = 0) -> None:
        calm_opencv()
        self.split, self.transform, self.seed = split, transform, seed

    def __getitem__(self, row: Any) -> dict[str, torch.Tensor]:
        """Return pixel_values and labels of a drawn row, with its position as `index` and its pass as `epoch`."""
        calm_opencv()
        rng = np.random.default_rng([self.seed, row["number_of_pass"], row["position"]])
        sample = self.transform.read_sample(self.split.open(row), rng)
        position, number_of_pass = torch.tensor(row["position"]), torch.tensor(row["number_of_pass"])
        return {**sample, "index": position, "epoch": number_of_pass}

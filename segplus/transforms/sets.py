"""A split with a transform: what the data loader indexes."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from segplus.transforms.pair_transforms import EvaluationTransform, OpenPair, TrainingTransform


class Split(Protocol):
    """Images with masks, by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Return {"image", "label", "name"}."""
        ...


class OpenSplit(Protocol):
    """Images with masks, by position, of which rectangles are read."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> OpenPair:
        """Return the pair, of which nothing is decoded yet where the format allows."""
        ...


class FocusSource(Protocol):
    """Something that knows where the rare classes are."""

    def draw_focus(self, index: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return (row, column) of a pixel of image `index`, or None."""
        ...


class TrainingSet(Dataset[dict[str, torch.Tensor]]):
    """Training samples that depend on seed, epoch and index alone: not on workers, processes or a resume.

    Args:
        split: Images with masks; of each, only what the crop needs is read.
        transform: The augmentation.
        seed: Another seed gives other augmentations.
        focus: Where the rare classes are, for rare-class crops (segplus.data.sampling.ClassIndex).
        focus_probability: How often a crop is laid over one of them.
    """

    def __init__(
        self,
        split: OpenSplit,
        transform: TrainingTransform,
        seed: int = 0,
        focus: FocusSource | None = None,
        focus_probability: float = 0.0,
    ) -> None:
        calm_opencv()
        self.split, self.transform, self.seed = split, transform, seed
        self.focus, self.focus_probability = focus, focus_probability
        # In shared memory: a worker that lives through several epochs sees the new number.
        self._epoch: torch.Tensor = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.split)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentations are drawn; accelerate's data loader calls it."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return pixel_values and labels of sample `index` in this epoch, with `index` and `epoch` as int64 scalars."""
        calm_opencv()
        epoch = int(self._epoch)
        rng = np.random.default_rng([self.seed, epoch, index])
        focus = None
        if self.focus is not None and rng.random() < self.focus_probability:
            focus = self.focus.draw_focus(index, rng)
        sample = self.transform.read_sample(self.split.open(index), rng, focus)
        return {**sample, "index": torch.tensor(index), "epoch": torch.tensor(epoch)}


class EvaluationSet(Dataset[dict[str, torch.Tensor]]):
    """Images as served, masks at their original size.

    Args:
        split: Images with masks.
        transform: Hands images to the image processor.
    """

    def __init__(self, split: Split, transform: EvaluationTransform) -> None:
        calm_opencv()
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return pixel_values, labels and sizes of image `index`, with `index` as an int64 scalar."""
        calm_opencv()
        item = self.split[index]
        return {**self.transform(item["image"], item["label"]), "index": torch.tensor(index)}


def calm_opencv() -> None:
    """Keep OpenCV to one thread: the workers are the parallelism.

    Called where a set is made, before workers are forked, and at a sample, for workers that were spawned. The number is
    0 and not 1: a forked child that asks for 1 waits for ever for the parent's threads (OpenCV 5.0).
    """
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(0)

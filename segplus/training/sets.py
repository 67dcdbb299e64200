"""What the data loaders index: splits with a transform, cached, streamed or neither, and in which order."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Dataset, get_worker_info
from transformers import BaseImageProcessor

from segplus.data import SegmentationData, SegmentationSplit
from segplus.data.cache import CachedSplit, measure_cache, open_cache
from segplus.data.sampling import RepeatSampler, build_sampler
from segplus.data.statistics import SplitStatistics, measure_split
from segplus.data.streaming import RowSampler, StreamedSplit
from segplus.images import read_image_range
from segplus.progress import Progress
from segplus.recipe import Recipe
from segplus.recipe.paths import expand_path
from segplus.training.held_rows import HeldRows, share_memory
from segplus.transforms import EvaluationTransform, TrainingTransform


class TrainingSet(Dataset[dict[str, torch.Tensor]]):
    """Training samples that depend on seed, epoch and index alone: not on workers, processes or a resume.

    Args:
        split: Images with masks; of each, only what the crop needs is read.
        transform: The augmentation.
        seed: Another seed gives other augmentations.
        focus: Where the rare classes are, for rare-class crops (`measure_split` with "points").
        focus_probability: How often a crop is laid over one of them.
    """

    def __init__(
        self,
        split: SegmentationSplit | CachedSplit,
        transform: TrainingTransform,
        seed: int = 0,
        focus: SplitStatistics | None = None,
        focus_probability: float = 0.0,
    ) -> None:
        self.split, self.transform, self.seed = split, transform, seed
        self.focus, self.focus_probability = focus, focus_probability
        # In shared memory: a worker that lives through several epochs sees the new number.
        self._epoch = share_memory(torch.zeros(1, dtype=torch.int64))
        self.held = HeldRows()

    def __len__(self) -> int:
        return len(self.split)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentations are drawn; accelerate's data loader calls it."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return pixel_values and labels of sample `index` in this epoch, with `index` and `epoch` as int64 scalars."""
        _calm_opencv()
        self.held.hold(index)
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

    def __init__(self, split: SegmentationSplit, transform: EvaluationTransform) -> None:
        self.split, self.transform = split, transform
        self.held = HeldRows()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return pixel_values, labels and sizes of image `index`, with `index` as an int64 scalar."""
        _calm_opencv()
        self.held.hold(index)
        item = self.split[index]
        return {**self.transform(item["image"], item["label"]), "index": torch.tensor(index)}


def _calm_opencv() -> None:
    """Keep OpenCV to one thread in a data-loader worker: the workers are the parallelism.

    The number is 0 and not 1: a forked child that asks for 1 waits for ever for the parent's threads (OpenCV 5.0).
    """
    if get_worker_info() is not None and cv2.getNumThreads() != 1:
        cv2.setNumThreads(0)


class StreamedTrainingSet(Dataset[dict[str, torch.Tensor]]):
    """Training samples of rows that a sampler draws; a sample depends on the seed and the row's position alone.

    Args:
        split: Reads rows; of each, only what the crop needs.
        transform: The augmentation.
        seed: Another seed gives other augmentations.
    """

    def __init__(self, split: StreamedSplit, transform: TrainingTransform, seed: int = 0) -> None:
        self.split, self.transform, self.seed = split, transform, seed
        self.held = HeldRows()

    def __getitem__(self, row: Any) -> dict[str, torch.Tensor]:
        """Return pixel_values and labels of a drawn row, with its position as `index` and its pass as `epoch`."""
        _calm_opencv()
        self.held.hold(row["position"])
        rng = np.random.default_rng([self.seed, row["number_of_pass"], row["position"]])
        sample = self.transform.read_sample(self.split.open(row), rng)
        position, number_of_pass = torch.tensor(row["position"]), torch.tensor(row["number_of_pass"])
        return {**sample, "index": position, "epoch": number_of_pass}


def build_training_set(
    recipe: Recipe, data: SegmentationData, image_processor: BaseImageProcessor, seed: int
) -> tuple[TrainingSet | StreamedTrainingSet, RepeatSampler | RowSampler | None]:
    """Return the augmented training split, and the sampler where images are not drawn alike or are streamed.

    Args:
        recipe: Its `transforms` section says how images are changed, chosen and cropped; `data.cache` whether they are
            decoded once.
        data: Its split "train", or its stream.
        image_processor: Saved with the model.
        seed: Another seed gives other orders and augmentations.
    Raises:
        InputError: If a step, a crop size or the cache's folder does not fit.
    """
    wishes, classes = recipe.transforms, data.classes
    # Batches of 8 bits stay so through the workers and to the device; the trainer normalises there.
    stated = read_image_range(image_processor.to_dict())
    deep = stated is not None and not stated.round
    transform = TrainingTransform(
        image_processor, wishes, classes.ignore_index, recipe.data.channels, normalize=False, deep=deep
    )
    if transform.left_out and PartialState().is_main_process:
        images = f"{recipe.data.channels} channels" + (" of more than 8 bits" if deep else "")
        print(f"transforms: not for {images}, left out: {', '.join(transform.left_out)}")
    if data.stream is not None:
        state = PartialState()
        rows = RowSampler(data.stream, seed, state.process_index, state.num_processes)
        return StreamedTrainingSet(data.stream, transform, seed), rows
    split, index = data.splits["train"], None
    if list_parts(recipe):
        index = measure_split(split, "points")
    source: SegmentationSplit | CachedSplit = split
    if recipe.data.cache is not None:
        folder = Path(expand_path(recipe.data.cache, "data.cache"))
        if PartialState().is_main_process:
            print(f"data.cache: {measure_cache(split) / 2**20:.0f} MiB of decoded pixels in {folder}")
        source = open_cache(split, folder, partial(Progress, total=len(split), title="decode", unit="pairs"))
    training_set = TrainingSet(source, transform, seed, focus=index, focus_probability=wishes.rare_class_crop)
    sampler = build_sampler(
        wishes.sampling, None if index is None else index.counts[:, :-1], wishes.repeat_threshold, seed
    )
    return training_set, sampler


def list_parts(recipe: Recipe) -> list[str]:
    """Return what the scan of the training split is to count for the order of the images and the crops."""
    wishes = recipe.transforms
    return ["points"] if wishes.sampling != "uniform" or wishes.rare_class_crop > 0 else []

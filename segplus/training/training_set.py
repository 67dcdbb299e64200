"""What training shows: the training split, cached, streamed or neither, augmented, and in which order."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState
from tqdm import tqdm
from transformers import BaseImageProcessor

from segplus.data import SegmentationData, SegmentationSplit
from segplus.data.cache import measure_cache, open_cache
from segplus.data.checking import find_cache_folder
from segplus.data.sampling import ClassIndex, RepeatSampler, build_sampler, index_classes
from segplus.data.streaming import RowSampler
from segplus.recipe import Recipe
from segplus.recipe.paths import expand_path
from segplus.transforms import TrainingSet, TrainingTransform
from segplus.transforms.streamed import StreamedTrainingSet


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
    # Batches stay 8-bit through the workers and to the device; the trainer normalises there.
    transform = TrainingTransform(image_processor, wishes, classes.ignore_index, recipe.data.channels, normalize=False)
    if transform.left_out and PartialState().is_main_process:
        print(f"transforms: not for {recipe.data.channels} channels, left out: {', '.join(transform.left_out)}")
    if data.stream is not None:
        state = PartialState()
        rows = RowSampler(data.stream, seed, state.process_index, state.num_processes)
        return StreamedTrainingSet(data.stream, transform, seed), rows
    split, index = data.splits["train"], None
    if wishes.sampling != "uniform" or wishes.rare_class_crop > 0:
        index = _index_split(split)
    source = split
    if recipe.data.cache is not None:
        folder = Path(expand_path(recipe.data.cache, "data.cache"))
        if PartialState().is_main_process:
            print(f"data.cache: {measure_cache(split) / 2**20:.0f} MiB of decoded pixels in {folder}")
        source = open_cache(split, folder, lambda rows: tqdm(rows, desc="decode", unit="pair", disable=None))
    training_set = TrainingSet(source, transform, seed, focus=index, focus_probability=wishes.rare_class_crop)
    sampler = build_sampler(wishes.sampling, None if index is None else index.counts, wishes.repeat_threshold, seed)
    return training_set, sampler


def _index_split(split: SegmentationSplit) -> ClassIndex:
    """Find out once where the rare classes are; a later run reads it."""
    file = find_cache_folder() / "class_index" / f"{split.fingerprint}.npz"
    if file.is_file():
        return ClassIndex.load(file)
    classes = split.classes
    index = index_classes(
        split,
        classes.num_classes,
        classes.ignore_index,
        tell=lambda rows: tqdm(rows, desc="find rare classes", unit="mask", disable=None),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    index.save(file)
    return index

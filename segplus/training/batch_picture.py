"""pictures/batch.png: what the network is going to see, drawn before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from segplus.classes import ClassMap
from segplus.files import write_whole
from segplus.images import show_as_rgb
from segplus.reporting.drawing import draw_batches
from segplus.training.sets import StreamedTrainingSet, TrainingSet

_BATCHES, _BATCH_IMAGES = 2, 4


def write_batch_picture(
    path: Path, training_set: TrainingSet | StreamedTrainingSet, collator: Callable[..., Any], classes: ClassMap
) -> None:
    """Draw two batches of four training samples, augmented and mixed as in training, over their labels.

    Args:
        path: The PNG file.
        training_set: Samples of 0 to 255, not normalised yet; of a map-style set images are taken evenly.
        collator: Stacks samples to batches, and mixes them.
        classes: Holds the colours.
    Raises:
        InputError: If an image is damaged, or the file cannot be written.
    """
    samples = list(islice(_take_samples(training_set), _BATCHES * _BATCH_IMAGES))
    drawn = []
    for start in range(0, len(samples), _BATCH_IMAGES):
        batch = collator(samples[start : start + _BATCH_IMAGES])
        pixels = batch["pixel_values"].numpy().transpose(0, 2, 3, 1)
        images = [show_as_rgb(image) for image in pixels] if pixels.shape[-1] != 3 else list(pixels.astype("uint8"))
        drawn.append((images, list(batch["labels"].numpy())))
    with write_whole(path) as temporary:
        draw_batches(drawn, classes).save(temporary, "PNG")


def _take_samples(training_set: TrainingSet | StreamedTrainingSet) -> Iterator[dict[str, Any]]:
    count = _BATCHES * _BATCH_IMAGES
    if isinstance(training_set, TrainingSet):
        chosen = dict.fromkeys(index * len(training_set) // count for index in range(count))
        yield from (training_set[index] for index in chosen)
        return
    for position, row in enumerate(training_set.split.rows):
        yield training_set[{**row, "position": position, "number_of_pass": 0}]

"""A try of the evaluation's protocol before training, so that nobody trains for hours towards a mistake."""

from __future__ import annotations

from collections.abc import Iterable

from segplus.data import SegmentationSplit
from segplus.images import measure_image
from segplus.inference.predictor import Predictor

_IMAGES = 8


def try_protocol(predictor: Predictor, splits: Iterable[SegmentationSplit]) -> None:
    """Begin the prediction of a few images of each split, one of each size, and forget it.

    The protocol `fixed` at one scale serves the sizes that training evaluates at, which were tried already.

    Args:
        predictor: Of the model that is to be trained.
        splits: Those that are evaluated after training; images are taken evenly from each.
    Raises:
        InputError: If the model cannot take a size that the protocol gives it, or there is no size to scale.
    """
    if predictor.protocol.name == "fixed" and predictor.protocol.scales == [1.0]:
        return
    tried: set[tuple[int, int]] = set()
    for split in splits:
        count = min(_IMAGES, len(split))
        for image in (split.image(number * len(split) // count) for number in range(count)):
            size = measure_image(image)
            if size not in tried:
                tried.add(size)
                predictor.try_image(image)

"""The images of an evaluation that people look at: the worst, the median and the best."""

from __future__ import annotations

from segplus.data import SegmentationSplit
from segplus.data.dataset import Pair
from segplus.images import show_as_rgb
from segplus.inference.predictor import Predictor
from segplus.metrics import Evaluator
from segplus.reporting.examples import Example, choose_extremes


def predict_examples(
    predictor: Predictor, split: SegmentationSplit, evaluator: Evaluator, count: int = 3
) -> dict[str, list[Example]]:
    """Return "Worst", "Median" and "Best" images of a split by their own mIoU, predicted once more.

    Args:
        predictor: Forms the predictions, as it did for the evaluator.
        split: The images and masks.
        evaluator: Saw every image of the split.
        count: Images in each group; fewer where the split is small.
    """
    images = sorted(evaluator.images, key=lambda image: image.index)
    scores: list[float] = [image.compute()["mean_iou"] for image in images]
    groups = choose_extremes(scores, count)
    return {
        heading.capitalize(): [
            predict_example(predictor, split[images[position].index], scores[position]) for position in positions
        ]
        for heading, positions in groups.items()
    }


def predict_example(predictor: Predictor, pair: Pair, score: float) -> Example:
    """Return one pair with its prediction; of an image with many channels the first three are shown."""
    image = pair["image"]
    prediction = predictor.predict(image).cpu().numpy()
    return Example(pair["name"], show_as_rgb(image), pair["label"], prediction, score)

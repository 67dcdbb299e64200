"""The layers of one example in the HTML report: photo, truth, prediction and errors as data URIs."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from segplus.classes import ClassMap
from segplus.reporting.charts import encode_image
from segplus.reporting.drawing import WRONG, colorize, find_errors, measure_error_share, shrink_labels
from segplus.reporting.examples import Example

MOST_PX = 1024
_SMALL_PX = 400
_WASH = (16, 17, 20, 170)


def encode_layers(example: Example, classes: ClassMap) -> dict[str, Any]:
    """Return what the report's template shows of an example.

    Args:
        example: The image; its longer side is reduced to 1024 pixels.
        classes: Names, colours and the ignore index.
    Returns:
        "photo", "truth", "prediction" and "errors" as data URIs of one size, "width", "height", "is_small", "name" and
        "figures", the line of scores.
    """
    truth = shrink_labels(example.truth, (MOST_PX, MOST_PX))
    prediction = shrink_labels(example.prediction, (MOST_PX, MOST_PX))
    size = (truth.shape[1], truth.shape[0])
    photo = example.image if example.image.mode == "RGB" else example.image.convert("RGB")
    errors = np.full((*truth.shape, 4), _WASH, dtype=np.uint8)
    errors[truth == classes.ignore_index] = 0
    errors[find_errors(truth, prediction, classes)] = (*WRONG, 255)
    wrong = measure_error_share(example.truth, example.prediction, classes)
    figures = [] if example.score is None else [f"mIoU {100 * example.score:.1f} %"]
    figures += [] if np.isnan(wrong) else [f"{100 * wrong:.1f} % of pixels wrong"]
    return {
        "name": example.name,
        "width": size[0],
        "height": size[1],
        "is_small": max(size) < _SMALL_PX,
        "figures": " · ".join(figures),
        "photo": encode_image(photo.resize(size, Image.Resampling.LANCZOS), "JPEG"),
        "truth": encode_image(Image.fromarray(colorize(truth, classes))),
        "prediction": encode_image(Image.fromarray(colorize(prediction, classes))),
        "errors": encode_image(Image.fromarray(errors)),
    }

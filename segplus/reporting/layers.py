"""The layers of one example in the HTML report: photo, truth, prediction and errors as data URIs."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from segplus.classes import ClassMap
from segplus.reporting.charts import encode_image
from segplus.reporting.drawing import (
    WRONG,
    find_errors,
    index_palette,
    list_palette,
    measure_error_share,
    shrink_labels,
)
from segplus.reporting.examples import Example, Labels

MOST_PX = 1024
_SMALL_PX = 400
_WASH = (16, 17, 20, 170)


def encode_layers(example: Example, classes: ClassMap, background: int | None = None) -> dict[str, Any]:
    """Return what the report's template shows of an example.

    Args:
        example: The image; its longer side is reduced to 1024 pixels.
        classes: Names, colours and the ignore index.
        background: A class that is left transparent.
    Returns:
        "photo", "truth", "prediction" and "errors" as data URIs of one size, "width", "height", "is_small", "name" and
        "figures", the line of scores.
    """
    truth = shrink_labels(example.truth, (MOST_PX, MOST_PX))
    prediction = shrink_labels(example.prediction, (MOST_PX, MOST_PX))
    size = (truth.shape[1], truth.shape[0])
    photo = example.image if example.image.mode == "RGB" else example.image.convert("RGB")
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
        "truth": encode_labels(truth, classes, background),
        "prediction": encode_labels(prediction, classes, background),
        "errors": encode_errors(truth, prediction, classes),
    }


def encode_labels(labels: Labels, classes: ClassMap, background: int | None = None) -> str:
    """Return a coloured label map as a data URI: a palette image where the colours fit into one.

    Args:
        labels: Class ids and the ignore index, integers, shape (H, W).
        classes: Holds the colours.
        background: A class whose pixels are transparent.
    """
    palette, rows = list_palette(classes), index_palette(labels, classes)
    if len(palette) <= 256:
        image = Image.fromarray(rows.astype(np.uint8))
        image.putpalette(palette.tobytes())
        return encode_image(image) if background is None else encode_image(image, transparency=background)
    alpha = np.where(rows == (-1 if background is None else background), 0, 255)
    return encode_image(Image.fromarray(np.dstack([palette[rows], alpha]).astype(np.uint8)))


def encode_errors(truth: Labels, prediction: Labels, classes: ClassMap) -> str:
    """Return wrong pixels in amber on a dark wash as a data URI; ignored pixels are transparent.

    Args:
        truth: Class ids and the ignore index, integers, shape (H, W).
        prediction: Class ids, integers, shape (H, W).
        classes: Holds the ignore index.
    """
    rows = np.where(find_errors(truth, prediction, classes), 1, np.where(truth == classes.ignore_index, 2, 0))
    image = Image.fromarray(rows.astype(np.uint8))
    image.putpalette([*_WASH[:3], *WRONG, 0, 0, 0])
    return encode_image(image, transparency=bytes([_WASH[3], 255, 0]))

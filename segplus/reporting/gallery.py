"""The gallery of the HTML report: a thumbnail of every evaluated image, with what it takes to filter them."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from segplus.classes import ClassMap
from segplus.images import DecodedImage, show_as_rgb
from segplus.metrics.evaluator import ImageScores
from segplus.reporting.charts import embed
from segplus.reporting.drawing import shrink_labels
from segplus.reporting.examples import Labels
from segplus.reporting.layers import encode_errors, encode_labels

# 4 to 14 kB an image in the file: a thousand make a report of about 10 MB.
MOST_IMAGES = 1000
_THUMBNAIL_PX = 224


@dataclass(frozen=True)
class _Thumbnail:
    """One image: a JPEG, and truth and prediction as compressed class ids of its size."""

    scores: ImageScores
    photo: bytes
    truth: bytes
    prediction: bytes
    shape: tuple[int, int]


class Gallery:
    """Collects small copies of a split's images while they are scored; memory is bounded by `MOST_IMAGES`.

    Args:
        classes: Names, colours and the ignore index.
        images: How many images the split holds; of more than `MOST_IMAGES` every n-th is taken.
    """

    def __init__(self, classes: ClassMap, images: int) -> None:
        self.classes, self.images = classes, images
        self.every = max(1, math.ceil(images / MOST_IMAGES))
        self._thumbnails: list[_Thumbnail] = []

    def add(self, image: DecodedImage, truth: Labels, prediction: Labels, scores: ImageScores) -> None:
        """Keep a thumbnail of an image, if it is one of those that are shown.

        Args:
            image: The image, of H x W pixels.
            truth: Class ids and the ignore index, integers, shape (H, W).
            prediction: Class ids, integers, shape (H, W).
            scores: The image's own scores.
        """
        if scores.index % self.every:
            return
        limit = (_THUMBNAIL_PX, _THUMBNAIL_PX)
        small = [shrink_labels(labels, limit).astype(np.int32) for labels in (truth, prediction)]
        height, width = small[0].shape
        photo = show_as_rgb(image)
        photo = (photo if photo.mode == "RGB" else photo.convert("RGB")).resize(
            (width, height), Image.Resampling.BICUBIC, reducing_gap=2.0
        )
        stream = io.BytesIO()
        photo.save(stream, "JPEG", quality=70, optimize=True)
        packed = [zlib.compress(labels.tobytes()) for labels in small]
        self._thumbnails.append(_Thumbnail(scores, stream.getvalue(), packed[0], packed[1], (height, width)))

    def merge(self, galleries: Sequence[Gallery]) -> None:
        """Hold what all processes saw, this one among them."""
        self._thumbnails = [thumbnail for gallery in galleries for thumbnail in gallery._thumbnails]

    def describe(self, background: int | None = None) -> list[dict[str, Any]]:
        """Return what the page's script shows, in the order of the split.

        Args:
            background: A class that is left transparent.
        Returns:
            For each image its name, mIoU in percent or None, the IoU in percent of each class that occurs in it, and
            its layers as data URIs.
        """
        ordered = sorted(self._thumbnails, key=lambda thumbnail: thumbnail.scores.index)
        return [self._describe_thumbnail(thumbnail, background) for thumbnail in ordered]

    def _describe_thumbnail(self, thumbnail: _Thumbnail, background: int | None) -> dict[str, Any]:
        scores = thumbnail.scores.compute()
        truth, prediction = (
            np.frombuffer(zlib.decompress(packed), np.int32).reshape(thumbnail.shape)
            for packed in (thumbnail.truth, thumbnail.prediction)
        )
        occurring = {index: iou for index, iou in enumerate(scores["per_category_iou"]) if not math.isnan(iou)}
        return {
            "name": thumbnail.scores.name,
            "width": thumbnail.shape[1],
            "height": thumbnail.shape[0],
            "score": None if math.isnan(scores["mean_iou"]) else round(100 * scores["mean_iou"], 1),
            "classes": {str(index): round(100 * iou, 1) for index, iou in occurring.items()},
            "photo": embed(thumbnail.photo, "JPEG"),
            "truth": encode_labels(truth, self.classes, background),
            "prediction": encode_labels(prediction, self.classes, background),
            "errors": encode_errors(truth, prediction, self.classes),
        }

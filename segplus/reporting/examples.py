"""Example: one image of a data set with its truth, its prediction and its score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Example:
    """An image to look at.

    Args:
        name: File name, or what else the data set calls the image.
        image: The photograph, RGB, width W and height H.
        truth: Class ids and the ignore index, integers, shape (H, W).
        prediction: Class ids, integers, shape (H, W).
        score: The image's own mean IoU in [0, 1], or None where it was not measured.
    """

    name: str
    image: Image.Image
    truth: Labels
    prediction: Labels
    score: float | None = None


def choose_extremes(scores: Sequence[float | None], count: int) -> dict[str, list[int]]:
    """Return the positions of the worst, the median and the best scores, no position twice.

    Args:
        scores: One score an image; None and NaN (an image with ignored pixels only) are left out.
        count: Images in each of the three groups; fewer where the images do not suffice.
    Returns:
        "worst" (lowest first), "median" (lowest first) and "best" (highest first) -> positions. What is not better
        than the medians by a thousandth, which could be read, is not among the best.
    """
    ranked = sorted((s, i) for i, s in enumerate(scores) if s is not None and not math.isnan(s))
    order = [index for _, index in ranked]
    share = min(count, len(order) // 3)
    start = (len(order) - share) // 2
    worst, median = (order[:share], order[start : start + share]) if share else (order[:1], [])
    best = order[: -share - 1 : -1] if share else order[1:][::-1]
    below = max((round(scores[i] or 0, 3) for i in median or worst), default=0)
    return {"worst": worst, "median": median, "best": [i for i in best if round(scores[i] or 0, 3) > below]}

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
        "worst" (lowest first), "median" (lowest first) and "best" (highest first) -> positions.
    """
    ranked = sorted((s, i) for i, s in enumerate(scores) if s is not None and not math.isnan(s))
    order = [index for _, index in ranked]
    share = min(count, len(order) // 3)
    if share == 0:
        return {"worst": order[:1], "median": [], "best": order[1:][::-1]}
    start = (len(order) - share) // 2
    return {"worst": order[:share], "median": order[start : start + share], "best": order[: -share - 1 : -1]}

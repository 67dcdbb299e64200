"""Intervals and paired tests by resampling images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.metrics.confusion import Floats, divide, score_counts

_RESAMPLES_AT_ONCE = 64


def draw_resamples(images: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each image occurs in each resample, shape (resamples at once, images)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        chosen = rng.integers(0, images, size=(size, images)) + images * np.arange(size)[:, None]
        yield np.bincount(chosen.ravel(), minlength=size * images).reshape(size, images)


def _resample(counts: npt.NDArray[Any], resamples: int, seed: int) -> dict[str, Floats]:
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    own = score_counts(counts)["mean_iou"]
    known, filled = (~np.isnan(own)).astype(np.float64), np.nan_to_num(own)
    chunks: dict[str, list[Floats]] = {}
    for weights in draw_resamples(len(counts), resamples, seed):
        scores = score_counts((weights @ flat).reshape(len(weights), *counts.shape[1:]))
        scores["per_image_mean_iou"] = divide(weights @ filled, weights @ known)
        for name, values in scores.items():
            chunks.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in chunks.items()}


def _take_percentiles(values: Floats) -> list[float]:
    present = values[~np.isnan(values)]
    return [float(v) for v in np.quantile(present, (0.025, 0.975))] if present.size else [float("nan")] * 2


def compute_intervals(counts: npt.NDArray[Any], resamples: int = 1000, seed: int = 0) -> dict[str, list[float]]:
    """95 % percentile intervals over images.

    Args:
        counts: Hits, pixels of the truth and pixels of the prediction per image and class, shape (N, 3, C).
        resamples: Number of resamples.
        seed: Another seed draws other resamples.
    Returns:
        Score -> [low, high], for the means of `score_counts` and per_image_mean_iou; empty without images or resamples.
    Reference:
        Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if not len(counts) or not resamples:
        return {}
    sampled = _resample(counts, resamples, seed)
    return {name: _take_percentiles(values) for name, values in sampled.items() if values.ndim == 1}


@dataclass(frozen=True)
class PairedDifference:
    """Score of B minus score of A on the same images: the difference, its 95 % interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def compare_counts(
    first: npt.NDArray[Any], second: npt.NDArray[Any], resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Paired bootstrap over images: both models are scored on the same resamples.

    Args:
        first: Counts of A, shape (N, 3, C); see `compute_intervals`.
        second: Counts of B on the same images in the same order.
        resamples: Number of resamples.
        seed: Another seed draws other resamples.
    Returns:
        Score -> PairedDifference, and per_category_iou -> a list of them.
    Raises:
        ValueError: If the shapes differ or there is no image.
    Reference:
        Efron, Tibshirani, An Introduction to the Bootstrap, 1993, section 15.4: the p-value is twice the share of
        resamples on the other side of zero, (1 + count) / (1 + resamples), at most 1.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"counts must belong to the same images, found shapes {first.shape} and {second.shape}")
    sampled = [_resample(counts, resamples, seed) for counts in (first, second)]
    whole = [score_counts(counts.sum(0)) for counts in (first, second)]
    result: dict[str, Any] = {}
    for name in whole[0]:
        difference, drawn = whole[1][name] - whole[0][name], sampled[1][name] - sampled[0][name]
        if drawn.ndim == 1:
            result[name] = _summarise(float(difference), drawn)
        else:
            result[name] = [_summarise(float(d), column) for d, column in zip(difference, drawn.T, strict=True)]
    return result


def _summarise(difference: float, drawn: Floats) -> PairedDifference:
    present = drawn[~np.isnan(drawn)]
    if not present.size or np.isnan(difference):
        return PairedDifference(difference, float("nan"), float("nan"), float("nan"))
    low, high = _take_percentiles(present)
    tail = min(int((present <= 0).sum()), int((present >= 0).sum()))
    return PairedDifference(difference, low, high, min(1.0, 2 * (1 + tail) / (1 + present.size)))

"""Intervals and paired tests by resampling images, or whole groups of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from segplus.metrics.confusion import Floats, average_rows, divide, score_counts, score_each

# With fewer images (or groups) that hold a class, intervals covered its score in less than 90 % of simulated samples;
# see benchmarks/intervals.md.
FEWEST = 5
# A mean over classes has no interval where more than this share of them has too few images.
_SHARE_OF_RARE = 0.1
_OVER_CLASSES = ("mean_iou", "mean_accuracy", "mean_precision", "mean_precision_with_missed", "mean_dice")
_RESAMPLES_AT_ONCE = 64


def draw_resamples(units: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each image or group occurs in each resample, shape (resamples at once, units)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        chosen = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(chosen.ravel(), minlength=size * units).reshape(size, units)


@dataclass(frozen=True)
class _Units:
    """What is drawn: images, or groups of them.

    Args:
        counts: Hits, pixels of the truth and pixels of the prediction per unit and class, float64, shape (U, 3, C).
        own: Sum of the mIoU of a unit's images, and how many have one, shape (U, 2).
        holders: Units whose truth holds each class, shape (C,).
        effective: How many units of equal size would say as much about each class, shape (C,); see `_count_effective`.
    """

    counts: Floats
    own: Floats
    holders: npt.NDArray[np.int64]
    effective: Floats


def _count_effective(pixels: Floats) -> Floats:
    """Return Kish's effective number of units, (sum p)^2 / sum p^2, of pixels of shape (U, ...); NaN without any.

    A class whose pixels lie in a few large objects is known as badly as one that few images hold.
    """
    return divide(pixels.sum(0) ** 2, (pixels**2).sum(0))


def _gather_units(counts: npt.NDArray[Any], groups: Sequence[str] | None) -> _Units:
    means = score_counts(counts)["mean_iou"]
    own = np.stack([np.nan_to_num(means), ~np.isnan(means)], 1)
    summed = counts.astype(np.float64)
    if groups is not None:
        if len(groups) != len(counts):
            raise ValueError(f"{len(groups)} groups for {len(counts)} images")
        names, unit_of = np.unique(np.asarray(groups), return_inverse=True)
        images, summed = summed, np.zeros((len(names), *counts.shape[1:]))
        np.add.at(summed, unit_of, images)
        images, own = own, np.zeros((len(names), 2))
        np.add.at(own, unit_of, images)
    truth = summed[:, 1]
    return _Units(summed, own, (truth > 0).sum(0), _count_effective(truth))


def _resample(units: _Units, resamples: int, seed: int) -> dict[str, Floats]:
    """Return the scores of every resample: means (R,) and per_category_iou (R, C).

    A class that a resample's truth does not hold keeps the scores of the full sample, so that every mean is over the
    same classes.
    """
    flat = units.counts.reshape(len(units.counts), -1)
    whole = units.counts.sum(0)
    expected = score_each(whole)
    chunks: dict[str, list[Floats]] = {}
    for weights in draw_resamples(len(flat), resamples, seed):
        drawn = (weights @ flat).reshape(len(weights), *units.counts.shape[1:])
        absent = (drawn[:, 1] == 0) & (whole[1] > 0)
        each = {name: np.where(absent | np.isnan(v), expected[name], v) for name, v in score_each(drawn).items()}
        scores = score_counts(drawn) | {f"mean_{name}": average_rows(values) for name, values in each.items()}
        scores["per_category_iou"] = each["iou"]
        own = weights @ units.own
        scores["per_image_mean_iou"] = divide(own[:, 0], own[:, 1])
        for name, values in scores.items():
            chunks.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in chunks.items()}


def _count_behind(name: str, units: _Units) -> tuple[int, float]:
    """Return the units behind a mean, and their effective number; 0 where too many of its classes have too few."""
    if name not in _OVER_CLASSES:
        whole = len(units.counts)
        return whole, float(whole if name == "per_image_mean_iou" else _count_effective(units.counts[:, 1].sum(1)))
    scored = ~np.isnan(score_each(units.counts.sum(0))["iou"])
    enough = scored & (units.holders >= FEWEST)
    if not enough.any() or enough.sum() < (1 - _SHARE_OF_RARE) * scored.sum():
        return 0, 0.0
    return int(units.holders[enough].min()), float(units.effective[enough].min())


def _take_percentiles(values: Floats, units: int, effective: float) -> list[float]:
    """Return the 95 % interval of a score that `units` images or groups give; NaN where they are too few.

    Student's degrees of freedom are those of the effective number of units, at least one.
    """
    present = values[~np.isnan(values)]
    if units < FEWEST or not present.size:
        return [math.nan] * 2
    many = max(effective, 2.0)
    tail = float(ndtr(-math.sqrt(many / (many - 1)) * stdtrit(many - 1, 0.975)))
    return [float(v) for v in np.quantile(present, (tail, 1 - tail))]


def compute_intervals(
    counts: npt.NDArray[Any], resamples: int = 1000, seed: int = 0, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """95 % intervals over images, or over groups of images.

    They are percentiles, taken further out where few images hold a class, or most of its pixels: at the tails of
    Student's distribution for the effective number of images. A class that a resample does not hold keeps its score.
    Intervals of classes in fewer than FEWEST images are NaN, and so are those of means over classes of which more than
    a tenth are such.

    Args:
        counts: Hits, pixels of the truth and pixels of the prediction per image and class, shape (N, 3, C).
        resamples: Number of resamples.
        seed: Another seed draws other resamples.
        groups: Group of each image: patients, scenes; drawn whole. None draws images.
    Returns:
        Score -> [low, high], for the means of `score_counts` and per_image_mean_iou, and per_category_iou -> one
        [low, high] a class; empty without images or resamples.
    Raises:
        ValueError: If there are not as many groups as images.
    Reference:
        Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; Hesterberg, What Teachers Should Know
        About the Bootstrap, 2015, section 5.1 (expanded percentiles). https://arxiv.org/abs/1411.5279; Kish, Survey
        Sampling, 1965, section 11.7 (effective number).
    """
    if not len(counts) or not resamples:
        return {}
    units = _gather_units(counts, groups)
    sampled = _resample(units, resamples, seed)
    per_class = sampled.pop("per_category_iou")
    intervals: dict[str, Any] = {
        name: _take_percentiles(values, *_count_behind(name, units)) for name, values in sampled.items()
    }
    rows = zip(per_class.T, units.holders, units.effective, strict=True)
    return {**intervals, "per_category_iou": [_take_percentiles(v, int(held), float(many)) for v, held, many in rows]}


@dataclass(frozen=True)
class PairedDifference:
    """Score of B minus score of A on the same images: the difference, its 95 % interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def compare_counts(
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Paired bootstrap over images or groups: both models are scored on the same resamples.

    Args:
        first: Counts of A, shape (N, 3, C); see `compute_intervals`.
        second: Counts of B on the same images in the same order.
        resamples: Number of resamples.
        seed: Another seed draws other resamples.
        groups: Group of each image; see `compute_intervals`.
    Returns:
        Score -> PairedDifference, and per_category_iou -> a list of them; interval and p-value are NaN where images
        are too few, as in `compute_intervals`.
    Raises:
        ValueError: If the shapes differ or there is no image.
    Reference:
        Efron, Tibshirani, An Introduction to the Bootstrap, 1993, section 15.4: the p-value is twice the share of
        resamples on the other side of zero, (1 + count) / (1 + resamples), at most 1.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"counts must belong to the same images, found shapes {first.shape} and {second.shape}")
    units = [_gather_units(counts, groups) for counts in (first, second)]
    sampled = [_resample(one, resamples, seed) for one in units]
    whole = [score_counts(counts.sum(0)) for counts in (first, second)]
    result: dict[str, Any] = {}
    for name in whole[0]:
        difference, drawn = whole[1][name] - whole[0][name], sampled[1][name] - sampled[0][name]
        if drawn.ndim == 1:
            behind = min(_count_behind(name, one) for one in units)
            result[name] = _summarise(float(difference), drawn, *behind)
        else:
            columns = zip(difference, drawn.T, units[0].holders, units[0].effective, strict=True)
            result[name] = [_summarise(float(d), column, int(held), float(many)) for d, column, held, many in columns]
    return result


def _summarise(difference: float, drawn: Floats, units: int, effective: float) -> PairedDifference:
    present = drawn[~np.isnan(drawn)]
    low, high = _take_percentiles(present, units, effective)
    if math.isnan(low) or math.isnan(difference):
        return PairedDifference(difference, math.nan, math.nan, math.nan)
    tail = min(int((present <= 0).sum()), int((present >= 0).sum()))
    return PairedDifference(difference, low, high, min(1.0, 2 * (1 + tail) / (1 + present.size)))

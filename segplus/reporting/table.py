"""Scores as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.reporting.metrics_file import clean_numbers

# Of a class that neither truth nor prediction holds, and of any figure that is not there.
ABSENT = "—"
NEVER_PREDICTED = "never predicted"
NOT_IN_TRUTH = "not in the truth"
TOO_FEW = "too few images"
INTERVAL = "95 %"

# A class's accuracy is its recall, the word that stands beside precision.
_SCORES = {
    "IoU": "per_category_iou",
    "precision": "per_category_precision",
    "recall": "per_category_accuracy",
    "Dice": "per_category_dice",
}
_MEANS = {"IoU": "mean_iou", "precision": "mean_precision", "recall": "mean_accuracy", "Dice": "mean_dice"}
_MOSTLY = 0.5


def measure_pixel_shares(evaluation: Mapping[str, Any]) -> list[float] | None:
    """Return each class's share of the valid pixels, in [0, 1], or None where no confusion matrix is given.

    Args:
        evaluation: One entry of metrics.json's "evaluations"; "confusion_matrix" has a row for each true class.
    """
    matrix = clean_numbers(evaluation.get("confusion_matrix"))
    if not matrix:
        return None
    pixels = [sum(row) for row in matrix]
    total = sum(pixels)
    return [count / total if total else math.nan for count in pixels]


def find_background(evaluation: Mapping[str, Any]) -> int | None:
    """Return the class that fills most of the images, more than half of the valid pixels, or None."""
    shares = clean_numbers(measure_pixel_shares(evaluation)) or [None]
    largest = max(range(len(shares)), key=lambda index: shares[index] or 0)
    return largest if len(shares) > 1 and (shares[largest] or 0) > _MOSTLY else None


def read_matrix(evaluation: Mapping[str, Any]) -> npt.NDArray[np.int64] | None:
    """Return the confusion matrix, shape (C, C), or None where an evaluation has none."""
    matrix = evaluation.get("confusion_matrix")
    return np.asarray(matrix, dtype=np.int64) if matrix is not None and len(matrix) else None


def explain_gaps(evaluation: Mapping[str, Any], key: str) -> list[str]:
    """Return for each class what stands in the place of a score that it has not; `key` is the score's."""
    matrix = read_matrix(evaluation)
    if matrix is None or key not in ("per_category_accuracy", "per_category_precision"):
        return [ABSENT] * len(evaluation[key])
    truth, predicted = matrix.sum(1) > 0, matrix.sum(0) > 0
    if key == "per_category_precision":
        return [NEVER_PREDICTED if held else ABSENT for held in truth & ~predicted]
    return [NOT_IN_TRUTH if guessed else ABSENT for guessed in predicted & ~truth]


def format_interval(interval: Sequence[float | None] | None) -> str | None:
    """Return an interval of percentages as text, in words where images are too few, None where none was measured."""
    if interval is None:
        return None
    low, high = clean_numbers(interval)
    return TOO_FEW if low is None or high is None else f"{format_score(low)} to {format_score(high)}"


def list_class_intervals(evaluation: Mapping[str, Any]) -> list[str] | None:
    """Return the interval of each class's IoU as text, or None where none were measured."""
    intervals = (evaluation.get("intervals") or {}).get("per_category_iou")
    if intervals is None:
        return None
    scores = clean_numbers(evaluation["per_category_iou"])
    pairs = zip(intervals, scores, strict=True)
    return [ABSENT if score is None else format_interval(interval) or ABSENT for interval, score in pairs]


def format_score(value: float | None) -> str:
    """Return a score as a percentage with one digit, and an em dash for NaN or None."""
    return ABSENT if value is None or math.isnan(value) else f"{100 * value:.1f}"


def format_share(value: float | None) -> str:
    """Return a share of pixels as a percentage with two significant digits below 1 %, one decimal above."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{100 * value:.1f}" if value >= 0.01 or value == 0 else f"{100 * value:#.2g}"


def list_class_rows(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> list[dict[str, str]]:
    """Return one row a class, ready to be shown: name, IoU and its interval, precision, recall, Dice and share.

    Where there is no figure it says why: never predicted, not in the truth, or a dash for neither.

    Args:
        evaluation: One entry of metrics.json's "evaluations".
        class_names: One name a class.
    Raises:
        ValueError: If the evaluation has another number of classes.
    """
    columns: dict[str, list[str]] = {}
    for title, key in _SCORES.items():
        if key in evaluation:
            scores = zip(clean_numbers(evaluation[key]), explain_gaps(evaluation, key), strict=True)
            columns[title] = [gap if score is None else format_score(score) for score, gap in scores]
        intervals = list_class_intervals(evaluation)
        if key == "per_category_iou" and intervals is not None:
            columns[INTERVAL] = intervals
    shares = measure_pixel_shares(evaluation)
    if shares is not None:
        columns["share"] = [format_share(share) for share in shares]
    for title, cells in columns.items():
        if len(cells) != len(class_names):
            raise ValueError(f"{title}: {len(cells)} values for {len(class_names)} class names")
    return [
        {"class": name, **{title: cells[index] for title, cells in columns.items()}}
        for index, name in enumerate(class_names)
    ]


def format_class_table(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Return an aligned table of percentages: the columns of `list_class_rows` for each class, and their means.

    Args:
        evaluation: One entry of metrics.json's "evaluations": the lists of `compute_scores`; without
            "confusion_matrix" there is no share of pixels.
        class_names: One name a class.
    Returns:
        Lines without a trailing line break; a class that neither truth nor prediction holds has an em dash.
    """
    rows = list_class_rows(evaluation, class_names)
    titles = [title for title in rows[0] if title != "class"] if rows else []
    means = {title: clean_numbers(evaluation.get(key)) for title, key in _MEANS.items()}
    last = ["mean", *(format_score(means[title]) if title in means else "" for title in titles)]
    interval = format_interval((evaluation.get("intervals") or {}).get("mean_iou"))
    if INTERVAL in titles and interval is not None:
        last[1 + titles.index(INTERVAL)] = interval
    lines = [["class", *(title if title == INTERVAL else f"{title} %" for title in titles)]]
    lines += [[row["class"], *(row[title] for title in titles)] for row in rows]
    return _align(lines, last)


def format_comparison_table(comparison: Mapping[str, Any]) -> str:
    """Return an aligned table of the IoU of each class for each model, with differences from the first and p-values.

    Args:
        comparison: What `segplus compare` writes as comparison.json.
    Returns:
        Lines without a trailing line break; percentages, differences in percentage points.
    """
    models, scores = comparison["models"], comparison["scores"]
    entries = [None, *(comparison["differences"][source] for source in models[1:])]
    head, last = ["class"], ["mean"]
    for number, (score, entry) in enumerate(zip(scores, entries, strict=True), start=1):
        head += [f"IoU {number} %", *([] if entry is None else [f"{number} - 1", "p"])]
        last += [format_score(score["mean_iou"]), *([] if entry is None else _format_difference(entry["mean_iou"]))]
    lines = [head]
    for index, name in enumerate(comparison["class_names"]):
        line = [name]
        for score, entry in zip(scores, entries, strict=True):
            line.append(format_score(score["per_category_iou"][index]))
            line += [] if entry is None else _format_difference(entry["per_category_iou"][index])
        lines.append(line)
    return _align(lines, last)


def _format_difference(entry: Mapping[str, float]) -> list[str]:
    if math.isnan(entry["difference"]):
        return [ABSENT, ABSENT]
    return [f"{100 * entry['difference']:+.1f}", TOO_FEW if math.isnan(entry["p_value"]) else f"{entry['p_value']:.3f}"]


def _align(lines: Sequence[Sequence[str]], last: Sequence[str]) -> str:
    """Return a head, rows and a last row as text, the first column to the left and the others to the right."""
    widths = [max(len(line[i]) for line in [*lines, last]) for i in range(len(last))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in [*lines, last]
    ]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(line.rstrip() for line in [text[0], rule, *text[1:-1], rule, text[-1]])


def describe_extremes(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Return one line that names the best and the worst class by IoU; absent classes are left out.

    Args:
        evaluation: One entry of metrics.json's "evaluations", with "per_category_iou".
        class_names: One name a class.
    """
    scores = [
        (value, name)
        for value, name in zip(clean_numbers(evaluation["per_category_iou"]), class_names, strict=True)
        if value is not None
    ]
    if not scores:
        return "no class occurs"
    best, worst = max(scores, key=lambda s: s[0]), min(scores, key=lambda s: s[0])
    return f"best class {best[1]} (IoU {format_score(best[0])} %), worst {worst[1]} ({format_score(worst[0])} %)"

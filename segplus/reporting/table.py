"""Scores as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segplus.reporting.metrics_file import clean_numbers

ABSENT = "—"

_SCORES = {"IoU": "per_category_iou", "accuracy": "per_category_accuracy", "Dice": "per_category_dice"}
_MEANS = {"IoU": "mean_iou", "accuracy": "mean_accuracy", "Dice": "mean_dice"}


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


def format_score(value: float | None) -> str:
    """Return a score as a percentage with one digit, and an em dash for NaN or None."""
    return ABSENT if value is None or math.isnan(value) else f"{100 * value:.1f}"


def format_share(value: float | None) -> str:
    """Return a share of pixels as a percentage with two significant digits below 1 %, one decimal above."""
    if value is None or math.isnan(value):
        return ABSENT
    return f"{100 * value:.1f}" if value >= 0.01 or value == 0 else f"{100 * value:#.2g}"


def list_class_rows(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row a class: name, IoU, accuracy, Dice and share of pixels, None where there is no figure.

    Args:
        evaluation: One entry of metrics.json's "evaluations".
        class_names: One name a class.
    Raises:
        ValueError: If the evaluation has another number of classes.
    """
    columns: dict[str, list[float | None]] = {}
    for title, key in _SCORES.items():
        if key in evaluation:
            columns[title] = clean_numbers(evaluation[key])
    shares = measure_pixel_shares(evaluation)
    if shares is not None:
        columns["share"] = clean_numbers(shares)
    for title, values in columns.items():
        if len(values) != len(class_names):
            raise ValueError(f"{title}: {len(values)} values for {len(class_names)} class names")
    return [
        {"class": name, **{title: values[index] for title, values in columns.items()}}
        for index, name in enumerate(class_names)
    ]


def format_class_table(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Return an aligned table of percentages: IoU, accuracy, Dice and share of pixels of each class, and their means.

    Args:
        evaluation: One entry of metrics.json's "evaluations": the lists of `compute_scores`; without
            "confusion_matrix" there is no share of pixels.
        class_names: One name a class.
    Returns:
        Lines without a trailing line break; a class that does not occur has an em dash.
    """
    rows = list_class_rows(evaluation, class_names)
    titles = [title for title in rows[0] if title != "class"] if rows else []
    means = {title: clean_numbers(evaluation.get(key)) for title, key in _MEANS.items()}
    last = ["mean", *(format_score(means[title]) if title in means else "" for title in titles)]
    lines = [["class", *(f"{title} %" for title in titles)]]
    lines += [
        [row["class"], *((format_share if title == "share" else format_score)(row[title]) for title in titles)]
        for row in rows
    ]
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
    return [f"{100 * entry['difference']:+.1f}", ABSENT if math.isnan(entry["p_value"]) else f"{entry['p_value']:.3f}"]


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

"""The learning curves of the HTML report, from the Trainer's history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from segplus.reporting.charts import draw_curves, draw_sparkline
from segplus.reporting.table import format_score

_CURVES = {
    "Loss": {"loss": "training", "eval_loss": "validation"},
    "Validation scores": {
        "eval_mean_iou": "mIoU",
        "eval_mean_accuracy": "mean accuracy",
        "eval_overall_accuracy": "pixel accuracy",
    },
    "Learning rate": {"learning_rate": "learning rate"},
}


def list_charts(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return title, names of the lines and SVG of each chart that has a point.

    Args:
        log_history: The Trainer's `state.log_history`.
    """
    charts = []
    for title, keys in _CURVES.items():
        series = {name: _list_points(log_history, key) for key, name in keys.items()}
        drawn = {name: points for name, points in series.items() if points}
        svg = draw_curves(drawn, "step")
        if svg:
            charts.append({"title": title, "names": list(drawn), "svg": Markup(svg)})
    return charts


def list_class_curves(log_history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return name, SVG and the IoU of the first and the last evaluation of each class that was measured.

    Args:
        log_history: The Trainer's `state.log_history`; an evaluation logs `eval_iou/NAME` of each class that occurs.
        names: One name a class.
    """
    series = {name: _list_points(log_history, f"eval_iou/{name}") for name in names}
    last = max((step for points in series.values() for step, _ in points), default=0.0)
    return [
        {
            "name": name,
            "svg": Markup(draw_sparkline(points, last)),
            "first": format_score(points[0][1]) if len(points) > 1 else None,
            "last": format_score(points[-1][1]),
        }
        for name, points in series.items()
        if points
    ]


def _list_points(log_history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(entry["step"]), float(entry[key])) for entry in log_history if _is_point(entry, key)]


def _is_point(entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key)
    return isinstance(value, int | float) and math.isfinite(value) and "step" in entry

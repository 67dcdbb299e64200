"""The curves of thresholds as one HTML page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from segplus.files import write_text
from segplus.reporting.charts import draw_curves
from segplus.reporting.table import ABSENT, format_score

_HERE = Path(__file__).parent


def write_threshold_page(path: Path, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file.
        facts: model, split, images, rule, and thresholds: class name -> the chosen one.
        rows: A row a threshold: class, by (pixels or objects), threshold, precision, recall, f1, hits, false, missed.
    """
    classes = []
    for name in dict.fromkeys(row["class"] for row in rows):
        own = [row for row in rows if row["class"] == name]
        kinds = list(dict.fromkeys(row["by"] for row in own))
        chosen = facts["thresholds"].get(name)
        classes.append(
            {
                "name": name,
                "threshold": None if chosen is None else f"{chosen:g}",
                "rows": [] if chosen is None else [_find_row(own, kind, chosen) for kind in kinds],
                "charts": [_draw(kind, [row for row in own if row["by"] == kind]) for kind in kinds],
            }
        )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    template = environment.from_string((_HERE / "threshold_page.html").read_text(encoding="utf-8"))
    style = Markup((_HERE / "html_report.css").read_text(encoding="utf-8"))
    write_text(path, template.render({**facts, "classes": classes, "style": style}))


def _find_row(rows: Sequence[Mapping[str, Any]], kind: str, threshold: float) -> dict[str, Any]:
    """Return the figures at the threshold of a curve that is nearest to the chosen one."""
    row = min((row for row in rows if row["by"] == kind), key=lambda row: abs(row["threshold"] - threshold))
    shares = [format_score(row[key]) for key in ("precision", "recall", "f1")]
    return {"kind": kind, "cells": [*shares, *(f"{row[key]:,.0f}" for key in ("hits", "false", "missed"))]}


def _draw(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [row for row in rows if not math.isnan(row["precision"])]
    trade = draw_curves({"precision": [(row["recall"], row["precision"]) for row in known]}, "recall", 1.0)
    series = {key: [(row["threshold"], row[key]) for row in known] for key in ("precision", "recall", "f1")}
    return {
        "kind": kind,
        "trade": Markup(trade) or ABSENT,
        "by_threshold": Markup(draw_curves(series, "threshold", 1.0)) or ABSENT,
    }

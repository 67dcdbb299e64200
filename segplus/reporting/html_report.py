"""The report: one HTML file that needs nothing else, neither a network nor a folder beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from segplus.classes import ClassMap
from segplus.files import write_text
from segplus.reporting.charts import draw_matrix
from segplus.reporting.drawing import shrink_labels
from segplus.reporting.examples import Example
from segplus.reporting.failures import describe_failures
from segplus.reporting.gallery import Gallery
from segplus.reporting.layers import MOST_PX, encode_layers
from segplus.reporting.learning_curves import list_charts, list_class_curves
from segplus.reporting.metrics_file import clean_numbers
from segplus.reporting.scores import (
    LARGE,
    describe_measurement,
    list_class_columns,
    list_further_scores,
    list_large_scores,
)
from segplus.reporting.table import ABSENT, find_background, format_score, format_share, measure_pixel_shares

_HERE = Path(__file__).parent
_MOST_DECADES = 6
_TALL_ROWS = 40
_MOST_CONFUSIONS = 8


def write_html_report(
    path: str | Path,
    metrics: Mapping[str, Any],
    classes: ClassMap,
    examples: Mapping[str, Sequence[Example]],
    log_history: Sequence[Mapping[str, Any]],
    recipe_text: str,
    versions: Mapping[str, str],
    split: str | None = None,
    gallery: Gallery | None = None,
) -> None:
    """Write the report, whole or not at all.

    Args:
        path: The HTML file.
        metrics: What metrics.json holds. An evaluation's "intervals" (name -> [low, high]) stand under its scores.
        classes: Names and colours.
        examples: Heading -> images, such as {"Worst": [...], "Median": [...], "Best": [...]}; may be empty.
        log_history: The Trainer's `state.log_history`; empty where nothing was trained.
        recipe_text: The merged recipe, YAML; empty where there is none.
        versions: Package -> version.
        split: The evaluation shown in full; by default "test", or else the last one.
        gallery: Thumbnails of that split's images; None shows none.
    Raises:
        ValueError: If there is no evaluation, or not the one asked for.
    """
    evaluations = clean_numbers(metrics["evaluations"])
    chosen = split or ("test" if "test" in evaluations else next(reversed(evaluations), ""))
    if chosen not in evaluations:
        raise ValueError(f"no evaluation of the split '{chosen}'; there are: {', '.join(evaluations) or 'none'}")
    background = find_background(evaluations[chosen])
    page = {
        "model": metrics.get("model") or "Segmentation model",
        "dataset": metrics.get("dataset"),
        "split": chosen,
        "splits": _list_splits(evaluations),
        "split_titles": list(LARGE.values())[:4],
        "groups": [
            _describe_group(title, members, classes, background) for title, members in examples.items() if members
        ],
        "charts": list_charts(log_history),
        "class_curves": list_class_curves(log_history, classes.names),
        "tables": _list_tables(metrics, versions),
        "recipe": recipe_text.rstrip(),
        **_describe_scores(evaluations[chosen], classes.names),
        **_describe_classes(evaluations[chosen], classes),
        **_describe_legend(examples, classes, background),
        **_describe_gallery(gallery, classes, background),
        **_describe_confusions(evaluations[chosen], classes, background),
    }
    # Paths may break behind each folder.
    page["heading"] = Markup(escape(page["model"]).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>")))
    page["title"] = f"{page['model']}: {chosen}"
    page["sections"] = _list_sections(page)
    page["style"] = Markup((_HERE / "html_report.css").read_text(encoding="utf-8"))
    scripts = ("html_report.js", "html_gallery.js")
    page["script"] = Markup("\n".join((_HERE / name).read_text(encoding="utf-8") for name in scripts))
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    template = environment.from_string((_HERE / "html_report.html").read_text(encoding="utf-8"))
    text = template.render(page)
    write_text(path, text)


def _list_sections(page: Mapping[str, Any]) -> list[tuple[str, str]]:
    sections = {
        "images": ("Images", page["groups"]),
        "gallery": ("Gallery", page["gallery"]),
        "classes": ("Classes", True),
        "confusions": ("Confusions", page["matrix"]),
        "learning": ("Learning curves", page["charts"]),
        "frequencies": ("Class frequencies", page["frequencies"]),
        "recipe": ("How it was made", True),
    }
    return [(anchor, title) for anchor, (title, is_there) in sections.items() if is_there]


def _describe_scores(evaluation: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    images = evaluation.get("images")
    return {
        "failures": describe_failures(evaluation, names),
        "scores": list_large_scores(evaluation),
        "further": list_further_scores(evaluation),
        "note": describe_measurement(evaluation, len(names)),
        "images": "" if images is None else f"{images:,} images",
    }


def _list_splits(evaluations: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "split": name,
            "images": evaluation.get("images", ABSENT),
            "cells": [format_score(evaluation.get(key)) for key in list(LARGE)[:4]],
        }
        for name, evaluation in evaluations.items()
    ]


def _describe_classes(evaluation: Mapping[str, Any], classes: ClassMap) -> dict[str, Any]:
    """Return the head and the rows of the table."""
    columns = list_class_columns(evaluation)
    shares = clean_numbers(measure_pixel_shares(evaluation))
    if shares is not None:
        columns["Share of pixels"] = [
            {"value": f"{share or 0:.9f}", "text": format_share(share), "bar": None} for share in shares
        ]
    alphabet = sorted(range(classes.num_classes), key=lambda index: classes.names[index].casefold())
    rows = [
        {
            "name": name,
            "rank": alphabet.index(index),
            "color": _format_color(classes.colors[index]),
            "cells": [cells[index] for cells in columns.values()],
        }
        for index, name in enumerate(classes.names)
    ]
    return {"columns": list(columns), "rows": rows, "has_distances": "Hausdorff 95" in columns}


def _describe_group(
    title: str, members: Sequence[Example], classes: ClassMap, background: int | None
) -> dict[str, Any]:
    return {"title": title, "examples": [encode_layers(example, classes, background) for example in members]}


def _describe_gallery(gallery: Gallery | None, classes: ClassMap, background: int | None) -> dict[str, Any]:
    """Return the images as JSON, and in words how many of the split's they are."""
    shown = [] if gallery is None else gallery.describe(background)
    if gallery is None or not shown:
        return {"gallery": None}
    total = f"{gallery.images:,}"
    count = f"All {total} images" if gallery.every == 1 else f"{len(shown):,} of {total} images, evenly chosen"
    occurring = {int(index) for entry in shown for index in entry["classes"]}
    names = [(index, name) for index, name in enumerate(classes.names) if index in occurring]
    return {"gallery": {"count": count, "names": names, "data": _embed_json(shown)}}


def _describe_legend(
    examples: Mapping[str, Sequence[Example]], classes: ClassMap, background: int | None
) -> dict[str, Any]:
    ids: set[int] = set()
    for members in examples.values():
        for example in members:
            for labels in (example.truth, example.prediction):
                ids |= {int(i) for i in np.unique(shrink_labels(labels, (MOST_PX, MOST_PX)))}
    legend = [
        {"id": index, "name": name, "color": _format_color(classes.colors[index]), "is_clear": index == background}
        for index, name in enumerate(classes.names)
        if index in ids
    ]
    return {"legend": legend, "has_ignored": bool(ids - set(range(classes.num_classes)))}


def _describe_confusions(evaluation: Mapping[str, Any], classes: ClassMap, background: int | None) -> dict[str, Any]:
    """Return the matrix as an image, its numbers for the read-out, the largest confusions and the frequencies."""
    names = classes.names
    data = {"names": names, "colors": classes.colors, "background": background}
    counts = np.array(evaluation.get("confusion_matrix") or np.zeros((0, 0)), dtype=np.int64)
    if not counts.size:
        return {"matrix": None, "confusions": [], "frequencies": None, "data": _embed_json(data)}
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, math.nan), where=totals > 0)
    svg, offset, cell = draw_matrix(shares, names)
    return {
        "matrix": {"svg": Markup(svg), "offset": offset, "cell": cell},
        "confusions": _list_confusions(shares, names),
        "frequencies": _describe_frequencies(counts, names),
        "data": _embed_json(data | {"matrix": counts.tolist()}),
    }


def _list_confusions(shares: npt.NDArray[np.float64], names: Sequence[str]) -> list[dict[str, str]]:
    wrong = np.nan_to_num(shares)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    cells = [divmod(int(position), len(names)) for position in order]
    return [
        {"truth": names[row], "predicted": names[column], "share": format_score(float(wrong[row, column]))}
        for row, column in cells
        if wrong[row, column] >= 0.0005
    ]


def _describe_frequencies(counts: npt.NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return each class's share of pixels in truth and prediction, on a logarithmic axis up to 100 %."""
    total = max(1, int(counts.sum()))
    truth, predicted = counts.sum(axis=1) / total, counts.sum(axis=0) / total
    smallest = min((float(share) for share in [*truth, *predicted] if share > 0), default=0.1)
    decades = min(_MOST_DECADES, max(2, math.ceil(-math.log10(smallest))))

    def locate(share: float) -> float:
        return 0.0 if share <= 0 else round(max(0.0, 100 * (1 + math.log10(share) / decades)), 1)

    rows = []
    for index in np.argsort(-truth, kind="stable"):
        shares = float(truth[index]), float(predicted[index])
        positions = locate(shares[0]), locate(shares[1])
        figures = {"truth": format_share(shares[0]), "predicted": format_share(shares[1])}
        span = {
            "truth_at": positions[0],
            "predicted_at": positions[1],
            "from": min(positions),
            "length": abs(positions[0] - positions[1]),
        }
        rows.append({"name": names[index], **figures, **span})
    axis = [
        {"at": round(100 * step / decades, 1), "text": f"{100 / 10 ** (decades - step):g}"}
        for step in range(decades + 1)
    ]
    return {"rows": rows, "axis": axis, "step": round(100 / decades, 3), "is_tall": len(rows) > _TALL_ROWS}


def _list_tables(metrics: Mapping[str, Any], versions: Mapping[str, str]) -> list[dict[str, Any]]:
    machine = {key: value for key, value in (metrics.get("environment") or {}).items() if key != "versions"}
    tables = {
        "Training": metrics.get("training"),
        "Environment": machine,
        "Versions": versions,
    }
    return [
        {"title": title, "rows": [(_spell(key), _format_fact(value)) for key, value in facts.items()]}
        for title, facts in tables.items()
        if facts
    ]


def _spell(key: str) -> str:
    return key.replace("_", " ")


def _format_fact(value: object) -> str:
    if isinstance(value, float):
        return ABSENT if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_fact(entry)}" for key, entry in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _format_color(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _embed_json(value: Any) -> Markup:
    """Return JSON that no content can end early or turn into markup."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))

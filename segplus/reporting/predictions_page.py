"""A folder of predictions as one page: small pictures, filtered by class and area; it needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from segplus.classes import ClassMap
from segplus.files import write_text

_HERE = Path(__file__).parent
_MOST_CLASSES = 4  # that stand under a picture
_UNITS = {"area_m2": "m²", "area_mm2": "mm²", "area_px": "pixels"}


def write_predictions_page(
    path: Path, records: Sequence[Mapping[str, Any]], files: Sequence[tuple[str, str]], classes: ClassMap
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: index.html of the folder.
        records: image, height_px, width_px and classes of each image; a class has area_px, share and perhaps area_mm2
            or area_m2.
        files: Of each image its small picture and the file that a click opens, below the folder; "" for none.
        classes: Names and colours.
    """
    stated = {key for record in records for entry in record["classes"].values() for key in entry}
    key, unit = next((key, unit) for key, unit in _UNITS.items() if key in stated or key == "area_px")
    images = [
        {
            "name": record["image"],
            "height": record["height_px"],
            "width": record["width_px"],
            "thumbnail": quote(thumbnail),
            "file": quote(file),
            "classes": _list_classes(record["classes"], key, unit, classes),
        }
        for record, (thumbnail, file) in zip(records, files, strict=True)
    ]
    areas = [[record["classes"][name].get(key, 0) for name in classes.names] for record in records]
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    template = environment.from_string((_HERE / "predictions_page.html").read_text(encoding="utf-8"))
    page = {
        "count": f"{len(images):,}",
        "names": classes.names,
        "unit": unit,
        "images": images,
        "areas": Markup(json.dumps(areas)),
        "style": Markup((_HERE / "html_report.css").read_text(encoding="utf-8")),
    }
    write_text(path, template.render(page))


def _list_classes(
    measured: Mapping[str, Mapping[str, float]], key: str, unit: str, classes: ClassMap
) -> list[dict[str, str]]:
    """Return colour and text of the classes with the largest areas."""
    colors = dict(zip(classes.names, classes.colors, strict=True))
    largest = sorted((name for name in measured if measured[name]["area_px"]), key=lambda name: -measured[name][key])
    return [
        {
            "color": "#{:02x}{:02x}{:02x}".format(*colors[name]),
            "text": f"{name}: {_format_area(measured[name][key])} {unit} ({100 * measured[name]['share']:.1f} %)",
        }
        for name in largest[:_MOST_CLASSES]
    ]


def _format_area(area: float) -> str:
    return f"{area:,.0f}" if area >= 100 or float(area).is_integer() else f"{area:.3g}"

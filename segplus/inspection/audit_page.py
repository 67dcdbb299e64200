"""An inspection as one HTML page with images; nothing outside the file is loaded."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import jinja2
from PIL import Image

from segplus.data.dataset import SegmentationSplit
from segplus.files import write_text
from segplus.images import measure_image, show_as_rgb
from segplus.inspection.audit import Audit
from segplus.reporting.drawing import colorize

_WIDTH_PX = 360


def write_page(audit: Audit, path: Path) -> None:
    """Write the inspection as a self-contained HTML page.

    Args:
        audit: The inspection.
        path: File to write.
    """
    template = Path(__file__).with_name("audit_page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    classes = audit.data.classes if audit.data else None
    page = environment.from_string(template).render(
        report=audit.report,
        colors=[f"rgb({red} {green} {blue})" for red, green, blue in classes.colors] if classes else [],
        images=draw_examples(audit) if audit.data else {},
    )
    write_text(path, page)


def draw_examples(audit: Audit) -> dict[str, list[dict[str, str]]]:
    """Return split name -> name and image (a data address) of its suspicious and of its first pairs."""
    images = {}
    for name, split in (audit.data.splits if audit.data else {}).items():
        tally = audit.tallies[name]
        shown = dict(tally.suspects) | {index: "" for index in tally.examples if index not in dict(tally.suspects)}
        images[name] = [draw_pair(split, index, remark) for index, remark in shown.items()]
    return images


def draw_pair(split: SegmentationSplit, index: int, remark: str) -> dict[str, str]:
    """Return image and coloured mask side by side; values outside the classes are drawn as ignored."""
    image = split.image(index)
    label = replace(split.classes, unknown="ignore").decode(split.raw_label(index), "")
    height, width = measure_image(image)
    size = (_WIDTH_PX, max(1, round(_WIDTH_PX * height / width)))
    left = show_as_rgb(image).resize(size, Image.Resampling.BILINEAR)
    right = Image.fromarray(colorize(label, split.classes)).resize(size, Image.Resampling.NEAREST)
    joined = Image.new("RGB", (2 * size[0] + 4, size[1]), (255, 255, 255))
    joined.paste(left, (0, 0))
    joined.paste(right, (size[0] + 4, 0))
    buffer = io.BytesIO()
    joined.save(buffer, "WEBP", quality=80)
    address = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"name": split.name(index), "remark": remark, "address": address}

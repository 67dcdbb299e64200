"""An inspection as one HTML page with pictures; nothing outside the file is loaded."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.classes import ClassMap
from segplus.data.audit import Audit
from segplus.data.dataset import Picture, SegmentationSplit
from segplus.errors import InputError

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
        pictures=draw_examples(audit) if audit.data else {},
    )
    path.write_text(page, encoding="utf-8")


def draw_examples(audit: Audit) -> dict[str, list[dict[str, str]]]:
    """Return split name -> name and picture (a data address) of its first pairs."""
    pictures = {}
    for name, split in (audit.data.splits if audit.data else {}).items():
        drawn = [draw_pair(split, index) for index in audit.tallies[name].examples]
        pictures[name] = [entry for entry in drawn if entry is not None]
    return pictures


def draw_pair(split: SegmentationSplit, index: int) -> dict[str, str] | None:
    """Return image and coloured mask side by side; None where the pair cannot be read."""
    try:
        image, label = split.image(index), split.label(index)
    except InputError:
        return None
    height = max(1, round(_WIDTH_PX * label.shape[0] / label.shape[1]))
    left = show_as_rgb(image).resize((_WIDTH_PX, height), Image.Resampling.BILINEAR)
    right = Image.fromarray(color_labels(label, split.classes)).resize((_WIDTH_PX, height), Image.Resampling.NEAREST)
    joined = Image.new("RGB", (2 * _WIDTH_PX + 4, height), (255, 255, 255))
    joined.paste(left, (0, 0))
    joined.paste(right, (_WIDTH_PX + 4, 0))
    buffer = io.BytesIO()
    joined.save(buffer, "WEBP", quality=80)
    return {
        "name": split.name(index),
        "address": "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(),
    }


def show_as_rgb(image: Picture) -> Image.Image:
    """Return a picture for the eye; of many bands the first three, each stretched to its range."""
    if isinstance(image, Image.Image):
        return image
    bands = np.repeat(image, 3, axis=-1) if image.shape[-1] < 3 else image
    shown = bands[..., :3].astype(np.float32)
    low, high = shown.min(axis=(0, 1)), shown.max(axis=(0, 1))
    return Image.fromarray(((shown - low) / np.maximum(high - low, 1e-9) * 255).astype(np.uint8))


def color_labels(label: npt.NDArray[Any], classes: ClassMap) -> npt.NDArray[np.uint8]:
    """Return the labels in the classes' colours, ignored pixels black, shape (H, W, 3)."""
    table = np.zeros((max(classes.num_classes, classes.ignore_index) + 1, 3), dtype=np.uint8)
    table[: classes.num_classes] = classes.colors
    table[classes.ignore_index] = 0
    colored: npt.NDArray[np.uint8] = table[label]
    return colored

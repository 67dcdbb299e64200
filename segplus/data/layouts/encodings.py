"""Which encoding the masks of a layout have."""

from __future__ import annotations

from datasets import Dataset

from segplus.data.decoding.masks import is_image_file
from segplus.data.decoding.stored import Stored, open_with_pillow, report_damage
from segplus.data.layouts.source import Source
from segplus.data.layouts.unmasked import list_masked
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe

_TRIED = 16  # masks that are opened until one is not damaged


def find_encoding(section: DataRecipe, source: Source) -> tuple[str, bool]:
    """Return (encoding, whether colours stand for classes), from the recipe, the layout, or the first masks.

    Raises:
        InputError: If masks are colours and there is no legend.
    """
    encoding = section.encoding if section.encoding != "auto" else source.encoding or "auto"
    if encoding == "colors" and not (section.colors or source.colors):
        raise InputError(
            "data.encoding: colors, and data.colors is missing", fix="give each class its [r, g, b] in data.colors"
        )
    if encoding != "auto":
        return encoding, encoding == "colors"
    legend_given = section.colors is not None and section.mask_channel is None
    modes = {_find_first_mode(rows) for rows in source.splits.values() if len(rows)} - {""}
    if legend_given and modes & {"RGB", "RGBA", "P"}:
        return "colors", True
    return ("palette" if modes == {"P"} else "auto"), False


def _find_first_mode(rows: Dataset) -> str:
    """Return the mode of the first mask that can be opened, "" where there is none.

    The damaged ones before it are reported when they are read.

    Raises:
        InputError: If none of the first ones can be.
    """
    tried = list_masked(rows)[:_TRIED]
    for index in tried:
        try:
            return _find_mode(rows[index]["mask"])
        except InputError:
            if index == tried[-1]:
                raise
    return ""


def _find_mode(stored: Stored) -> str:
    if not is_image_file(stored):
        return "values"
    with report_damage(stored if isinstance(stored, str) else "mask"), open_with_pillow(stored) as image:
        return str(image.mode)

"""Images of label maps: coloured, laid over the photograph, side by side with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segplus.classes import ClassMap, find_backgrounds
from segplus.reporting.examples import Example, Labels

Pixels = npt.NDArray[np.uint8]

_IGNORED_DARK, _IGNORED_LIGHT = (46, 46, 50), (74, 74, 80)
# Lighter by far than the darkened photograph under it: seen in grey, too, and by every eye.
WRONG = (255, 176, 0)
_PAPER, _INK, _FAINT = (255, 255, 255), (28, 30, 34), (106, 110, 118)
_MARGIN_PX, _GAP_PX, _TEXT_PX = 14, 8, 14
_SPARE, _TALLEST = 4, 8  # how much larger than its tile an image is still drawn, and how many times as tall as wide


def colorize(labels: Labels, classes: ClassMap) -> Pixels:
    """Return the colours of a label map.

    Args:
        labels: Class ids and the ignore index, integers, shape (H, W).
        classes: Holds one colour a class.
    Returns:
        RGB, uint8, shape (H, W, 3); whatever is no class is hatched in dark grey.
    """
    return list_palette(classes)[index_palette(labels, classes)]


def list_palette(classes: ClassMap) -> Pixels:
    """Return the colours that a label map is drawn in, uint8, shape (C + 2, 3): the last two hatch what is ignored."""
    return np.array([*classes.colors, _IGNORED_DARK, _IGNORED_LIGHT], dtype=np.uint8)


def index_palette(labels: Labels, classes: ClassMap) -> npt.NDArray[np.int64]:
    """Return each pixel's row in `list_palette`, shape (H, W)."""
    outside = (labels < 0) | (labels >= classes.num_classes)
    height, width = labels.shape
    stripe = (np.arange(height)[:, None] + np.arange(width)) % 8 < 3
    return np.where(outside, classes.num_classes + stripe, labels).astype(np.int64)


def draw_overlay(image: Image.Image, labels: Labels, classes: ClassMap, opacity: float = 0.55) -> Image.Image:
    """Return the photograph under its coloured label map, at the label map's size.

    Args:
        image: The photograph.
        labels: Class ids and the ignore index, integers, shape (H, W); ignored pixels, and those of a class that is
            named `background` beside others, stay as photographed.
        classes: Holds one colour a class.
        opacity: Share of the class colour, in [0, 1].
    """
    photo = _fit(image, labels)
    mixed = photo * (1 - opacity) + colorize(labels, classes) * opacity
    plain = (labels < 0) | (labels >= classes.num_classes) | np.isin(labels, find_backgrounds(classes.names))
    return Image.fromarray(np.where(plain[..., None], photo, mixed).astype(np.uint8))


def draw_errors(image: Image.Image, truth: Labels, prediction: Labels, classes: ClassMap) -> Image.Image:
    """Return the photograph in dark grey, wrong pixels in amber, ignored pixels hatched.

    Args:
        image: The photograph.
        truth: Class ids and the ignore index, integers, shape (H, W).
        prediction: Class ids, integers, shape (H, W).
        classes: Holds the ignore index.
    """
    return mark_pixels(image, find_errors(truth, prediction, classes), truth, classes)


def mark_pixels(image: Image.Image, marked: npt.NDArray[np.bool_], truth: Labels, classes: ClassMap) -> Image.Image:
    """Return the photograph in dark grey, marked pixels in amber, pixels that the truth ignores hatched.

    Args:
        image: The photograph.
        marked: Bool, shape (H, W).
        truth: Class ids and the ignore index, integers, shape (H, W).
        classes: Holds the ignore index.
    """
    grey = 0.3 * _fit(image.convert("L").convert("RGB"), truth) + 12
    grey[marked] = WRONG
    drawn = np.where((truth == classes.ignore_index)[..., None], colorize(truth, classes), grey)
    return Image.fromarray(drawn.astype(np.uint8))


def find_errors(truth: Labels, prediction: Labels, classes: ClassMap) -> npt.NDArray[np.bool_]:
    """Return where the prediction is wrong, bool, shape (H, W); ignored pixels are never wrong."""
    wrong: npt.NDArray[np.bool_] = (truth != prediction) & (truth != classes.ignore_index)
    return wrong


def measure_error_share(truth: Labels, prediction: Labels, classes: ClassMap) -> float:
    """Return the share of valid pixels that are wrong, in [0, 1]; NaN where every pixel is ignored."""
    valid = np.count_nonzero(truth != classes.ignore_index)
    return np.count_nonzero(find_errors(truth, prediction, classes)) / valid if valid else float("nan")


def shrink_labels(labels: Labels, most_px: tuple[int, int]) -> Labels:
    """Return the label map at no more than (width, height), keeping its shape, by taking the nearest label.

    Args:
        labels: Class ids, integers, shape (H, W).
        most_px: Largest width and height.
    """
    height, width = labels.shape
    factor = min(1.0, most_px[0] / width, most_px[1] / height)
    if factor == 1.0:
        return labels
    rows = _choose_middles(height, max(1, round(height * factor)))
    columns = _choose_middles(width, max(1, round(width * factor)))
    shrunk: Labels = labels[rows[:, None], columns]
    return shrunk


def _choose_middles(length: int, count: int) -> npt.NDArray[np.int64]:
    """Return the positions in the middle of `count` equal intervals."""
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def draw_panel(
    image: Image.Image,
    truth: Labels,
    prediction: Labels,
    classes: ClassMap,
    title: str = "",
    tile_width_px: int = 400,
    background: int | None = None,
) -> Image.Image:
    """Return image, truth, prediction and errors side by side over a legend of the classes present.

    Args:
        image: The photograph.
        truth: Class ids and the ignore index, integers, shape (H, W).
        prediction: Class ids, integers, shape (H, W).
        classes: Names and colours.
        title: A line above the tiles, such as the file's name and score.
        tile_width_px: Width of each of the four tiles.
        background: A class that is left as photographed, so that what lies on it can be seen.
    """
    row = _draw_row(Example(title, image, truth, prediction), classes, tile_width_px, background)
    return _stack([row], classes, background)


def draw_panel_grid(examples: Sequence[Example], classes: ClassMap, tile_width_px: int = 320) -> Pixels:
    """Return several panels under one another over one legend, as TensorBoard's add_image takes them.

    Args:
        examples: The images; a score stands behind its name.
        classes: Names and colours.
        tile_width_px: Width of each tile, four a row.
    Returns:
        RGB, uint8, shape (H, W, 3).
    Raises:
        ValueError: If there is no example.
    """
    if not examples:
        raise ValueError("draw_panel_grid needs at least one example")
    return np.asarray(_stack([_draw_row(e, classes, tile_width_px) for e in examples], classes))


def draw_comparison(
    image: Image.Image,
    truth: Labels,
    predictions: Mapping[str, Labels],
    classes: ClassMap,
    title: str = "",
    tile_width_px: int = 360,
) -> Image.Image:
    """Return image, truth, several predictions and where they differ side by side over a legend of the classes present.

    Args:
        image: The photograph.
        truth: Class ids and the ignore index, integers, shape (H, W).
        predictions: Caption -> class ids, integers, shape (H, W); two and more.
        classes: Names and colours.
        title: A line above the tiles.
        tile_width_px: Width of each tile.
    """
    drawn_px = (_SPARE * tile_width_px, _SPARE * tile_width_px * _TALLEST)
    shown = shrink_labels(truth, drawn_px)
    small = {caption: shrink_labels(labels, drawn_px) for caption, labels in predictions.items()}
    photo = Image.fromarray(_fit(image, shown))
    first, *others = small.values()
    differs = np.logical_or.reduce([other != first for other in others]) & (shown != classes.ignore_index)
    tiles = {"image": np.asarray(photo), "truth": colorize(shown, classes)}
    tiles |= {caption: colorize(labels, classes) for caption, labels in small.items()}
    tiles["differences"] = np.asarray(mark_pixels(photo, differs, shown, classes))
    ids = {int(i) for labels in (shown, *small.values()) for i in np.unique(labels)}
    return _stack([(_draw_tiles(title, tiles, tile_width_px), ids)], classes)


def draw_batches(
    batches: Sequence[tuple[Sequence[Any], Sequence[Labels]]], classes: ClassMap, tile_width_px: int = 240
) -> Image.Image:
    """Return training batches under one another: the images of each side by side over their labels, and a legend.

    Args:
        batches: (images, labels) of each: RGB, uint8, shape (H, W, 3), and class ids, shape (H, W).
        classes: Names and colours.
        tile_width_px: Width of each image.
    """
    rows: list[_Row] = []
    for images, labels in batches:
        captions = [f"image {number}" for number in range(1, len(images) + 1)]
        photos = {caption: np.asarray(image) for caption, image in zip(captions, images, strict=True)}
        colored = {f"labels of {name}": colorize(label, classes) for name, label in zip(captions, labels, strict=True)}
        title = f"batch {len(rows) // 2 + 1}, augmented"
        ids = {int(i) for label in labels for i in np.unique(label)}
        rows += [(_draw_tiles(title, photos, tile_width_px), ids), (_draw_tiles("", colored, tile_width_px), ids)]
    return _stack(rows, classes)


_Row = tuple[Image.Image, set[int]]


def _draw_row(example: Example, classes: ClassMap, tile_width_px: int, background: int | None = None) -> _Row:
    """Return the four tiles of one example with their captions, and the ids that occur in them."""
    share = measure_error_share(example.truth, example.prediction, classes)
    drawn_px = (_SPARE * tile_width_px, _SPARE * tile_width_px * _TALLEST)
    truth, prediction = shrink_labels(example.truth, drawn_px), shrink_labels(example.prediction, drawn_px)
    photo = _fit(example.image, truth)
    tiles = {
        "image": photo,
        "truth": _color_over(photo, truth, classes, background),
        "prediction": _color_over(photo, prediction, classes, background),
        "errors" if np.isnan(share) else f"errors ({share:.1%})": np.asarray(
            draw_errors(Image.fromarray(photo), truth, prediction, classes)
        ),
    }
    title = example.name + ("" if example.score is None else f"  ·  mIoU {example.score:.3f}")
    return _draw_tiles(title, tiles, tile_width_px), {int(i) for i in np.union1d(truth, prediction)}


def _color_over(photo: Pixels, labels: Labels, classes: ClassMap, background: int | None) -> Pixels:
    colored = colorize(labels, classes)
    return colored if background is None else np.where((labels == background)[..., None], photo, colored)


def _draw_tiles(title: str, tiles: Mapping[str, Pixels], tile_width_px: int) -> Image.Image:
    """Draw tiles of one shape, the first of them a photograph, side by side under their captions and one title."""
    height, width = next(iter(tiles.values())).shape[:2]
    size = (tile_width_px, max(1, round(tile_width_px * height / width)))
    font, title_font = ImageFont.load_default(_TEXT_PX), ImageFont.load_default(_TEXT_PX + 2)
    top = (2 * _TEXT_PX if title else 0) + int(1.5 * _TEXT_PX)
    row = Image.new("RGB", (len(tiles) * (size[0] + _GAP_PX) - _GAP_PX, top + size[1]), _PAPER)
    pen = ImageDraw.Draw(row)
    pen.text((0, 0), title, fill=_INK, font=title_font)
    for column, (caption, pixels) in enumerate(tiles.items()):
        left = column * (size[0] + _GAP_PX)
        pen.text((left, top - 4), caption, fill=_FAINT, font=font, anchor="ls")
        row.paste(_scale(pixels, size, is_photo=column == 0), (left, top))
    return row


def _scale(pixels: Pixels, size: tuple[int, int], *, is_photo: bool) -> Image.Image:
    """Return the tile at (width, height): averaged when it shrinks; when it grows, class colours stay unmixed."""
    tile = Image.fromarray(pixels)
    if size[0] < tile.width:
        return tile.resize(size, Image.Resampling.BOX)
    return tile.resize(size, Image.Resampling.BICUBIC if is_photo else Image.Resampling.NEAREST)


def _stack(rows: Sequence[_Row], classes: ClassMap, background: int | None = None) -> Image.Image:
    """Return the rows under one another, and the legend of all the ids that occur."""
    width = max(image.width for image, _ in rows)
    legend = _draw_legend(set().union(*(ids for _, ids in rows)) - {background}, classes, width)
    images = [image for image, _ in rows] + [legend]
    height = sum(p.height for p in images) + _MARGIN_PX * (len(images) + 1)
    sheet = Image.new("RGB", (width + 2 * _MARGIN_PX, height), _PAPER)
    top = _MARGIN_PX
    for image in images:
        sheet.paste(image, (_MARGIN_PX, top))
        top += image.height + _MARGIN_PX
    return sheet


def _draw_legend(ids: set[int], classes: ClassMap, width: int) -> Image.Image:
    """Draw swatch and name of every class that occurs, in class order, wrapped to the width."""
    font = ImageFont.load_default(_TEXT_PX)
    names = [(np.array([[i]]), classes.names[i]) for i in sorted(ids) if i < classes.num_classes]
    if ids - set(range(classes.num_classes)):
        names.append((np.array([[classes.ignore_index]]), "ignored"))
    line_px, entries, left, line = _TEXT_PX + 8, [], 0, 0
    for swatch, name in names:
        needed = _TEXT_PX + 6 + int(font.getlength(name)) + 18
        if left and left + needed > width:
            left, line = 0, line + 1
        entries.append((swatch, name, left, line * line_px))
        left += needed
    legend = Image.new("RGB", (width, (line + 1) * line_px), _PAPER)
    pen = ImageDraw.Draw(legend)
    for swatch, name, x, y in entries:
        square = np.broadcast_to(swatch, (_TEXT_PX, _TEXT_PX))
        legend.paste(Image.fromarray(colorize(square, classes)), (x, y + 2))
        pen.rectangle((x, y + 2, x + _TEXT_PX - 1, y + 1 + _TEXT_PX), outline=_FAINT)
        pen.text((x + _TEXT_PX + 6, y + 2 + _TEXT_PX / 2), name, fill=_INK, font=font, anchor="lm")
    return legend


def _fit(image: Image.Image, labels: Labels) -> Pixels:
    """Return the photograph as RGB at the label map's size, uint8, shape (H, W, 3)."""
    height, width = labels.shape
    photo = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(photo if photo.size == (width, height) else photo.resize((width, height)))

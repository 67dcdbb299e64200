"""Charts for the HTML report: SVG text, coloured by the page's style sheet."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 360, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 42
_MOST_POINTS = 400
_SPARK = (160, 64)
_MATRIX_COLOR = (37, 99, 200)
_MATRIX_SIDE_PX = 640


def draw_curves(series: Mapping[str, Points], x_label: str, highest: float = math.inf) -> str:
    """Return an SVG line chart with one line a series, classes "line-0", "line-1", ...

    Args:
        series: Name -> (x, y) points; points that are not finite are left out.
        x_label: What stands under the axis.
        highest: The largest value that there can be; no axis is drawn beyond it.
    """
    lines = [_thin(sorted(p for p in points if all(map(math.isfinite, p)))) for points in series.values()]
    xs, ys = [x for line in lines for x, _ in line], [y for line in lines for _, y in line]
    if not xs:
        return ""
    x_ticks, y_ticks = choose_ticks(min(xs), max(xs)), choose_ticks(min(ys), max(ys))
    y_ticks = [tick for tick in y_ticks if tick <= max(highest, max(ys))]
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1e-9)
    low_y, high_y = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def locate(x: float, y: float) -> tuple[float, float]:
        across, up = (x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    svg = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(", ".join(series))}">']
    for tick in y_ticks:
        _, y = locate(low_x, tick)
        svg.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        svg.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{format_tick(tick)}</text>')
    for tick in x_ticks:
        if low_x <= tick <= high_x:
            x, _ = locate(tick, low_y)
            svg.append(
                f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{format_tick(tick)}</text>'
            )
    svg.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>')
    for index, line in enumerate(lines):
        points = [locate(x, y) for x, y in line]
        if len(points) == 1:
            svg.append(f'<circle class="dot-{index}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>')
        elif points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            svg.append(f'<polyline class="line-{index}" points="{path}"/>')
    return "".join([*svg, "</svg>"])


def choose_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` + 1 round numbers that reach over [low, high].

    Args:
        low: Smallest value.
        high: Largest value; where it is the smallest too, the ticks lie around it.
        most: Steps.
    """
    if high <= low:
        low, high = low - max(abs(low) * 0.5, 1e-9), high + max(abs(high) * 0.5, 1e-9)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * index:.10g}") for index in range(first, last + 1)]


def encode_image(image: Image.Image, file_format: str = "PNG", **options: Any) -> str:
    """Return an image as a data URI.

    Args:
        image: The image.
        file_format: "PNG", or "JPEG" for photographs.
        options: Pillow's own for the format, such as `transparency` or `quality`.
    """
    stream = io.BytesIO()
    image.save(stream, file_format, optimize=True, **({"quality": 85} if file_format == "JPEG" else {}) | options)
    return embed(stream.getvalue(), file_format)


def embed(content: bytes, file_format: str) -> str:
    """Return the content of an image file, PNG or JPEG, as a data URI."""
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(content).decode('ascii')}"


def draw_sparkline(points: Points, last_x: float) -> str:
    """Return a small SVG of one score over the steps, on an axis from 0 to 1, class "spark".

    Args:
        points: (step, score in [0, 1]), finite.
        last_x: The step at the right edge.
    """
    width, height = _SPARK
    placed = [
        (3 + x / max(last_x, 1e-9) * (width - 6), height - 3 - y * (height - 6)) for x, y in _thin(sorted(points))
    ]
    lines = "".join(f'<line class="grid" x1="0" x2="{width}" y1="{y}" y2="{y}"/>' for y in (3, height / 2, height - 3))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    end = f'<circle class="dot-0" cx="{placed[-1][0]:.1f}" cy="{placed[-1][1]:.1f}" r="3"/>'
    return (
        f'<svg class="chart spark" viewBox="0 0 {width} {height}" aria-hidden="true">{lines}'
        f'<polyline class="line-0" points="{path}"/>{end}</svg>'
    )


def draw_matrix(shares: npt.NDArray[np.float64], names: Sequence[str]) -> tuple[str, int, int]:
    """Return an SVG of a confusion matrix, and where its cells lie.

    Args:
        shares: Share of each true class's pixels in each predicted class, in [0, 1] or NaN, shape (C, C).
        names: One name a class.
    Returns:
        The SVG; the offset of the first cell from the top left corner in pixels; the side of a cell in pixels.
    """
    count = len(names)
    cell = min(44, max(2, _MATRIX_SIDE_PX // count))
    has_names, has_figures = cell >= 11, cell >= 30
    longest = max(len(_cut(name)) for name in names)
    offset = 24 + (min(150, 7 * longest + 10) if has_names else 0)
    side = offset + count * cell + 2
    alpha = np.sqrt(np.nan_to_num(shares)) * 255
    pixels = np.dstack([np.full((count, count), channel) for channel in _MATRIX_COLOR] + [alpha]).astype(np.uint8)
    size = count * cell
    svg = [
        f'<svg class="matrix" style="width:clamp({0.6 * side:.0f}px,100%,{side}px)" viewBox="0 0 {side} {side}" '
        'aria-hidden="true">',
        f'<image x="{offset}" y="{offset}" width="{size}" height="{size}" preserveAspectRatio="none" '
        f'href="{encode_image(Image.fromarray(pixels))}"/>',
        f'<rect class="frame" x="{offset}" y="{offset}" width="{size}" height="{size}"/>',
        f'<text class="axis" x="{offset + size / 2}" y="13" text-anchor="middle">predicted as</text>',
        f'<text class="axis" text-anchor="middle" x="{-offset - size / 2}" y="13" transform="rotate(-90)">truth</text>',
    ]
    for index, name in enumerate(names if has_names else []):
        middle, label = offset + (index + 0.5) * cell, escape(_cut(name))
        svg.append(f'<text class="tick" x="{offset - 6}" y="{middle + 4}" text-anchor="end">{label}</text>')
        svg.append(f'<text class="tick" transform="translate({middle + 4} {offset - 6}) rotate(-90)">{label}</text>')
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.005) if has_figures else []:
        value = shares[row, column]
        x, y = offset + (column + 0.5) * cell, offset + (row + 0.5) * cell + 4
        style = "strong" if value > 0.4 else "weak"
        svg.append(f'<text class="{style}" x="{x}" y="{y}" text-anchor="middle">{100 * value:.0f}</text>')
    svg.append(f'<rect class="cursor" width="{cell}" height="{cell}" x="-99" y="-99"/></svg>')
    return "".join(svg), offset, cell


def _thin(points: Points) -> Points:
    """Average neighbours until a line has few enough points to draw."""
    if len(points) <= _MOST_POINTS:
        return points
    groups = np.array_split(np.array(points), _MOST_POINTS)
    return [(float(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups]


def format_tick(value: float) -> str:
    """Return a number short enough for an axis: 20k, 0.5, 1.5e-4."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if 0 < abs(value) < 0.001:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def _cut(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"

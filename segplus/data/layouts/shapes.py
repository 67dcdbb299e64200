"""Shapes as annotation files write them: read into what `draw_annotation` takes, or refused with what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segplus.errors import InputError

Size = tuple[int, int]  # height, width
_MOST_STEPS = 10_000_000  # pixels along an outline, which are held while it is drawn


def read_list(value: object, what: str) -> list[Any]:
    """Return a list.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(value, list):
        raise InputError(f"{what}: not a list", found=_show(value), fix="correct the file")
    return value


def read_mapping(value: object, what: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(value, dict):
        raise InputError(f"{what}: not an object with members", found=_show(value), fix="correct the file")
    return value


def read_whole(value: object, what: str, low: int = -(2**24) + 1, high: int = 2**24 - 1) -> int:
    """Return a whole number of a range; 3.0 is one.

    Raises:
        InputError: If it is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value == int(value):
        return int(value)
    raise InputError(f"{what}: not a whole number of its range", found=_show(value), allowed=f"{low} to {high}")


def read_name(value: object, what: str) -> str:
    """Return a name: text that is not empty, or a number.

    Raises:
        InputError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"{what}: not a name", found=_show(value), allowed="text")
    return str(value)


def read_stated_size(height: object, width: object, what: str) -> Size:
    """Return the (height, width) that an annotation states.

    Raises:
        InputError: If it is none.
    """
    return read_whole(height, f"{what}, height", 1, 2**31 - 1), read_whole(width, f"{what}, width", 1, 2**31 - 1)


def read_points(value: object, size: Size, what: str) -> list[list[float]]:
    """Return points [[x, y], ...].

    Raises:
        InputError: If one is no finite point in or near the image.
    """
    points = read_list(value, f"{what}, points")
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise InputError(f"{what}: not a point", found=_show(point), allowed="[x, y]")
    _check_outline([number for point in points for number in point], size, what)
    return points


def read_polygons(value: Sequence[object], size: Size, what: str) -> list[list[float]]:
    """Return polygons [[x, y, x, y, ...], ...], as COCO writes them.

    Raises:
        InputError: If one has under three points, or a point that is not finite or far from the image.
    """
    polygons = []
    for polygon in value:
        numbers = read_list(polygon, f"{what}, polygon")
        if len(numbers) < 6 or len(numbers) % 2:
            raise InputError(f"{what}: not a polygon", found=f"{len(numbers)} numbers", allowed="x, y of three points")
        _check_outline(numbers, size, what)
        polygons.append(numbers)
    return polygons


def read_runs(value: Mapping[str, object], size: Size, what: str) -> dict[str, Any]:
    """Return run lengths {"size", "counts"} of an image; those of COCO's text form are read when they are drawn.

    Raises:
        InputError: If they are of another size, or do not add up to it.
    """
    if value.get("size") != list(size):
        raise InputError(f"{what}: run lengths of another size", found=_show(value.get("size")), allowed=list(size))
    counts = value.get("counts")
    if isinstance(counts, list):
        counts = [read_whole(count, f"{what}, counts", 0, size[0] * size[1]) for count in counts]
        if sum(counts) != size[0] * size[1]:
            raise InputError(f"{what}: run lengths of {sum(counts)} pixels", allowed=f"{size[0] * size[1]}")
    elif not isinstance(counts, str) or not counts.isascii():
        raise InputError(f"{what}: no run lengths", found=_show(counts), allowed="a list of numbers, or COCO's text")
    return {"size": list(size), "counts": counts}


def _check_outline(numbers: Sequence[Any], size: Size, what: str) -> None:
    """Refuse x, y, x, y, ... that are no finite numbers near the image, and outlines that go to and fro.

    What is held to draw an outline grows with its length. Data sets have millions of these: the loops are in C.
    """
    near = 10 * max(size) + 1000
    if not numbers:
        return
    is_numeric = set(map(type, numbers)) <= {int, float}
    low, high = (min(numbers), max(numbers)) if is_numeric else (0, 0)
    if not is_numeric or not (-near <= low and high <= near):
        raise InputError(f"{what}: not points near the image", found=_show(numbers), allowed="finite x and y")
    if math.isnan(sum(numbers)):  # which min and max may pass over
        raise InputError(f"{what}: a point that is not a number", found=_show(numbers), allowed="finite x and y")
    most = min(4 * size[0] * size[1] + 100_000, _MOST_STEPS)
    if (high - low) * len(numbers) / 2 <= most:
        return
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    following = [*points[1:], points[0]]
    steps = sum(max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a, b in zip(points, following, strict=True))
    if steps > most:
        raise InputError(f"{what}: an outline longer than the image has pixels", found=f"{steps:.0f} pixels")


def _show(value: object) -> str:
    return repr(value)[:100]

"""How large a pixel of a GeoTIFF is on the ground, as the tags of the file state it."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import tifffile

from segplus.data.decoding.stored import Stored, find_suffix, open_binary
from segplus.errors import InputError

_PIXEL_SCALE_TAG, _GEO_KEYS_TAG = 33550, 34735
_MODEL_KEY, _PROJECTION_KEY, _UNIT_KEY = 1024, 3072, 3076
_PROJECTED = 1
_WEB_MERCATOR = (3785, 3857)  # whose metres are metres at the equator alone
_UNITS_MM = {9001: 1000.0, 9002: 304.8, 9003: 1_200_000 / 3937}  # metre, foot, US survey foot
_FIX = "state the size on the ground: --pixel-size 0.5m"


def read_map_scale(stored: Stored, source: str) -> tuple[float, float] | None:
    """Return height and width of a pixel on the ground in millimetres, None of a file that is no GeoTIFF.

    Args:
        stored: The file.
        source: Name for messages.
    Raises:
        InputError: If the coordinates are degrees or Web Mercator's, or of a unit that the file does not name.
    Reference:
        Open Geospatial Consortium, GeoTIFF standard 1.1, 2019: ModelPixelScaleTag and the GeoKeys.
        https://docs.ogc.org/is/19-008r4/19-008r4.html
    """
    if find_suffix(stored) not in (".tif", ".tiff"):
        return None
    scale, words = _read_tags(stored)
    if len(scale) < 2 or not words or not all(0 < side < 1e9 for side in scale[:2]):
        return None
    # A header of four words, then four a key: number, place of the value, how many, and the value where place is 0.
    keys = {words[i]: words[i + 3] for i in range(4, len(words) - 3, 4) if words[i + 1] == 0}
    if keys.get(_MODEL_KEY) != _PROJECTED:
        raise InputError(f"{source}: the map's coordinates are not lengths", found="degrees, or unknown", fix=_FIX)
    if keys.get(_PROJECTION_KEY) in _WEB_MERCATOR:
        projection = f"Web Mercator (EPSG:{keys[_PROJECTION_KEY]}), which stretches away from the equator"
        raise InputError(f"{source}: the map's metres are not metres on the ground", found=projection, fix=_FIX)
    code = keys.get(_UNIT_KEY)
    if code not in _UNITS_MM:
        stated = "none (GeoKey 3076)" if code is None else code
        raise InputError(f"{source}: the map's unit is not known", found=stated, allowed="metres or feet", fix=_FIX)
    unit = _UNITS_MM[code]
    return scale[1] * unit, scale[0] * unit


def _read_tags(stored: Stored) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the scale (x, y, z) and the GeoKeys of a TIFF's first page, empty where it has none."""
    tags: Any = {}
    with (
        suppress(tifffile.TiffFileError, IndexError, KeyError, TypeError, ValueError, struct.error),
        open_binary(stored) as file,
        tifffile.TiffFile(file) as tiff,
    ):
        page: Any = tiff.pages.first
        tags = {code: page.tags.valueof(code, ()) for code in (_PIXEL_SCALE_TAG, _GEO_KEYS_TAG)}
    scale, words = tags.get(_PIXEL_SCALE_TAG, ()), tags.get(_GEO_KEYS_TAG, ())
    are_numbers = isinstance(scale, tuple) and isinstance(words, tuple) and all(isinstance(w, int) for w in words)
    return (tuple(map(float, scale)), words) if are_numbers else ((), ())

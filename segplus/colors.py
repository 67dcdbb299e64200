"""Colours that can be told apart, also with a colour-vision deficiency."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Color = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

# Okabe and Ito's eight colours, black left out. https://jfly.uni-koeln.de/color/
_OKABE_ITO: tuple[Color, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
)
# The hatching of ignored pixels, which no class shall look like.
_TAKEN: tuple[Color, ...] = ((46, 46, 50), (74, 74, 80))
_LIGHTNESS = (0.25, 0.95)  # neither black nor white: both vanish on a page or a photograph
_STEP = 17  # 16 values a channel

# Linear RGB as normal, protanopic, deuteranopic and tritanopic eyes see it: Machado, Oliveira, Fernandes, A
# Physiologically-based Model for Simulation of Color Vision Deficiency, 2009, table 1, severity 1.
_EYES = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
# Oklab: Ottosson, A perceptual color space for image processing, 2020. https://bottosson.github.io/posts/oklab/
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OPPONENTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def describe_sight(colors: npt.ArrayLike) -> Floats:
    """Return how normal, protanopic, deuteranopic and tritanopic eyes see colours, in Oklab, shape (4, N, 3).

    Args:
        colors: RGB from 0 to 255, shape (N, 3).
    """
    share = np.asarray(colors, dtype=np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.einsum("erc,nc->enr", _EYES, linear), 0, 1)
    lab: Floats = np.cbrt(seen @ _CONES.T) @ _OPPONENTS.T
    return lab


@lru_cache(maxsize=8)
def choose_colors(count: int) -> tuple[Color, ...]:
    """Return `count` colours: Okabe and Ito's, then always the one farthest from all before it, to the eye that sees
    the two least apart.

    Args:
        count: Number of classes; above some 60 no choice of colours can be told apart reliably.
    """
    chosen = list(_OKABE_ITO[:count])
    if count <= len(_OKABE_ITO):
        return tuple(chosen)
    values = np.arange(0, 256, _STEP)
    grid = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = describe_sight(grid)[0, :, 0]
    grid = grid[(lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1])]
    seen = describe_sight(grid)

    def measure_distance(color: Floats) -> Floats:
        nearest: Floats = np.linalg.norm(seen - color[:, None], axis=-1).min(axis=0)
        return nearest

    distance = np.full(len(grid), np.inf)
    for color in np.moveaxis(describe_sight([*chosen, *_TAKEN]), 1, 0):
        distance = np.minimum(distance, measure_distance(color))
    while len(chosen) < count:
        best = int(np.round(distance, 6).argmax())  # rounded, so that every machine chooses the same
        chosen.append((int(grid[best, 0]), int(grid[best, 1]), int(grid[best, 2])))
        distance = np.minimum(distance, measure_distance(seen[:, best]))
    return tuple(chosen)

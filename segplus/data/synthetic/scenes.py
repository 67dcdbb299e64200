"""Street scenes drawn from a seed: the embedded data set, of any size and any count, without a download."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segplus.classes import IGNORE_INDEX
from segplus.errors import InputError

CLASS_NAMES = ("sky", "road", "building", "tree", "grass", "vehicle", "pole")
CLASS_COLORS = (
    (120, 180, 235), (110, 90, 125), (165, 90, 70), (40, 110, 60), (150, 190, 70), (35, 60, 170), (250, 160, 30),
)  # fmt: skip
SKY, ROAD, BUILDING, TREE, GRASS, VEHICLE, POLE = range(7)
MINIMUM_SIDE_PX = 16

_SKIES = ((120, 165, 225), (200, 205, 210), (165, 168, 175), (230, 175, 140), (95, 120, 185), (60, 62, 95))
_ROADS = ((90, 90, 95), (118, 112, 105), (66, 67, 74), (140, 136, 130))
_LAWNS = ((95, 125, 55), (140, 135, 75), (70, 95, 50), (165, 150, 105))
_LEAVES = ((62, 100, 42), (95, 120, 50), (45, 72, 42), (150, 105, 45), (165, 75, 40))
_WALLS = ((160, 95, 75), (180, 165, 135), (130, 130, 138), (200, 195, 185), (95, 115, 135), (110, 130, 100))
_BODIES = ((35, 35, 40), (215, 215, 220), (165, 25, 30), (30, 65, 150), (115, 118, 122), (60, 95, 70), (220, 170, 40))
_METALS = ((60, 64, 66), (170, 172, 175), (45, 65, 55), (215, 212, 200), (120, 95, 75))

Generator = np.random.Generator
Color = npt.NDArray[np.float32]
Points = list[tuple[float, float]]


class SyntheticScenes:
    """Street scenes with their class ids; scene i depends on nothing but the seed, i and the size.

    Colours are drawn anew for each scene and thing, so that shape, place and texture tell the classes. Poles are thin:
    3 % of the pixels.

    Args:
        count: Number of scenes.
        size_px: (height, width) of every scene.
        seed: Another seed gives other scenes.
    Raises:
        InputError: If the count is negative or a side is under 16 pixels.
    """

    def __init__(self, count: int, size_px: tuple[int, int], seed: int = 0) -> None:
        if count < 0:
            raise InputError("synthetic scenes: count is negative", found=count, allowed="0 or more")
        if min(size_px) < MINIMUM_SIDE_PX:
            allowed = f"sides of {MINIMUM_SIDE_PX} pixels or more"
            raise InputError("synthetic scenes: too small", found=size_px, allowed=allowed)
        self.count, self.size_px, self.seed = count, (int(size_px[0]), int(size_px[1])), seed

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return scene `index`.

        Args:
            index: 0 <= index < len(self).
        Returns:
            RGB, uint8, shape (H, W, 3); class ids, 255 for the recorder's bar, uint8, shape (H, W).
        Raises:
            IndexError: If the index is outside.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, index])  # what stands where, the same at every size
        canvas = _Canvas(self.size_px, np.random.default_rng([self.seed, index, 1]))
        horizon, vanishing = float(rng.uniform(0.36, 0.5)), float(rng.uniform(0.35, 0.65))
        _paint_sky(canvas, rng)
        _paint_row_of_buildings(canvas, rng, horizon)
        left, right = _paint_ground(canvas, rng, horizon, vanishing)
        _furnish(canvas, rng, horizon, vanishing, (left, right))
        return _take_picture(canvas, rng), canvas.ids


class _Canvas:
    """An image and its class ids; outlines are in shares of the width and height, (x, y) from the top left."""

    def __init__(self, size_px: tuple[int, int], rng: Generator) -> None:
        self.image = np.zeros((*size_px, 3), np.float32)
        self.ids = np.zeros(size_px, np.uint8)
        self.rng = rng
        self.scale = np.array((size_px[1], size_px[0]), np.float32)

    def fill(
        self, outline: npt.ArrayLike, color: Color, class_id: int, texture: npt.NDArray[np.float32] | None = None
    ) -> None:
        """Paint polygons, shape (..., corners, 2), with a colour, times a texture (H, W)."""
        covered, place = self.cover(outline)
        self.image[place][covered] = color if texture is None else texture[place][covered][:, None] * color
        self.ids[place][covered] = class_id

    def cover(self, outline: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], tuple[slice, slice]]:
        """Return the pixels inside polygons, shape (h, w), and where in the image that cut lies."""
        corners = np.asarray(outline, np.float32) * self.scale
        low = np.floor(corners.reshape(-1, 2).min(axis=0)).clip(0, self.scale).astype(int)
        high = (np.ceil(corners.reshape(-1, 2).max(axis=0)) + 1).clip(low, self.scale).astype(int)
        covered = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        if covered.size:
            polygons = np.rint((corners - low) * 16).astype(np.int32).reshape(-1, *corners.shape[-2:])
            cv2.fillPoly(covered, list(polygons), 1, shift=4)
        return covered.view(bool), (slice(low[1], high[1]), slice(low[0], high[0]))

    def mottle(self, strength: float, cells: int) -> npt.NDArray[np.float32]:
        """Return a texture of blots around 1, of this many to the height, shape (H, W)."""
        height, width = self.ids.shape
        coarse = self.rng.uniform(1 - strength, 1 + strength, (cells, cells * 4 // 3)).astype(np.float32)
        texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(texture, dtype=np.float32)


def _choose(rng: Generator, palette: tuple[tuple[int, int, int], ...]) -> Color:
    """Return a colour of a palette, moved a little."""
    color = np.array(palette[int(rng.integers(len(palette)))]) + rng.uniform(-22, 22, 3)
    return color.clip(8, 250).astype(np.float32)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _paint_sky(canvas: _Canvas, rng: Generator) -> None:
    color = _choose(rng, _SKIES)
    rows = np.linspace(0.85, 1.25, canvas.ids.shape[0], dtype=np.float32)[:, None]
    clouds = 1 + np.maximum(canvas.mottle(0.5, 4) - 1.1, 0)
    canvas.image[:] = (rows * clouds)[..., None] * color
    canvas.ids[:] = SKY


def _paint_row_of_buildings(canvas: _Canvas, rng: Generator, horizon: float) -> None:
    x = float(rng.uniform(-0.15, 0.1))
    while x < 1:
        width, top = float(rng.uniform(0.16, 0.34)), horizon * float(rng.uniform(0.05, 0.65))
        if rng.random() < 0.8:
            _paint_building(canvas, rng, (x, top, x + width, horizon + 0.06))
        x += width + float(rng.choice((0.0, 0.06)))


def _paint_building(canvas: _Canvas, rng: Generator, sides: tuple[float, float, float, float]) -> None:
    """Paint a wall with rows of windows, under a flat roof or a gable."""
    left, top, right, bottom = sides
    wall, glass = _choose(rng, _WALLS), _choose(rng, ((45, 50, 62), (120, 145, 170), (235, 210, 150)))
    canvas.fill(_box(*sides), wall, BUILDING)
    if rng.random() < 0.4:
        canvas.fill([(left, top), ((left + right) / 2, top - 0.08), (right, top)], 0.7 * wall, BUILDING)
    columns, floors = max(round((right - left) / 0.06), 2), max(round((bottom - top) / 0.09), 1)
    wide, high = (right - left) / columns, (bottom - top) / floors
    places = [(left + column * wide, top + floor * high) for floor in range(floors) for column in range(columns)]
    windows = [_box(x + 0.25 * wide, y + 0.25 * high, x + 0.75 * wide, y + 0.75 * high) for x, y in places]
    canvas.fill(windows, glass, BUILDING)


def _paint_ground(canvas: _Canvas, rng: Generator, horizon: float, vanishing: float) -> tuple[float, float]:
    """Paint grass and the road, and return where the road's edges leave the image below, in shares of the width."""
    canvas.fill(_box(-0.1, horizon, 1.1, 1.1), _choose(rng, _LAWNS), GRASS, canvas.mottle(0.35, 64))
    left, right = float(rng.uniform(-0.15, 0.2)), float(rng.uniform(0.8, 1.15))
    road = [(vanishing - 0.04, horizon), (vanishing + 0.04, horizon), (right, 1.0), (left, 1.0)]
    canvas.fill(road, _choose(rng, _ROADS), ROAD, canvas.mottle(0.06, 24))
    paint = _choose(rng, ((225, 225, 220), (225, 190, 80)))
    middle, near = (left + right) / 2, float(rng.uniform(0.1, 0.3))
    for far in np.arange(near, 1.0, 0.3):  # a broken line; it is road
        corners = [(far, -1), (far, 1), (far + 0.15, 1), (far + 0.15, -1)]
        line = [
            ((middle - vanishing + 0.014 * side) * t + vanishing, horizon + (1 - horizon) * t) for t, side in corners
        ]
        canvas.fill(line, paint, ROAD)
    return left, right


def _furnish(canvas: _Canvas, rng: Generator, horizon: float, vanishing: float, edges: tuple[float, float]) -> None:
    """Paint trees, lamps and vehicles from far to near; t is 0 at the vanishing point and 1 at the lower edge."""
    things = [(float(rng.uniform(0.12, 0.5)), int(rng.integers(2)), _paint_tree) for _ in range(rng.integers(2, 5))]
    things += [(float(rng.uniform(0.25, 0.55)), int(rng.integers(2)), _paint_lamp) for _ in range(rng.integers(1, 4))]
    things += [(float(t), int(rng.integers(2)), _paint_vehicle) for t in rng.uniform((0.2, 0.42), (0.3, 0.62))]
    for t, side, paint in sorted(things, key=lambda thing: thing[0]):
        across = {_paint_tree: (-0.25, 1.25), _paint_lamp: (-0.04, 1.04), _paint_vehicle: (0.27, 0.73)}[paint][side]
        bottom = edges[0] + (edges[1] - edges[0]) * across
        paint(canvas, rng, vanishing + (bottom - vanishing) * t, horizon + (1 - horizon) * t, t)


def _paint_tree(canvas: _Canvas, rng: Generator, x: float, y: float, t: float) -> None:
    """Paint a trunk and a crown of blotched leaves with a ragged rim."""
    tall = float(rng.uniform(0.75, 1.05)) * (0.2 + t)
    wide, trunk = 0.3 * tall, 0.025 * tall
    canvas.fill(_box(x - trunk, y - 0.5 * tall, x + trunk, y), _choose(rng, ((75, 58, 45), (100, 92, 84))), TREE)
    columns, rows = np.meshgrid(*(np.arange(n, dtype=np.float32) / n for n in canvas.ids.shape[::-1]))
    distance = ((columns - x) / wide) ** 2 + ((rows - (y - 0.62 * tall)) / (0.38 * tall)) ** 2
    crown = distance + canvas.mottle(0.35, 24) < 2
    canvas.image[crown] = canvas.mottle(0.6, 48)[crown][:, None] * _choose(rng, _LEAVES)
    canvas.ids[crown] = TREE


def _paint_lamp(canvas: _Canvas, rng: Generator, x: float, y: float, t: float) -> None:
    """Paint a lamp post with its arm over the road."""
    metal, tall, half = _choose(rng, _METALS), 0.25 + 0.75 * t, 0.009 + 0.01 * t
    reach = float(np.sign(0.5 - x)) * 0.3 * tall
    canvas.fill(_box(x - half, y - tall, x + half, y), metal, POLE)
    canvas.fill(_box(min(x, x + reach), y - tall, max(x, x + reach), y - tall + 2 * half), metal, POLE)


def _paint_vehicle(canvas: _Canvas, rng: Generator, x: float, y: float, t: float) -> None:
    """Paint a car or a van from behind: wheels, body, window, lamps, and its shadow on the road."""
    half, tall = 0.26 * t, float(rng.choice((0.42, 0.62))) * t
    body, belt = _choose(rng, _BODIES), y - 0.55 * tall
    black = np.array((20, 20, 22), np.float32)
    shadow, place = canvas.cover(_box(x - 1.1 * half, y - 0.03 * t, x + 1.1 * half, y + 0.04 * t))
    canvas.image[place][shadow] *= 0.45
    sides = (x - 0.75 * half, x + 0.75 * half)
    canvas.fill([_box(at - 0.17 * half, y - 0.3 * tall, at + 0.17 * half, y) for at in sides], black, VEHICLE)
    top = [(x - 0.75 * half, y - tall), (x + 0.75 * half, y - tall), (x + half, belt), (x - half, belt)]
    canvas.fill(top, 0.85 * body, VEHICLE)
    pane = [(x + 0.85 * (cx - x), belt - 0.1 * tall + 0.75 * (cy - belt)) for cx, cy in top]
    canvas.fill(pane, _choose(rng, ((45, 52, 62), (130, 150, 170))), VEHICLE)
    canvas.fill(_box(x - half, belt, x + half, y - 0.12 * tall), body, VEHICLE)
    lamps = [_box(at - 0.13 * half, belt + 0.06 * tall, at + 0.13 * half, belt + 0.18 * tall) for at in sides]
    canvas.fill(lamps, np.array((190, 25, 25), np.float32), VEHICLE)


def _take_picture(canvas: _Canvas, rng: Generator) -> npt.NDArray[np.uint8]:
    """Return the image under the scene's light, with a camera's noise and the recorder's black bar below."""
    light = (rng.uniform(0.65, 1.15) * rng.normal(1, 0.05, 3)).astype(np.float32)
    canvas.image *= canvas.mottle(0.12, 3)[..., None] * light
    canvas.image += canvas.rng.standard_normal(canvas.image.shape, np.float32) * np.float32(rng.uniform(1, 6))
    image: npt.NDArray[np.uint8] = canvas.image.clip(0, 255).astype(np.uint8)
    bar = max(round(0.04 * len(image)), 1)
    image[-bar:], canvas.ids[-bar:] = 0, IGNORE_INDEX
    return image

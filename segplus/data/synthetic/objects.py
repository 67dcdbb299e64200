"""What stands in the drawn street scenes: buildings, trees, vehicles, pedestrians, poles and signs."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from segplus.data.synthetic.canvas import Camera, Canvas, Color, tint

SKY, ROAD, LANE_MARKING, BUILDING, TREE, VEHICLE, PEDESTRIAN, POLE, SIGN = range(9)
Generator = np.random.Generator
_DETAIL_M = 35.0  # beyond this a lamp is under a pixel

_WALLS = (
    (150, 95, 75),
    (175, 160, 135),
    (130, 130, 135),
    (190, 185, 175),
    (120, 85, 60),
    (95, 110, 125),
    (160, 175, 180),
    (105, 125, 95),
)
_LEAVES = ((62, 92, 40), (85, 110, 45), (45, 70, 42), (125, 105, 45), (140, 80, 40), (95, 100, 85))
_CARS = (
    (30, 30, 34),
    (200, 200, 205),
    (140, 20, 25),
    (25, 50, 110),
    (110, 112, 116),
    (60, 75, 60),
    (165, 140, 90),
    (75, 80, 88),
)
_CLOTHES = (
    (30, 32, 45),
    (120, 30, 35),
    (60, 80, 120),
    (150, 140, 125),
    (45, 70, 50),
    (190, 185, 180),
    (90, 60, 45),
    (170, 120, 40),
)
_BOARDS = ((185, 30, 35), (30, 70, 150), (215, 180, 40), (40, 110, 65), (215, 215, 215))


def choose_color(rng: Generator, palette: tuple[tuple[int, int, int], ...], spread: float = 22) -> Color:
    """Return a colour of a palette, moved a little."""
    base = palette[int(rng.integers(len(palette)))]
    moved = np.clip(np.asarray(base) + rng.normal(0, spread, 3), 8, 245)
    return float(moved[0]), float(moved[1]), float(moved[2])


def scale_color(color: Color, factor: float) -> Color:
    """Return a colour made darker or lighter."""
    return color[0] * factor, color[1] * factor, color[2] * factor


def paint_building(
    canvas: Canvas, camera: Camera, rng: Generator, x: float, z: float, size_m: tuple[float, float], lit: bool
) -> None:
    """Paint a house whose facade stands at x along the street from z on; size is (length, height)."""
    length, height = size_m
    side = 1.0 if x > 0 else -1.0
    near, far = max(z, 2.0), z + length
    wall = choose_color(rng, _WALLS)
    facade = draw_facade(rng, wall, max(int(length / 2.6), 1), max(int(height / 3.1), 1), lit)
    deep = x + side * 14
    front = [(x, height, near), (deep, height, near), (deep, 0, near), (x, 0, near)]
    sunlit = float(rng.uniform(0.6, 0.95))
    canvas.fill(camera.project(front), scale_color(wall, sunlit), BUILDING, near)
    street = [(x, height, near), (x, height, far), (x, 0, far), (x, 0, near)]
    canvas.fill_image(camera.project(street), facade, BUILDING, (near + far) / 2)


def draw_facade(rng: Generator, wall: Color, columns: int, rows: int, lit: bool) -> npt.NDArray[np.float32]:
    """Return an image of a facade, float, shape (16 rows, 16 columns, 3): windows, ledges, a shop or a door below."""
    cell = 16
    image = np.empty((rows * cell, columns * cell, 3), np.float32)
    image[:] = wall
    glass = np.asarray(
        choose_color(rng, ((60, 70, 85), (120, 145, 170), (35, 38, 45), (150, 165, 180)), 12), np.float32
    )
    top, left = int(rng.integers(3, 6)), int(rng.integers(2, 6))
    for row in range(rows):
        for column in range(columns):
            y, x = row * cell, column * cell
            bright = (255, 215, 140) if lit and rng.random() < 0.4 else glass * rng.uniform(0.7, 1.25)
            image[y + top : y + 13, x + left : x + cell - left] = bright
            image[y + 13 : y + 14, x + left - 1 : x + cell - left + 1] = np.asarray(wall) * 1.2
    if rows > 1 and rng.random() < 0.5:  # a shop board: the colours of a sign, and no sign
        image[-cell - 3 : -cell + 3] = choose_color(rng, _BOARDS)
    image[:2] = np.asarray(wall) * 0.75
    return image


def paint_tree(canvas: Canvas, camera: Camera, rng: Generator, x: float, z: float, height_m: float) -> None:
    """Paint a tree: a trunk, and a crown with a ragged, broken rim."""
    leaf = choose_color(rng, _LEAVES, 14)
    base, top = camera.project([(x, 0, z), (x, height_m, z)])
    metre = camera.focal_px / z
    half = max(0.11 * height_m / 4 * metre, 0.5)
    trunk = choose_color(rng, ((70, 55, 42), (95, 88, 80)), 10)
    crown = base + (top - base) * 0.45
    aside = np.array((half, 0), np.float32)
    canvas.fill([base - aside, base + aside, crown + aside, crown - aside], trunk, TREE, z, 0.25)
    center, reach = base + (top - base) * 0.66, height_m * metre * rng.uniform(0.28, 0.42)
    paint_foliage(canvas, rng, center, (reach, height_m * metre * 0.38), leaf, z)


def paint_foliage(
    canvas: Canvas, rng: Generator, center: npt.NDArray[np.float32], radii: tuple[float, float], leaf: Color, z: float
) -> None:
    """Paint leaves around a pixel coordinate, light above and dark below, gaps near the rim."""
    rows, columns = canvas.ids.shape
    left, right = max(int(center[0] - 1.5 * radii[0]), 0), min(int(center[0] + 1.5 * radii[0]) + 1, columns)
    top, bottom = max(int(center[1] - 1.5 * radii[1]), 0), min(int(center[1] + 1.5 * radii[1]) + 1, rows)
    if left >= right or top >= bottom:
        return
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - center[1]) / radii[1]
    x = (np.arange(left, right, dtype=np.float32)[None] - center[0]) / radii[0]
    shape, fine = canvas.grain(bottom - top, right - left), canvas.grain(bottom - top, right - left)
    mask = (x * x + y * y < 1 + 0.75 * shape + 0.25 * fine).astype(np.uint8)
    light = np.clip(0.95 - 0.3 * y + 0.5 * fine + 0.2 * rng.standard_normal(mask.shape, np.float32), 0.25, 1.9)
    canvas.paint(mask, slice(top, bottom), slice(left, right), tint(light, leaf), TREE, z)


def paint_vehicle(canvas: Canvas, camera: Camera, rng: Generator, x: float, z: float, oncoming: bool) -> None:
    """Paint a car, a van or a bus: the end and the side towards the camera, glass, wheels, lamps, its shadow."""
    vehicle = rng.choice(3, p=(0.72, 0.2, 0.08))
    width, height, length = ((1.8, 1.5, 4.3), (2.0, 2.3, 5.2), (2.5, 3.1, 9.0))[vehicle]
    color, glass = choose_color(rng, _CARS), choose_color(rng, ((40, 48, 58), (110, 130, 150), (25, 26, 30)), 10)
    back, belt = z + length, height * (0.55 if vehicle == 0 else 0.5)
    left, right = x - width / 2, x + width / 2
    canvas.darken(
        camera.project(
            [(left - 0.2, 0, z - 0.3), (right + 0.5, 0, z - 0.3), (right + 0.5, 0, back), (left - 0.2, 0, back)]
        ),
        0.4,
        ROAD,
    )
    seen = left if camera.offset_m < left else right if camera.offset_m > right else None
    slope = 0.7 if vehicle == 0 else 0.1
    roof = [
        (left + 0.15, height, z + slope),
        (right - 0.15, height, z + slope),
        (right - 0.15, height, back - slope),
        (left + 0.15, height, back - slope),
    ]
    canvas.fill(camera.project(roof), scale_color(color, 1.1), VEHICLE, z)
    if seen is not None:
        _paint_vehicle_side(canvas, camera, seen, (z, back), (height, belt, slope), color, glass)
    canvas.fill(
        camera.project([(left, belt, z), (right, belt, z), (right, 0.25, z), (left, 0.25, z)]), color, VEHICLE, z
    )
    upper = [(left + 0.15, height, z + slope), (right - 0.15, height, z + slope), (right, belt, z), (left, belt, z)]
    canvas.fill(camera.project(upper), scale_color(color, 0.9), VEHICLE, z)
    if z > _DETAIL_M:
        return
    pane = np.asarray(upper) + np.array([(0.12, -0.1, 0), (-0.12, -0.1, 0), (-0.15, 0.08, 0), (0.15, 0.08, 0)])
    canvas.fill(camera.project(pane), glass, VEHICLE, z, 0.3)
    for lamp in (left + 0.22, right - 0.22):
        tone = (235.0, 230.0, 205.0) if oncoming else (150.0, 15.0, 18.0)
        canvas.fill_ellipse(
            camera.project([(lamp, belt - 0.2, z)])[0], (camera.focal_px * 0.13 / z,) * 2, tone, VEHICLE, z
        )
        wheel = [(lamp - 0.12, 0.3, z), (lamp + 0.12, 0.3, z), (lamp + 0.12, 0, z), (lamp - 0.12, 0, z)]
        canvas.fill(camera.project(wheel), (18, 18, 20), VEHICLE, z)


def _paint_vehicle_side(
    canvas: Canvas,
    camera: Camera,
    x: float,
    ends: tuple[float, float],
    shape: tuple[float, float, float],
    color: Color,
    glass: Color,
) -> None:
    (z, back), (height, belt, slope) = ends, shape
    lower = [(x, belt, z), (x, belt, back), (x, 0.25, back), (x, 0.25, z)]
    canvas.fill(camera.project(lower), scale_color(color, 0.72), VEHICLE, z)
    upper = [(x, height, z + slope), (x, height, back - slope), (x, belt, back), (x, belt, z)]
    canvas.fill(camera.project(upper), scale_color(color, 0.66), VEHICLE, z)
    if z > _DETAIL_M:
        return
    pane = [
        (x, height - 0.12, z + slope + 0.2),
        (x, height - 0.12, back - slope - 0.2),
        (x, belt, back - 0.6),
        (x, belt, z + 0.5),
    ]
    canvas.fill(camera.project(pane), glass, VEHICLE, z, 0.3)
    for hub in (z + 0.8, back - 0.8):
        angles = np.linspace(0, 2 * np.pi, 12)
        rim = np.stack([np.full(12, x), 0.32 + 0.32 * np.sin(angles), hub + 0.32 * np.cos(angles)], axis=1)
        canvas.fill(camera.project(rim), (16, 16, 18), VEHICLE, z)


def paint_pedestrian(canvas: Canvas, camera: Camera, rng: Generator, x: float, z: float) -> None:
    """Paint a walking person: legs, a coat, arms, a head, sometimes a bag of the coat's colour or not."""
    tall, step, wide = rng.uniform(1.45, 1.9), rng.uniform(0.05, 0.32), rng.uniform(0.17, 0.25)
    coat, legs = choose_color(rng, _CLOTHES), choose_color(rng, _CLOTHES)
    skin = choose_color(rng, ((205, 160, 130), (120, 80, 60), (165, 120, 90)), 10)

    def fill(outline: list[tuple[float, float]], color: Color) -> None:
        canvas.fill(camera.project([(x + across, up * tall, z) for across, up in outline]), color, PEDESTRIAN, z, 0.2)

    canvas.darken(
        camera.project([(x - 0.1, 0, z), (x + 0.1, 0, z), (x + 1.1, 0, z + 0.9), (x + 0.9, 0, z + 0.9)]), 0.6, ROAD
    )
    for foot in (-step, step):
        fill([(foot - 0.06, 0), (foot + 0.08, 0), (0.1, 0.5), (-0.1, 0.5)], legs)
    hem = rng.uniform(0.36, 0.5)
    fill([(-wide, hem), (wide, hem), (wide * 0.95, 0.82), (-wide * 0.95, 0.82)], coat)
    swing = rng.uniform(-0.3, 0.3)
    fill(
        [(-wide, 0.8), (-wide - 0.07, 0.78), (swing - wide, 0.46), (swing - wide + 0.09, 0.45)], scale_color(coat, 0.8)
    )
    head = camera.project([(x, tall * 0.92, z)])[0]
    metre = camera.focal_px / z
    canvas.fill_ellipse(head, (0.105 * metre, 0.14 * metre), skin, PEDESTRIAN, z)
    if rng.random() < 0.6:
        hair = choose_color(rng, ((35, 28, 24), (90, 65, 40), (140, 135, 130)), 8)
        canvas.fill_ellipse(head - (0, 0.06 * metre), (0.1 * metre, 0.09 * metre), hair, PEDESTRIAN, z)


def paint_pole(canvas: Canvas, camera: Camera, rng: Generator, x: float, z: float, height_m: float, lamp: bool) -> None:
    """Paint a pole, with an arm over the street where it is a lamp."""
    metal = choose_color(rng, ((95, 98, 100), (50, 58, 52), (150, 150, 148), (110, 88, 68)), 10)
    half = rng.uniform(0.05, 0.085)
    shaft = [(x - half, 0, z), (x + half, 0, z), (x + half * 0.6, height_m, z), (x - half * 0.6, height_m, z)]
    canvas.fill(camera.project(shaft), metal, POLE, z, 0.15)
    if lamp:
        reach = -1.6 if x > 0 else 1.6
        arm = [
            (x, height_m, z),
            (x + reach, height_m + 0.25, z),
            (x + reach, height_m + 0.1, z),
            (x, height_m - 0.12, z),
        ]
        canvas.fill(camera.project(arm), metal, POLE, z, 0.15)


def paint_sign(canvas: Canvas, camera: Camera, rng: Generator, x: float, z: float, up_m: float) -> None:
    """Paint a road sign: round, triangular, square or a wide board, with a rim and a mark."""
    middle, metre = camera.project([(x, up_m, z)])[0], camera.focal_px / z
    corners, stretch = ((16, 1.0), (3, 1.1), (4, 1.0), (4, 1.9))[int(rng.integers(4))]
    angles = np.linspace(0, 2 * np.pi, corners + 1)[:-1] + (np.pi / 4 if corners == 4 else -np.pi / 2)
    rim = np.stack([np.cos(angles) * stretch, np.sin(angles)], axis=1) * rng.uniform(0.36, 0.6) * metre
    board, mark = choose_color(rng, _BOARDS, 12), choose_color(rng, _BOARDS, 12)
    canvas.fill(middle + rim, board, SIGN, z, 0.05)
    canvas.fill(middle + rim * 0.78, mark, SIGN, z, 0.05)
    bar = np.array([(-0.35, -0.1), (0.35, -0.1), (0.35, 0.12), (-0.35, 0.12)]) * metre * 0.5
    canvas.fill(middle + bar, scale_color(board, 0.7), SIGN, z, 0.05)


def paint_skyline(canvas: Canvas, camera: Camera, rng: Generator, class_id: int) -> None:
    """Paint what closes the view far away: roofs, or the tops of a wood."""
    columns = np.linspace(0, camera.width_px, 40)
    metre = camera.focal_px / 110
    tops = rng.uniform(2, 14, 40) * metre
    if class_id == BUILDING:
        columns, tops = np.repeat(columns, 2)[1:], np.repeat(tops, 2)[:-1]
    else:
        tops = cv2.blur(tops[None].astype(np.float32), (5, 1))[0]
    ridge = np.stack([columns, camera.horizon_px - tops], axis=1)
    floor = camera.horizon_px + 1.5
    color = choose_color(rng, _WALLS if class_id == BUILDING else _LEAVES)
    canvas.fill([*ridge, (camera.width_px, floor), (0, floor)], color, class_id, 150.0, 0.3)

"""Street scenes drawn from a seed: the embedded data set, of any size and any count, without a download."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from segplus.classes import IGNORE_INDEX
from segplus.data.synthetic.canvas import FAR_M, Array, Camera, Canvas, draw_noise, tint
from segplus.data.synthetic.objects import (
    BUILDING,
    LANE_MARKING,
    ROAD,
    SKY,
    TREE,
    choose_color,
    paint_building,
    paint_pedestrian,
    paint_pole,
    paint_sign,
    paint_skyline,
    paint_tree,
    paint_vehicle,
)
from segplus.errors import InputError

CLASS_NAMES = ("sky", "road", "lane marking", "building", "tree", "vehicle", "pedestrian", "pole", "sign")
CLASS_COLORS = (
    (120, 180, 235),
    (110, 90, 125),
    (245, 235, 120),
    (165, 90, 70),
    (70, 150, 70),
    (35, 60, 170),
    (225, 60, 90),
    (170, 170, 170),
    (250, 160, 30),
)
MINIMUM_SIDE_PX = 16

_SKIES = ((130, 170, 220), (190, 200, 208), (165, 165, 170), (225, 175, 140), (95, 125, 180), (210, 205, 195))
_ROADS = ((88, 88, 92), (110, 106, 100), (66, 67, 72), (128, 124, 120))
_PAVEMENTS = ((150, 144, 136), (120, 118, 118), (165, 140, 120), (100, 102, 104))
_VERGES = ((88, 108, 52), (112, 112, 62), (70, 88, 48))

_WHITE = (1.0, 1.0, 1.0)

Item = tuple[float, Callable[[], None]]


class SyntheticScenes:
    """Street scenes with their class ids; scene i depends on nothing but the seed, i and the size.

    The rare classes (lane marking, pedestrian, pole) take under 1 % of the pixels each, and are in most scenes.

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
            raise InputError(
                "synthetic scenes: too small", found=size_px, allowed=f"sides of {MINIMUM_SIDE_PX} pixels or more"
            )
        self.count, self.size_px, self.seed = count, (int(size_px[0]), int(size_px[1])), seed

    def __len__(self) -> int:
        return self.count

    def draw(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return scene `index`.

        Args:
            index: 0 <= index < len(self).
        Returns:
            RGB, uint8, shape (H, W, 3); class ids, 255 for the void border, uint8, shape (H, W).
        Raises:
            IndexError: If the index is outside.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, index])  # what stands where, the same at every size
        camera = _place_camera(rng, *self.size_px)
        canvas = Canvas(*self.size_px, np.random.default_rng([self.seed, index, 1]))
        night = bool(rng.random() < 0.15)
        horizon = _paint_sky(canvas, camera, rng, night)
        curb, line = _paint_ground(canvas, camera, rng)
        _cast_shadows(canvas, camera, rng, line)
        for _, paint in sorted(_furnish(canvas, camera, rng, curb, line, night), key=lambda item: -item[0]):
            paint()
        image = _light(canvas, rng, horizon, night)
        _cover_border(image, canvas.ids, rng)
        return image, canvas.ids


def _place_camera(rng: np.random.Generator, height_px: int, width_px: int) -> Camera:
    return Camera(
        height_px,
        width_px,
        focal_px=max(width_px, height_px) * rng.uniform(0.7, 1.05),
        horizon_px=height_px * rng.uniform(0.36, 0.54),
        eye_m=rng.uniform(1.2, 2.1),
        offset_m=rng.uniform(0.3, 2.4),
        bend=rng.normal(0, 0.0012),
    )


def _paint_sky(canvas: Canvas, camera: Camera, rng: np.random.Generator, night: bool) -> Array:
    zenith = np.asarray(choose_color(rng, _SKIES), np.float32)
    horizon = np.minimum(zenith * 0.5 + np.asarray((120, 116, 112), np.float32), 250)
    rows = np.linspace(0, camera.height_px / max(camera.horizon_px, 1.0), camera.height_px, dtype=np.float32)
    share = np.clip(rows, 0, 1)[:, None]
    canvas.image[:] = (zenith * (1 - share) + horizon * share)[:, None]
    cover = draw_noise(canvas.rng, camera.height_px, camera.width_px, (4, 8, 16, 50)) + np.float32(
        rng.uniform(-0.7, 0.5)
    )
    cloud = tint(np.clip(cover, 0, 1) * np.float32(rng.uniform(0.2, 1.0)), _WHITE)
    canvas.image += cloud * (np.float32(rng.uniform(190, 250)) - canvas.image)
    paint_skyline(canvas, camera, rng, BUILDING if rng.random() < 0.5 else TREE)
    return horizon * (0.25 if night else 1)


def _paint_ground(canvas: Canvas, camera: Camera, rng: np.random.Generator) -> tuple[float, float]:
    """Paint carriageway, markings, pavements, verges; return how far out kerb and house line run, metres."""
    x, z, first = camera.ground()
    curb = float(rng.uniform(3.2, 6.5))
    line = curb + float(rng.uniform(2.0, 4.5))
    image, ids = canvas.image[first:], canvas.ids[first:]
    grain = _sample_world(canvas.rng, x, z)
    road, pavement = choose_color(rng, _ROADS, 5), choose_color(rng, _PAVEMENTS, 10)
    verge = choose_color(rng, _VERGES, 10)
    walk = np.abs(x) > curb
    green = (np.abs(x) > line - (1.2 if rng.random() < 0.5 else 0)) & (
        x * rng.choice((-1, 1)) > -line * rng.integers(0, 3)
    )
    image[:] = tint(1 + 0.22 * grain, road)
    slabs = 1 + 0.12 * grain - 0.15 * (((x % 0.9) < 0.06) | ((z % 1.2) < 0.07))
    cv2.copyTo(tint(slabs, pavement), walk.view(np.uint8), image)
    edge = np.abs(np.abs(x) - curb) < 0.1
    image[edge] *= 1.25
    cv2.copyTo(tint(1 + 0.5 * grain, verge), green.view(np.uint8), image)
    ids[:] = ROAD
    ids[green] = TREE
    canvas.depth_m[first:] = np.minimum(z, FAR_M)
    _repair_road(canvas, camera, rng, curb)
    _mark_lanes(canvas, x, z, first, rng, curb)
    return curb, line


def _sample_world(rng: np.random.Generator, x: Array, z: Array) -> Array:
    texture = draw_noise(rng, 128, 128, (5, 24, 128))
    return texture[(z * 9).astype(np.int64) % 128, (x * 9).astype(np.int64) % 128]


def _repair_road(canvas: Canvas, camera: Camera, rng: np.random.Generator, curb: float) -> None:
    """Paint puddles that mirror the sky, patches and bright seams: the colours of other classes, and still road."""
    for _ in range(int(rng.integers(1, 5))):
        x, z = rng.uniform(-curb, curb), rng.uniform(4, 25)
        width, length = rng.uniform(0.08, 1.6), rng.uniform(0.5, 5)
        outline = camera.project(
            [(x, 0, z), (x + width, 0, z), (x + width * 0.9, 0, z + length), (x + width * 0.1, 0, z + length)]
        )
        tone = choose_color(rng, (*_SKIES[:3], (50, 50, 52), (150, 148, 140)), 10)
        canvas.fill(outline, tone, None, z, 0.2)


def _mark_lanes(canvas: Canvas, x: Array, z: Array, first: int, rng: np.random.Generator, curb: float) -> None:
    worn = _sample_world(canvas.rng, x, z) < rng.uniform(0.5, 1.2)
    dash, gap, half = rng.uniform(2, 4), rng.uniform(3, 7), rng.uniform(0.06, 0.09)
    marks = (np.abs(x) < half) & ((z + rng.uniform(0, 9)) % (dash + gap) < dash)
    if rng.random() < 0.5:
        marks |= np.abs(np.abs(x) - curb + 0.35) < half * 0.8
    if rng.random() < 0.12:  # a crossing
        start = rng.uniform(9, 22)
        marks |= (z > start) & (z < start + 2.5) & (np.abs(x) < curb - 0.4) & (x % 1.0 < 0.45)
    marks &= z < 70
    paint = np.asarray(choose_color(rng, ((215, 215, 210), (225, 225, 220), (205, 170, 75)), 10), np.float32)
    visible = marks & worn
    canvas.image[first:][visible] = 0.8 * paint + 0.2 * canvas.image[first:][visible]
    canvas.ids[first:][marks] = LANE_MARKING


def _cast_shadows(canvas: Canvas, camera: Camera, rng: np.random.Generator, line: float) -> None:
    if rng.random() < 0.35:
        return
    side, strength, slant = rng.choice((-1, 1)), float(rng.uniform(0.4, 0.75)), rng.uniform(-4, 4)
    for start in np.arange(2.0, 60.0, rng.uniform(6, 14)):
        reach, length = rng.uniform(2, 2 * line), rng.uniform(2, 9)
        outline = [
            (side * line, 0, start),
            (side * (line - reach), 0, start + slant),
            (side * (line - reach), 0, start + slant + length),
            (side * line, 0, start + length),
        ]
        canvas.darken(camera.project(outline), strength)


def _furnish(
    canvas: Canvas, camera: Camera, rng: np.random.Generator, curb: float, line: float, night: bool
) -> list[Item]:
    """Return everything that stands in the scene with its distance; each item paints itself."""
    items: list[Item] = []

    def add(z: float, paint: Callable[..., None], *facts: object) -> None:
        own = np.random.default_rng(rng.integers(1 << 62))
        items.append((z, lambda: paint(canvas, camera, own, *facts)))

    for side in (-1, 1):
        built, z = rng.uniform(0.15, 0.95), rng.uniform(1, 8)
        while z < 80:
            length = rng.uniform(7, 18)
            if rng.random() < built:
                add(
                    z + length / 2,
                    paint_building,
                    side * (line + rng.uniform(0, 1.5)),
                    z,
                    (length, rng.uniform(4, 19)),
                    night,
                )
            else:
                for _ in range(int(rng.integers(1, 4))):
                    near = z + rng.uniform(0, length)
                    add(near, paint_tree, side * (line + rng.uniform(0, 6)), max(near, 5), rng.uniform(3.5, 11))
            z += length + rng.choice((0.0, 0.0, 2.5))
        if rng.random() < 0.5:
            for near in np.arange(rng.uniform(7, 16), 55, rng.uniform(9, 16)):
                add(near, paint_tree, side * (curb + 0.8), near, rng.uniform(4, 7))
    _add_traffic(rng, add, curb)
    _add_small_things(rng, add, curb, line)
    return items


def _add_traffic(rng: np.random.Generator, add: Callable[..., None], curb: float) -> None:
    for side in (-1, 1):
        z = rng.uniform(5, 30)
        while z < 70:  # driving
            add(z, paint_vehicle, side * curb * rng.uniform(0.35, 0.5), z, side < 0)
            z += rng.uniform(12, 45)
        if curb > 4.2 and rng.random() < 0.55:  # parked
            for near in np.arange(rng.uniform(6, 14), rng.uniform(20, 55), rng.uniform(5.4, 9)):
                add(near, paint_vehicle, side * (curb - 1.0), near, side < 0)


def _add_small_things(rng: np.random.Generator, add: Callable[..., None], curb: float, line: float) -> None:
    for _ in range(int(rng.integers(2, 7))):
        z = rng.uniform(8, 32)
        crosses = rng.random() < 0.25
        x = rng.uniform(-curb, curb) if crosses else rng.choice((-1, 1)) * rng.uniform(curb + 0.3, line - 0.3)
        add(z, paint_pedestrian, x, z)
    for _ in range(int(rng.integers(1, 4))):
        z = rng.uniform(9, 45)
        add(z, paint_pole, rng.choice((-1, 1)) * (curb + 0.35), z, rng.uniform(4.5, 8), rng.random() < 0.6)
    for _ in range(int(rng.integers(1, 4))):
        x, z, up = rng.choice((-1, 1)) * (curb + rng.uniform(0.3, 0.9)), rng.uniform(7, 26), rng.uniform(2.1, 3.0)
        add(z + 0.01, paint_pole, x, z, up, False)
        add(z, paint_sign, x, z, up)


def _light(canvas: Canvas, rng: np.random.Generator, haze: Array, night: bool) -> npt.NDArray[np.uint8]:
    """Return the image as a camera takes it: haze by depth, exposure, white balance, vignette, blur, noise."""
    height_px, width_px = canvas.ids.shape
    seen = np.exp(-canvas.depth_m / np.float32(np.exp(rng.uniform(np.log(50), np.log(900)))))
    seen[canvas.ids == SKY] = 1
    image = canvas.image * tint(seen, _WHITE) + tint(1 - seen, haze)
    exposure = rng.uniform(0.3, 0.5) if night else rng.uniform(0.75, 1.25)
    balance = np.asarray(exposure * rng.normal(1, 0.045, 3), np.float32)
    y, x = (
        np.linspace(-1, 1, height_px, dtype=np.float32)[:, None],
        np.linspace(-1, 1, width_px, dtype=np.float32)[None],
    )
    falloff = 1 - np.float32(rng.uniform(0, 0.25)) * (x * x + y * y) + np.float32(rng.uniform(-0.15, 0.15)) * x
    image *= tint(falloff, balance)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.8) * max(min(height_px, width_px) / 240, 0.7))
    gamma = rng.uniform(0.85, 1.2)
    image = 255 * cv2.pow(np.clip(image / 255, 0, 1), gamma)
    image += _draw_sensor_noise(canvas.rng, image.shape) * np.float32(rng.uniform(1, 9 if night else 6))
    return np.clip(image, 0, 255).astype(np.uint8)


def _draw_sensor_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return noise of deviation 1, the sum of two bytes: an eighth of the time of a normal distribution."""
    first, second = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint8).reshape(2, *shape)
    return (first.astype(np.float32) + second - 255) / np.float32(104.5)


def _cover_border(image: npt.NDArray[np.uint8], ids: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Cover what no label describes: the own bonnet, or the black rim that straightening a lens leaves, or both."""
    height_px, width_px = ids.shape
    bonnet = rng.random() < 0.65
    if bonnet:
        columns = np.linspace(-1, 1, width_px, dtype=np.float32)
        top = height_px * (1 - rng.uniform(0.05, 0.12) * (1 - 0.6 * (columns - rng.uniform(-0.15, 0.15)) ** 2))
        covered = np.arange(height_px, dtype=np.float32)[:, None] >= np.minimum(top, height_px - 1)[None]
        mirrored = cv2.blur(image[::-1], (9, 9))
        tint = np.asarray(choose_color(rng, ((40, 40, 45), (150, 150, 155), (110, 25, 25), (30, 45, 90))), np.float32)
        image[covered] = (0.35 * mirrored[covered] + 0.5 * tint).astype(np.uint8)
        ids[covered] = IGNORE_INDEX
    if not bonnet or rng.random() < 0.3:
        bow = max(min(height_px, width_px) * rng.uniform(0.012, 0.035), 1.0)
        y, x = np.linspace(-1, 1, height_px)[:, None], np.linspace(-1, 1, width_px)[None]
        rows, columns = np.arange(height_px)[:, None], np.arange(width_px)[None]
        rim = (np.minimum(rows, height_px - 1 - rows) < bow * (0.4 + 0.6 * x * x)) | (
            np.minimum(columns, width_px - 1 - columns) < bow * (0.4 + 0.6 * y * y)
        )
        image[rim] = 0
        ids[rim] = IGNORE_INDEX

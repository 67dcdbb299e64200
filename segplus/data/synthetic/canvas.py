"""The camera and the canvas of the drawn street scenes: metres in, pixels, class ids and depths out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Color = tuple[float, float, float]

FAR_M = 400.0
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a street that may bend; x is metres right of the street's middle, y up, z ahead."""

    height_px: int
    width_px: int
    focal_px: float
    horizon_px: float
    eye_m: float
    offset_m: float
    bend: float

    def project(self, points: npt.ArrayLike) -> Array:
        """Return pixel coordinates (N, 2) of points (N, 3) in metres."""
        x, y, z = np.array(points, dtype=np.float32).T
        z = np.maximum(z, 0.3)
        metre = self.focal_px / z
        pixels = np.empty((len(z), 2), np.float32)
        pixels[:, 0] = self.width_px / 2 + metre * (x - self.offset_m + self.bend * z * z)
        pixels[:, 1] = self.horizon_px + metre * (self.eye_m - y)
        return pixels

    def ground(self) -> tuple[Array, Array, int]:
        """Return x (h, W) and z (h, 1) in metres of every pixel below the horizon, and the first row of them."""
        first = min(max(int(np.ceil(self.horizon_px + 0.5)), 0), self.height_px - 1)
        rows = np.arange(first, self.height_px, dtype=np.float32)[:, None]
        z = self.focal_px * self.eye_m / np.maximum(rows - self.horizon_px, 0.5)
        columns = np.arange(self.width_px, dtype=np.float32)[None]
        x = (columns - self.width_px / 2) * z / self.focal_px + self.offset_m - self.bend * z * z
        return x, z, first


class Canvas:
    """An image that is painted from far to near, with the class id and the depth of every pixel.

    Args:
        height_px: Rows.
        width_px: Columns.
        rng: Draws the grain.
    """

    def __init__(self, height_px: int, width_px: int, rng: np.random.Generator) -> None:
        self.image: Array = np.zeros((height_px, width_px, 3), np.float32)
        self.ids: Mask = np.zeros((height_px, width_px), np.uint8)
        self.depth_m: Array = np.full((height_px, width_px), FAR_M, np.float32)
        self.rng = rng
        self._grain = np.tile(draw_noise(rng, height_px, width_px, (3, 9, 40, 130)), (2, 2))

    def grain(self, height_px: int, width_px: int) -> Array:
        """Return a patch of noise, about -1 to 1, of this size (h, w), from a position drawn anew."""
        rows, columns = self.ids.shape
        top, left = int(self.rng.integers(rows)), int(self.rng.integers(columns))
        return self._grain[top : top + height_px, left : left + width_px]

    def fill(
        self, points: npt.ArrayLike, color: Color, class_id: int | None, depth_m: float, grain: float = 0.1
    ) -> None:
        """Paint a polygon, pixel coordinates (N, 2), with a grainy colour; class_id None leaves the class as it is."""
        cut = self._cut(points)
        if cut is None:
            return
        mask, rows, columns = cut
        height_px, width_px = mask.shape
        shade = 1 + grain * self.grain(height_px, width_px)
        self.paint(mask, rows, columns, tint(shade, color), class_id, depth_m)

    def fill_ellipse(
        self, center: npt.ArrayLike, axes_px: tuple[float, float], color: Color, class_id: int | None, depth_m: float
    ) -> None:
        """Paint an upright ellipse around a pixel coordinate."""
        angles = np.linspace(0, 2 * np.pi, 17)[:-1]
        rim = np.stack([np.cos(angles) * axes_px[0], np.sin(angles) * axes_px[1]], axis=1)
        self.fill(np.asarray(center) + rim, color, class_id, depth_m)

    def fill_image(self, corners: npt.ArrayLike, image: Array, class_id: int, depth_m: float) -> None:
        """Paint an image (h, w, 3) onto a quadrilateral: top left, top right, bottom right, bottom left."""
        cut = self._cut(corners)
        if cut is None:
            return
        mask, rows, columns = cut
        height, width = image.shape[:2]
        target = np.asarray(corners, np.float32) - np.float32([columns.start, rows.start])
        source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
        size = (mask.shape[1], mask.shape[0])
        warped = cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        warped *= tint(1 + 0.07 * self.grain(*mask.shape), (1.0, 1.0, 1.0))
        self.paint(mask, rows, columns, warped, class_id, depth_m)

    def darken(self, points: npt.ArrayLike, factor: float, only: int | None = None) -> None:
        """Lay a shadow over a polygon, on one class only where it is given."""
        cut = self._cut(points)
        if cut is None:
            return
        mask, rows, columns = cut
        covered = mask.view(bool) if only is None else mask.view(bool) & (self.ids[rows, columns] == only)
        self.image[rows, columns][covered] *= factor

    def paint(
        self, mask: Mask, rows: slice, columns: slice, colors: Array, class_id: int | None, depth_m: float
    ) -> None:
        """Paint colours (h, w, 3) where the mask (h, w) is set."""
        # Of another type, OpenCV would copy into a new array and leave the image as it is.
        cv2.copyTo(colors.astype(np.float32, copy=False), mask, self.image[rows, columns])
        if class_id is not None:
            covered = mask.view(bool)
            np.copyto(self.ids[rows, columns], np.uint8(class_id), where=covered)
            np.copyto(self.depth_m[rows, columns], np.float32(depth_m), where=covered)

    def _cut(self, points: npt.ArrayLike) -> tuple[Mask, slice, slice] | None:
        outline = np.asarray(points, np.float32)
        (low_x, low_y), (high_x, high_y) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
        left, top = max(int(low_x), 0), max(int(low_y), 0)
        right, bottom = min(int(high_x) + 2, self.ids.shape[1]), min(int(high_y) + 2, self.ids.shape[0])
        if left >= right or top >= bottom:
            return None
        mask = np.zeros((bottom - top, right - left), np.uint8)
        shifted = (
            ((outline - np.array((left, top), np.float32)) * (1 << _SUBPIXEL_BITS)).clip(-1e8, 1e8).astype(np.int32)
        )
        cv2.fillPoly(mask, [shifted], 1, shift=_SUBPIXEL_BITS)
        return mask, slice(top, bottom), slice(left, right)


def tint(shade: Array, color: npt.ArrayLike) -> Array:
    """Return shade (h, w) times a colour, shape (h, w, 3); merging planes is many times faster than broadcasting."""
    red, green, blue = np.asarray(color, np.float32).tolist()
    plane = shade.astype(np.float32, copy=False)
    merged: Array = cv2.merge((plane * np.float32(red), plane * np.float32(green), plane * np.float32(blue)))
    return merged


def draw_noise(rng: np.random.Generator, height_px: int, width_px: int, cells: tuple[int, ...]) -> Array:
    """Return smooth noise of several scales, about -1 to 1, shape (height_px, width_px); `cells` are cells a side."""
    total = np.zeros((height_px, width_px), np.float32)
    for count in cells:
        coarse = rng.uniform(-1, 1, (min(count, height_px), min(count, width_px))).astype(np.float32)
        total += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    return total * np.float32(1.2 / len(cells) ** 0.5)

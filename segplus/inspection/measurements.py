"""What is measured of one pair: counts, objects, appearance, and how well the mask's edges lie on the image's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.classes import ClassMap
from segplus.data.dataset import SegmentationSplit
from segplus.data.decoding.stored import LOSSY_FORMATS
from segplus.data.ranges import Extents, measure_extents
from segplus.images import DecodedImage, measure_image

WINDOW_PX = 12  # largest shift that is looked for, in pixels of the reduced image
REDUCED_PX = 192  # longest edge of the images whose edges are compared
TURNS = (
    "as it is", "flipped left-right", "flipped top-bottom", "turned by 180 degrees", "turned left by 90 degrees",
    "turned right by 90 degrees", "transposed", "transposed along the other diagonal",
)  # fmt: skip
_DARK, _BLACK = 25.0, 16.0  # mean grey values, of 255
# Share of class changes through a value between: classes may have ids between those of their neighbours, but colours
# that no class has, between the legend's colours and one pixel wide, are drawn by interpolation alone.
_BETWEEN_IDS, _BETWEEN_COLORS = 0.4, 0.05
_MOST_BLENDS = 1024  # colours between others that are looked at, the most frequent ones


@dataclass
class PairFacts:
    """What one pair holds.

    Args:
        size_px: (height, width) of the image.
        mask_size_px: (height, width) of the mask.
        outside: Raw value or packed colour outside the classes -> pixels.
        objects: Connected components of each class, shape (C,).
        smallest_px: Pixels of the smallest component of each class, 0 where there is none, shape (C,).
        image_encoding: File format and mode.
        mask_encoding: File format and mode.
        problems: What is odd about the pair -> detail, or "".
        is_surrounded: The image is bright between four black corners.
        hash: 64-bit difference hash of the image.
        digest: 64-bit digest of the image's pixels.
        mask_digest: 64-bit digest of the labels.
        shift_profile: Agreement of the edges at each shift, shape (2 * WINDOW_PX + 1,) squared; None without edges.
        turn_scores: Agreement of the edges for each of TURNS, shape (8,); NaN for quarter turns of oblong pairs.
        shift_scale: Pixels of the image for one of the reduced image.
        extents: Least value, two percentiles and greatest value of an image deeper than 8 bits without a stated range,
            NaN of others, shape (4,).
    """

    size_px: tuple[int, int]
    mask_size_px: tuple[int, int]
    outside: dict[int, int]
    objects: npt.NDArray[np.int64]
    smallest_px: npt.NDArray[np.int64]
    image_encoding: str
    mask_encoding: str
    problems: dict[str, str] = field(default_factory=dict)
    is_surrounded: bool = False
    hash: int = 0
    digest: int = 0
    mask_digest: int = 0
    shift_profile: npt.NDArray[np.float32] | None = None
    turn_scores: npt.NDArray[np.float32] | None = None
    shift_scale: float = 1.0
    extents: Extents = field(default_factory=lambda: np.full(4, np.nan))


def measure_pair(
    split: SegmentationSplit, index: int, image: DecodedImage, raw: npt.NDArray[Any], label: npt.NDArray[Any]
) -> PairFacts:
    """Return what `visit_pairs` is to look at beside the classes' pixels.

    Args:
        split: The split.
        index: Position of the pair.
        image: The image.
        raw: The mask's values, or packed colours, shape (H, W).
        label: Its class ids, what is outside the classes ignored, shape (H, W).
    """
    classes, encodings = split.classes, split.describe_encoding(index)
    grey = reduce_to_grey(image)
    objects, smallest = count_objects(label, classes.num_classes)
    facts = PairFacts(
        size_px=measure_image(image),
        mask_size_px=(label.shape[0], label.shape[1]),
        outside=classes.count_outside(raw) if (label == classes.ignore_index).any() else {},
        objects=objects,
        smallest_px=smallest,
        image_encoding=encodings[0],
        mask_encoding=encodings[1],
        is_surrounded=lies_in_black(grey),
        extents=measure_extents(image) if split.reader.value_range is None else np.full(4, np.nan),
        hash=hash_differences(grey),
        digest=digest_pixels(np.asarray(image)),
        mask_digest=digest_pixels(label),
    )
    if facts.size_px == facts.mask_size_px:
        facts.shift_scale = max(label.shape) / max(grey.shape)
        facts.shift_profile, facts.turn_scores = compare_edges(reduce_colors(image, grey), label)
    looks = {f"{look} image": "" for look in describe_looks(image, grey)}
    deep = {} if np.isnan(facts.extents).any() else {"deep image": ""}
    facts.problems = {**deep, **looks, **_list_mask_problems(facts, raw, label, classes)}
    return facts


def _list_mask_problems(
    facts: PairFacts, raw: npt.NDArray[Any], label: npt.NDArray[Any], classes: ClassMap
) -> dict[str, str]:
    """Return what is odd about a mask -> detail, or ""."""
    (height, width), (mask_height, mask_width) = facts.size_px, facts.mask_size_px
    if classes.legend:
        is_interpolated = bool(facts.outside) and measure_blends(raw, classes) > _BETWEEN_COLORS
    else:
        is_interpolated = measure_between(raw) > _BETWEEN_IDS
    only = int(label.flat[0]) if label.size and (label == label.flat[0]).all() else None
    odd = {
        "sizes differ": facts.size_px != facts.mask_size_px,
        "outside the classes": bool(facts.outside),
        "ignored mask": only == classes.ignore_index,
        "constant mask": only not in (None, classes.ignore_index),
        "lossy mask": facts.mask_encoding.split()[0] in LOSSY_FORMATS,
        "interpolated mask": is_interpolated,
        "turned mask": is_turned(facts.turn_scores),
    }
    sizes = f"image {width} x {height}, mask {mask_width} x {mask_height}"
    return {name: sizes if name == "sizes differ" else "" for name, is_so in odd.items() if is_so}


def digest_pixels(pixels: npt.NDArray[Any]) -> int:
    """Return a 64-bit digest of an array's values; of a million images two share one by chance once in 10^7 sets."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=8).digest(), "big")


def reduce_to_grey(image: DecodedImage) -> npt.NDArray[np.float32]:
    """Return the image in grey, longest edge REDUCED_PX at most, float, shape (h, w)."""
    if isinstance(image, Image.Image):
        plane = np.asarray(image.convert("L"), dtype=np.float32)
    else:
        plane = image.astype(np.float32).mean(axis=-1)
        span = float(plane.max() - plane.min())
        plane = (plane - plane.min()) * (255.0 / span) if span else plane * 0
    scale = min(1.0, REDUCED_PX / max(plane.shape))
    size = (max(9, round(plane.shape[1] * scale)), max(9, round(plane.shape[0] * scale)))
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def reduce_colors(image: DecodedImage, grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return an image of colours in the size of its grey one, float, shape (h, w, 3); of other images the grey one."""
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        return grey
    return cv2.resize(np.asarray(image), grey.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)


def describe_looks(image: DecodedImage, grey: npt.NDArray[np.float32]) -> tuple[str, ...]:
    """Return which of "dark", "grey" and "constant" fit an image."""
    looks = []
    if grey.max() - grey.min() < 1.0:
        looks.append("constant")
    elif grey.mean() < _DARK:
        looks.append("dark")
    if isinstance(image, Image.Image) and "constant" not in looks:
        small = np.asarray(image.reduce(max(1, max(image.size) // 64)), dtype=np.int16)
        if np.ptp(small, axis=-1).max() <= 2:
            looks.append("grey")
    return tuple(looks)


def lies_in_black(grey: npt.NDArray[np.float32]) -> bool:
    """Return whether an image is bright between four black corners, as those of endoscopes and scanners are."""
    height, width = (max(1, side // 16) for side in grey.shape)
    corners = [grey[rows, columns] for rows in np.s_[:height, -height:] for columns in np.s_[:width, -width:]]
    inside = grey[height:-height, width:-width]
    return bool(max(corner.mean() for corner in corners) < _BLACK and inside.mean() > 2 * _BLACK)


def hash_differences(grey: npt.NDArray[np.float32]) -> int:
    """Return the 64-bit difference hash: whether each of 8 x 8 cells is brighter than the one to its right.

    Reference:
        Krawetz, Kind of Like That, 2013. https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = (cells[:, :-1] > cells[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def count_objects(labels: npt.NDArray[Any], num_classes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (components of each class, pixels of its smallest), 8-connected, each of shape (C,)."""
    objects, smallest = np.zeros(num_classes, dtype=np.int64), np.zeros(num_classes, dtype=np.int64)
    for class_id in np.flatnonzero(np.bincount(labels.ravel(), minlength=num_classes)[:num_classes]):
        plane = np.asarray(labels == class_id, dtype=np.uint8)
        left, top, width, height = cv2.boundingRect(plane)
        cropped = np.ascontiguousarray(plane[top : top + height, left : left + width])
        # Counting the labels afterwards takes a third of the time of connectedComponentsWithStats.
        found, numbered = cv2.connectedComponents(cropped, connectivity=8)
        objects[class_id] = found - 1
        smallest[class_id] = np.bincount(numbered.ravel(), minlength=found)[1:].min()
    return objects, smallest


def measure_between(raw: npt.NDArray[Any]) -> float:
    """Return the share of class changes along rows that pass through a value between the two, one pixel wide."""
    if raw.shape[1] < 3:
        return 0.0
    wide = raw.astype(np.int32)
    left, middle, right = wide[:, :-2], wide[:, 1:-1], wide[:, 2:]
    changes = left != right
    between = changes & (np.minimum(left, right) < middle) & (middle < np.maximum(left, right))
    total = int(changes.sum())
    # A sharp change is seen at two positions, one that passes through a middle value at three.
    return float(between.sum() / (total / 2)) if total else 0.0


def measure_blends(raw: npt.NDArray[Any], classes: ClassMap) -> float:
    """Return the share of colour changes, along rows and columns, that pass through a blend of two legend colours.

    A blend is a colour outside the legend, on the straight line between two of its colours, and between those of its
    two neighbours, so that the flat colour of a class that is missing from the legend is none.

    Args:
        raw: Packed colours, shape (H, W).
        classes: The legend's classes, unknown colours ignored.
    """
    legend = np.array(list(classes.raw_to_class), dtype=np.int32)
    colors = _unpack(raw)
    outside = ~np.isin(raw, legend)
    between, changes = [], 0
    for plane, others in ((colors, outside), (colors.swapaxes(0, 1), outside.T)):
        left, middle, right = plane[:, :-2], plane[:, 1:-1], plane[:, 2:]
        changed = (left != right).any(axis=-1)
        inside = (np.minimum(left, right) <= middle) & (middle <= np.maximum(left, right))
        differs = (middle != left).any(axis=-1) & (middle != right).any(axis=-1)
        between.append(middle[changed & others[:, 1:-1] & inside.all(axis=-1) & differs])
        changes += int(changed.sum())
    found, counts = np.unique(np.concatenate(between), axis=0, return_counts=True)
    frequent = counts.argsort()[::-1][:_MOST_BLENDS]
    blended = counts[frequent][lie_between(found[frequent], _unpack(legend))].sum()
    return float(blended / (changes / 2)) if changes else 0.0


def lie_between(colors: npt.NDArray[np.int32], legend: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return whether each colour, shape (N, 3), lies on the line between two of the legend, up to rounding, (N,)."""
    result = np.zeros(len(colors), dtype=np.bool_)
    for position, start in enumerate(legend[:-1]):
        spans = (legend[position + 1 :] - start).astype(np.float64)  # (others, 3)
        offsets = (colors - start)[:, None].astype(np.float64)  # (N, 1, 3)
        along = (offsets * spans).sum(axis=-1) / (spans**2).sum(axis=-1)  # (N, others)
        away = np.abs(offsets - along[..., None] * spans).max(axis=-1)
        result |= ((along > 0) & (along < 1) & (away <= 1.5)).any(axis=1)
    return result


def _unpack(packed: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return packed colours as (..., 3)."""
    return np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1).astype(np.int32)


def compare_edges(
    image: npt.NDArray[np.float32], labels: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]:
    """Return (agreement at each shift of the mask, agreement for each of TURNS) of image edges and class borders.

    Agreement is the correlation of the image's gradient with the mask's borders; None where one of them has no edges.
    The gradient is that of the steepest channel of the reduced image, (h, w) or (h, w, channels): two colours may be
    equally bright.
    """
    height, width = image.shape[:2]
    small = cv2.resize(labels.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    borders: npt.NDArray[Any] = np.zeros((height, width), dtype=np.float32)
    borders[:, 1:] = small[:, 1:] != small[:, :-1]
    borders[1:] = np.maximum(borders[1:], small[1:] != small[:-1])
    steepness = cv2.magnitude(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1))
    slopes: npt.NDArray[Any] = reduce(np.maximum, cv2.split(steepness))
    slopes, borders = cv2.GaussianBlur(slopes, (0, 0), 1.0), cv2.GaussianBlur(borders, (0, 0), 1.0)
    slopes, borders = slopes - slopes.mean(), borders - borders.mean()
    norm = float(np.linalg.norm(slopes) * np.linalg.norm(borders))
    if norm < 1e-6 or min(height, width) <= 2 * WINDOW_PX:
        return None, None
    spectrum = np.fft.rfft2(slopes) * np.conj(np.fft.rfft2(borders))
    wrapped = np.fft.irfft2(spectrum, s=(height, width)) / norm
    rows, columns = np.ix_(np.arange(-WINDOW_PX, WINDOW_PX + 1) % height, np.arange(-WINDOW_PX, WINDOW_PX + 1) % width)
    turned = [borders, borders[:, ::-1], borders[::-1], borders[::-1, ::-1]]
    if height == width:
        turned += [np.rot90(borders), np.rot90(borders, -1), borders.T, borders[::-1, ::-1].T]
    scores = np.full(len(TURNS), np.nan, dtype=np.float32)
    scores[: len(turned)] = [float((slopes * plane).sum()) / norm for plane in turned]
    return wrapped[rows, columns].astype(np.float32), scores


def is_turned(scores: npt.NDArray[np.float32] | None) -> bool:
    """Return whether one mask's borders lie clearly better on the image's edges when the mask is flipped or turned."""
    if scores is None:
        return False
    return bool(np.nanmax(scores[1:]) - scores[0] > 0.2 and scores[0] < 0.1)

"""Folders as people have them, each drawn small, with the pixels of every class as they were drawn."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 72, 96
COUNT = 8
COLORS = {"water": (0x50, 0xE3, 0xC2), "land": (0xF5, 0xA6, 0x23), "road": (0xDE, 0x59, 0x7F)}


@dataclass
class Drawn:
    """What was drawn.

    Args:
        pixels: Pixels of each class over all images, in the order of the class ids.
        ignored: Pixels that nobody named.
        data: Lines of the data section that a right proposal has.
        close: The largest share by which a class may differ, for lossy files.
    """

    pixels: list[int]
    ignored: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    close: float = 0.0


def draw_ids(seed: int, values: int, things: int = 5) -> np.ndarray:
    """Return ids from 0 to values - 1: rectangles and discs on a ground of 0, shape (HEIGHT, WIDTH)."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    for thing in range(max(things, values - 1)):
        value = 1 + thing % max(1, values - 1)
        y, x, r = rng.integers(8, HEIGHT - 8), rng.integers(8, WIDTH - 8), rng.integers(4, 13)
        box = (abs(rows - y) < r) & (abs(columns - x) < r + 3)
        ids[box if seed % 2 else (rows - y) ** 2 + (columns - x) ** 2 < r * r] = value
    return ids


def draw_objects(seed: int, most: int = 14) -> list[np.ndarray]:
    """Return discs that do not touch, each a plane of booleans."""
    rng = np.random.default_rng(seed)
    cells = [(y, x) for y in range(12, HEIGHT, 24) for x in range(12, WIDTH, 24)][:most]
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return [
        (rows - y) ** 2 + (columns - x) ** 2 < rng.integers(4, 9) ** 2
        for y, x in cells
        if rng.random() < 0.9 or (y, x) == cells[0]
    ]


def draw_photo(seed: int, ids: np.ndarray) -> np.ndarray:
    """Return an image that shows the ids, shape (HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng(1000 + seed)
    tints = np.random.default_rng(7).integers(40, 210, (256, 3))
    noise = rng.normal(0, 10, (*ids.shape, 3)) + rng.integers(-25, 25)
    return np.clip(tints[ids] + noise, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_palette(path: Path, ids: np.ndarray, palette: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    image.putpalette(palette + [0] * (768 - len(palette)))
    image.save(path)


def count(masks: list[np.ndarray], values: int) -> list[int]:
    return [int(n) for n in sum(np.bincount(mask.ravel(), minlength=values)[:values] for mask in masks)]


def draw_fundus(root: Path) -> Drawn:
    """Draw photographs with a black surround, masks of 0 and 255 in GIF, patient and eye in the name."""
    masks = []
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    inside = (rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2 < (HEIGHT / 2 - 3) ** 2
    for number in range(COUNT // 2):
        for eye in "LR":
            seed = 2 * number + (eye == "R")
            ids = draw_ids(seed, 2) * inside
            save(root / "images" / f"{number + 1:02d}{eye}.tif", draw_photo(seed, ids) * inside[..., None])
            save(root / "1st_manual" / f"{number + 1:02d}{eye}_manual1.gif", (ids * 255).astype(np.uint8))
            masks.append(ids)
    return Drawn(count(masks, 2), data={"encoding": "binary", "classes": ["background", "foreground"]})


def draw_nuclei(root: Path) -> Drawn:
    """Draw a folder an image, and in it one mask file an object."""
    total = 0
    for seed in range(COUNT):
        objects = draw_objects(seed)
        union = np.any(objects, axis=0)
        total += int(union.sum())
        case = root / f"{seed:02d}ab{seed * 77:04x}"
        save(case / "images" / f"{case.name}.png", draw_photo(seed, union.astype(np.uint8)))
        for number, one in enumerate(objects):
            save(case / "masks" / f"{number:03d}f0{seed}.png", np.where(one, 255, 0).astype(np.uint8))
    return Drawn([COUNT * HEIGHT * WIDTH - total, total])


def draw_instances(root: Path) -> Drawn:
    """Draw masks of instance numbers, 16 bits."""
    total = 0
    for seed in range(COUNT):
        numbered = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        for number, one in enumerate(draw_objects(seed, 8 + seed // 2), start=1):
            numbered[one] = number
        total += int((numbered > 0).sum())
        save(root / "images" / f"img{seed}.png", draw_photo(seed, (numbered > 0).astype(np.uint8)))
        save(root / "masks" / f"img{seed}.png", numbered)
    return Drawn([COUNT * HEIGHT * WIDTH - total, total], data={"encoding": "binary", "threshold": 1})


def draw_voc(root: Path) -> Drawn:
    """Draw Pascal VOC's folders with other classes: palette indices 0 to 3."""
    masks = []
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 4))
        save(root / "JPEGImages" / f"b{seed}.jpg", draw_photo(seed, masks[-1]))
        save_palette(root / "SegmentationClass" / f"b{seed}.png", masks[-1], [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"b{seed}\n" for seed in range(5)))
    (lists / "val.txt").write_text("".join(f"b{seed}\n" for seed in range(5, COUNT)))
    return Drawn(count(masks, 4), data={"classes": {0: "value 0", 1: "value 1", 2: "value 2", 3: "value 3"}})


def paint(ids: np.ndarray) -> np.ndarray:
    return np.array(list(COLORS.values()), dtype=np.uint8)[ids]


def draw_colors(root: Path) -> Drawn:
    """Draw masks of colours, and nothing that says what they mean."""
    masks = []
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 3))
        save(root / "images" / f"{seed}.jpg", draw_photo(seed, masks[-1]))
        save(root / "masks" / f"{seed}.png", paint(masks[-1]))
    return Drawn(count(masks, 3))


def draw_lossy_colors(root: Path) -> Drawn:
    """Draw masks of colours saved as JPEG."""
    masks = []
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 3))
        save(root / "images" / f"{seed}.jpg", draw_photo(seed, masks[-1]))
        save(root / "masks" / f"{seed}.jpg", paint(masks[-1]), quality=92, subsampling=0)
    return Drawn(count(masks, 3), close=0.06)


def draw_tiles(root: Path) -> Drawn:
    """Draw a folder a tile, colours, and classes.json as labelling tools write it."""
    masks = []
    for tile in range(1, 4):
        for part in range(3):
            seed = 3 * tile + part
            masks.append(draw_ids(seed, 3))
            save(root / f"Tile {tile}" / "images" / f"image_part_{part + 1:03d}.jpg", draw_photo(seed, masks[-1]))
            save(root / f"Tile {tile}" / "masks" / f"image_part_{part + 1:03d}.png", paint(masks[-1]))
    entries = [
        {
            "title": name.title(),
            "shape": "polygon",
            "color": "#{:02X}{:02X}{:02X}".format(*color),
            "geometry_config": {},
        }
        for name, color in COLORS.items()
    ]
    (root / "classes.json").write_text(json.dumps({"classes": entries, "tags": []}))
    return Drawn(count(masks, 3), data={"images": "*/images", "masks": "*/masks"})


def draw_cases(root: Path) -> Drawn:
    """Draw a folder a patient with image.png and mask.png, values 0, 1, 2, and class_names.txt."""
    masks = []
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 3))
        save(root / f"case_{seed:03d}" / "image.png", draw_photo(seed, masks[-1])[..., 0])
        save(root / f"case_{seed:03d}" / "mask.png", masks[-1])
    (root / "class_names.txt").write_text("background\nliver\ntumour\n")
    return Drawn(count(masks, 3), data={"images": "*/image.png", "masks": "*/mask.png"})


def draw_coco(root: Path) -> Drawn:
    """Draw a COCO file under a name of its own in each split's folder."""
    total = [0, 0, 0]
    for split, seeds in (("train", range(5)), ("valid", range(5, COUNT))):
        content: dict[str, list[Any]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 4, "name": "bolt"}, {"id": 9, "name": "nut"}],
        }
        for seed in seeds:
            ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for value, category in ((1, 4), (2, 9)):
                x, y, w, h = 8 + 30 * (value - 1) + seed, 10 + seed, 18, 12 + value
                ids[y : y + h, x : x + w] = value
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                content["annotations"].append(
                    {
                        "id": 10 * seed + value,
                        "image_id": seed,
                        "category_id": category,
                        "segmentation": [outline],
                        "area": w * h,
                        "bbox": [x, y, w, h],
                        "iscrowd": 0,
                    }
                )
            total = [a + b for a, b in zip(total, count([ids], 3), strict=True)]
            save(root / split / f"p{seed}.jpg", draw_photo(seed, ids))
            content["images"].append({"id": seed, "file_name": f"p{seed}.jpg", "height": HEIGHT, "width": WIDTH})
        (root / split / "my_export.json").write_text(json.dumps(content))
    return Drawn(total)


def draw_runs(root: Path) -> Drawn:
    """Draw run lengths in a CSV, column by column from 1, a row a class; some images have none."""
    masks, lines = [], []
    for seed in range(COUNT):
        ids = draw_ids(seed, 3) if seed % 4 else np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        masks.append(ids)
        save(root / "train_images" / f"s{seed:03d}.jpg", draw_photo(seed, ids))
        for value in (1, 2):
            flat = np.concatenate([[0], (ids == value).T.ravel(), [0]]).astype(np.int8)
            starts, ends = np.flatnonzero(np.diff(flat) == 1) + 1, np.flatnonzero(np.diff(flat) == -1) + 1
            if len(starts):
                runs = " ".join(f"{start} {end - start}" for start, end in zip(starts, ends, strict=True))
                lines.append([f"s{seed:03d}.jpg", value, runs])
    with (root / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["ImageId", "ClassId", "EncodedPixels"], *lines])
    return Drawn(count(masks, 3))


def draw_near_binary(root: Path, in_color: bool = False) -> Drawn:
    """Draw masks of 0 and 255 saved as JPEG: values near them; grey, or grey in three channels."""
    masks = []
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 2))
        save(root / "photos" / f"{seed}.jpg", draw_photo(seed, masks[-1]))
        plane = masks[-1] * 255
        save(root / "labels" / f"{seed}.jpg", np.stack([plane] * 3, axis=-1) if in_color else plane, quality=90)
    return Drawn(count(masks, 2), data={"encoding": "binary"}, close=0.04)


def draw_grey_rgb(root: Path) -> Drawn:
    """Draw grey JPEG masks of three channels."""
    return draw_near_binary(root, in_color=True)


def draw_cityscapes_val(root: Path) -> Drawn:
    """Draw Cityscapes' tree of which only val was unpacked."""
    masks = []
    values = np.array([7, 26, 23], dtype=np.uint8)  # road, car, sky
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 3))
        name = f"ulm_{seed:06d}_000019"
        save(root / "leftImg8bit" / "val" / "ulm" / f"{name}_leftImg8bit.png", draw_photo(seed, masks[-1]))
        save(root / "gtFine" / "val" / "ulm" / f"{name}_gtFine_labelIds.png", values[masks[-1]])
    road, car, sky = count(masks, 3)
    pixels = [0] * 19
    pixels[0], pixels[13], pixels[10] = road, car, sky
    return Drawn(pixels)


def draw_deep(root: Path) -> Drawn:
    """Draw 16-bit TIFF images whose values lie between 808 and 2633."""
    masks = []
    for seed in range(COUNT):
        masks.append(draw_ids(seed, 2))
        grey = draw_photo(seed, masks[-1])[..., 0].astype(np.float64)
        low, high = grey.min(), grey.max()
        save(
            root / "images" / f"{seed}.tif",
            (808 + (grey - low) / (high - low) * (2633 - 808)).round().astype(np.uint16),
        )
        save(root / "masks" / f"{seed}.png", masks[-1])
    return Drawn(count(masks, 2))


SETS: dict[str, Callable[[Path], Drawn]] = {
    "fundus": draw_fundus,
    "nuclei": draw_nuclei,
    "instances": draw_instances,
    "voc": draw_voc,
    "colors": draw_colors,
    "lossy_colors": draw_lossy_colors,
    "tiles": draw_tiles,
    "cases": draw_cases,
    "coco": draw_coco,
    "runs": draw_runs,
    "near_binary": draw_near_binary,
    "grey_rgb": draw_grey_rgb,
    "cityscapes_val": draw_cityscapes_val,
    "deep": draw_deep,
}

"""Ten small folders as public data sets and labelling tools leave them: real trees and encodings, drawn content.

Written from knowledge of the data sets, without a look at what reads them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# Pixels of each class of each split, classes in the order of their values in the files.
Truth = dict[str, dict[str, int]]
Colors = Sequence[Sequence[int]]
SIZE = (80, 112)  # height, width


def paint(rng: np.random.Generator, labels: np.ndarray, colors: Colors) -> Image.Image:
    """Show each class (H, W) in its own colour under uneven light, with noise: an RGB photograph of the labels."""
    height, width = labels.shape
    coarse = Image.fromarray(rng.uniform(-18, 18, (6, 8)).astype(np.float32))
    light = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))[..., None] + rng.uniform(-12, 12)
    pixels = np.asarray(colors, np.float32)[labels] + light + rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def add_blobs(rng: np.random.Generator, labels: np.ndarray, value: int, count: int, radius: tuple[int, int]) -> None:
    """Draw ellipses of a class anywhere in the labels (H, W)."""
    height, width = labels.shape
    rows, columns = np.mgrid[:height, :width]
    for _ in range(count):
        top, left = rng.uniform(0.15, 0.85) * height, rng.uniform(0.15, 0.85) * width
        high, wide = rng.uniform(*radius, 2)
        labels[((rows - top) / high) ** 2 + ((columns - left) / wide) ** 2 < 1] = value


def draw_patches(
    rng: np.random.Generator, values: Sequence[int], count: int, size: tuple[int, int] = SIZE
) -> np.ndarray:
    """Return labels (H, W) of land as seen from above: the nearest of some points gives a pixel its class."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    points = rng.uniform(0, 1, (count, 2)) * size
    distance = (rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2
    return np.concatenate([values, rng.choice(values, count)])[:count][distance.argmin(-1)]


def draw_street(rng: np.random.Generator, sky: int, building: int, tree: int, road: int, walk: int) -> np.ndarray:
    """Return labels (H, W) of a street: sky, a skyline, road and pavement below."""
    labels = np.full(SIZE, sky)
    left = 0
    while left < SIZE[1]:
        wide = int(rng.integers(10, 28))
        labels[int(rng.integers(8, 36)) :, left : left + wide] = rng.choice([building, tree])
        left += wide
    labels[int(rng.integers(46, 56)) :] = road
    labels[52:, : int(rng.integers(10, 30))] = walk
    return labels


def write(path: Path, picture: Image.Image | np.ndarray, **options: object) -> None:
    """Write a picture or an array of pixels into a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, **options)


def add_pixels(truth: Truth, split: str, labels: np.ndarray, names: dict[int, str]) -> None:
    """Add the pixels of one mask (H, W) to the truth of its split."""
    counts = truth.setdefault(split, dict.fromkeys(names.values(), 0))
    for value, name in names.items():
        counts[name] += int((labels == value).sum())


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table of commas."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_kolektor(folder: Path) -> Truth:
    """KolektorSDD2: photographs and `_GT` masks of 0 and 255 side by side, most empty; widths differ a little."""
    rng, truth = np.random.default_rng(1), Truth()
    for split, first, count, defects in (("train", 10000, 14, 5), ("test", 20000, 8, 3)):
        for number in range(count):
            labels = np.zeros((112, 80 + int(rng.integers(-2, 3))), np.uint8)
            if number < defects:
                add_blobs(rng, labels, 1, 2, (3, 9))
            stem = f"{first + number}"
            write(folder / split / f"{stem}.png", paint(rng, labels, [(96, 96, 98), (175, 172, 165)]))
            write(folder / split / f"{stem}_GT.png", labels * np.uint8(255))
            add_pixels(truth, split, labels, {0: "background", 1: "defect"})
    return truth


CHOLEC = {
    50: ("black background", (127, 127, 127), (12, 10, 10)), 11: ("abdominal wall", (210, 140, 140), (190, 120, 105)),
    21: ("liver", (255, 114, 114), (130, 50, 45)), 12: ("fat", (186, 183, 75), (215, 180, 95)),
    22: ("gallbladder", (255, 160, 165), (120, 130, 85)), 31: ("grasper", (170, 255, 0), (175, 180, 190)),
}  # fmt: skip


def write_cholec(folder: Path) -> Truth:
    """CholecSeg8k: a frame and three masks in a clip's folder; the watershed mask has the classes, in grey."""
    rng, truth, values = np.random.default_rng(2), Truth(), sorted(CHOLEC)
    seen = [CHOLEC.get(value, ("", (0, 0, 0), (0, 0, 0)))[2] for value in range(256)]
    drawn = np.array([CHOLEC.get(value, ("", (0, 0, 0)))[1] for value in range(256)], np.uint8)
    for clip, first in (("video01/video01_00080", 80), ("video01/video01_00160", 160), ("video09/video09_01301", 1301)):
        for frame in range(first, first + 4):
            labels = draw_patches(rng, [11, 21, 12, 22], 9)
            add_blobs(rng, labels, 31, 1, (5, 22))
            rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
            labels[(rows - 40) ** 2 + ((columns - 56) / 1.3) ** 2 > 42**2] = 50
            outline = (labels != np.roll(labels, 1, 0)) | (labels != np.roll(labels, 1, 1))
            stem = folder / clip / f"frame_{frame}_endo"
            write(stem.with_suffix(".png"), paint(rng, labels, seen))
            write(Path(f"{stem}_watershed_mask.png"), np.repeat(labels[..., None], 3, 2).astype(np.uint8))
            write(Path(f"{stem}_color_mask.png"), drawn[labels])
            by_hand = np.where(outline, 255, labels)[..., None].astype(np.uint8)
            write(Path(f"{stem}_mask.png"), np.repeat(by_hand, 3, 2))
            add_pixels(truth, "train", labels, {value: CHOLEC[value][0] for value in values})
    return truth


def write_glands(folder: Path) -> Truth:
    """GlaS (Warwick QU): BMP files in one folder, `_anno` masks number the glands, the name begins with the split."""
    rng, truth, rows = np.random.default_rng(3), Truth(), []
    for split, prefix, count in (("train", "train", 9), ("test", "testA", 3), ("test", "testB", 2)):
        for number in range(1, count + 1):
            labels = np.zeros(SIZE, np.uint8)
            for _ in range(int(rng.integers(4, 9))):
                gland = np.zeros(SIZE, np.uint8)
                add_blobs(rng, gland, 1, 1, (6, 13))
                if not (labels[gland > 0] > 0).any():  # glands do not overlap
                    labels[gland > 0] = labels.max() + 1
            cells = (labels > 0).astype(np.uint8)
            write(folder / f"{prefix}_{number}.bmp", paint(rng, cells, [(215, 150, 190), (150, 85, 150)]))
            write(folder / f"{prefix}_{number}_anno.bmp", labels)
            rows.append((f"{prefix}_{number}", number, " benign" if number % 2 else " malignant", " adenomatous"))
            add_pixels(truth, split, cells, {0: "background", 1: "gland"})
    head = ("name", " patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)")
    write_rows(folder / "Grade.csv", [head, *rows])
    return truth


def write_ultrasound(folder: Path) -> Truth:
    """BUSI: a folder a diagnosis, names with blanks and brackets, a second `_mask_1` where there are two lesions."""
    rng, truth = np.random.default_rng(4), Truth()
    for kind, count in (("benign", 7), ("malignant", 5), ("normal", 3)):
        for number in range(1, count + 1):
            size = (80 + int(rng.integers(0, 9)), 104 + int(rng.integers(0, 9)))
            lesions = [np.zeros(size, np.uint8) for _ in range(2 if (kind, number) == ("benign", 4) else 1)]
            for one in lesions if kind != "normal" else []:
                add_blobs(rng, one, 1, 1, (8, 18))
            union = np.maximum.reduce(lesions)
            stem = folder / kind / f"{kind} ({number})"
            gray = paint(rng, union, [(110, 110, 110), (35, 35, 35)]).convert("L").convert("RGB")
            write(Path(f"{stem}.png"), gray)
            for index, one in enumerate(lesions):
                write(Path(f"{stem}_mask{f'_{index}' if index else ''}.png"), one * np.uint8(255))
            add_pixels(truth, "train", union, {0: "background", 1: "lesion"})
    return truth


IDD = {
    0: ("road", (95, 90, 88)), 2: ("sidewalk", (165, 140, 125)), 4: ("person", (190, 60, 60)),
    8: ("autorickshaw", (225, 200, 40)), 9: ("car", (40, 60, 150)), 22: ("building", (150, 120, 95)),
    24: ("vegetation", (60, 110, 50)), 25: ("sky", (185, 205, 230)),
}  # fmt: skip


def write_idd(folder: Path) -> Truth:
    """IDD (India Driving): Cityscapes' tree with other ids; its converter wrote level3Ids beside the polygons."""
    rng, truth = np.random.default_rng(5), Truth()
    seen = [IDD.get(value, ("", (20, 20, 20)))[1] for value in range(256)]
    for split, drives in (("train", (0, 12, 40)), ("val", (119, 163)), ("test", (97,))):
        for drive in drives:
            for frame in rng.choice(900000, 4, replace=False):
                labels = draw_street(rng, 25, 22, 24, 0, 2)
                for value, radius in ((8, (5, 10)), (9, (5, 10)), (4, (3, 6))):
                    add_blobs(rng, labels, value, 1, radius)
                labels[-6:, 30:80] = 255  # the car itself
                place = f"{split}/{drive}/{frame:06}_"
                write(folder / "leftImg8bit" / f"{place}leftImg8bit.png", paint(rng, labels, seen))
                if split == "test":
                    continue
                write(folder / "gtFine" / f"{place}gtFine_labellevel3Ids.png", labels.astype(np.uint8))
                polygon = [[0, 56], [112, 56], [112, 80], [0, 80]]
                shape = {"id": 0, "label": "road", "deleted": 0, "draw": True, "polygon": polygon}
                content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": [shape]}
                (folder / "gtFine" / f"{place}gtFine_polygons.json").write_text(json.dumps(content))
                add_pixels(truth, split, labels, {value: name for value, (name, _) in IDD.items()})
    return truth


VISTAS = {
    "construction--barrier--curb": (196, 196, 196), "construction--flat--road": (128, 64, 128),
    "construction--flat--sidewalk": (244, 35, 232), "construction--structure--building": (70, 70, 70),
    "human--person": (220, 20, 60), "nature--sky": (70, 130, 180), "nature--vegetation": (107, 142, 35),
    "object--vehicle--car": (0, 0, 142), "void--car-mount": (32, 32, 32), "void--unlabeled": (0, 0, 0),
}  # fmt: skip


def write_vistas(folder: Path) -> Truth:
    """Mapillary Vistas 1.2: palettes, names and colours in config.json, 16-bit instances and panoptic beside."""
    rng, truth, names = np.random.default_rng(6), Truth(), list(VISTAS)
    palette = [channel for color in VISTAS.values() for channel in color] + [0] * (768 - 3 * len(names))
    seen = np.array(list(VISTAS.values())) * 0.5 + 70
    entries = [
        {"color": color, "evaluate": "void" not in name, "instances": "person" in name or name.endswith("--car"),
         "name": name, "readable": name.rpartition("--")[2].capitalize()} for name, color in VISTAS.items()
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    content = {"folder_structure": "{split}/{content}/{image}", "labels": entries}
    (folder / "config.json").write_text(json.dumps(content))
    for split, count in (("training", 8), ("validation", 4), ("testing", 3)):
        for _ in range(count):
            stem = "".join(rng.choice(list("ABCdefGHIjkl0123456789_-"), 22))
            labels = draw_street(rng, 5, 3, 6, 1, 2).astype(np.uint8)
            add_blobs(rng, labels, 7, 2, (5, 9))
            add_blobs(rng, labels, 4, 1, (3, 7))
            labels[-4:], labels[:3, :20], labels[57:59, 35:] = 8, 9, 0  # the car itself, no label, a kerb
            write(folder / split / "images" / f"{stem}.jpg", paint(rng, labels, seen), quality=92)
            if split == "testing":
                continue
            mask = Image.fromarray(labels)
            mask.putpalette(palette)
            write(folder / split / "labels" / f"{stem}.png", mask)
            write(folder / split / "instances" / f"{stem}.png", labels.astype(np.uint16) * 256)
            segment = np.stack([labels + 1, labels * 0, labels * 0], -1)
            write(folder / split / "panoptic" / f"{stem}.png", segment)
            add_pixels(truth, split, labels, dict(enumerate(names)))
    return truth


LOVE = ["no-data", "background", "building", "road", "water", "barren", "forest", "agriculture"]


def write_loveda(folder: Path) -> Truth:
    """LoveDA: Train/Urban/images_png and masks_png, Train/Rural/..; ids 1 to 7, 0 for no data; no test masks."""
    rng, truth, number = np.random.default_rng(7), Truth(), 0
    seen = [
        (5, 5, 5), (150, 150, 120), (175, 95, 80), (110, 110, 115), (40, 70, 110), (190, 165, 120), (35, 80, 40),
        (130, 160, 70),
    ]  # fmt: skip
    for split, count in (("Train", 4), ("Val", 3), ("Test", 2)):
        for scene in ("Rural", "Urban"):
            for _ in range(count):
                labels = draw_patches(rng, range(1, 8), 14, (96, 96))
                labels[:, : int(rng.integers(0, 3)) * 4] = 0
                write(folder / split / scene / "images_png" / f"{number}.png", paint(rng, labels, seen))
                if split != "Test":
                    write(folder / split / scene / "masks_png" / f"{number}.png", labels.astype(np.uint8))
                    add_pixels(truth, split, labels, dict(enumerate(LOVE)))
                number += 1
    return truth


def write_ships(folder: Path) -> Truth:
    """Airbus ship detection: run lengths down the columns, a row a ship, an empty cell for none; a submission."""
    rng, truth, head = np.random.default_rng(8), Truth(), ("ImageId", "EncodedPixels")
    rows, sample = [head], [head]
    for split, count in (("train", 14), ("test", 4)):
        for number in range(count):
            name, union = f"{rng.integers(16**9):09x}.jpg", np.zeros((96, 96), np.uint8)
            for _ in range(0 if number % 3 == 2 else 2):
                ship = np.zeros_like(union)
                add_blobs(rng, ship, 1, 1, (3, 11))
                ship[union > 0] = 0  # ships do not overlap
                union |= ship
                edges = np.flatnonzero(np.diff(np.pad(ship.T.ravel(), 1).astype(int))) + 1
                edges[1::2] -= edges[::2]
                rows += [(name, " ".join(map(str, edges)))] if split == "train" else []
            write(folder / f"{split}_v2" / name, paint(rng, union, [(40, 65, 85), (170, 165, 160)]), quality=92)
            if split == "test":
                sample.append((name, "1 2"))
                continue
            rows += [] if union.any() else [(name, "")]
            add_pixels(truth, split, union, {0: "background", 1: "ship"})
    write_rows(folder / "train_ship_segmentations_v2.csv", rows)
    write_rows(folder / "sample_submission_v2.csv", sample)
    return truth


CVAT = {"background": (0, 0, 0), "bolt": (51, 221, 255), "corrosion": (250, 50, 83), "missing bolt": (255, 204, 51)}


def write_cvat(folder: Path) -> Truth:
    """CVAT, "Segmentation mask 1.1" of a video: VOC's folders, colours and a labelmap, one list called default."""
    rng, truth, listed = np.random.default_rng(9), Truth(), []
    drawn, seen = np.array(list(CVAT.values()), np.uint8), [(125, 130, 135), (60, 62, 70), (160, 85, 45), (25, 22, 20)]
    objects = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)], np.uint8)
    for frame in range(0, 240, 20):
        labels = draw_patches(rng, [0, 0, 0, 2], 8).astype(np.uint8)
        add_blobs(rng, labels, 1, 3, (4, 7))
        add_blobs(rng, labels, 3, 1, (4, 6))
        stem = f"frame_{frame:06}"
        write(folder / "JPEGImages" / f"{stem}.PNG", paint(rng, labels, seen))
        write(folder / "SegmentationClass" / f"{stem}.png", drawn[labels])
        write(folder / "SegmentationObject" / f"{stem}.png", objects[labels])
        add_pixels(truth, "train", labels, dict(enumerate(CVAT)))
        listed.append(stem)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text("\n".join(listed) + "\n")
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in CVAT.items()]
    (folder / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    return truth


LITTER = {
    0: "Aluminium foil", 5: "Clear plastic bottle", 12: "Drink can", 29: "Other plastic", 58: "Unlabeled litter",
    59: "Cigarette",
}  # fmt: skip


def write_litter(folder: Path) -> Truth:
    """TACO: COCO polygons in data/annotations.json, photographs in batch_1, ..; class 0 is used; a CSV of addresses."""
    rng, truth, images, shapes = np.random.default_rng(10), Truth(), [], []
    seen = [
        (150, 140, 110), (205, 205, 210), (120, 190, 200), (180, 40, 40), (225, 225, 120), (40, 40, 45),
        (240, 180, 120),
    ]  # fmt: skip
    for number in range(14):
        labels = Image.new("L", SIZE[::-1])
        for index, category in enumerate(rng.permutation(list(LITTER))[:3]):
            left, top = 4 + 36 * index + int(rng.integers(0, 8)), int(rng.integers(4, 40))
            right, bottom = left + int(rng.integers(10, 26)), top + int(rng.integers(10, 34))
            outline = [float(one) for one in (left, top, right, top, right, bottom, left, bottom)]
            # COCO's polygons run along the borders of pixels: those inside count, and `area` is their number.
            ImageDraw.Draw(labels).rectangle((left, top, right - 1, bottom - 1), fill=1 + list(LITTER).index(category))
            shapes.append({
                "id": len(shapes) + 1, "image_id": number, "category_id": int(category), "iscrowd": 0,
                "segmentation": [outline],
                "area": float((right - left) * (bottom - top)), "bbox": [left, top, right - left, bottom - top],
            })  # fmt: skip
        name, mask = f"batch_{1 + number // 5}/{number:06}.jpg", np.asarray(labels)
        write(folder / "data" / name, paint(rng, mask, seen), quality=92)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1], "license": None})
        add_pixels(truth, "train", mask, dict(enumerate(["background", *LITTER.values()])))
    categories = [{"id": key, "name": name, "supercategory": name} for key, name in LITTER.items()]
    content = {"info": {}, "images": images, "annotations": shapes, "categories": categories, "licenses": []}
    (folder / "data" / "annotations.json").write_text(json.dumps(content))
    write_rows(folder / "data" / "all_image_urls.csv", [("https://example.org/1.png", "https://example.org/1.jpg")])
    return truth


FOLDERS: dict[str, Callable[[Path], Truth]] = {
    "KolektorSDD2": write_kolektor, "cholecseg8k": write_cholec, "Warwick_QU_Dataset": write_glands,
    "Dataset_BUSI_with_GT": write_ultrasound, "IDD_Segmentation": write_idd, "LoveDA": write_loveda,
    "mapillary-vistas-dataset_public_v1.2": write_vistas, "airbus-ship-detection": write_ships,
    "task_bridge_segmentation_mask": write_cvat, "TACO": write_litter,
}  # fmt: skip

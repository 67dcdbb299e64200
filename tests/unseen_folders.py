"""Ten small data folders as people and labelling tools leave them, each with the pixels that its masks hold.

They are drawn by somebody who has not read how a recipe is proposed, and nothing there may be fitted to them.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

Labels = NDArray[np.uint8]
Pixels = NDArray[np.uint8]


@dataclass
class Truth:
    """What a folder holds, and what only its owner knows.

    Attributes:
        names: The classes, in the order of their ids.
        pixels: Of each split, the pixels of each class; of `all` where the folder has no splits.
        answers: The owner's name for each one that a proposal has to invent.
    """

    names: Sequence[str]
    pixels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    def add(self, labels: Labels, split: str = "all") -> None:
        counted = np.bincount(labels.ravel(), minlength=len(self.names))
        self.pixels[split] = self.pixels.get(split, np.zeros(len(self.names), np.int64)) + counted


def draw_objects(
    rng: np.random.Generator, num_objects: int, size: tuple[int, int] = (96, 128), around: int = 2
) -> NDArray[np.uint16]:
    """Return numbers of things (H, W), 1 and up, 0 between them: ellipses, boxes and triangles that do not touch."""
    height, width = size
    things = np.zeros(size, np.uint16)
    for _ in range(400):
        if things.max() == num_objects:
            break
        box_height, box_width = rng.integers(12, 28, 2)
        top, left = rng.integers(3, height - box_height - 3), rng.integers(3, width - box_width - 3)
        canvas = Image.new("1", (width, height))
        pen, corners = ImageDraw.Draw(canvas), (left, top, left + box_width, top + box_height)
        shape = rng.integers(3)
        if shape == 0:
            pen.ellipse(corners, fill=1)
        elif shape == 1:
            pen.rectangle(corners, fill=1)
        else:
            pen.polygon([(left, top + box_height), (left + box_width // 2, top), corners[2:]], fill=1)
        beside = things[top - around : top + box_height + around + 1, left - around : left + box_width + around + 1]
        if not beside.any():
            things[np.asarray(canvas)] = things.max() + 1
    return things


def draw_labels(rng: np.random.Generator, num_classes: int, size: tuple[int, int] = (96, 128)) -> Labels:
    """Return class ids (H, W): 0, and objects of every other class."""
    things = draw_objects(rng, num_classes + 1, size)
    classes = np.concatenate([[0], 1 + np.arange(num_classes + 1) % (num_classes - 1)])
    return classes[things].astype(np.uint8)


def paint(rng: np.random.Generator, labels: NDArray[np.integer], channels: int = 3) -> Pixels:
    """Return an image (H, W, channels) in which the things of a label map differ from an uneven ground."""
    height, width = labels.shape
    coarse = rng.integers(60, 130, (5, 6, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)
    tints = np.array([[0, 0, 0], [90, 70, 10], [20, 100, 60], [-50, 10, 100], [100, -40, 60], [-50, 90, -40]])
    image = ground + tints[np.where(labels > 0, (labels - 1) % 5 + 1, 0)] + rng.normal(0, 7, (height, width, 1))
    return image.clip(0, 255).astype(np.uint8)[..., :channels]


def save(pixels: NDArray[np.generic], path: Path, **values: object) -> None:
    """Write an image by the suffix of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **values)


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def draw_names(rng: np.random.Generator, count: int, digits: int) -> list[str]:
    return [hashlib.sha256(rng.bytes(8)).hexdigest()[:digits] for _ in range(count)]


def build_potholes(folder: Path) -> Truth:
    """Draw photographs of a phone; masks of 0 and 255 saved as colour JPEG, under a longer name."""
    rng, truth = np.random.default_rng(1), Truth(["background", "pothole"], answers={"foreground": "pothole"})
    for minute in sorted(rng.choice(60, 16, replace=False)):
        labels = (draw_objects(rng, int(rng.integers(1, 4)), (128, 96)) > 0).astype(np.uint8)
        name = f"IMG_20240312_09{minute:02}{rng.integers(60):02}"
        save(paint(rng, labels), folder / "images" / f"{name}.jpg", quality=92)
        path = folder / "masks" / f"{name}_mask.jpg"
        save(np.repeat(labels[..., None] * np.uint8(255), 3, 2), path, quality=90)
        assert np.array_equal(np.asarray(Image.open(path).convert("L")) > 127, labels > 0)
        truth.add(labels)
    (folder / "images" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    return truth


def build_cells(folder: Path) -> Truth:
    """Draw a microscope's grey images; beside each one numbers of cells as 16-bit PNG, as Cellpose wants them."""
    rng, truth = (
        np.random.default_rng(2),
        Truth(["background", "cell"], answers={"foreground": "cell", "object": "cell"}),
    )
    for split, count in (("train", 14), ("test", 5)):
        for number in range(count):
            things = draw_objects(rng, int(rng.integers(6, 11)), around=1)
            save(paint(rng, (things > 0).astype(int))[..., 1], folder / split / f"{number:03}_img.png")
            save(things, folder / split / f"{number:03}_masks.png")
            truth.add((things > 0).astype(np.uint8), split)
    return truth


def build_parcels(folder: Path) -> Truth:
    """Draw an archive unpacked on a Mac: a folder a parcel, colours in the masks, their legend in a CSV."""
    rng, truth = np.random.default_rng(3), Truth(["bare soil", "crop", "weed", "irrigation"])
    colors = np.array([[121, 85, 61], [46, 160, 67], [214, 39, 40], [31, 119, 180]], np.uint8)
    top = folder / "field_survey_2023"
    for number in rng.choice(range(100, 900), 18, replace=False):
        labels = draw_labels(rng, 4)
        save(paint(rng, labels), top / f"parcel_{number}" / "rgb.png")
        save(colors[labels], top / f"parcel_{number}" / "labels.png")
        truth.add(labels)
    rows = [[name, *color] for name, color in zip(truth.names, colors.tolist(), strict=True)]
    write_table(top / "class_dict.csv", [["name", "r", "g", "b"], *rows])
    (folder / "__MACOSX" / "field_survey_2023").mkdir(parents=True)
    (folder / "__MACOSX" / "field_survey_2023" / "._class_dict.csv").write_bytes(b"\x00\x05\x16\x07")
    return truth


def build_reef(folder: Path) -> Truth:
    """Draw photographs under water; colours in BMP files, no legend; one split for training and validation."""
    rng, truth = np.random.default_rng(4), Truth(["water", "diver", "wreck", "robot", "coral"])
    colors = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 255], [255, 0, 0], [255, 0, 255]], np.uint8)
    truth.answers = {f"color {bytes(color).hex()}": name for name, color in zip(truth.names, colors, strict=True)}
    for split, folder_name, letter, count in (("train", "train_val", "d_r", 14), ("test", "TEST", "d_t", 5)):
        for number in range(1, count + 1):
            labels = draw_labels(rng, 5)
            save(paint(rng, labels), folder / folder_name / "images" / f"{letter}_{number * 7}_.jpg", quality=95)
            save(colors[labels], folder / folder_name / "masks" / f"{letter}_{number * 7}_.bmp")
            truth.add(labels, split)
    return truth


def build_nuclei(folder: Path) -> Truth:
    """Draw a competition's folders: one an image, one mask file a nucleus; several sizes, test images without masks."""
    rng, truth = np.random.default_rng(5), Truth(["background", "object"])
    sizes = [(96, 96), (96, 128), (128, 96)]
    for number, name in enumerate(draw_names(rng, 21, 64)):
        things = draw_objects(rng, int(rng.integers(4, 8)), sizes[number % 3])
        alpha = np.full((*things.shape, 1), 255, np.uint8)
        top = folder / ("stage1_train" if number < 16 else "stage1_test") / name
        save(np.concatenate([paint(rng, (things > 0) * 4), alpha], 2), top / "images" / f"{name}.png")
        if number < 16:
            for thing, mask_name in enumerate(draw_names(rng, int(things.max()), 64), 1):
                save((things == thing) * np.uint8(255), top / "masks" / f"{mask_name}.png")
            truth.add((things > 0).astype(np.uint8))
    return truth


def build_retina(folder: Path) -> Truth:
    """Draw a clinic's set: a folder a finding, TIFF with a palette, and no file where the finding is absent."""
    rng, truth = np.random.default_rng(6), Truth(["background", "Haemorrhages", "Hard Exudates", "Optic Disc"])
    for split, count in (("train", 14), ("test", 6)):
        for number in range(1, count + 1):
            labels = draw_labels(rng, 4)
            absent = 1 + (number + 2) % 4
            labels[labels == absent] = 0
            image = paint(rng, labels)
            save(image, folder / split / "images" / f"IDR_{number:02}.jpg", quality=95)
            for value, short in ((1, "HE"), (2, "EX"), (3, "OD")):
                mask = Image.fromarray((labels == value).astype(np.uint8), "P")
                mask.putpalette([0, 0, 0, 255, 0, 0])
                path = folder / split / "masks" / truth.names[value] / f"IDR_{number:02}_{short}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                if value != absent:
                    mask.save(path)
            truth.add(labels, split)
    return truth


def trace_box(things: NDArray[np.uint16], thing: int) -> tuple[dict[str, object], NDArray[np.bool_]]:
    """Return a polygon with slanted sides inside a thing's box as COCO has it, and what COCO's own code fills of it."""
    rows, columns = np.nonzero(things == thing)
    top, bottom, left, right = (float(value) for value in (rows.min(), rows.max(), columns.min(), columns.max()))
    middle = (left + right) / 2
    polygon = [left + 0.5, top + 3.0, middle, top, right, top + 4.5, right - 2.25, bottom, left, bottom - 1.0]
    packed = coco_masks.frPyObjects([polygon], *things.shape)
    box, filled = coco_masks.toBbox(packed)[0].tolist(), coco_masks.decode(packed)[..., 0] > 0
    return {"segmentation": [polygon], "bbox": box, "area": int(filled.sum()), "iscrowd": 0}, filled


def build_litter(folder: Path) -> Truth:
    """Draw a labelling page's COCO export: an odd name beside the images of each split, category 0 unused."""
    rng, truth = np.random.default_rng(7), Truth(["background", "can", "bottle", "bag"])
    names = ["litter-on-the-beach", *truth.names[1:]]
    categories = [{"id": i, "name": n, "supercategory": "none" if i == 0 else names[0]} for i, n in enumerate(names)]
    for split, folder_name, count in (("train", "train", 14), ("validation", "valid", 5), ("test", "test", 4)):
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for number, ending in enumerate(draw_names(rng, count, 32)):
            things, labels = draw_objects(rng, 5), np.zeros((96, 128), np.uint8)
            for thing in range(1, int(things.max()) + 1):
                shape, filled = trace_box(things, thing)
                labels[filled] = category = 1 + thing % 3
                whose = {"id": len(annotations), "image_id": number, "category_id": category}
                annotations.append(whose | shape)
            name = f"beach_{number:04}_jpg.rf.{ending}.jpg"
            save(paint(rng, labels), folder / folder_name / name, quality=95)
            images.append({"id": number, "license": 1, "file_name": name, "height": 96, "width": 128})
            truth.add(labels, split)
        export = {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
        (folder / folder_name / "labels_beach_2024-03-11-04-22.json").write_text(json.dumps(export))
    return truth


def encode_runs(mask: NDArray[np.bool_]) -> str:
    """Return start and length of the runs of a mask down its columns, the first pixel being 1."""
    ends = np.flatnonzero(np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0))
    return " ".join(f"{start + 1} {end - start}" for start, end in ends.reshape(-1, 2))


def build_clouds(folder: Path) -> Truth:
    """Write a competition's table: a row for each image and class, empty where absent; test images without masks."""
    rng, truth = np.random.default_rng(8), Truth(["background", "Fish", "Flower", "Gravel", "Sugar"])
    header, rows, guesses = ["Image_Label", "EncodedPixels"], [], []
    for number, name in enumerate(draw_names(rng, 24, 7)):
        labels = draw_labels(rng, 5)
        labels[labels == 1 + number % 4] = 0
        save(paint(rng, labels), folder / ("train_images" if number < 18 else "test_images") / f"{name}.jpg")
        for value, kind in enumerate(truth.names[1:], 1):
            row = [f"{name}.jpg_{kind}", encode_runs(labels == value) if number < 18 else "1 1"]
            (rows if number < 18 else guesses).append(row)
        if number < 18:
            truth.add(labels)
    write_table(folder / "train.csv", [header, *rows])
    write_table(folder / "sample_submission.csv", [header, *guesses])
    return truth


def list_palette() -> Iterator[int]:
    """Yield red, green and blue of VOC's 256 colours: the bits of an index, dealt to the three channels in turn."""
    for index in range(256):
        for channel in range(3):
            yield sum(((index >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))


def build_scratches(folder: Path) -> Truth:
    """Draw what labelme's script makes for VOC: its folders and palette, arrays and drawings beside them, no lists."""
    rng, truth = np.random.default_rng(9), Truth(["_background_", "scratch", "dent", "rust"])
    palette = list(list_palette())
    for number in sorted(rng.choice(range(11, 400), 15, replace=False)):
        labels, name = draw_labels(rng, 4), f"DSC{number:05}"
        image = paint(rng, labels)
        mask = Image.fromarray(labels, "P")
        mask.putpalette(palette)
        save(image, folder / "JPEGImages" / f"{name}.jpg", quality=95)
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(folder / "SegmentationClass" / f"{name}.png")
        (folder / "SegmentationClassNpy").mkdir(exist_ok=True)
        np.save(folder / "SegmentationClassNpy" / f"{name}.npy", labels)
        drawn = (image // 2 + np.asarray(mask.convert("RGB")) // 2).astype(np.uint8)
        save(drawn, folder / "SegmentationClassVisualization" / f"{name}.jpg")
        truth.add(labels)
    (folder / "class_names.txt").write_text("\n".join(truth.names) + "\n")
    return truth


def build_slices(folder: Path) -> Truth:
    """Draw slices of a scanner: a folder a patient, 12 bits in 16-bit TIFF, ids whose names stand nowhere."""
    rng, truth = np.random.default_rng(10), Truth(["background", "liver", "tumour"])
    truth.answers = {f"value {value}": name for value, name in enumerate(truth.names)}
    for patient in (2, 5, 11, 17, 23, 31):
        for number in range(40, 43):
            labels = draw_labels(rng, 3)
            grey = paint(rng, labels).sum(2, dtype=np.uint16) * 4 + 700
            top, name = folder / f"pat{patient:03}", f"pat{patient:03}_sl{number:03}"
            (top / "img").mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(top / "img" / f"{name}.tif", grey)
            save(labels, top / "seg" / f"{name}_seg.png")
            truth.add(labels)
    return truth


FOLDERS: dict[str, Callable[[Path], Truth]] = {
    "potholes": build_potholes,
    "cells": build_cells,
    "parcels": build_parcels,
    "reef": build_reef,
    "nuclei": build_nuclei,
    "retina": build_retina,
    "litter": build_litter,
    "clouds": build_clouds,
    "scratches": build_scratches,
    "slices": build_slices,
}

"""Ten more small folders as other people leave theirs: published sets, competitions, labelling tools.

Names, encodings and stray files follow the originals; the pictures are drawn.
Nothing here knows how segplus reads a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 80, 112
Pixels = np.ndarray  # (HEIGHT, WIDTH), or (HEIGHT, WIDTH, 3)
PALE = [(90, 120, 150), (200, 80, 70), (80, 190, 90), (220, 210, 120), (120, 60, 160), (60, 200, 210), (240, 240, 240)]
BDD = ["road", "sidewalk", "building", "vegetation", "sky", "car"]
BDD_IDS = [0, 1, 2, 8, 10, 13]
BDD_COLORS = [(128, 64, 128), (244, 35, 232), (70, 70, 70), (107, 142, 35), (70, 130, 180), (0, 0, 142)]
DRONE = {
    "unlabeled": (0, 0, 0),
    "paved-area": (128, 64, 128),
    "dirt": (130, 76, 0),
    "grass": (0, 102, 0),
    "gravel": (112, 103, 87),
    "water": (28, 42, 168),
    "roof": (70, 70, 70),
    "conflicting": (255, 22, 96),
}


@dataclass
class Truth:
    """Pixels of each class a split, by mask value; `all` where there are no splits, no names where no file has them."""

    names: list[str] | None = None
    pixels: dict[str, Pixels] = field(default_factory=dict)

    def add(self, split: str, ids: Pixels, classes: int) -> None:
        counts = np.bincount(ids[ids < classes], minlength=classes)
        self.pixels[split] = self.pixels.get(split, np.zeros(classes, int)) + counts


Writer = Callable[[Path], Truth]


def draw(seed: int, classes: int, things: int = 5, size: tuple[int, int] = (6, 22)) -> tuple[Pixels, Pixels]:
    """Return class ids and the number of the ellipse that shows (0: none), none over another."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ids, numbers = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in range(1, 2 * things + 1):
        radius_y, radius_x = random.integers(*size, size=2)
        middle_y, middle_x = random.integers(12, HEIGHT - 12), random.integers(12, WIDTH - 12)
        inside = ((y - middle_y) / radius_y) ** 2 + ((x - middle_x) / radius_x) ** 2 < 1
        if (numbers[inside] > 0).any():
            continue
        ids[inside] = 1 + (number + seed) % (classes - 1)
        numbers[inside] = numbers.max() + 1
    return ids, numbers


def shade(ids: Pixels, seed: int) -> Image.Image:
    """Return a photograph of these classes: a colour each, light that falls off, noise."""
    random = np.random.default_rng(seed + 10_000)
    light = np.linspace(0.8 + 0.2 * random.random(), 1, WIDTH)[None, :, None]
    waves = 12 * np.sin(np.mgrid[:HEIGHT, :WIDTH][0] / random.uniform(3, 9) + random.uniform(0, 6))[..., None]
    colors = np.array(PALE)[ids % len(PALE)] * light + waves + random.normal(0, 9, (HEIGHT, WIDTH, 3))
    return Image.fromarray(colors.clip(0, 255).astype(np.uint8))


def save(image: Image.Image | Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path)


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_commutators(folder: Path) -> Truth:
    """Electrical commutators: a folder a part, `Part3.jpg` beside `Part3_label.bmp` (0 and 255), most of them sound."""
    truth = Truth()
    for index in range(12):
        ids, _ = draw(index, 2, 1, (3, 8)) if index % 3 == 0 else (np.zeros((HEIGHT, WIDTH), np.uint8), None)
        part = folder / f"kos{index // 3 + 1:02d}"
        save(shade(ids, index).convert("L"), part / f"Part{index % 3}.jpg")
        save(ids * 255, part / f"Part{index % 3}_label.bmp")
        truth.add("all", ids, 2)
    return truth


def write_glands(folder: Path) -> Truth:
    """Glands in histology: everything in one folder, `_anno` beside the image, numbers of glands, a table of grades."""
    truth, names = Truth(), [f"train_{n}" for n in range(1, 9)] + ["testA_1", "testA_2", "testB_1", "testB_2"]
    for index, name in enumerate(names):
        ids, numbers = draw(100 + index, 2, 7, (8, 16))
        save(shade(ids, index), folder / f"{name}.bmp")
        save(numbers, folder / f"{name}_anno.bmp")
        truth.add("all", ids, 2)
    write(
        folder / "Grade.csv",
        ["name, patient ID, grade (GlaS)"] + [f"{name}, {n}, benign" for n, name in enumerate(names)],
    )
    return truth


def write_land_cover(folder: Path) -> Truth:
    """Aerial tiles of towns and villages: Train/Urban/images_png, 0 is no data, 1 to 7 classes; Test has no masks."""
    truth = Truth()
    for split, count in (("Train", 4), ("Val", 2), ("Test", 2)):
        for place, start in (("Rural", 0), ("Urban", 3000)):
            for index in range(count):
                number = start + index + {"Train": 0, "Val": 2500, "Test": 4100}[split]
                ids = draw(number, 7, 9)[0] + 1
                ids[:, :5] = 0
                save(shade(ids, number), folder / split / place / "images_png" / f"{number}.png")
                if split != "Test":
                    save(ids, folder / split / place / "masks_png" / f"{number}.png")
                    truth.add({"Train": "train", "Val": "validation"}[split], ids, 8)
    return truth


def write_dashcam(folder: Path) -> Truth:
    """Dash cameras: images/10k/train, labels/sem_seg/masks/train with ids, colormaps/train with the same in colours."""
    truth = Truth()
    for split, count, first in (("train", 8, 200), ("val", 3, 220), ("test", 2, 230)):
        for index in range(count):
            seed = first + index
            ids = draw(seed, 6, 8)[0]
            ids[30:50, :60][ids[30:50, :60] == 0] = 1 + index % 5
            name = f"{seed * 7919:08x}-{seed * 104729:08x}"
            save(shade(ids, seed), folder / "images/10k" / split / f"{name}.jpg")
            if split == "test":
                continue
            hood = np.zeros_like(ids, bool)
            hood[-6:] = True
            values, colors = np.array(BDD_IDS, np.uint8)[ids], np.array(BDD_COLORS, np.uint8)[ids]
            values[hood], colors[hood] = 255, 0
            save(values, folder / "labels/sem_seg/masks" / split / f"{name}.png")
            save(colors, folder / "labels/sem_seg/colormaps" / split / f"{name}.png")
            truth.add({"train": "train", "val": "validation"}[split], np.where(hood, 255, ids), 6)
    return truth


def write_optic_discs(folder: Path) -> Truth:
    """Fundus photographs: the mask is 0 in the cup, 128 on the rim of the disc, 255 everywhere else."""
    truth = Truth()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for split, count, letter in (("train", 8, "g"), ("val", 3, "V"), ("test", 3, "T")):
        for index in range(count):
            random = np.random.default_rng(ord(letter) + 31 * index)
            distance = np.hypot(y - random.integers(30, 50), x - random.integers(30, 80))
            ids = np.digitize(distance, [random.uniform(6, 9), random.uniform(13, 17)]).astype(np.uint8)
            eye = shade(ids, ord(letter) + index)
            eye.paste((0, 0, 0), mask=Image.fromarray(np.hypot(y - 40, x - 56) > 50))
            save(eye, folder / "REFUGE2" / split / "images" / f"{letter}{index + 1:04d}.jpg")
            save(
                np.array([0, 128, 255], np.uint8)[ids],
                folder / "REFUGE2" / split / "mask" / f"{letter}{index + 1:04d}.bmp",
            )
            truth.add({"train": "train", "val": "validation", "test": "test"}[split], ids, 3)
    return truth


def write_rosettes(folder: Path) -> Truth:
    """Plants from above: `_rgb`, `_label` (numbers of leaves, a palette), `_fg` (one bit), `_centers` side by side."""
    truth = Truth()
    palette = list(np.random.default_rng(5).integers(0, 256, 768))
    for part in ("A1", "A2"):
        for index in range(1, 7):
            seed = 300 + 10 * int(part[1]) + index
            ids, numbers = draw(seed, 2, 6)
            labels = Image.fromarray(numbers)
            labels.putpalette([0, 0, 0, *palette[3:]])
            centers = np.zeros((HEIGHT, WIDTH), bool)
            for number in np.unique(numbers[numbers > 0]):
                centers[tuple(np.argwhere(numbers == number).mean(0).astype(int))] = True
            name = f"plant{index:03d}"
            save(shade(ids, seed), folder / part / f"{name}_rgb.png")
            save(labels, folder / part / f"{name}_label.png")
            save(Image.fromarray(ids.astype(bool)), folder / part / f"{name}_fg.png")
            save(Image.fromarray(centers), folder / part / f"{name}_centers.png")
            truth.add("all", ids, 2)
    return truth


def write_drones(folder: Path) -> Truth:
    """Drones, as a competition site repacked them: ids deep down, colours elsewhere, a legend with blanks."""
    truth = Truth(list(DRONE))
    colors = np.array(list(DRONE.values()), np.uint8)
    inner = folder / "dataset/semantic_drone_dataset"
    for index in range(10):
        ids = draw(400 + index, 8, 11)[0]
        save(shade(ids, 400 + index), inner / "original_images" / f"{index:03d}.jpg")
        save(ids, inner / "label_images_semantic" / f"{index:03d}.png")
        save(colors[ids], folder / "RGB_color_image_masks/RGB_color_image_masks" / f"{index:03d}.png")
        truth.add("all", ids, 8)
    rows = [f"{name}, {r}, {g}, {b}" for name, (r, g, b) in DRONE.items()]
    write(folder / "class_dict_seg.csv", ["name, r, g, b", *rows])
    return truth


def write_rf_masks(folder: Path) -> Truth:
    """Potholes from a labelling site: image and `_mask.png` side by side in train, valid, test; a legend in each."""
    truth = Truth(["background", "crack", "pothole"])
    for split, count, first in (("train", 8, 500), ("valid", 3, 520), ("test", 2, 530)):
        for index in range(count):
            seed = first + index
            ids = draw(seed, 3)[0]
            name = f"IMG_{seed:04d}_jpg.rf.{seed * 2654435761:032x}"
            save(shade(ids, seed), folder / split / f"{name}.jpg")
            save(ids, folder / split / f"{name}_mask.png")
            truth.add("validation" if split == "valid" else split, ids, 3)
        write(folder / split / "_classes.csv", ["Pixel Value, Class", "0, background", "1, crack", "2, pothole"])
    write(folder / "README.dataset.txt", ["# potholes > 2023-04-01", "Provided by a user", "License: CC BY 4.0"])
    return truth


def write_video_masks(folder: Path) -> Truth:
    """Frames of a video from a labelling tool: VOC's folders, `default.txt`, labelmap.txt, `.PNG`."""
    truth, colors = (
        Truth(["background", "belt", "bottle", "hand"]),
        [(0, 0, 0), (250, 50, 83), (51, 221, 255), (61, 61, 245)],
    )
    names = [f"frame_{index * 25:06d}" for index in range(12)]
    for index, name in enumerate(names):
        ids, numbers = draw(600 + index, 4)
        save(shade(ids, 600 + index), folder / "JPEGImages" / f"{name}.PNG")
        save(np.array(colors, np.uint8)[ids], folder / "SegmentationClass" / f"{name}.png")
        save(np.array([(0, 0, 0), *PALE], np.uint8)[numbers], folder / "SegmentationObject" / f"{name}.png")
        truth.add("all", ids, 4)
    write(folder / "ImageSets/Segmentation/default.txt", names)
    legend = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(truth.names or [], colors, strict=True)]
    write(folder / "labelmap.txt", ["# label:color_rgb:parts:actions", *legend])
    return truth


def write_cars(folder: Path) -> Truth:
    """Cars of a competition: GIF masks, run lengths along the rows besides, test images without masks, tables."""
    truth, runs, views = Truth(), ["img,rle_mask"], 4
    for index in range(16):
        ids = draw(700 + index, 2, 2, (14, 26))[0]
        name = f"{index // views * 7919 + 4096:012x}_{index % views + 1:02d}"
        if index >= 12:
            save(shade(ids, 700 + index), folder / "test" / f"{name}.jpg")
            continue
        mask = Image.fromarray(ids)
        mask.putpalette([0, 0, 0, 255, 255, 255])
        save(shade(ids, 700 + index), folder / "train" / f"{name}.jpg")
        save(mask, folder / "train_masks" / f"{name}_mask.gif")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], ids.ravel(), [0]]).astype(int))) + 1
        runs.append(f"{name}.jpg," + " ".join(f"{a} {b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True)))
        truth.add("all", ids, 2)
    write(folder / "train_masks.csv", runs)
    write(folder / "metadata.csv", ["id,year,make", "000000001000,2012,Acura"])
    write(folder / "sample_submission.csv", ["img,rle_mask", "000000006d0d_01.jpg,1 1"])
    return truth


WRITERS: list[Writer] = [
    write_commutators,
    write_glands,
    write_land_cover,
    write_dashcam,
    write_optic_discs,
    write_rosettes,
    write_drones,
    write_rf_masks,
    write_video_masks,
    write_cars,
]

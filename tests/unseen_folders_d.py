"""Ten small folders as public data sets, labelling tools and competitions leave them, each with its truth.

A builder fills a folder and returns its truth: what the values mean, every image's label (split -> stem of the file ->
(H, W)), and a value that may as well be ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 80, 112
Truth = tuple[dict[int, str], dict[str, dict[str, np.ndarray]], int]
VOC_COLORS = bytes(sum((i >> 3 * b + c & 1) << 7 - b for b in range(8)) for i in range(256) for c in range(3))


def add_ellipse(label: np.ndarray, rng: np.random.Generator, value: int, radius: tuple[float, float]) -> None:
    """Draw one ellipse of `value` in place, its axes between the two radii (pixels)."""
    height, width = label.shape
    a, b = rng.uniform(*radius, 2)
    y, x = rng.uniform(b + 2, height - b - 2), rng.uniform(a + 2, width - a - 2)
    rows, columns = np.mgrid[:height, :width]
    label[((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 <= 1] = value


def draw_regions(rng: np.random.Generator, values: list[int], seeds: int) -> np.ndarray:
    """Return fields (H, W), each point labelled as the nearest seed, every value used in turn."""
    points = rng.uniform((0, 0), (HEIGHT, WIDTH), (seeds, 2))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    nearest = ((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).argmin(-1)
    return np.asarray(rng.permutation(np.resize(values, seeds)), np.uint8)[nearest]


def draw_street(rng: np.random.Generator, values: dict[str, int]) -> np.ndarray:
    """Return a street seen from a car (H, W): sky, buildings, trees, road between pavements, cars, a pole."""
    label = np.full((HEIGHT, WIDTH), values["sky"], np.uint8)
    horizon = rng.integers(30, 40)
    left, right = rng.integers(20, 45, 2)
    label[rng.integers(8, 20) : horizon, :left] = values["building"]
    label[rng.integers(15, 25) : horizon, WIDTH - right :] = values["vegetation"]
    label[horizon:] = values["sidewalk"]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    road = np.abs(columns - WIDTH / 2 - rng.uniform(-10, 10)) < 8 + (rows - horizon) * 1.1
    label[road & (rows >= horizon)] = values["road"]
    for x, y, side in rng.integers((25, horizon, 6), (80, 60, 14), (rng.integers(1, 4), 3)):
        label[y : y + side, x : x + side * 3 // 2] = values["car"]
    label[horizon - 22 : horizon + 8, (x := rng.integers(5, WIDTH - 5)) : x + 2] = values["pole"]
    return label


def paint(label: np.ndarray, colors: dict[int, Any], rng: np.random.Generator, noise: float = 6) -> np.ndarray:
    """Return floats (H, W, channels): each value's colour, uneven light, a gain of this image, and noise."""
    table = np.zeros((256, len(next(iter(colors.values())))))
    table[list(colors)] = list(colors.values())
    rows, columns = np.mgrid[: label.shape[0], : label.shape[1]]
    light = 1 + 0.08 * np.sin(rows / rng.uniform(15, 40) + rng.uniform(0, 6)) * np.cos(columns / rng.uniform(15, 40))
    return np.asarray(rng.normal(table[label] * light[..., None] * rng.uniform(0.85, 1.1), noise))


def read_colors(text: str) -> list[Any]:
    """Return the (red, green, blue) of colours written as six digits each."""
    return [tuple(bytes.fromhex(color)) for color in text.split()]


def save(path: Path, array: np.ndarray, palette: bytes = b"", **options: Any) -> None:
    """Write an image with Pillow, its folder first; floats are clipped to 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.clip(array, 0, 255).astype(np.uint8) if array.dtype == float else array)
    if palette:
        image.putpalette(palette)
    image.save(path, **options)


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def build_kitti(root: Path, rng: np.random.Generator) -> Truth:
    """Write KITTI's semantics: ids, colours and instances (16 bits) beside each other, test images without any."""
    ids = {"road": 7, "sidewalk": 8, "building": 11, "pole": 17, "vegetation": 21, "sky": 23, "car": 26}
    looks = dict(zip(ids.values(), read_colors("5a585c 968c87 78503c 3c3e3c 325f28 bed2eb 8c191e"), strict=True))
    codes = np.zeros((256, 3), np.uint8)
    codes[list(ids.values())] = read_colors("804080 f423e8 464646 999999 6b8e23 4682b4 00008e")
    labels = {}
    for number in range(12):
        label, name = draw_street(rng, ids), f"{number:06d}_10.png"
        labels[name[:-4]] = label
        save(root / "training/image_2" / name, paint(label, looks, rng))
        save(root / "training/semantic" / name, label)
        save(root / "training/semantic_rgb" / name, codes[label])
        save(root / "training/instance" / name, label.astype(np.uint16) * 256 + (label == 26))
    for number in range(4):
        save(root / "testing/image_2" / f"{number:06d}_10.png", paint(draw_street(rng, ids), looks, rng))
    return {value: name for name, value in ids.items()}, {"train": labels}, 255


def build_paddleseg(root: Path, rng: np.random.Generator) -> Truth:
    """Write a road data set as PaddleSeg trains on it: palettes, pairs listed a split, names in labels.txt."""
    names = ["background", "road", "sidewalk", "building", "vegetation", "car"]
    ids = {name: index for index, name in enumerate(names)} | {"sky": 0, "pole": 0}
    looks = dict(enumerate(read_colors("c8d7eb 55555a 9b9187 7d5541 2d642d 192882")))
    splits = {}
    stems = [f"{seconds}" for seconds in rng.permutation(np.arange(1618231000, 1618231700, 43))[:16]]
    for split, part in {"train": stems[:10], "validation": stems[10:13], "test": stems[13:]}.items():
        splits[split] = {stem: draw_street(rng, ids) for stem in part}
        for stem, label in splits[split].items():
            save(root / f"images/{stem}.jpg", paint(label, looks, rng), quality=95)
            save(root / f"labels/{stem}.png", label, VOC_COLORS)
        lines = [f"images/{stem}.jpg labels/{stem}.png" for stem in part]
        write_lines(root / f"{split.removesuffix('idation')}.txt", lines)
    write_lines(root / "labels.txt", names)
    return dict(enumerate(names)), splits, 255


def build_lgg(root: Path, rng: np.random.Generator) -> Truth:
    """Write brain MRI slices as LGG's archive has them: a folder a patient, x.tif beside x_mask.tif, a table."""
    looks = {0: (3, 3, 4), 1: (75, 70, 80), 2: (95, 160, 100)}
    labels, table = {}, ["Patient,RNASeqCluster,age_at_initial_pathologic,death01"]
    for patient in ["CS_4941_19960909", "CS_5393_19990606", "DU_5849_19950405", "FG_6688_20020215", "HT_7473_19970826"]:
        table.append(f"TCGA_{patient[:7]},{rng.integers(1, 5)},{rng.integers(20, 75)},0")
        for number in (8, 9, 10):
            label = np.zeros((96, 96), np.uint8)
            add_ellipse(label, rng, 1, (33, 40))
            if number > 8:
                add_ellipse(label[32:64, 32:64], rng, 2, (5, 9))
            stem = f"TCGA_{patient}_{number}"
            labels[stem] = np.asarray(label == 2, np.uint8)
            save(root / f"kaggle_3m/TCGA_{patient}/{stem}.tif", paint(label, looks, rng, 5))
            save(root / f"kaggle_3m/TCGA_{patient}/{stem}_mask.tif", labels[stem] * np.uint8(255))
    write_lines(root / "kaggle_3m/data.csv", table)
    return {0: "background", 1: "tumour"}, {"train": labels}, 255


def build_nnunet(root: Path, rng: np.random.Generator) -> Truth:
    """Write chest radiographs as nnU-Net has them: imagesTr with a channel's number, labelsTr, dataset.json."""
    looks = {0: (150,), 1: (55,), 2: (70,), 3: (205,)}
    names = {0: "background", 1: "right_lung", 2: "left_lung", 3: "heart"}
    splits: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}}
    for number in range(1, 16):
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        add_ellipse(label[10:76, 8:54], rng, 1, (13, 18))
        add_ellipse(label[10:76, 58:104], rng, 2, (13, 18))
        add_ellipse(label[34:74, 44:84], rng, 3, (9, 13))
        split, folder = ("train", "Tr") if number < 12 else ("test", "Ts")
        splits[split][f"chest_{number:03d}"] = label
        save(root / f"images{folder}/chest_{number:03d}_0000.png", paint(label, looks, rng)[..., 0])
        save(root / f"labels{folder}/chest_{number:03d}.png", label)
    described = {"channel_names": {"0": "xray"}, "labels": {name: value for value, name in names.items()}}
    write_lines(root / "dataset.json", [json.dumps(described | {"numTraining": 11, "file_ending": ".png"}, indent=4)])
    return names, splits, 255


def build_cellpose(root: Path, rng: np.random.Generator) -> Truth:
    """Write a microscope's 12-bit images (uint16 TIFF), and what Cellpose saves beside: masks, _seg.npy, outlines."""
    labels = {}
    for stem in [f"{well}_f{field:02d}" for well in ("B02", "B03", "C02", "C03", "D02", "D03") for field in (1, 2)]:
        numbers = np.zeros((HEIGHT, WIDTH), np.uint16)
        cells = rng.permutation([(row, column) for row in range(3) for column in range(5)])[: rng.integers(9, 15)]
        for number, (row, column) in enumerate(cells, 1):
            add_ellipse(numbers[row * 26 + 1 :, column * 22 + 1 :][:25, :21], rng, number, (5, 8))
        bright = 240 + rng.uniform(700, 2400, 20)[numbers] * (numbers > 0) + rng.normal(0, 35, numbers.shape)
        tifffile.imwrite(root / f"{stem}.tif", np.clip(bright, 0, 4095).astype(np.uint16))
        save(root / f"{stem}_cp_masks.png", numbers)
        np.save(root / f"{stem}_seg.npy", np.array({"masks": numbers, "filename": f"{stem}.tif", "diameter": 14.0}))
        points = [np.argwhere(numbers == number + 1)[::5].ravel() for number in range(len(cells))]
        write_lines(root / f"{stem}_cp_outlines.txt", [",".join(map(str, outline)) for outline in points])
        labels[stem] = np.asarray(numbers > 0, np.uint8)
    return {0: "background", 1: "cell"}, {"train": labels}, 255


def build_label_studio(root: Path, rng: np.random.Generator) -> Truth:
    """Write parts with polygons as Label Studio exports them for COCO: result.json, uploads in images/, category 0."""
    looks = {0: (165, 168, 172), 1: (95, 90, 88), 2: (160, 90, 45)}
    labels, images, annotations = {}, [], []
    for number in range(14):
        label, stem = np.zeros((HEIGHT, WIDTH), np.uint8), f"{rng.integers(16**8):08x}-part_{number + 1:04d}"
        for category in rng.permutation(2)[: rng.integers(0, 3)]:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
            middle = np.array([30.5 if category else 81.5, 40]) + rng.uniform(-8, 8, 2)
            outline = middle + rng.uniform(8, 16, 2) * np.stack([np.cos(angles), np.sin(angles)], 1)
            drawn = coco_mask.frPyObjects([outline.ravel().tolist()], HEIGHT, WIDTH)
            label[coco_mask.decode(drawn)[..., 0] > 0] = category + 1
            shape = {"segmentation": [outline.ravel().tolist()], "bbox": coco_mask.toBbox(drawn)[0].tolist()}
            place = {"id": len(annotations), "image_id": number, "category_id": int(category)}
            annotations.append({**place, **shape, "area": float(coco_mask.area(drawn)[0]), "ignore": 0, "iscrowd": 0})
        labels[stem] = label
        images.append({"width": WIDTH, "height": HEIGHT, "id": number, "file_name": f"images/{stem}.jpg"})
        save(root / f"images/{stem}.jpg", paint(label, looks, rng), quality=92)
    content = {"images": images, "categories": [{"id": 0, "name": "dent"}, {"id": 1, "name": "rust"}]}
    content |= {"annotations": annotations, "info": {"contributor": "Label Studio"}}
    write_lines(root / "result.json", [json.dumps(content)])
    return {0: "background", 1: "dent", 2: "rust"}, {"train": labels}, 0


def build_labelme2voc(root: Path, rng: np.random.Generator) -> Truth:
    """Write what labelme2voc makes: VOC's skeleton without lists, palettes with 255, arrays, class_names.txt."""
    looks = dict(zip([0, 1, 2, 3, 255], read_colors("3c6e3c aaaaaf b9963c 1e1e22 dc3c3c"), strict=True))
    names = ["_background_", "resistor", "capacitor", "chip"]
    colors = np.frombuffer(VOC_COLORS, np.uint8).reshape(256, 3)
    (root / "SegmentationClassNpy").mkdir()
    labels = {}
    for number in range(12):
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        label[20 + number : 42 + number, 40 : 70 + number] = 3
        for value in (1, 1, 1, 2, 2, 255):
            add_ellipse(label, rng, value, (4, 7))
        stem, image = f"board_{number + 1:02d}", paint(label, looks, rng)
        labels[stem] = label
        save(root / f"JPEGImages/{stem}.jpg", image)
        save(root / f"SegmentationClass/{stem}.png", label, VOC_COLORS)
        save(root / f"SegmentationClassVisualization/{stem}.jpg", 0.5 * image + 0.5 * colors[label])
        np.save(root / f"SegmentationClassNpy/{stem}.npy", np.where(label == 255, -1, label).astype(np.int32))
    write_lines(root / "class_names.txt", names)
    return dict(enumerate(names)), {"train": labels}, 255


def build_deepglobe(root: Path, rng: np.random.Generator) -> Truth:
    """Write land cover as DeepGlobe has it: x_sat.jpg, x_mask.png in colours, splits without masks, two tables."""
    names = ["urban_land", "agriculture_land", "rangeland", "forest_land", "water", "barren_land", "unknown"]
    codes = np.array(read_colors("00ffff ffff00 ff00ff 00ff00 0000ff ffffff 000000"), np.uint8)
    looks = dict(enumerate(read_colors("8c8282 788746 968c5a 284628 233755 beaa8c ebebf0")))
    table, labels = ["image_id,split,sat_image_path,mask_path"], {}
    for number in np.sort(rng.choice(np.arange(100, 999900), 16, replace=False)):
        split = ["train", "valid", "test"][int(len(table) > 10) + int(len(table) > 13)]
        label = draw_regions(rng, [0, 1, 1, 2, 3, 4, 5], 12)
        if len(table) % 4 == 1:
            add_ellipse(label, rng, 6, (5, 9))
        save(root / f"{split}/{number}_sat.jpg", paint(label, looks, rng))
        mask = f"train/{number}_mask.png" if split == "train" else ""
        table.append(f"{number},{split},{split}/{number}_sat.jpg,{mask}")
        if mask:
            labels[str(number)] = label
            save(root / mask, codes[label])
    write_lines(root / "metadata.csv", table)
    legend = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(names, codes, strict=True)]
    write_lines(root / "class_dict.csv", ["name,r,g,b", *legend])
    return dict(enumerate(names)), {"train": labels}, 6


def build_arcgis(root: Path, rng: np.random.Generator) -> Truth:
    """Write ArcGIS's "classified tiles": uint16 reflectance, four bands, ids with 0 for unlabelled, an .emd."""
    bands = {0: (1500, 1700, 1900, 2300), 1: (700, 600, 400, 250), 2: (350, 550, 400, 3300),
             3: (1600, 1800, 2100, 2400), 4: (800, 1100, 1200, 2800)}  # fmt: skip
    names = {1: "Water", 2: "Forest", 3: "Built-up", 4: "Cropland"}
    labels, lines = {}, []
    (root / "images").mkdir()
    for number in range(12):
        label = draw_regions(rng, [1, 2, 3, 4, 4], 8)
        label[: rng.integers(4, 9)] = 0
        image = np.clip(paint(label, bands, rng, 60), 1, 10000).astype(np.uint16)
        name = f"{number:012d}.tif"
        place = [(33550, "d", 3, (10.0, 10.0, 0.0)), (33922, "d", 6, (0, 0, 0, 399960.0 + 960 * number, 5300040.0, 0))]
        options = {"photometric": "minisblack", "planarconfig": "contig", "extratags": place}
        tifffile.imwrite(root / "images" / name, image, **options)
        save(root / "labels" / name, label, compression="tiff_lzw")
        labels[name[:-4]] = label
        lines.append(f"images\\{name}  labels\\{name}")
    write_lines(root / "map.txt", lines)
    classes = [{"Value": value, "Name": name, "Color": [60 * value, 200, 90]} for value, name in names.items()]
    described = {"ImageHeight": 80, "ImageWidth": 112, "MetaDataMode": "Classified_Tiles", "Classes": classes}
    write_lines(root / "esri_model_definition.emd", [json.dumps(described, indent=2)])
    return {0: "unlabelled", **names}, {"train": labels}, 0


def build_clouds(root: Path, rng: np.random.Generator) -> Truth:
    """Write cloud forms as a competition has them: run lengths, four rows an image, the class behind its name."""
    looks = dict(enumerate(read_colors("23375a c8cdd7 ebebeb 96a0af 7387a5")))
    names = ["Fish", "Flower", "Gravel", "Sugar"]
    train, sample, labels = ["Image_Label,EncodedPixels"], ["Image_Label,EncodedPixels"], {}
    for index in range(16):
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        stem = f"{rng.integers(16**7):07x}"
        for value in rng.permutation([1, 2, 3, 4])[: rng.integers(1, 4)]:
            add_ellipse(label, rng, value, (12, 22))
        for value, name in enumerate(names, 1):
            edges = np.flatnonzero(np.diff((label == value).ravel(order="F").astype(int), prepend=0, append=0))
            runs = " ".join(f"{start + 1} {end - start}" for start, end in edges.reshape(-1, 2))
            (train if index < 12 else sample).append(f"{stem}.jpg_{name},{runs if index < 12 else '1 1'}")
        labels |= {stem: label} if index < 12 else {}
        folder = "train_images" if index < 12 else "test_images"
        save(root / folder / f"{stem}.jpg", paint(label, looks, rng), quality=92)
    write_lines(root / "train.csv", train)
    write_lines(root / "sample_submission.csv", sample)
    return dict(enumerate(["background", *names])), {"train": labels}, 255


BUILDERS: dict[str, Any] = {name[6:]: build for name, build in list(globals().items()) if name.startswith("build_")}


def make_folder(name: str, root: Path) -> Truth:
    """Make the folder `root` of one of BUILDERS, the same at every call, and return its truth."""
    root.mkdir(parents=True)
    return BUILDERS[name](root, np.random.default_rng(401 + list(BUILDERS).index(name)))

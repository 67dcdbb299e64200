"""Ten more small folders as public data sets and labelling tools leave them, by somebody who has not read the proposal.

Each function fills a folder and returns its truth: the pixels of each class in each split, keyed by class names where a
file of the folder has them, otherwise by the values in the masks. A folder that is not divided has the one split `all`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from drawn_photographs import STREET, blob, count, draw_street, paint, save
from PIL import Image
from pycocotools import mask as coco_masks

Truth = dict[str, dict[str | int, int]]
CAMVID = (  # the ids are the places in this list
    "Animal", "Archway", "Bicyclist", "Bridge", "Building", "Car", "CartLuggagePram", "Child", "Column_Pole", "Fence",
    "LaneMkgsDriv", "LaneMkgsNonDriv", "Misc_Text", "MotorcycleScooter", "OtherMoving", "ParkingBlock", "Pedestrian",
    "Road", "RoadShoulder", "Sidewalk", "SignSymbol", "Sky", "SUVPickupTruck", "TrafficCone", "TrafficLight", "Train",
    "Tree", "Truck_Bus", "Tunnel", "VegetationMisc", "Void", "Wall",
)  # fmt: skip


def write_kvasir(folder: Path, rng: np.random.Generator) -> Truth:
    """Polyps: colour JPEG masks of images of several sizes, boxes in a JSON beside them."""
    colors, masks, boxes = [(8, 8, 8), (175, 85, 70), (215, 130, 100)], [], {}
    for _ in range(12):
        name = "cju" + "".join(rng.choice(list("0123456789abcdefghijklmnopqrstuvwxyz"), 22))
        height, width = ((80, 112), (88, 104), (96, 112))[rng.integers(3)]
        center = (rng.uniform(0.35, 0.65) * height, rng.uniform(0.35, 0.65) * width)
        mask = blob(rng, (height, width), center, rng.uniform(12, 24))
        labels = mask + 1
        labels[:4], labels[-4:], labels[:, :6], labels[:, -6:] = 0, 0, 0, 0
        masks.append((labels == 2) * np.uint8(255))
        save(paint(rng, labels, colors), folder / "images" / f"{name}.jpg", quality=92)
        save(np.repeat(masks[-1][..., None], 3, axis=2), folder / "masks" / f"{name}.jpg", quality=95)
        rows, columns = (side.tolist() for side in np.nonzero(masks[-1]))
        box = {"label": "polyp", "xmin": min(columns), "ymin": min(rows), "xmax": max(columns), "ymax": max(rows)}
        boxes[name] = {"height": height, "width": width, "bbox": [box]}
    (folder / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    return {"all": count(masks)}


def write_lgg(folder: Path, rng: np.random.Generator) -> Truth:
    """Brain MRI: a folder a patient, TIFF slices with their masks beside them; half of the slices show no tumour."""
    masks, table = [], ["Patient,RNASeqCluster,MethylationCluster,gender,age_at_initial_pathologic,death01"]
    for patient in ("CS_4941_19960909", "DU_5849_19950405", "FG_6688_20020215", "HT_7473_19970826"):
        home = folder / "kaggle_3m" / f"TCGA_{patient}"
        brain, lesion = rng.uniform(45, 51, 2), rng.uniform(36, 60, 2)
        for number in range(9, 13):
            labels = blob(rng, (96, 96), brain, rng.uniform(30, 35)).astype(np.uint8)
            if number in (10, 11):
                labels[blob(rng, (96, 96), lesion, rng.uniform(5, 10))] = 2
            image = paint(rng, labels, [(2, 2, 3), (75, 70, 80), (90, 150, 95)], noise=5)
            save(image, home / f"TCGA_{patient}_{number}.tif")
            masks.append((labels == 2) * np.uint8(255))
            save(masks[-1], home / f"TCGA_{patient}_{number}_mask.tif")
        table.append(f"TCGA_{patient[:7]},{rng.integers(1, 5)},{rng.integers(1, 6)},1,{rng.integers(30, 70)},0")
    (folder / "kaggle_3m" / "data.csv").write_text("\n".join(table) + "\n")
    (folder / "kaggle_3m" / "README.md").write_text("LGG segmentation: slices and FLAIR abnormality masks.\n")
    return {"all": count(masks)}


def write_refuge(folder: Path, rng: np.random.Generator) -> Truth:
    """Fundus photographs: BMP masks in which 255 is the background, 128 the optic disc and 0 its cup."""
    colors, truth = [(3, 3, 3), (165, 80, 40), (215, 150, 80), (245, 220, 150)], {}
    rows, columns = np.mgrid[:96, :112]
    splits = (("train", "train", "ggggnnnn"), ("validation", "val", "VVVV"), ("test", "test", "TTTT"))
    for ours, split, letters in splits:
        masks = []
        for number, letter in enumerate(letters, 1):
            labels = (np.hypot(rows - 48, columns - 56) < 46).astype(np.uint8)
            center = (rng.uniform(38, 58), rng.uniform(32, 80))
            labels[blob(rng, labels.shape, center, rng.uniform(10, 13))] = 2
            labels[np.hypot(rows - center[0], columns - center[1]) < rng.uniform(4, 7)] = 3
            name = f"{letter}{number:04d}"
            save(paint(rng, labels, colors, noise=5), folder / split / "images" / f"{name}.jpg", quality=92)
            masks.append(np.array([255, 255, 128, 0], np.uint8)[labels])
            save(masks[-1], folder / split / "mask" / f"{name}.bmp")
        truth[ours] = count(masks)
    return truth


def write_cell_tracking(folder: Path, rng: np.random.Generator) -> Truth:
    """Two sequences of 16-bit frames; SEG holds the numbers of cells, TRA markers of these numbers in their middles."""
    masks = []
    for sequence in ("01", "02"):
        places = [(13 + 26 * row, 14 + 28 * column) for row in range(3) for column in range(4)]
        centers = enumerate((places[index] + rng.uniform(-2, 2, 2) for index in rng.permutation(12)[:8]), 1)
        cells = {number: (center, rng.uniform(7, 9), rng.uniform(600, 1200)) for number, center in centers}
        for frame in range(8):
            if frame == 4:  # cell 3 divides
                center, _, light = cells.pop(3)
                cells |= {9: (center - [0, 6], 5, light), 10: (center + np.array([0, 6]), 5, light)}
            (segments, markers), image = np.zeros((2, 80, 112), np.uint16), rng.normal(180, 12, (80, 112))
            for number, (center, radius, light) in cells.items():
                center += rng.uniform(-0.5, 0.5, 2)
                inside = blob(rng, image.shape, center, radius) & (segments == 0)
                segments[inside] = number
                markers[blob(rng, image.shape, center, 3) & inside] = number
                image[inside] += light + rng.normal(0, 40, inside.sum())
            save(image.astype(np.uint16), folder / sequence / f"t{frame:03d}.tif")
            save(segments, folder / f"{sequence}_GT" / "SEG" / f"man_seg{frame:03d}.tif")
            save(markers, folder / f"{sequence}_GT" / "TRA" / f"man_track{frame:03d}.tif")
            masks.append(segments > 0)
        tracks = [f"{number} 0 {3 if number == 3 else 7} 0\n" for number in range(1, 9)] + ["9 4 7 3\n", "10 4 7 3\n"]
        (folder / f"{sequence}_GT" / "TRA" / "man_track.txt").write_text("".join(tracks))
    return {"all": count(masks)}


def write_kitti(folder: Path, rng: np.random.Generator) -> Truth:
    """Driving: Cityscapes' ids, the same as colours and as id * 256 + number of the car; test images without masks."""
    ids, masks = np.array([23, 11, 21, 7, 8, 26, 17, 4], np.uint8), []
    colors = "4682b4 464646 6b8e23 804080 f423e8 00008e 999999 000000"
    palette = np.frombuffer(bytes.fromhex(colors), np.uint8).reshape(8, 3)
    for index in range(17):
        labels, cars = draw_street(rng, 64, 176)
        home, name = folder / ("training" if index < 12 else "testing"), f"{index % 12:06d}_10.png"
        save(paint(rng, labels, STREET.values()), home / "image_2" / name)
        if index < 12:
            masks.append(ids[labels])
            save(masks[-1], home / "semantic" / name)
            save(palette[labels], home / "semantic_rgb" / name)
            save(masks[-1].astype(np.uint16) * 256 + cars, home / "instance" / name)
    return {"all": count(masks)}


def write_camvid(folder: Path, rng: np.random.Generator) -> Truth:
    """Driving, as a course hands it out: ids, a list of 32 names, and a list of the images for validation."""
    drawn = ["Sky", "Building", "Tree", "Road", "Sidewalk", "Car", "Column_Pole", "Void"]
    ids = np.array([CAMVID.index(name) for name in drawn], np.uint8)
    train = [f"0001TP_{number:06d}" for number in range(6690, 6870, 30)]
    train += [f"Seq05VD_f{number:05d}" for number in range(0, 150, 30)]
    valid, masks = [f"0016E5_{number:05d}" for number in range(7959, 8079, 30)], {}
    for stem in train + valid:
        labels, _ = draw_street(rng, 80, 112)
        save(paint(rng, labels, STREET.values()), folder / "images" / f"{stem}.png")
        masks[stem] = ids[labels]
        save(masks[stem], folder / "labels" / f"{stem}_P.png")
    (folder / "codes.txt").write_text("\n".join(CAMVID))
    (folder / "valid.txt").write_text("".join(f"{stem}.png\n" for stem in valid))
    split = {"train": train, "validation": valid}
    return {name: count([masks[stem] for stem in stems], CAMVID) for name, stems in split.items()}


def write_labelme_voc(folder: Path, rng: np.random.Generator) -> Truth:
    """Metal sheets as labelme's VOC script writes them: palette masks, arrays, drawings, objects, and the names."""
    names, masks = ["_background_", "scratch", "dent", "stain"], []
    index, palette = np.arange(256)[:, None], np.zeros((256, 3), int)
    for bit in range(8):
        palette |= ((index >> (3 * bit + np.arange(3))) & 1) << (7 - bit)
    rows, columns = np.mgrid[:80, :112]
    for number in range(14):
        (classes, objects), name = np.zeros((2, 80, 112), np.uint8), f"IMG_{4021 + 3 * number}"
        for thing in range(1, rng.integers(2, 5)):
            kind, center, angle = int(rng.integers(1, 4)), rng.uniform((15, 15), (65, 97)), rng.uniform(0, np.pi)
            inside = blob(rng, classes.shape, center, rng.uniform(6, 11))
            if kind == 1:
                along = (rows - center[0]) * np.sin(angle) + (columns - center[1]) * np.cos(angle)
                across = (rows - center[0]) * np.cos(angle) - (columns - center[1]) * np.sin(angle)
                inside = (np.abs(along) < 16) & (np.abs(across) < 1.6)
            classes[inside], objects[inside] = kind, thing
        image = paint(rng, classes, [(140, 142, 148), (225, 228, 232), (70, 68, 72), (150, 110, 60)], noise=6)
        save(image, folder / "JPEGImages" / f"{name}.jpg", quality=92)
        for kind_of_mask, mask in (("SegmentationClass", classes), ("SegmentationObject", objects)):
            overlay = (image * 0.5 + palette[mask] * 0.5).astype(np.uint8)
            save(overlay, folder / f"{kind_of_mask}Visualization" / f"{name}.jpg")
            for ending in ("", "Npy"):
                (folder / f"{kind_of_mask}{ending}").mkdir(exist_ok=True)
            np.save(folder / f"{kind_of_mask}Npy" / f"{name}.npy", mask.astype(np.int32))
            picture = Image.fromarray(mask)
            picture.putpalette(palette.astype(np.uint8).tobytes())
            picture.save(folder / kind_of_mask / f"{name}.png")
        masks.append(classes)
    (folder / "class_names.txt").write_text("\n".join(names))
    return {"all": count(masks, names)}


def write_label_studio(folder: Path, rng: np.random.Generator) -> Truth:
    """Bridges in Label Studio's COCO export: polygons, categories from 0, paths with their folder, one empty image."""
    names, radii, masks = ["background", "bolt", "corrosion", "weld"], {1: 7, 2: 15, 3: 10}, []
    images, annotations = [], []
    for number in range(12):
        labels = np.zeros((80, 112), np.uint8)
        for third in range(3 if number != 5 else 0):
            kind, center = int(rng.integers(1, 4)), (19 + 37 * third + rng.uniform(-2, 2), rng.uniform(22, 58))
            angles = np.linspace(0, 2 * np.pi, 11)[:-1] + rng.uniform(0, 0.4, 10)
            reach = radii[kind] * rng.uniform(0.75, 1.05, (10, 1))
            polygon = (center + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel().tolist()
            runs = coco_masks.merge(coco_masks.frPyObjects([polygon], 80, 112))
            labels[coco_masks.decode(runs) > 0] = kind
            entry = {"id": len(annotations), "image_id": number, "category_id": kind - 1, "segmentation": [polygon]}
            entry |= {"bbox": coco_masks.toBbox(runs).tolist(), "area": float(coco_masks.area(runs))}
            annotations.append(entry | {"ignore": 0, "iscrowd": 0})
        name = f"images/{rng.integers(16**8):08x}-bridge_{number:03d}.jpg"
        images.append({"width": 112, "height": 80, "id": number, "file_name": name})
        image = paint(rng, labels, [(120, 130, 125), (60, 62, 66), (150, 85, 45), (190, 190, 195)])
        save(image, folder / name, quality=92)
        masks.append(labels)
    result = {
        "images": images,
        "categories": [{"id": index, "name": name} for index, name in enumerate(names[1:])],
        "annotations": annotations,
        "info": {"year": 2024, "version": "1.0", "contributor": "Label Studio", "date_created": "2024-05-21 09:12:44"},
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2))
    return {"all": count(masks, names)}


def write_deepglobe(folder: Path, rng: np.random.Generator) -> Truth:
    """Land cover: colours and their table, a list of all files; only the training images have masks."""
    names = ["urban_land", "agriculture_land", "rangeland", "forest_land", "water", "barren_land", "unknown"]
    palette = np.frombuffer(bytes.fromhex("00ffff ffff00 ff00ff 00ff00 0000ff ffffff 000000"), np.uint8).reshape(7, 3)
    looks = np.frombuffer(bytes.fromhex("969196 8c874b 6e7846 284628 233c5a beaa8c e6e8eb"), np.uint8).reshape(7, 3)
    rows, columns = np.mgrid[:96, :96]
    masks, table = [], [("image_id", "split", "sat_image_path", "mask_path")]
    for split, number in (("train", 12), ("valid", 3), ("test", 3)):
        for image_id in rng.choice(900000, number, replace=False) + 1000:
            kinds = np.append(rng.integers(0, 6, 6), 6 if rng.random() < 0.3 else 3)
            labels = kinds[np.argmin([np.hypot(rows - y, columns - x) for y, x in rng.uniform(0, 96, (7, 2))], axis=0)]
            image, mask = f"{split}/{image_id}_sat.jpg", f"{split}/{image_id}_mask.png" if split == "train" else ""
            save(paint(rng, labels, looks, noise=9), folder / image, quality=92)
            table.append((image_id, split, image, mask))
            if mask:
                masks.append(labels)
                save(palette[labels], folder / mask)
    legend = [("name", "r", "g", "b"), *((name, *color) for name, color in zip(names, palette.tolist(), strict=True))]
    for file, lines in (("metadata.csv", table), ("class_dict.csv", legend)):
        with (folder / file).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(lines)
    return {"all": count(masks, names)}


def write_burn_scars(folder: Path, rng: np.random.Generator) -> Truth:
    """Satellite scenes of six float bands (-9999: no data) beside masks of -1 (missing), 0 and 1."""
    land, burned = [0.04, 0.07, 0.08, 0.28, 0.2, 0.12], [0.04, 0.05, 0.07, 0.12, 0.22, 0.2]
    truth: Truth = {}
    for ours, split, number in (("train", "training", 9), ("validation", "validation", 4)):
        masks = []
        (folder / split).mkdir(parents=True)
        for index in range(number):
            mask = np.zeros((96, 96), np.int16)
            for _ in range(rng.integers(1, 3)):
                mask[blob(rng, mask.shape, rng.uniform(25, 71, 2), rng.uniform(9, 20))] = 1
            scene = np.array([land, burned])[mask] * rng.uniform(0.85, 1.15) + rng.normal(0, 0.012, (96, 96, 6))
            scene = scene.clip(0.0001, 1).astype(np.float32)
            if index % 4 == 3:
                missing = np.add.outer(np.arange(96), np.arange(96)) < rng.integers(30, 50)
                mask[missing], scene[missing] = -1, -9999
            tile = f"T{rng.integers(10, 20)}SDJ.{rng.integers(2018, 2022)}{rng.integers(150, 300)}"
            stem = folder / split / f"subsetted_512x512_HLS.S30.{tile}.v1.4"
            tifffile.imwrite(f"{stem}_merged.tif", scene, planarconfig="contig", photometric="minisblack")
            tifffile.imwrite(f"{stem}.mask.tif", mask)
            masks.append(mask)
        truth[ours] = count(masks)
        truth[ours]["ignored"] = truth[ours].pop(-1)
    return truth


FOLDERS: dict[str, Callable[[Path, np.random.Generator], Truth]] = {
    "kvasir": write_kvasir,
    "lgg": write_lgg,
    "refuge": write_refuge,
    "cell_tracking": write_cell_tracking,
    "kitti": write_kitti,
    "camvid": write_camvid,
    "labelme_voc": write_labelme_voc,
    "label_studio": write_label_studio,
    "deepglobe": write_deepglobe,
    "burn_scars": write_burn_scars,
}

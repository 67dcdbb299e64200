"""The layouts of the known benchmarks: Pascal VOC, Cityscapes, ADE20K."""

from __future__ import annotations

import re
from pathlib import Path

from segplus.data.layouts.folders import read_folders
from segplus.data.layouts.legends import read_legend, read_legend_file
from segplus.data.layouts.pairing import list_files
from segplus.data.layouts.source import OpenChoiceError, Source, build_table
from segplus.errors import InputError
from segplus.recipe.data_section import DataRecipe
from segplus.texts import read_text

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
# Label id of the annotation tool -> name, of the 19 classes that are scored; the order is that of the train ids.
CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
_CITYSCAPES_MASKS = ("labelIds", "labelTrainIds", "instanceIds")
CITYSCAPES_VOID = tuple(value for value in range(35) if value not in CITYSCAPES_CLASSES)


def read_voc(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of JPEGImages and SegmentationClass that ImageSets/Segmentation lists.

    A labelmap.txt beside them (name:r,g,b:...) gives names and colours; otherwise the masks are palette indices.
    """
    images, masks = root / "JPEGImages", root / (section.masks or "SegmentationClass")
    lists = sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))
    if not lists:
        raise InputError(
            f"{root}: no lists in ImageSets/Segmentation", fix="add train.txt and val.txt, one stem a line"
        )
    wanted = {section.train_split, section.validation_split, section.test_split}
    lists = [path for path in lists if path.stem in ("train", "val", "test") or path.stem in wanted] or lists
    files = {Path(name).stem: images / name for name in list_files(images)}
    splits = {}
    for path in lists:
        pairs = [_find_voc_pair(stem, files, masks, path) for stem in read_text(path).split()]
        if path.stem == "test" and not any(Path(pair[2]).is_file() for pair in pairs):
            continue  # the benchmark keeps the masks of its test images to itself
        splits[path.stem] = build_table(_refuse_missing(pairs, path))
    notes = [f"{split}: {len(rows)} pairs" for split, rows in splits.items()]
    legend = root / "labelmap.txt"
    if legend.is_file():
        colors = read_legend_file(legend, str(legend))
        return Source(splits, "Pascal VOC", root, dict(enumerate(colors)), colors, encoding="colors", notes=notes)
    names = dict(enumerate(VOC_CLASSES))
    return Source(splits, "Pascal VOC", root, names, encoding="palette", presumed=True, notes=notes)


def _find_voc_pair(stem: str, files: dict[str, Path], masks: Path, listed: Path) -> tuple[str, str, str]:
    if stem not in files:
        raise InputError(f"{listed}: no such image", found=stem, fix="correct the list or add the image")
    return stem, str(files[stem]), str(masks / f"{stem}.png")


def _refuse_missing(pairs: list[tuple[str, str, str]], listed: Path) -> list[tuple[str, str, str]]:
    missing = [name for name, _, mask in pairs if not Path(mask).is_file()]
    if missing:
        raise InputError(
            f"{listed}: images without a mask", found=f"{len(missing)}: {', '.join(missing[:3])}", fix="add them"
        )
    return pairs


def read_cityscapes(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of leftImg8bit and gtFine, city by city, with the 19 scored classes.

    `masks` names the kind of files: labelIds, labelTrainIds, or instanceIds, in which a thing's value is its class *
    1000 and a number; by default the first kind that is there. The classes are the same. The test images have no masks
    of their own and are left out unless data.test_split names them.
    """
    truth = "gtFine" if (root / "gtFine").is_dir() else "gtCoarse"
    for folder in (root / "leftImg8bit", root / truth):
        if not folder.is_dir():
            raise InputError(f"{root}: not Cityscapes", found=f"no folder {folder.name}", fix="correct data.layout")
    there = (kind for kind in _CITYSCAPES_MASKS if next((root / truth).rglob(f"*_{kind}.png"), None) is not None)
    suffix = section.masks or next(there, None) or _ask_for_endings(root, truth)
    if suffix not in _CITYSCAPES_MASKS:
        raise InputError("data.masks: no such Cityscapes mask", found=suffix, allowed=", ".join(_CITYSCAPES_MASKS))
    splits = {}
    for folder in sorted(path for path in (root / "leftImg8bit").iterdir() if path.is_dir()):
        if folder.name == "test" and section.test_split != "test":
            continue
        pairs = []
        for name in list_files(folder):
            key = name.split("_leftImg8bit")[0]
            pairs.append((key, str(folder / name), str(root / truth / folder.name / f"{key}_{truth}_{suffix}.png")))
        splits[folder.name] = build_table(_refuse_missing(pairs, folder))
    notes = [f"{split}: {len(rows)} pairs, {suffix}" for split, rows in splits.items()]
    if suffix == "labelTrainIds":
        names = dict(enumerate(CITYSCAPES_CLASSES.values()))
        return Source(splits, "Cityscapes", root, names, void=(255,), encoding="ids", notes=notes)
    source = Source(splits, "Cityscapes", root, CITYSCAPES_CLASSES, void=CITYSCAPES_VOID, notes=notes)
    source.encoding = "instances" if suffix == "instanceIds" else "ids"
    source.presumed = section.layout == "auto"
    return source


def _ask_for_endings(root: Path, truth: str) -> str:
    """Return the usual ending of masks; where there are others, raise OpenChoiceError with the lines that read them."""
    names = [name for name in list_files(root / truth) if f"_{truth}_" in name]
    endings = sorted({name[name.rindex(f"_{truth}_") :] for name in names})
    if not endings:
        return _CITYSCAPES_MASKS[0]
    keys = {
        "layout": "folders", "images": "leftImg8bit/{split}", "masks": f"{truth}/{{split}}",
        "image_pattern": "^(.*)_leftImg8bit", "mask_pattern": f"^(.*){re.escape(endings[0])}$",
    }  # fmt: skip
    raise OpenChoiceError(
        f"{root}: Cityscapes' folders with other masks than its own",
        found=", ".join(endings),
        allowed=", ".join(_CITYSCAPES_MASKS),
        fix="set " + ", ".join(f"data.{key}: '{value}'" for key, value in keys.items()),
        keys=keys,
        question=f"which masks are meant, {', '.join(endings)}? data.mask_pattern takes one kind"
        if len(endings) > 1
        else f"are the masks the files that end in {endings[0]}? data.mask_pattern takes them",
    )


def read_ade20k(root: Path, section: DataRecipe) -> Source:
    """Return the pairs of images/ and annotations/; id 0 is ignored, the names come from objectInfo150."""
    source = read_folders(root, section)
    tables = sorted(root.glob("objectInfo150.*"))
    if not tables:
        raise InputError(f"{root}: not ADE20K", found="no objectInfo150.txt", fix="correct data.layout")
    table = read_legend(tables[0], str(tables[0]))
    if not table.stated:
        raise InputError(f"{tables[0]}: not the table of classes", allowed="columns Idx and Name")
    names = {value - int(section.reduce_labels): name for value, name in table.names.items()}
    return Source(
        source.splits,
        "ADE20K",
        root,
        names,
        void=() if section.reduce_labels else (0,),
        encoding="ids",
        notes=source.notes,
    )

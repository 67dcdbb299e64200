"""The recipe that fits what was found: data lines, crop, augmentation, losses and class weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from segplus.classes import ClassMap
from segplus.data.ranges import find_unstated_range, propose_range
from segplus.inspection.findings import VOID_WORDS
from segplus.inspection.tallies import SplitTally
from segplus.losses.class_weights import FORMULAS, compute_class_weights
from segplus.recipe.data_section import DataRecipe

_FROM_HUB = "# About 14 MB, fetched from the Hub once; without a network write the path of a checkpoint's folder.\n"
_RARE = 0.01
_SEVERAL = 2  # pieces of a class in an image, from which on they are objects
_FEW_IMAGES = 0.2  # share of the images that hold a class, below which chance may leave a split without it
_LARGEST_SERVED_PX = 2048
_MOST, _FEW = 0.9, 0.05  # shares of the images that look alike; of the pixels, of a foreground of defects
_WITHOUT = 0.25  # share of the images without a defect
# Words in the paths of data sets and the names of their classes -> preset; nothing in the images says it as plainly.
_KINDS = {
    "medical": "patient|fundus|retina|vessel|nuclei|nucleus|cell|polyp|lesion|tumou?r|liver|kidney|organ|mri|slice|"
    "x-?ray|ultrasound|endoscopy|isic|histology|pathology|1st_manual",
    "aerial": "aerial|satellite|orthophoto|ortho|tile|landcover|land_cover|sentinel|drone|uav|naip|loveda",
    "industrial": "defect|crack|scratch|dent|steel|severstal|weld|pcb|corrosion|rust|anomaly|mvtec|kolektor|ksdd",
    "driving": "cityscapes|leftimg8bit|gtfine|bdd|kitti|mapillary",
}


def propose_recipe(
    data: Mapping[str, Any], classes: ClassMap, tallies: Mapping[str, SplitTally], names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return a whole recipe, as a mapping, for these data, and why it is so.

    Args:
        data: The keys of its data section.
        classes: The classes.
        tallies: What the splits hold.
        names: Names of the images.
    """
    train = tallies.get("train") or next(iter(tallies.values()))
    data, reasons = dict(data), []
    void = [name for name in classes.names if name.lower() in VOID_WORDS]
    if void:
        data["void"] = [*data.get("void", []), *void]
    extents = np.stack([tally.extents for tally in tallies.values()])
    needed = find_unstated_range(extents, data.get("channels", 3))
    if needed is not None:
        data["image_range"] = propose_range(needed)
    recipe: dict[str, Any] = {"data": data, "model": {"checkpoint": "nvidia/mit-b0"}}
    served = choose_served_size(train)
    if served is not None:
        recipe["model"]["image_processor"] = {"size": served}
    preset, why = choose_preset(data, classes.names, names, train)
    recipe["transforms"] = {"preset": preset, "crop_size_px": choose_crop(train)}
    if why:
        reasons.append(f"preset {preset}: {why}")
    shares = dict(zip(classes.names, measure_shares(train), strict=True))
    rarest = min((share for name, share in shares.items() if share > 0 and name not in void), default=1.0)
    recipe["losses"] = {"cross_entropy": 1.0}
    if rarest < _RARE:
        recipe["losses"] = {"cross_entropy": 1.0, "tversky": 1.0}
        recipe["class_weights"] = "enet"
        reasons.append(f"Tversky and ENet's class weights: the rarest class has {100 * rarest:.2g} % of the pixels")
        height, width = max(train.sizes, key=train.sizes.__getitem__)
        if 2 * np.prod(recipe["transforms"]["crop_size_px"]) < height * width:
            recipe["transforms"]["rare_class_crop"] = 0.5
            reasons.append("rare_class_crop: half of the crops lie over a rare class, as many others hold none")
    why = describe_objects(train, classes.names, preset)
    if why:
        recipe["evaluation"] = {"metrics": ["objects"]}
        reasons.append(why)
    return recipe, reasons


def describe_objects(train: SplitTally, classes: tuple[str, ...], preset: str) -> str:
    """Return why the pieces of a foreground are to be counted one by one, "" where nothing asks for it."""
    if len(classes) != 2:
        return ""
    count, held = train.objects[1], train.statistics.images_with[1]
    asks = count >= _SEVERAL * held or preset == "industrial"
    return f"objects: {count} pieces of '{classes[1]}' in {held} images are counted one by one" if asks and held else ""


def propose_stratify(tallies: Mapping[str, SplitTally]) -> str:
    """Return why splits that are drawn should hold each class equally often, "" where chance does that."""
    held = np.sum([tally.statistics.images_with[:-1] for tally in tallies.values()], axis=0)
    least, pairs = min(held[held > 0], default=0), sum(tally.pairs for tally in tallies.values())
    return f"stratify: a class is in {least} of {pairs} images" if 1 < least < _FEW_IMAGES * pairs else ""


def choose_preset(
    data: Mapping[str, Any], classes: tuple[str, ...], names: list[str], train: SplitTally
) -> tuple[str, str]:
    """Return the augmentation preset that paths and classes, or else images, speak for, and why, or the standard one.

    Args:
        data: The keys of the recipe's data section.
        classes: Names of the classes.
        names: Names of the images.
        train: What the training split holds.
    """
    if data.get("channels", 3) > 4:
        return "aerial", f"images of {data['channels']} channels"
    path = "/".join(str(data["dataset"]).split("/")[-2:])
    text = " ".join([path, str(data.get("images", "")), *classes, *names[:20], *names[-20:]])
    whole = {kind: rf"(?<![a-z])(?:{words})s?(?![a-z])" for kind, words in _KINDS.items()}
    found = {kind: match[0] for kind, word in whole.items() if (match := re.search(word, text, re.IGNORECASE))}
    if len(found) == 1:
        kind, word = next(iter(found.items()))
        return kind, f"'{word}' in the names"
    return ("standard", "") if found else _choose_by_images(data, train)


def _choose_by_images(data: Mapping[str, Any], train: SplitTally) -> tuple[str, str]:
    """Return the preset for images with a map's coordinates, in a black surround, or of a surface with rare defects."""
    most = _MOST * max(train.pairs, 1)
    if sum(count for kind, count in train.image_encodings.items() if kind.startswith("GeoTIFF")) > most:
        return "aerial", "images with the coordinates of a map (GeoTIFF)"
    if train.surrounded > most:
        return "medical", "what the images show lies in a black surround"
    grey = train.problems.get("grey image")
    is_grey = data.get("channels") == 1 or (grey is not None and grey.count > most)
    if is_grey and len(train.objects) == 2:
        share, held = measure_shares(train)[1], train.statistics.images_with[1]
        if 0 < share < _FEW and held < (1 - _WITHOUT) * train.pairs:
            return (
                "industrial",
                f"grey images, a foreground of {100 * share:.2g} % that {train.pairs - held} of them lack",
            )
    return "standard", ""


def list_changed_keys(section: DataRecipe) -> dict[str, Any]:
    """Return the keys of a data section that differ from their defaults."""
    default = vars(DataRecipe())
    return {key: value for key, value in vars(section).items() if value != default[key] or key == "dataset"}


def measure_shares(tally: SplitTally) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return each class's share of the valid pixels, shape (C,)."""
    pixels = tally.statistics.class_pixels[0]
    shares: np.ndarray[Any, np.dtype[np.float64]] = pixels / max(1, pixels.sum())
    return shares


def choose_served_size(tally: SplitTally) -> dict[str, int] | None:
    """Return the size that nearly all images have, so that they are served undistorted, or None where sizes vary.

    The image processor of a checkpoint would make squares of them. Above 2048 pixels a side is halved.
    """
    if not tally.sizes:
        return None
    (size, count), *_ = tally.sizes.most_common(1)
    if count < 0.9 * sum(tally.sizes.values()):
        return None
    height, width = size
    while max(height, width) > _LARGEST_SERVED_PX:
        height, width = height // 2, width // 2
    return {"height": height, "width": width}


def choose_crop(tally: SplitTally) -> list[int]:
    """Return a crop that most images can give: a multiple of 32 below the common short side, 512 at most."""
    if not tally.sizes:
        return [512, 512]
    sides = np.repeat([min(size) for size in tally.sizes], list(tally.sizes.values()))
    side = int(np.clip(np.percentile(sides, 25) // 32 * 32, 32, 512))
    return [side, side]


def weigh_by_frequency(tally: SplitTally) -> dict[str, list[float | None]]:
    """Return the weights that training gives the classes, under the names of the formulas; None for an absent class."""
    counts = tally.statistics.class_pixels
    weights = {formula: compute_class_weights(counts, formula).tolist() for formula in FORMULAS}
    return {
        formula: [round(value, 4) if pixels else None for value, pixels in zip(values, counts[0], strict=True)]
        for formula, values in weights.items()
    }


def render_recipe(recipe: Mapping[str, Any], shares: Mapping[str, float] | None = None) -> str:
    """Return a recipe as YAML, short lists on one line; shares of pixels stand as comments behind the colours."""
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    text = text.replace("\nmodel:", f"\n{_FROM_HUB}model:", 1)
    for name, share in (shares or {}).items():
        text = re.sub(
            rf"^(\s+{re.escape(name)}: \[.*\])$", rf"\1  # {100 * share:.3g} % of the pixels", text, flags=re.M
        )
    return text

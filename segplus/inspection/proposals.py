"""The recipe that fits what was found: data lines, crop, losses and class weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import yaml

from segplus.data.checking import looks_like_bytes
from segplus.data.decoding.masks import MaskDecoder
from segplus.inspection.findings import VOID_WORDS
from segplus.inspection.tallies import SplitTally
from segplus.losses.class_weights import FORMULAS, compute_class_weights
from segplus.recipe.data_section import DataRecipe

_RARE = 0.01
_LARGEST_SERVED_PX = 2048


def propose_recipe(
    section: DataRecipe, decoder: MaskDecoder, tallies: Mapping[str, SplitTally], named: bool
) -> dict[str, Any]:
    """Return a whole recipe, as a mapping, for these data.

    Args:
        section: The data section that was inspected.
        decoder: How its masks were read, with the classes.
        tallies: What the splits hold.
        named: The classes have names; otherwise the found values are listed for a person to name.
    """
    classes = decoder.classes
    train = tallies.get("train") or next(iter(tallies.values()))
    data = list_changed_keys(section)
    if not named:
        data["classes"] = {
            raw: classes.names[target]
            for raw, target in sorted(classes.raw_to_class.items())
            if target < classes.num_classes
        }
    void = [name for name in classes.names if name.lower() in VOID_WORDS]
    if void:
        data["void"] = [*data.get("void", []), *void]
    if not train.outside and looks_like_bytes(decoder, train.pixels):
        data["encoding"] = "binary"
    ranges = [tally.value_range for tally in tallies.values() if tally.value_range is not None]
    if ranges:
        data["image_range"] = [min(0.0, *(low for low, _ in ranges)), max(high for _, high in ranges)]
    recipe: dict[str, Any] = {"data": data, "model": {"checkpoint": "nvidia/mit-b0"}}
    served = choose_served_size(train)
    if served is not None:
        recipe["model"]["image_processor"] = {"size": served}
    recipe["transforms"] = {"preset": "standard", "crop_size_px": choose_crop(train)}
    shares = measure_shares(train)
    present = shares[shares > 0]
    rare = len(present) > 0 and bool(present.min() < _RARE)
    recipe["losses"] = {"cross_entropy": 1.0, "dice": 0.5} if rare else {"cross_entropy": 1.0}
    return recipe


def list_changed_keys(section: DataRecipe) -> dict[str, Any]:
    """Return the keys of a data section that differ from their defaults."""
    changed = {}
    for item in fields(section):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        value = vars(section)[item.name]
        if value != default or item.name == "dataset":
            changed[item.name] = value
    return changed


def measure_shares(tally: SplitTally) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return each class's share of the valid pixels, shape (C,)."""
    total = max(1, int(tally.pixels[:-1].sum()))
    shares: np.ndarray[Any, np.dtype[np.float64]] = tally.pixels[:-1] / total
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
    counts = np.stack([tally.pixels[:-1], tally.pixels_where_present])
    weights = {formula: compute_class_weights(counts, formula).tolist() for formula in FORMULAS}
    return {
        formula: [round(value, 4) if pixels else None for value, pixels in zip(values, counts[0], strict=True)]
        for formula, values in weights.items()
    }


def render_recipe(recipe: Mapping[str, Any]) -> str:
    """Return a recipe as YAML, short lists on one line."""
    return yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)

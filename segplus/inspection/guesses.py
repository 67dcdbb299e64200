"""One guess at what mask values mean, with its reason, as the keys of the data section that state it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segplus.classes import unpack_color
from segplus.data.decoding.mask_channels import measure_distance
from segplus.data.decoding.masks import DEFAULT_THRESHOLD
from segplus.data.layouts.legends import Legend
from segplus.data.misreadings import is_soft, name_voc_color
from segplus.inspection.surveys import Survey

GROUND, THING = "background", "foreground"
_MOST_IDS = 1024  # classes that a person may have drawn
_MOST_COLORS = 256
_NOISE = 40  # how far a JPEG leaves a value of a mask from the one that was drawn
_NO_DATA = -1  # of masks whose values have a sign
_MOST_VOIDS = 2  # values at the upper end, 254 and 255, that may mean void
_LEAST_SHARE = 0.002  # of the pixels, of a colour that is one and not the blur between two
_SMALL_ID = 64
_GREY = (0.299, 0.587, 0.114)  # what red, green and blue add to the grey that `binary` sees of a palette


@dataclass(frozen=True)
class Guess:
    """What masks seem to mean.

    Args:
        keys: Keys of the data section.
        reason: Why, in one sentence.
        question: What only a person can answer, or "".
        shares: Class name -> share of the pixels, where colours have no names yet.
    """

    keys: dict[str, Any]
    reason: str
    question: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)


def guess_meaning(survey: Survey, legends: Mapping[str, Legend], names: Mapping[int, str]) -> Guess | None:
    """Return what masks seem to mean, or None where nothing fits.

    Args:
        survey: What the files hold.
        legends: File name -> what it says of classes, of the files beside the data.
        names: Mask value -> name, as the recipe or the data state it; names are kept where they fit.
    """
    colored = {name: legend for name, legend in legends.items() if legend.colors}
    if survey.colors and survey.values and not survey.palettes:
        grey = {value * 0x010101: count for value, count in survey.values.items() if value < 256}
        return _guess_colors(survey.colors + Counter(grey), survey.lossy > 0, colored)
    if survey.colors:
        return _guess_colors(survey.colors, survey.lossy > 0, colored)
    if survey.palettes:
        return _guess_palette(survey, colored, legends, names)
    return _guess_values(survey, legends, names)


def _guess_values(survey: Survey, legends: Mapping[str, Legend], names: Mapping[int, str]) -> Guess | None:
    values = survey.values
    most = max(values)
    marked = [value for value in values if value]
    if survey.lossy and most <= 255 and not _is_near_binary(values, is_lossy=True):
        return _guess_colors(Counter({value * 0x010101: count for value, count in values.items()}), True, {})
    if set(values) == {0, 255} or (len(values) > 4 and _is_near_binary(values, is_lossy=survey.lossy > 0)):
        kind = "0 and 255" if set(values) == {0, 255} else "near 0 and 255, but for edges"
        return _guess_binary({"encoding": "binary"}, f"masks hold {kind}: two classes", names, legends)
    if survey.counts_things and not any(set(values) <= set(legend.names) for legend in legends.values()):
        return _guess_numbers(survey, names, legends)
    if most >= 1000 and len(marked) > 2 and len({value // 1000 for value in marked}) * 2 <= len(marked) + 1:
        return _guess_instances(values, legends)
    if is_soft(values):
        keys = {"encoding": "binary", "threshold": (most + 1) // 2 if most != 255 else DEFAULT_THRESHOLD}
        reason = f"{len(values)} values from {min(values)} to {most}: soft masks, foreground from the middle on"
        return _guess_binary(keys, reason, names, legends)
    return _guess_ids(survey, legends, names) if len(values) <= _MOST_IDS else None


def _guess_numbers(survey: Survey, names: Mapping[int, str], legends: Mapping[str, Legend]) -> Guess:
    """Return a guess at values that number things; where these lie in palettes, every colour but 0's is bright."""
    reason = (
        f"values 1 to {max(survey.values)} without gaps, each one connected piece in {len(survey.numberings)} masks "
        "looked at: they number things, and every thing is foreground"
    )
    return _guess_binary({"encoding": "binary", "threshold": 1}, reason, names, legends, "object")


def _is_near_binary(values: Mapping[int, int], *, is_lossy: bool) -> bool:
    """Return whether values lie near 0 and near 255, but for the edges between the two.

    Class ids with 255 as void lie so, too: in masks that are saved without loss, values near 0 count as 0 only where
    others lie near 255.
    """
    total = sum(values.values())
    between = sum(count for value, count in values.items() if _NOISE < value < 255 - _NOISE)
    dark = [value for value in values if value <= _NOISE]
    bright = [value for value in values if 255 - _NOISE <= value <= 255]
    is_noise = is_lossy or len(dark) == 1 or len(bright) > _MOST_VOIDS
    return max(values) <= 255 and bool(bright) and is_noise and between < 0.1 * total and not is_soft(values)


def _guess_binary(
    keys: dict[str, Any], reason: str, names: Mapping[int, str], legends: Mapping[str, Legend], thing: str = THING
) -> Guess:
    known = list(names.values()) or next((list(legend.names.values()) for legend in legends.values()), [])
    if len(known) == 1:
        known = [GROUND, *known]
    fits = len(known) == 2
    question = "" if fits else f"what are the two classes called? {GROUND} and {thing} stand in"
    return Guess({"classes": known if fits else [GROUND, thing], **keys}, reason, question)


def _guess_instances(values: Mapping[int, int], legends: Mapping[str, Legend]) -> Guess:
    classes = sorted({value if value < 1000 else value // 1000 for value in values})
    stated = next((legend.names for legend in legends.values() if set(classes) <= set(legend.names)), {})
    keys = {"classes": {value: stated.get(value, f"value {value}") for value in classes}, "encoding": "instances"}
    reason = "values from 1000 on: class * 1000 and a number, below 1000 the class itself"
    return Guess(keys, reason, "" if stated else "what are these classes called?")


def _guess_ids(survey: Survey, legends: Mapping[str, Legend], names: Mapping[int, str]) -> Guess:
    values = survey.values
    held, ignored = _leave_out_void(values)
    void = "".join(f"; {value} ({100 * values[value] / sum(values.values()):.2f} %) is ignored" for value in ignored)
    stated: dict[str, Any] = {"void": [_NO_DATA]} if _NO_DATA in ignored else {}  # 255 is ignored everywhere
    shown = ", ".join(map(str, held[:12])) + (", ..." if len(held) > 12 else "")
    for file, legend in legends.items():
        if set(held) <= set(legend.names):
            return Guess({"classes": file, **stated}, f"values {shown}{void}; the names are those of {file}")
        if not legend.stated and held[0] == 0 and held[-1] == len(legend.names):
            listed = [GROUND, *legend.names.values()]
            reason = f"values {shown}{void}; {file} names all but 0, taken for {GROUND}"
            return Guess({"classes": listed, **stated}, reason)
    keys = {"classes": {value: names.get(value, f"value {value}") for value in held}, **stated}
    if held == [0, 1] and not names:
        keys["classes"] = [GROUND, THING]
    question = "what are these classes called? Name them in data.classes, and what means nothing in data.void"
    if survey.may_count_things and not names:
        question = (
            f"are {shown} classes, or numbers of things of one kind, as each is one piece? Name the classes in "
            f"data.classes, or set classes: [{GROUND}, object], encoding: binary, threshold: 1"
        )
    return Guess(keys, f"masks hold the values {shown}{void}", question)


def _leave_out_void(values: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Return the values that are classes, and those that mean nothing: -1, and 255 above a few ids."""
    classes = [value for value in sorted(values) if value not in (_NO_DATA, 255)]
    if not classes:
        return sorted(values), []
    is_void = {_NO_DATA: True, 255: max(classes) < max(_SMALL_ID, 2 * len(classes))}
    ignored = [value for value in sorted(values) if is_void.get(value)]
    return [value for value in sorted(values) if value not in ignored], ignored


def _guess_palette(
    survey: Survey, colored: Mapping[str, Legend], legends: Mapping[str, Legend], names: Mapping[int, str]
) -> Guess | None:
    """Return a guess at masks with a palette: by colour where palettes differ or a legend has them, else by index."""
    tables = [np.frombuffer(palette, dtype=np.uint8).reshape(256, 3) for palette in sorted(survey.palettes)]
    used = sorted(survey.values)
    if survey.colors or any((table[used] != tables[0][used]).any() for table in tables[1:]):
        return _guess_colors(survey.colors + survey.shown, survey.lossy > 0, colored)
    shown = [(int(r), int(g), int(b)) for r, g, b in tables[0][used]]
    for file, legend in colored.items():
        if set(shown) <= set(legend.colors.values()):
            return Guess({"colors": file}, f"a palette whose colours are those of {file}")
    if set(shown) == {(0, 0, 0), (255, 255, 255)}:
        return _guess_binary({"encoding": "binary"}, "a palette of black and white: two classes", names, legends)
    grey = [int(np.dot(shown[used.index(value)], _GREY)) for value in used]
    if survey.counts_things and not names and [value > 0 for value in grey] == [value > 0 for value in used]:
        return _guess_numbers(survey, names, legends)
    ids = [value for value in used if value != 255]
    is_start = ids == list(range(len(ids)))
    if not is_start and ids[-1] <= 20 and all(shown[used.index(value)] == name_voc_color(value) for value in ids):
        return Guess({"classes": "voc"}, "a palette and indices of Pascal VOC")
    return _guess_ids(survey, legends, names)


def _guess_colors(colors: Mapping[int, int], is_lossy: bool, legends: Mapping[str, Legend]) -> Guess | None:
    """Return a guess at masks of colours: the legend that has them all, or every colour as a class to name."""
    total = sum(colors.values())
    blurred = is_lossy or len(colors) > _MOST_COLORS
    found = cluster_colors(colors) if blurred else [value for value, _ in Counter(colors).most_common()]
    if not found:
        return None
    for file, legend in legends.items():
        listed = {(r << 16) + (g << 8) + b for r, g, b in legend.colors.values()}
        missing = [
            value for value in found if measure_distance([value], sorted(listed)).min() > (_NOISE if blurred else 0)
        ]
        if not missing:
            keys = {"colors": file, **(_tolerate(sorted(listed)) if blurred else {})}
            return Guess(keys, f"masks of colours, all of them in {file}")
        if len(missing) < len(found):
            named = {name: list(color) for name, color in legend.colors.items()}
            named |= {_name_color(value): list(unpack_color(value)) for value in missing}
            shares = {_name_color(value): colors[value] / total for value in missing}
            question = f"what are the colours that {file} does not have?"
            return Guess({"colors": named}, f"masks of colours, {len(missing)} of them not in {file}", question, shares)
    if len(found) < 2 and not is_lossy:
        return None
    near = measure_distance(sorted(colors), found) if blurred else None
    pixels = np.array([colors[value] for value in sorted(colors)])
    shares = {
        _name_color(value): float(colors[value] if near is None else pixels[near.argmin(axis=1) == position].sum())
        / total
        for position, value in enumerate(found)
    }
    keys = {"colors": {_name_color(value): list(unpack_color(value)) for value in found}}
    keys |= _tolerate(found) if blurred else {}
    kind = f"{len(found)} colours" + (" in files that blur them" if blurred else "")
    question = "what does each colour mean? Rename the classes, and list in data.void what means nothing"
    return Guess(keys, f"masks of {kind}, and no legend beside the data", question, shares)


def cluster_colors(colors: Mapping[int, int]) -> list[int]:
    """Return the colours that lossy masks were drawn in: the most frequent ones that lie apart, most pixels first.

    Args:
        colors: Packed colour -> pixels.
    """
    total = sum(colors.values())
    ordered = [value for value, _ in Counter(colors).most_common(4096)]
    pixels = np.array([colors[value] for value in ordered], dtype=np.float64)
    free = np.ones(len(ordered), dtype=bool)
    distance = measure_distance(ordered, ordered)
    chosen = []
    while free.any():
        # Noise spreads a colour over its neighbours: the one with most pixels close by is its centre.
        mass = np.where(free, (distance <= 6) @ (pixels * free), 0.0)
        best = int(mass.argmax())
        around = (distance[best] <= _NOISE) & free
        if pixels[around].sum() < _LEAST_SHARE * total:
            break
        chosen.append(
            (float(pixels[around].sum()), ordered[int(np.where(around & (distance[best] <= 6), pixels, 0).argmax())])
        )
        free &= ~around
    return [value for _, value in sorted(chosen, reverse=True)]


def _tolerate(found: Sequence[int]) -> dict[str, Any]:
    """Return the largest tolerance that keeps colours apart; what lies farther off, at edges, is ignored."""
    distance = measure_distance(found, found)
    nearest = int(distance[~np.eye(len(found), dtype=bool)].min()) if len(found) > 1 else 2 * _NOISE
    return {"color_tolerance": max(1, min(64, (nearest - 1) // 2)), "unknown": "ignore"}


def _name_color(value: int) -> str:
    return f"color {value:06x}"

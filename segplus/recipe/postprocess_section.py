"""The recipe's `postprocess:` section, and with it how a checkpoint's scores become a label map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from segplus.errors import InputError, suggest

PixelsByClass = dict[str, int] | int
AreaByClass = dict[str, float] | float


@dataclass
class CrfRecipe:
    """A fully connected conditional random field: neighbours of one colour come to agree.

    Args:
        iterations: Mean-field steps; 0 leaves the field out.
        filter: `window` sums over a window around each pixel exactly, `permutohedral` over the whole image
            approximately, by a lattice: the one for large standard deviations.
        radius_px: Half the window's side: pixels further away say nothing; without meaning for `permutohedral`.
        color_weight: What neighbours of the same colour add to a class's score where all of them agree.
        color_sigma: Differences of colour (0 to 255) up to about this one count as the same.
        color_distance_px: Standard deviation of the distance, beside the colour.
        distance_weight: What neighbours of any colour add where all of them agree.
        distance_px: Standard deviation of their distance.
    """

    iterations: int = 0
    filter: Literal["window", "permutohedral"] = "window"
    radius_px: int = 5
    color_weight: float = 4.0
    color_sigma: float = 13.0
    color_distance_px: float = 5.0
    distance_weight: float = 1.0
    distance_px: float = 2.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for key in ("color_sigma", "color_distance_px", "distance_px"):
            if vars(self)[key] <= 0:
                raise InputError(f"postprocess.crf.{key}", found=vars(self)[key], allowed="above 0")
            if self.filter == "permutohedral" and key != "color_sigma" and vars(self)[key] < 1:
                raise InputError(
                    f"postprocess.crf.{key}: the permutohedral filter is too coarse for it",
                    found=vars(self)[key],
                    allowed="1 and more",
                    fix="use postprocess.crf.filter: window",
                )
        for key in ("color_weight", "distance_weight"):
            if vars(self)[key] < 0:
                raise InputError(f"postprocess.crf.{key}", found=vars(self)[key], allowed="0 and more")
        for key, most in (("iterations", 100), ("radius_px", 32)):
            least = 1 if key == "radius_px" else 0
            if not least <= vars(self)[key] <= most:
                raise InputError(f"postprocess.crf.{key}", found=vars(self)[key], allowed=f"{least} to {most}")


@dataclass
class PostprocessRecipe:
    """What is done to a prediction after the network, in the order of these keys; nothing by default.

    A value by class is a mapping of names, `{crack: 20}`, or one number for every class. An object is a region of one
    class whose pixels touch by an edge or a corner. What is taken from a class goes to the class that surrounds it.

    Args:
        smooth_scores_px: Standard deviation of a Gaussian over the probabilities, before a class is chosen.
        crf: A conditional random field over the probabilities, before a class is chosen.
        majority_px: Each pixel gets the most frequent class of the square that extends this far around it.
        open_px: By class, the radius of an opening, which removes what is thinner.
        close_px: By class, the radius of a closing, which fills gaps that are narrower.
        fill_holes_below_px: By class, holes of up to this many pixels are filled, whatever they hold.
        remove_below_px: By class, objects of fewer pixels are removed.
        remove_above_px: By class, objects of more pixels are removed.
        remove_below_mm2: By class, objects of a smaller area are removed; needs `pixel_size_mm`.
        remove_above_mm2: By class, objects of a larger area are removed; needs `pixel_size_mm`.
        keep_largest: By class, this many of the largest objects of an image stay.
        split_touching_px: By class, objects that touch are separated by a line of one pixel (watershed of the distance
            to the outline) if their middles lie further apart than this.
        pixel_size_mm: Side of a pixel in millimetres.
    """

    smooth_scores_px: float = 0.0
    crf: CrfRecipe = field(default_factory=CrfRecipe)
    majority_px: int = 0
    open_px: PixelsByClass = field(default_factory=dict)
    close_px: PixelsByClass = field(default_factory=dict)
    fill_holes_below_px: PixelsByClass = field(default_factory=dict)
    remove_below_px: PixelsByClass = field(default_factory=dict)
    remove_above_px: PixelsByClass = field(default_factory=dict)
    remove_below_mm2: AreaByClass = field(default_factory=dict)
    remove_above_mm2: AreaByClass = field(default_factory=dict)
    keep_largest: PixelsByClass = field(default_factory=dict)
    split_touching_px: PixelsByClass = field(default_factory=dict)
    pixel_size_mm: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing, and areas without a size of the pixels."""
        if not 0 <= self.smooth_scores_px <= 100:
            raise InputError("postprocess.smooth_scores_px", found=self.smooth_scores_px, allowed="0 to 100")
        if not 0 <= self.majority_px <= 100:
            raise InputError("postprocess.majority_px", found=self.majority_px, allowed="0 to 100")
        if self.pixel_size_mm is not None and not 0 < self.pixel_size_mm < math.inf:
            raise InputError("postprocess.pixel_size_mm", found=self.pixel_size_mm, allowed="above 0")
        for key in BY_CLASS:
            values = vars(self)[key]
            for name, value in (values if isinstance(values, dict) else {"": values}).items():
                most = 100 if key in ("open_px", "close_px") else 2**53
                if not 0 <= value <= most:
                    where = f"postprocess.{key}.{name}".rstrip(".")
                    raise InputError(where, found=value, allowed=f"0 to {most}")
        for key in ("remove_below_mm2", "remove_above_mm2"):
            if vars(self)[key] and self.pixel_size_mm is None:
                raise InputError(
                    f"postprocess.{key}: an area in mm2 without the size of a pixel",
                    found=vars(self)[key],
                    fix="set postprocess.pixel_size_mm, or --pixel-size 0.05mm where you predict",
                )

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse the name of a class that there is not.

        Raises:
            InputError: If so.
        """
        for key in BY_CLASS:
            values = vars(self)[key]
            check_class_names(f"postprocess.{key}", values if isinstance(values, dict) else {}, names)

    def list_chosen(self) -> dict[str, Any]:
        """Return what is not the default, as a recipe would say it."""
        own, default = dataclasses.asdict(self), dataclasses.asdict(PostprocessRecipe())
        chosen = {key: value for key, value in own.items() if value != default[key]}
        if "crf" in chosen:
            chosen["crf"] = {key: value for key, value in own["crf"].items() if value != default["crf"][key]}
        return chosen


BY_CLASS = tuple(
    one.name
    for one in dataclasses.fields(PostprocessRecipe)
    if one.name not in ("smooth_scores_px", "crf", "majority_px", "pixel_size_mm")
)


@dataclass
class DecisionRecipe:
    """How probabilities become a label map: what `segplus_decision.json` in a checkpoint holds.

    Args:
        thresholds: Class name -> probability from which a pixel gets the class, also where another is more probable;
            below it the pixel never does. Where several reach theirs, the one that exceeds it most, as a ratio, wins;
            where none does, the most probable class, unless it has a threshold.
        fallback: The class of pixels whose most probable class has a threshold and is below it; None: the class called
            background where there is one, or else the most probable of the classes without a threshold.
        uncertain_below: Pixels whose class is less probable get none: they are labelled with the ignore index.
        postprocess: What follows.
        chosen_on: How the thresholds were chosen, for people.
    """

    thresholds: dict[str, float] = field(default_factory=dict)
    fallback: str | None = None
    uncertain_below: float = 0.0
    postprocess: PostprocessRecipe = field(default_factory=PostprocessRecipe)
    chosen_on: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        for name, value in self.thresholds.items():
            if not 0 < value <= 1:
                raise InputError(f"threshold of {name}", found=value, allowed="above 0, up to 1")
        if self.fallback in self.thresholds:
            raise InputError(
                f"threshold of {self.fallback}: the fallback takes what reaches no threshold, so it has none itself",
                found=self.thresholds[self.fallback],
                fix="leave this threshold out, or name another fallback",
            )
        if not 0 <= self.uncertain_below <= 1:
            raise InputError("uncertain_below", found=self.uncertain_below, allowed="0 to 1")

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse the name of a class that there is not.

        Raises:
            InputError: If so.
        """
        check_class_names("thresholds", self.thresholds, names)
        check_class_names("fallback", {} if self.fallback is None else {self.fallback: None}, names)
        self.postprocess.check_classes(names)

    def list_chosen(self) -> dict[str, Any]:
        """Return what is not the default, as segplus_decision.json holds it."""
        chosen = {
            "thresholds": dict(self.thresholds),
            "fallback": self.fallback,
            "uncertain_below": self.uncertain_below,
            "postprocess": self.postprocess.list_chosen(),
            "chosen_on": self.chosen_on,
        }
        return {key: value for key, value in chosen.items() if value}

    def describe(self) -> str:
        """Return one line for tables; empty where each pixel gets the most probable class and nothing follows."""
        parts = [f"{name} from {value:.4g}" for name, value in self.thresholds.items()]
        parts += [f"else {self.fallback}"] if self.fallback is not None else []
        parts += [f"uncertain below {self.uncertain_below:g}"] if self.uncertain_below else []
        steps = self.postprocess.list_chosen()
        return ", ".join([*parts, *(f"{key} {_describe_value(value)}" for key, value in steps.items())])


def _describe_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_describe_value(entry)}" for name, entry in value.items())
    return value if isinstance(value, str) else f"{value:g}"


def check_class_names(where: str, named: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse the name of a class that there is not.

    Raises:
        InputError: If so, with the nearest one.
    """
    for name in named:
        if name not in names:
            raise InputError(f"{where}: no class '{name}'", fix=suggest(name, names))

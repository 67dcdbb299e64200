"""The recipe's `evaluation:` section."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from segplus.errors import InputError, suggest
from segplus.recipe.patterns import check_pattern

MetricName = Literal["boundary_iou", "trimap_iou", "hausdorff_95", "surface_dice", "objects", "calibration"]
OWN_METRICS: tuple[str, ...] = get_args(MetricName)


@dataclass
class ProtocolRecipe:
    """How a prediction is formed.

    Args:
        name: `fixed` resizes the image as the saved image processor does, like the pipeline of transformers; `original`
            keeps its size and pads it to a multiple of `stride_px`; `sliding` keeps its size and cuts it into windows.
        window_px: Height and width of a window, multiples of `stride_px`; an image that fits into one window is
            predicted whole.
        overlap: Share of a window that the next one covers again.
        blending: How pixels are weighted where windows overlap: `gaussian` prefers the middle of a window, `uniform`
            weights all pixels equally.
        windows_per_batch: Windows in one forward pass.
        stride_px: Sides are padded to a multiple of it; the coarsest stride inside the model, or its patch size.
        scales: The image is also predicted at these sizes, relative to its own; the results are averaged.
        flip: The mirrored image is predicted as well; the results are averaged.
        average: What is averaged over windows, scales and flips: `logits`, or softmax `probabilities`.
    """

    name: Literal["fixed", "original", "sliding"] = "fixed"
    window_px: list[int] = field(default_factory=lambda: [512, 512])
    overlap: float = 0.5
    blending: Literal["gaussian", "uniform"] = "gaussian"
    windows_per_batch: int = 4
    stride_px: int = 32
    scales: list[float] = field(default_factory=lambda: [1.0])
    flip: bool = False
    average: Literal["logits", "probabilities"] = "logits"

    def __post_init__(self) -> None:
        """Refuse windows and scales that leave pixels uncovered."""
        if not 1 <= self.stride_px <= 4096 or self.windows_per_batch < 1:
            raise InputError(
                "evaluation.protocol: stride_px and windows_per_batch must be positive",
                found=f"{self.stride_px} and {self.windows_per_batch}",
                allowed="stride_px from 1 to 4096, windows_per_batch from 1",
            )
        step = self.stride_px if self.name == "sliding" else 1  # the other protocols have no windows
        if len(self.window_px) != 2 or any(side < 1 or side % step for side in self.window_px):
            raise InputError(
                "evaluation.protocol.window_px",
                found=self.window_px,
                allowed=f"[height, width], multiples of stride_px ({self.stride_px})",
            )
        if not 0 <= self.overlap < 1:
            raise InputError("evaluation.protocol.overlap", found=self.overlap, allowed="0 up to, not including, 1")
        if not self.scales or any(not 0.01 <= scale <= 8 for scale in self.scales):
            raise InputError("evaluation.protocol.scales", found=self.scales, allowed="numbers from 0.01 to 8")

    def describe(self) -> dict[str, Any]:
        """Return the values that shape the prediction, for people and metrics.json."""
        chosen: dict[str, Any] = {"name": self.name}
        if self.name == "sliding":
            chosen |= {"window_px": self.window_px, "overlap": self.overlap, "blending": self.blending}
        if self.name != "fixed":
            chosen |= {"stride_px": self.stride_px}
        if self.scales != [1.0]:
            chosen |= {"scales": self.scales}
        if self.flip:
            chosen |= {"flip": True}
        return chosen if len(chosen) == 1 else chosen | {"average": self.average}


@dataclass
class EvaluationRecipe:
    """What the final evaluation measures.

    Args:
        protocol: How predictions are formed.
        metrics: Metrics beside those of the confusion matrix: built-in ones by name, any metric of the `evaluate`
            library by name or path, your own functions by dotted path; with arguments, a mapping of the name to them.
        boundary_share: Width of the region that boundary IoU measures, as a share of the image's diagonal.
        trimap_widths_px: Distances from a border of the truth within which trimap IoU counts.
        surface_tolerance: Distance up to which surface Dice counts two borders as equal, in units of `spacing`.
        spacing: Height and width of a pixel, for hausdorff_95 and surface_dice.
        surface_border: What hausdorff_95 and surface_dice measure: border `pixels`, or `surfels`, pieces of line
            between pixels, weighted by their length.
        object_overlap: IoU above which a predicted object matches one of the truth, for `objects`.
        object_sizes_px: Areas in pixels, ascending, that divide objects into the size classes of `objects`.
        object_background: Whether class 0 has objects.
        calibration_bins: Number of bins of the confidence for the expected calibration error.
        bootstrap_resamples: Number of resamples of the images for the 95 % intervals; 0 computes no intervals.
        bootstrap_seed: Seed of the resamples.
        bootstrap_group_pattern: Regular expression on an image's name; its first group names the patient or scene.
            These are then resampled whole; None resamples images.
    """

    protocol: ProtocolRecipe = field(default_factory=ProtocolRecipe)
    metrics: list[MetricName | str | dict[str, dict[str, Any]]] = field(default_factory=list)
    boundary_share: float = 0.02
    trimap_widths_px: list[int] = field(default_factory=lambda: [1, 3, 5, 10])
    surface_tolerance: float = 2.0
    spacing: list[float] = field(default_factory=lambda: [1.0, 1.0])
    surface_border: Literal["pixels", "surfels"] = "pixels"
    object_overlap: float = 0.5
    object_sizes_px: list[int] = field(default_factory=lambda: [1024, 9216])
    object_background: bool = False
    calibration_bins: int = 15
    bootstrap_resamples: int = 1000
    bootstrap_seed: int = 0
    bootstrap_group_pattern: str | None = None

    @property
    def user_metrics(self) -> list[str | dict[str, dict[str, Any]]]:
        """The metrics that are not ours."""
        return [metric for metric in self.metrics if metric not in OWN_METRICS]

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing, and a misspelt name of ours."""
        for entry in self.user_metrics:
            names = [entry] if isinstance(entry, str) else list(entry)
            if len(names) != 1 or not names[0].strip("/. "):
                raise InputError("evaluation.metrics", found=entry, allowed="a name, or one name with its arguments")
            if isinstance(entry, str) and difflib.get_close_matches(entry, OWN_METRICS, 1, 0.8):
                raise InputError("evaluation.metrics", found=entry, fix=suggest(entry, OWN_METRICS))
        checks = {
            "boundary_share": (self.boundary_share, 0 < self.boundary_share <= 1, "above 0, up to 1"),
            "trimap_widths_px": (
                self.trimap_widths_px,
                bool(self.trimap_widths_px) and min(self.trimap_widths_px) >= 1,
                "a list of numbers from 1",
            ),
            "surface_tolerance": (self.surface_tolerance, self.surface_tolerance >= 0, "0 and more"),
            "spacing": (self.spacing, len(self.spacing) == 2 and min(self.spacing) > 0, "two positive numbers"),
            "object_overlap": (self.object_overlap, 0 <= self.object_overlap < 1, "0 up to, not including, 1"),
            "object_sizes_px": (
                self.object_sizes_px,
                all(low < high for low, high in zip([0, *self.object_sizes_px], self.object_sizes_px, strict=False)),
                "ascending numbers from 1; [] for no sizes",
            ),
            "calibration_bins": (self.calibration_bins, 1 <= self.calibration_bins <= 100_000, "1 to 100000"),
            "bootstrap_resamples": (
                self.bootstrap_resamples,
                0 <= self.bootstrap_resamples <= 1_000_000,
                "0 to 1000000",
            ),
            "bootstrap_seed": (self.bootstrap_seed, 0 <= self.bootstrap_seed < 2**32, "0 to 4294967295"),
        }
        for key, (found, is_allowed, allowed) in checks.items():
            if not is_allowed:
                raise InputError(f"evaluation.{key}", found=found, allowed=allowed)
        check_pattern("evaluation.bootstrap_group_pattern", self.bootstrap_group_pattern)

    def list_bootstrap(self) -> tuple[int, int, str | None]:
        """Return resamples, seed and group pattern, as `Evaluator.compute` takes them."""
        return self.bootstrap_resamples, self.bootstrap_seed, self.bootstrap_group_pattern

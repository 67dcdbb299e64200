"""The loop of an evaluation: every image of a split once, over all processes, and their evaluators merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from segplus.classes import ClassMap
from segplus.data import SegmentationSplit
from segplus.data.parallel import read_ahead
from segplus.data.splits import find_groups
from segplus.images import DecodedImage
from segplus.inference.prediction_files import write_labels
from segplus.inference.predictor import Predictor
from segplus.metrics import BoundaryIoU, CalibrationError, Evaluator, ObjectScores, SurfaceDistances, TrimapIoU
from segplus.metrics.evaluator import BorderMetric, ImageScores
from segplus.metrics.user_metrics import UserMetrics
from segplus.progress import Progress
from segplus.recipe.evaluation_section import EvaluationRecipe
from segplus.reporting.gallery import Gallery

T = TypeVar("T")
READ_AHEAD = 2  # decoded images that wait beside the one that is scored and the one that is read


def build_evaluator(recipe: EvaluationRecipe, classes: ClassMap) -> Evaluator:
    """Return an evaluator of the metrics that a recipe names.

    Raises:
        InputError: If a metric that is not ours cannot be loaded, or fails.
    """
    count, ignored = classes.num_classes, classes.ignore_index
    names = {name for name in recipe.metrics if isinstance(name, str)}
    metrics: dict[str, BorderMetric] = {}
    if "boundary_iou" in names:
        metrics["boundary_iou"] = BoundaryIoU(count, ignored, recipe.boundary_share)
    if "trimap_iou" in names:
        metrics["trimap_iou"] = TrimapIoU(count, ignored, recipe.trimap_widths_px)
    if names & {"hausdorff_95", "surface_dice"}:
        metrics["surface_distances"] = SurfaceDistances(
            count, ignored, recipe.surface_tolerance, recipe.spacing, recipe.surface_border
        )
    if "objects" in names:
        metrics["objects"] = ObjectScores(
            count, ignored, recipe.object_overlap, recipe.object_sizes_px, recipe.object_background
        )
    if recipe.user_metrics:
        metrics["user_metrics"] = UserMetrics(recipe.user_metrics, classes)
    calibration = CalibrationError(ignored, recipe.calibration_bins) if "calibration" in names else None
    return Evaluator(count, ignored, metrics, calibration)


def check_groups(split: SegmentationSplit, recipe: EvaluationRecipe) -> None:
    """Refuse image names without a group for the bootstrap, before anything is predicted.

    Raises:
        InputError: If a name does not match `bootstrap_group_pattern`.
    """
    if recipe.bootstrap_group_pattern is not None:
        names = [split.name(index) for index in range(len(split))]
        find_groups(names, recipe.bootstrap_group_pattern, "evaluation.bootstrap_group_pattern")


def join_processes() -> PartialState:
    """Return this process's state among those that accelerate launch or torchrun started; alone it is the only one."""
    # Without cpu=True accelerate does not see that several processes without an accelerator belong together.
    return PartialState(cpu=not torch.cuda.is_available())


def score_image(
    predictor: Predictor, evaluator: Evaluator, image: DecodedImage, label: torch.Tensor, index: int, name: str
) -> tuple[torch.Tensor, ImageScores]:
    """Predict one image, count it, and return its label map and its scores."""
    label = label.to(predictor.model.device)
    if evaluator.calibration is None:
        prediction = predictor.predict(image)
    else:
        prediction, confidence = predictor.predict_with_confidence(image)
        ignored = evaluator.confusion.ignore_index
        decided = torch.where(prediction == ignored, ignored, label)
        evaluator.calibration.update(confidence, prediction, decided)
    return prediction, evaluator.update(prediction, label, index, name)


def iterate_split(split: SegmentationSplit, title: str, *, progress: bool) -> Iterator[tuple[int, Any, torch.Tensor]]:
    """Yield (index, pair, label) of this process's share of a split: no image goes to two processes."""
    state = join_processes()
    indices = list(range(state.process_index, len(split), state.num_processes))
    bar = Progress(
        read_ahead(map(split.__getitem__, indices), READ_AHEAD),
        title=title,
        total=len(indices),
        unit="images",
        show=progress and state.is_main_process,
    )
    for index, pair in zip(indices, bar, strict=True):
        label = pair["label"]
        # torch computes with uint8, but not with uint16
        yield index, pair, torch.from_numpy(label if label.dtype == "uint8" else label.astype("int32"))


def evaluate_split(
    predictor: Predictor,
    split: SegmentationSplit,
    classes: ClassMap,
    recipe: EvaluationRecipe,
    *,
    targets: tuple[Sequence[Path], str] | None = None,
    gallery: Gallery | None = None,
    title: str = "evaluation",
    progress: bool = True,
) -> Evaluator:
    """Return the evaluator of a whole split, on every process, each of which predicts its share of the images.

    Args:
        predictor: Forms the predictions.
        split: The images and masks.
        classes: Their classes.
        recipe: The metrics.
        targets: The file of each image's label map, from `place_outputs`, and the mask format; None writes none.
        gallery: Gets a thumbnail of each image, on every process those of all; None keeps none.
        title: Stands before the progress bar.
        progress: Show a progress bar.
    """
    evaluator = build_evaluator(recipe, classes)
    for index, pair, label in iterate_split(split, title, progress=progress):
        prediction, scores = score_image(predictor, evaluator, pair["image"], label, index, pair["name"])
        if targets:
            write_labels(targets[0][index], prediction.cpu().numpy(), pair["image"], classes, targets[1])
        if gallery is not None:
            gallery.add(pair["image"], pair["label"], prediction.cpu().numpy(), scores)
    if gallery is not None:
        gallery.merge(merge_processes(gallery))
    return merge_evaluators(evaluator)


def merge_processes(value: T) -> list[T]:
    """Return the values of all processes, on every process."""
    return list(gather_object([value]))


def merge_evaluators(evaluator: Evaluator) -> Evaluator:
    """Return one evaluator of what all processes saw, on every process."""
    evaluator.confusion.matrix = evaluator.confusion.matrix.cpu()
    first, *others = merge_processes(evaluator)
    for other in others:
        first.merge(other)
    return first

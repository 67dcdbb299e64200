"""The scores of an evaluation as the HTML report says them: large figures, further ones, and the columns of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segplus.reporting.table import ABSENT, explain_gaps, format_interval, format_score, list_class_intervals

LARGE = {
    "mean_iou": "mIoU",
    "mean_accuracy": "Mean accuracy",
    "overall_accuracy": "Pixel accuracy",
    "mean_dice": "Mean Dice",
    "frequency_weighted_iou": "Frequency-weighted IoU",
    "per_image_mean_iou": "mIoU per image",
}
_FURTHER = {
    "mean_precision_with_missed": "Mean precision, 0 where never predicted",
    "mean_precision": "Mean precision of predicted classes",
    "mean_boundary_iou": "Boundary IoU",
    "surface_dice": "Surface Dice",
    "mean_object_f1": "Object F1",
    "mean_object_quality": "Object quality (PQ)",
    "expected_calibration_error": "Calibration error (ECE)",
}
_SHARES = {
    "per_category_iou": "IoU",
    "per_category_precision": "Precision",
    "per_category_accuracy": "Recall",
    "per_category_dice": "Dice",
    "per_category_boundary_iou": "Boundary IoU",
    "per_category_surface_dice": "Surface Dice",
    "per_category_object_f1": "Object F1",
    "per_category_object_quality": "Object quality",
}
_COUNTS = {
    "per_category_objects_found": "Objects found",
    "per_category_objects_missed": "Missed",
    "per_category_objects_false": "False",
}
_DISTANCES = {"per_category_hausdorff_95": "Hausdorff 95"}
INTERVAL_TITLE = "IoU, 95 % interval"
# What a protocol's keys are called in a sentence.
_PROTOCOLS = {
    "fixed": "The image processor resizes each image as in training, the model predicts it once, and its scores are "
    "resized back: what transformers' pipeline serves.",
    "original": "Each image is predicted at its own size, padded where the model needs it.",
    "sliding": "Each image is predicted at its own size, in overlapping windows whose scores are blended.",
}
_UNITS = {"window_px": "windows of {} px", "stride_px": "stride {} px", "flip": "mirrored as well"}


def list_large_scores(evaluation: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """Return title, percentage and interval (in words where images are too few) of each score that is there."""
    intervals = evaluation.get("intervals") or {}
    scores: list[dict[str, str | None]] = []
    for key, title in LARGE.items():
        if evaluation.get(key) is not None:
            interval = format_interval(intervals.get(key))
            scores.append({"title": title, "value": format_score(evaluation[key]), "interval": interval})
    return scores


def list_further_scores(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return title and text of the scores that only some evaluations have."""
    scores = [(title, f"{format_score(evaluation[key])} %") for key, title in _FURTHER.items() if _has(evaluation, key)]
    if _has(evaluation, "hausdorff_95"):
        scores.append(("Hausdorff distance 95", f"{evaluation['hausdorff_95']:.2f}"))
    for width_px, score in (evaluation.get("trimap_iou") or {}).items():
        scores.append((f"Trimap IoU, {width_px} px", f"{format_score(score)} %"))
    for name, score in (evaluation.get("user_metrics") or {}).items():
        if isinstance(score, int | float):
            scores.append((name, f"{score:.4g}"))
    return scores


def _has(evaluation: Mapping[str, Any], key: str) -> bool:
    return evaluation.get(key) is not None


def list_class_columns(evaluation: Mapping[str, Any]) -> dict[str, list[dict[str, str | None]]]:
    """Return title -> one cell a class: `value` sorts, `text` is read, `bar` is a bar's length in percent or None."""
    columns = {}
    intervals = list_class_intervals(evaluation)
    for key, title in _SHARES.items():
        if key in evaluation:
            gaps, has_bar = explain_gaps(evaluation, key), key == "per_category_iou"
            pairs = zip(evaluation[key], gaps, strict=True)
            columns[title] = [
                _make_cell(score, gap if score is None else format_score(score), has_bar=has_bar)
                for score, gap in pairs
            ]
        if key == "per_category_iou" and intervals is not None:
            lows = [low for low, _ in evaluation["intervals"][key]]
            columns[INTERVAL_TITLE] = [_make_cell(low, text) for low, text in zip(lows, intervals, strict=True)]
    for key, title in _DISTANCES.items():
        if key in evaluation:
            columns[title] = [
                _make_cell(distance, ABSENT if distance is None else f"{distance:.1f}") for distance in evaluation[key]
            ]
    for key, title in _COUNTS.items():
        if key in evaluation:
            columns[title] = [_make_cell(count, f"{count:,}") for count in evaluation[key]]
    return columns


def _make_cell(number: float | None, text: str, *, has_bar: bool = False) -> dict[str, str | None]:
    bar = f"{100 * number:.1f}" if has_bar and number is not None else None
    return {"value": "" if number is None else f"{number:.6f}", "text": text, "bar": bar}


def describe_measurement(evaluation: Mapping[str, Any], num_classes: int) -> str:
    """Return the sentences under the scores: over which classes they are means, and by which protocol."""
    present = sum(score is not None for score in evaluation["per_category_iou"])
    over = "over all classes" if present == num_classes else f"over {present} of {num_classes} classes"
    if "groups" in evaluation:
        over += f"; intervals are over {evaluation['groups']} groups of images"
    if "coverage" in evaluation:
        over += f", and over the {100 * evaluation['coverage']:.1f} % of the pixels that were not left uncertain"
    if evaluation.get("decision"):
        over += f". Decision: {evaluation['decision']}"
    protocol = {key: value for key, value in (evaluation.get("protocol") or {}).items() if value is not None}
    if not protocol:
        return f"Measured at each image's original resolution, {over}."
    name, *details = (_describe_choice(key, value) for key, value in protocol.items())
    chosen = f"Protocol {name}{': ' if details else ''}{', '.join(details)}."
    return " ".join(
        [f"Measured at each image's original resolution, {over}.", chosen, _PROTOCOLS.get(name, "")]
    ).strip()


def _describe_choice(key: str, value: Any) -> str:
    if key == "name":
        return str(value)
    listed = " x " if key == "window_px" else ", "
    text = listed.join(map(str, value)) if isinstance(value, list) else str(value)
    return _UNITS.get(key, f"{key.replace('_', ' ')} {{}}").format(text)

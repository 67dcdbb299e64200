"""metrics.json: written whole or not at all, NaN as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segplus.errors import InputError
from segplus.files import explain_refusals, write_text

_MEANS = ("mean_", "overall_", "frequency_weighted_")
_LONGEST_SHOWN = 80


def write_metrics(path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics as JSON, whole or not at all.

    Args:
        path: The file, usually metrics.json; folders on the way are made.
        metrics: Numbers, strings, lists, dicts, arrays and tensors; what is not finite becomes null.
    """
    text = json.dumps(clean_numbers(metrics), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def refuse_foreign_results(files: Sequence[Path], mark: str) -> None:
    """Refuse a folder in which somebody's own files have the names of results.

    Args:
        files: What would be written; the first one is JSON and is written first.
        mark: A key that segplus writes into it.
    Raises:
        InputError: If one of the files is there, and the first one was not written by segplus.
    """
    standing = next((path for path in files if path.exists()), None)
    if standing is not None and mark not in _read_keys(files[0]):
        raise InputError(
            f"{standing}: not written by segplus, and would be written over",
            found=f"{files[0].name} beside it is missing, or not segplus' own",
            fix="name another folder, or move the file away",
        )


def _read_keys(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return list(content) if isinstance(content, dict) else []


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Return what `write_metrics` wrote, with NaN again in the lists of scores per class.

    Args:
        path: The file.
    Raises:
        InputError: If the file is missing, cannot be read, or does not hold what `write_metrics` writes.
    """
    with explain_refusals(Path(path)):
        content = Path(path).read_bytes()
    try:
        metrics: dict[str, Any] = json.loads(content)
        damage = _find_damage(metrics)
    except (ValueError, RecursionError) as error:
        damage = str(error)
    if damage is not None:
        raise InputError(
            f"{path}: not a metrics.json as segplus writes it",
            found=damage,
            fix="repeat the run, which writes it anew, or remove it and repeat `segplus evaluate`",
        )
    for evaluation in metrics.get("evaluations", {}).values():
        for key, value in evaluation.items():
            if key.startswith(("per_category_", "per_image_")) and isinstance(value, list):
                evaluation[key] = [math.nan if entry is None else entry for entry in value]
            elif value is None:
                evaluation[key] = math.nan
    return metrics


def _find_damage(metrics: Any) -> str | None:
    """Return the first thing in the content of a metrics.json that is none of its, or None."""
    if not isinstance(metrics, dict):
        return type(metrics).__name__
    names, colors, evaluations = (metrics.get(key) for key in ("class_names", "class_colors", "evaluations"))
    if names is not None and not (_is_list(names) and all(isinstance(name, str) for name in names)):
        return f"class_names: {shorten(names)}"
    count = None if names is None else len(names)
    if colors is not None and not (_is_list(colors, count) and all(_is_color(color) for color in colors)):
        return f"class_colors: {shorten(colors)}"
    if not (evaluations is None or isinstance(evaluations, dict)):
        return f"evaluations: {shorten(evaluations)}"
    for split, scores in (evaluations or {}).items():
        if not isinstance(scores, dict):
            return f"evaluations.{split}: {shorten(scores)}"
        key = next((key for key, value in scores.items() if not _is_score(key, value, count)), None)
        if key is not None:
            return f"evaluations.{split}.{key}: {shorten(scores[key])}"
    return None


def _is_score(key: str, value: Any, classes: int | None) -> bool:
    if key.startswith("per_category_"):
        return _is_list(value, classes) and all(entry is None or _is_number(entry) for entry in value)
    if key == "confusion_matrix":
        size = len(value) if classes is None and isinstance(value, list) else classes
        return _is_list(value, size) and all(
            _is_list(row, size) and all(type(pixels) is int and 0 <= pixels < 2**63 for pixels in row) for row in value
        )
    if key == "images":
        return type(value) is int and value >= 0
    return value is None or _is_number(value) or not key.startswith(_MEANS)


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and (length is None or len(value) == length)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_color(value: Any) -> bool:
    return _is_list(value, 3) and all(type(channel) is int and 0 <= channel <= 255 for channel in value)


def shorten(value: Any) -> str:
    """Return a value as it may stand in a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def clean_numbers(value: Any) -> Any:
    """Return the value in JSON's types: arrays and tensors as lists, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): clean_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [clean_numbers(entry) for entry in value]
    if hasattr(value, "tolist"):
        return clean_numbers(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)

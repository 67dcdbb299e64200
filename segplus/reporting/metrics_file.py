"""metrics.json: written whole or not at all, NaN as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segplus.errors import InputError
from segplus.files import write_text


def write_metrics(path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics as JSON, whole or not at all.

    Args:
        path: The file, usually metrics.json; folders on the way are made.
        metrics: Numbers, strings, lists, dicts, arrays and tensors; what is not finite becomes null.
    """
    text = json.dumps(clean_numbers(metrics), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def read_metrics(path: str | Path) -> dict[str, Any]:
    """Return what `write_metrics` wrote, with NaN again in the lists of scores per class.

    Args:
        path: The file.
    Raises:
        InputError: If the file is missing or no JSON object.
    """
    try:
        metrics = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", fix="run `segplus evaluate`, which writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a metrics.json", found=error, allowed="JSON as segplus writes it") from None
    if not isinstance(metrics, dict):
        raise InputError(f"{path}: not a metrics.json", found=type(metrics).__name__, allowed="a JSON object")
    for evaluation in metrics.get("evaluations", {}).values():
        for key, value in evaluation.items():
            if key.startswith(("per_category_", "per_image_")) and isinstance(value, list):
                evaluation[key] = [math.nan if entry is None else entry for entry in value]
            elif value is None:
                evaluation[key] = math.nan
    return metrics


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

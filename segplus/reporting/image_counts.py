"""image_counts.npz: what each image of a split was counted as, for intervals over several runs."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.errors import InputError
from segplus.files import explain_refusals, write_whole

ImageCounts = tuple[Sequence[str], npt.NDArray[np.int64]]


def write_image_counts(path: Path, splits: Mapping[str, ImageCounts]) -> None:
    """Write the images of splits, whole or not at all.

    Args:
        path: The file.
        splits: Split -> names, and hits, pixels of the truth and pixels of the prediction per class, shape (N, 3, C).
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for split, (names, counts) in splits.items():
        arrays |= {f"{split}/names": np.asarray(names, dtype=np.str_), f"{split}/counts": counts}
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_image_counts(path: Path, split: str, num_classes: int) -> ImageCounts:
    """Return names and counts, shape (N, 3, num_classes), of a split.

    Raises:
        InputError: If the file cannot be read or does not hold them.
    """
    fix = "repeat the run of this fold"
    try:
        with explain_refusals(path), np.load(path, allow_pickle=False) as stored:
            names, counts = stored[f"{split}/names"], stored[f"{split}/counts"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged", found=str(error).splitlines()[0][:200], fix=fix) from None
    fits = names.ndim == 1 and counts.shape == (len(names), 3, num_classes) and counts.dtype == np.int64
    if not fits:
        raise InputError(f"{path}: damaged", found=f"shape {counts.shape} of {counts.dtype}", fix=fix)
    return names.tolist(), counts

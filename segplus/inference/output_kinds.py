"""What a prediction is written as: one function a kind, from a prediction to a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.files import write_text, write_whole
from segplus.images import DecodedImage, show_as_rgb
from segplus.inference.annotations import format_labelme
from segplus.inference.prediction_files import check_mask_format, write_labels

Arrays = dict[str, npt.NDArray[Any]]  # labels, and what else of `label_maker.OUTPUTS` the kind needs


@dataclass(frozen=True)
class Shown:
    """What a kind is drawn from.

    Args:
        image: The image.
        path: Its file; None where it has none.
        arrays: labels (H, W), and what the kind needs beside them.
        classes: Names and colours.
    """

    image: DecodedImage
    path: Path | None
    arrays: Arrays
    classes: ClassMap


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        suffix: Of its files.
        needs: What it takes of `label_maker.OUTPUTS`, beside the label map.
        write: Writes a file, whole or not at all.
    """

    suffix: str
    needs: tuple[str, ...]
    write: Callable[[Path, Shown], None]


def _write_mask(mask_format: str) -> Callable[[Path, Shown], None]:
    def write(path: Path, shown: Shown) -> None:
        write_labels(path, shown.arrays["labels"], shown.image, shown.classes, mask_format)

    return write


def _write_share(name: str) -> Callable[[Path, Shown], None]:
    """Return a writer of a value in [0, 1] as a grey PNG: 255 is 1."""

    def write(path: Path, shown: Shown) -> None:
        grey = np.rint(shown.arrays[name].clip(0, 1) * 255).astype(np.uint8)
        with write_whole(path) as temporary:
            Image.fromarray(grey).save(temporary, "PNG")

    return write


def _write_probabilities(path: Path, shown: Shown) -> None:
    names = np.array(shown.classes.names)
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=shown.arrays["probabilities"], class_names=names)


def _write_contours(path: Path, shown: Shown) -> None:
    labels, classes = shown.arrays["labels"], shown.classes
    drawn = np.array(show_as_rgb(shown.image).convert("RGB"))
    thickness = max(1, round(min(labels.shape) / 400))
    for class_id in np.unique(labels[labels < classes.num_classes]).tolist():
        mask = (labels == class_id).astype(np.uint8)
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, tuple(map(int, classes.colors[class_id])), thickness)
    with write_whole(path) as temporary:
        Image.fromarray(drawn).save(temporary, "PNG")


def _write_labelme(path: Path, shown: Shown) -> None:
    named = path.with_suffix(".png").name
    if shown.path is not None:
        named = Path(os.path.relpath(shown.path.resolve(), path.parent.resolve())).as_posix()
    write_text(path, format_labelme(shown.arrays["labels"], shown.classes.names, named))


KINDS = {
    "ids": Kind(".png", (), _write_mask("ids")),
    "palette": Kind(".png", (), _write_mask("palette")),
    "overlay": Kind(".png", (), _write_mask("overlay")),
    "contours": Kind(".png", (), _write_contours),
    "confidence": Kind(".png", ("confidence",), _write_share("confidence")),
    "uncertainty": Kind(".png", ("entropy",), _write_share("entropy")),
    "disagreement": Kind(".png", ("disagreement",), _write_share("disagreement")),
    "probabilities": Kind(".npz", ("probabilities",), _write_probabilities),
    "labelme": Kind(".json", (), _write_labelme),
}


def check_kinds(kinds: Sequence[str], num_classes: int) -> None:
    """Refuse kinds that there are not, named twice, or that cannot hold the classes.

    Raises:
        InputError: If so.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise InputError("--kind: mask format of the predictions", found=", ".join(kinds), allowed=", ".join(KINDS))
    for kind in kinds:
        if kind in ("ids", "palette", "overlay"):
            check_mask_format(kind, num_classes)

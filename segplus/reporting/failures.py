"""What is wrong with a model, in sentences that stand before its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.reporting.metrics_file import clean_numbers
from segplus.reporting.table import format_share, read_matrix

# A class of which less is found is told of, and one of whose predicted pixels fewer are right.
_MOSTLY_MISSED, _MOSTLY_WRONG = 0.2, 0.05
_MOST_SENTENCES = 5
_HELP_MISSED = (
    "What usually helps: more steps; class_weights: enet or median_frequency; a tversky term among the losses with "
    "beta above alpha; transforms.rare_class_crop, which lays more crops over rare classes."
)
_HELP_WRONG = (
    "What usually helps: more steps; milder class_weights or none; a tversky term among the losses with alpha above "
    "beta; more images of what is taken for it."
)


def describe_failures(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Return a sentence for each class that is hardly ever found or hardly ever right, the worst first, and advice.

    Args:
        evaluation: One entry of metrics.json's "evaluations"; "confusion_matrix" has a row for each true class.
        class_names: One name a class.
    Returns:
        Sentences, the last of which says what usually helps; none for a sound model.
    """
    matrix = read_matrix(evaluation)
    if matrix is None:
        return []
    truth, predicted, hits = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    recall = np.divide(hits, truth, out=np.ones(len(truth)), where=truth > 0)
    precision = np.divide(hits, predicted, out=np.ones(len(truth)), where=predicted > 0)
    images = clean_numbers(evaluation.get("per_category_images"))
    missed = [int(i) for i in np.lexsort((-truth, recall)) if recall[i] < _MOSTLY_MISSED]
    wrong = [int(i) for i in np.lexsort((-predicted, precision)) if precision[i] < _MOSTLY_WRONG and i not in missed]
    told = [_describe_missed(matrix, i, class_names, images) for i in missed]
    told += [_describe_wrong(matrix, i, class_names) for i in wrong]
    rest = len(told) - _MOST_SENTENCES
    if rest > 0:
        more = "1 more class is" if rest == 1 else f"{rest} more classes are"
        told[_MOST_SENTENCES:] = [
            f"{more} found in less than {_MOSTLY_MISSED:.0%} of the pixels, or hardly ever right."
        ]
    return [*told, _HELP_MISSED if missed else _HELP_WRONG] if told else []


def _describe_missed(
    matrix: npt.NDArray[np.int64], index: int, names: Sequence[str], images: Sequence[int] | None
) -> str:
    truth, hits, predicted = int(matrix[index].sum()), int(matrix[index, index]), int(matrix[:, index].sum())
    wrong = matrix[index].copy()
    wrong[index] = 0
    other = int(wrong.argmax())
    share = "all" if wrong[other] == truth else f"{format_share(wrong[other] / truth)} %"
    taken = f"{share} of them are taken for {names[other]}"
    where = "" if images is None else f" in {_count(images[index], 'image')}"
    pixels = f"{_count(truth, 'pixel')}{where}"
    if hits:
        return f"{names[index]} is mostly missed: of its {pixels}, {format_share(hits / truth)} % are found; {taken}."
    how = "the model never predicts it" if not predicted else "where the model predicts it, it is always wrong"
    return f"{names[index]} is never found: {how}. It has {pixels}; {taken}."


def _describe_wrong(matrix: npt.NDArray[np.int64], index: int, names: Sequence[str]) -> str:
    predicted, hits, column = int(matrix[:, index].sum()), int(matrix[index, index]), matrix[:, index].copy()
    column[index] = 0
    other, pixels = int(column.argmax()), _count(predicted, "pixel")
    if not matrix[index].any():
        return f"{names[index]} is predicted where it is not: the truth holds none, the prediction {pixels}."
    share = f"of the {pixels} that are predicted as it, {format_share(hits / predicted)} % are right"
    return f"{names[index]} is mostly predicted where it is not: {share}; most of the others are {names[other]}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

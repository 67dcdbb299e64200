"""What is wrong with a model, in sentences that stand before its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.reporting.metrics_file import clean_numbers
from segplus.reporting.table import format_share, read_matrix

# A class of which less is found is told of.
_MOSTLY_MISSED = 0.2
_MOST_SENTENCES = 5


def describe_failures(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Return a sentence for each class that is never or hardly ever found, the worst first; none of a sound model.

    Args:
        evaluation: One entry of metrics.json's "evaluations"; "confusion_matrix" has a row for each true class.
        class_names: One name a class.
    """
    matrix = read_matrix(evaluation)
    if matrix is None:
        return []
    truth, hits = matrix.sum(1), matrix.diagonal()
    recall = np.divide(hits, truth, out=np.ones(len(truth)), where=truth > 0)
    images = clean_numbers(evaluation.get("per_category_images"))
    order = [int(i) for i in np.lexsort((-truth, recall)) if recall[i] < _MOSTLY_MISSED]
    told = [_describe_class(matrix, i, class_names, images) for i in order[:_MOST_SENTENCES]]
    rest = order[_MOST_SENTENCES:]
    if rest:
        told.append(f"{len(rest)} more classes are found in less than {_MOSTLY_MISSED:.0%} of their pixels.")
    return told


def _describe_class(
    matrix: npt.NDArray[np.int64], index: int, names: Sequence[str], images: Sequence[int] | None
) -> str:
    truth, hits, predicted = int(matrix[index].sum()), int(matrix[index, index]), int(matrix[:, index].sum())
    wrong = matrix[index].copy()
    wrong[index] = 0
    other = int(wrong.argmax())
    share = "all" if wrong[other] == truth else f"{format_share(wrong[other] / truth)} %"
    taken = f"{share} of them are taken for {names[other]}"
    where = "" if images is None else f" in {images[index]:,} image{'s' if images[index] != 1 else ''}"
    pixels = f"{truth:,} pixel{'s' if truth != 1 else ''}{where}"
    if hits:
        return f"{names[index]} is mostly missed: of its {pixels}, {format_share(hits / truth)} % are found; {taken}."
    how = "the model never predicts it" if not predicted else "where the model predicts it, it is always wrong"
    return f"{names[index]} is never found: {how}. It has {pixels}; {taken}."

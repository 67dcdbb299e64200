"""Expected calibration error, streamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segplus.classes import IGNORE_INDEX
from segplus.metrics.confusion import divide

# Confidences are summed as whole multiples of this: the sum does not depend on the order of images or processes.
_UNIT = 2.0**-30


class CalibrationError:
    """How far the confidence of predictions is from their accuracy, over bins of equal width.

    Args:
        ignore_index: The label that is ignored.
        bins: Number of bins in (0, 1]; confidence 0 falls into the first.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, 2017, equation 5. https://arxiv.org/abs/1706.04599
    """

    def __init__(self, ignore_index: int = IGNORE_INDEX, bins: int = 15) -> None:
        self.ignore_index = ignore_index
        self.counts = torch.zeros(3, bins, dtype=torch.int64)  # pixels, right pixels, confidence in units

    def update(self, confidence: Tensor, prediction: Tensor, label: Tensor) -> None:
        """Count some pixels.

        Args:
            confidence: Probability of the predicted class, float in [0, 1], any shape.
            prediction: Class ids, the same shape.
            label: Class ids, the same shape; ignore_index is ignored.
        """
        valid = label != self.ignore_index
        kept = confidence[valid].double()
        bins = self.counts.shape[1]
        index = (kept * bins).ceil_().long().sub_(1).clamp_(0, bins - 1)
        units = (kept / _UNIT).round_().long()
        right = (prediction[valid] == label[valid]).long()
        counted = torch.zeros(3, bins, dtype=torch.int64, device=index.device)
        counted[0] = torch.bincount(index, minlength=bins)
        counted[1].index_add_(0, index, right)
        counted[2].index_add_(0, index, units)
        self.counts += counted.cpu()

    def merge(self, other: CalibrationError) -> None:
        """Add the counts of other images."""
        self.counts += other.counts

    def compute(self) -> dict[str, Any]:
        """Return expected_calibration_error and calibration: pixels, accuracy and confidence per bin."""
        pixels, right, units = self.counts.numpy().astype(np.float64)
        accuracy, confidence = divide(right, pixels), divide(units * _UNIT, pixels)
        total = pixels.sum()
        error = float((np.nan_to_num(np.abs(accuracy - confidence)) * pixels).sum() / total) if total else float("nan")
        return {
            "expected_calibration_error": error,
            "calibration": {
                "pixels": self.counts[0].tolist(),
                "accuracy": accuracy.tolist(),
                "confidence": confidence.tolist(),
            },
        }

"""What a network with a boundary head learns beside its main loss: boundaries, and the classes beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segplus.losses.configuration import build_criterion
from segplus.losses.criterion import Criterion
from segplus.losses.terms import choose_sum_dtype

_BOUNDARY_WEIGHT, _CLASS_WEIGHT = 20.0, 1.0
_THRESHOLD = 0.8
_REACH_PX = 1  # a boundary is marked this far beyond the two pixels that it runs between
_COUNTS = ("boundary_head/boundary", "boundary_head/valid")


class BoundaryHeadLoss(nn.Module):
    """Binary cross-entropy of the boundary head, and cross-entropy of the classes where it sees a boundary.

    Boundaries are few, so pixels on and off them weigh as much together: w = the share of the others. The cross-entropy
    is the mean over pixels whose boundary probability is above 0.8, of one micro-batch: which these are is known only
    after the forward pass. The sum is 20 times the first and the second once, beside a main loss of weight 1.

    `term_values` keeps the detached, unweighted values of the last call, each its share of the accumulated batch.

    Args:
        criterion: The main one, whose classes, ignore index and class weights hold here.
    Reference:
        Xu et al., PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers, 2022, section 3.
        https://arxiv.org/abs/2206.02066
    """

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        num_classes, self.ignore_index = criterion.num_classes, criterion.ignore_index
        term = "cross_entropy" if num_classes > 1 else "binary_cross_entropy"
        self.classes = build_criterion(
            {term: 1.0}, num_classes, self.ignore_index, criterion.class_weights, plain=criterion.plain
        )
        self.term_values: dict[str, Tensor] = {}

    def forward(
        self,
        logits: Tensor,
        boundary_logits: Tensor,
        labels: Tensor,
        normalizers: Mapping[str, Tensor] | None = None,
        shares: int = 1,
    ) -> Tensor:
        """Return this call's share of the loss.

        Args:
            logits: Scores of the classes, shape (N, C, h, w).
            boundary_logits: Scores of a boundary, shape (N, 1, h', w').
            labels: Class ids, int64, shape (N, H, W); ignore_index is ignored.
            normalizers: `count_normalizers` summed over micro-batches and processes; None of a batch by itself.
            shares: Micro-batches of the accumulated step times processes.
        """
        counts = self.count_normalizers(labels) if normalizers is None else normalizers
        work = boundary_logits.to(torch.promote_types(boundary_logits.dtype, torch.float32))
        scores = F.interpolate(work, labels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        boundary, valid = mark_boundaries(labels, self.ignore_index), labels != self.ignore_index
        on_boundary, total = (counts[name].to(scores).clamp(min=1) for name in _COUNTS)
        share = on_boundary / total
        weights = torch.where(boundary, 1 - share, share) * valid
        found = F.binary_cross_entropy_with_logits(scores, boundary.to(scores), weights, reduction="sum") / total
        beside = labels.masked_fill(scores.detach().sigmoid() <= _THRESHOLD, self.ignore_index)
        classes = self.classes(logits, beside) / shares
        self.term_values = {"boundary_head": found.detach(), "boundary_classes": classes.detach()}
        total_loss: Tensor = _BOUNDARY_WEIGHT * found + _CLASS_WEIGHT * classes
        return total_loss

    def count_normalizers(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the numbers of boundary pixels and of valid ones, float64, to be added over micro-batches."""
        boundary = mark_boundaries(labels, self.ignore_index)
        dtype = choose_sum_dtype(labels.device)
        counts = (boundary.sum().to(dtype), (labels != self.ignore_index).sum().to(dtype))
        return dict(zip(_COUNTS, counts, strict=True))


def mark_boundaries(labels: Tensor, ignore_index: int) -> Tensor:
    """Return where pixels lie within two of another class, to any side; ignored ones neither make nor get a boundary.

    Args:
        labels: Class ids, shape (N, H, W).
        ignore_index: The label that is ignored.
    Returns:
        Bool, shape (N, H, W).
    """
    valid = labels != ignore_index
    boundary = torch.zeros_like(valid)
    for dim in (1, 2):
        size = labels.shape[dim] - 1
        first, second = (labels.narrow(dim, start, size) for start in (0, 1))
        differs = (first != second) & valid.narrow(dim, 0, size) & valid.narrow(dim, 1, size)
        for start in (0, 1):
            boundary.narrow(dim, start, size).logical_or_(differs)
    reached = F.max_pool2d(boundary.float(), 2 * _REACH_PX + 1, stride=1, padding=_REACH_PX) > 0
    return reached & valid

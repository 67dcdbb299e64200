"""The loss of a boundary head: where boundaries are, what balances them, and shares that add up."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segplus.losses import build_criterion
from segplus.losses.boundary_head import BoundaryHeadLoss, mark_boundaries


def test_boundaries_are_the_pixels_within_two_of_another_class() -> None:
    labels = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]).repeat(3, 1)[None]
    assert mark_boundaries(labels, 255)[0, 1].int().tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    labels[..., 4] = 255
    assert mark_boundaries(labels, 255).sum() == 0  # an ignored pixel makes no boundary
    labels = torch.zeros(1, 5, 5, dtype=torch.int64)
    labels[0, 4] = 3
    labels[0, :, 0] = 255
    marked = mark_boundaries(labels, 255)[0].int()
    assert marked[:, 0].tolist() == [0, 0, 0, 0, 0]
    assert marked[:, 2].tolist() == [0, 0, 1, 1, 1]


def test_the_value_is_that_of_the_formula() -> None:
    torch.manual_seed(0)
    logits, boundary_logits = torch.randn(2, 3, 16, 16), 3 * torch.randn(2, 1, 16, 16)
    labels = torch.randint(0, 3, (2, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[0, :5] = 255
    loss = BoundaryHeadLoss(build_criterion({"dice": 1.0}, 3))
    found = loss(logits, boundary_logits, labels)
    truth, valid = mark_boundaries(labels, 255), labels != 255
    share = truth.sum() / valid.sum()
    probability = boundary_logits[:, 0].sigmoid()
    entropy = -torch.where(truth, (1 - share) * probability.log(), share * (1 - probability).log())
    beside = valid & (probability > 0.8)
    classes = F.cross_entropy(logits.movedim(1, -1)[beside], labels[beside])
    assert float(loss.term_values["boundary_head"]) == pytest.approx(float(entropy[valid].mean()), rel=1e-5)
    assert float(loss.term_values["boundary_classes"]) == pytest.approx(float(classes), rel=1e-5)
    assert float(found) == pytest.approx(float(20 * entropy[valid].mean() + classes), rel=1e-5)


def test_shares_of_boundaries_add_up_and_both_heads_learn() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, requires_grad=True)
    boundary_logits = (4 * torch.randn(4, 1, 8, 8)).requires_grad_()
    labels = torch.randint(0, 3, (4, 32, 32))
    labels[1:] = labels[1:, :1]  # as many boundaries in one image as in no other
    loss = BoundaryHeadLoss(build_criterion({"cross_entropy": 1.0}, 3))
    loss(logits, boundary_logits, labels).backward()
    whole, value = boundary_logits.grad.clone(), loss.term_values["boundary_head"]
    assert logits.grad.abs().sum() > 0
    boundary_logits.grad = None
    counts = loss.count_normalizers(labels)
    total = torch.zeros(())
    for row in range(4):
        one = slice(row, row + 1)
        loss(logits[one], boundary_logits[one], labels[one], counts, 4).backward()
        total += loss.term_values["boundary_head"]
    assert torch.allclose(boundary_logits.grad, whole, atol=1e-7)
    assert float(total) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 2])
def test_nothing_to_learn_from_is_zero(classes: int) -> None:
    term = "binary_cross_entropy" if classes == 1 else "cross_entropy"
    loss = BoundaryHeadLoss(build_criterion({term: 1.0}, classes))
    labels = torch.full((1, 16, 16), 255)
    logits, boundary_logits = torch.randn(1, classes, 4, 4), torch.randn(1, 1, 4, 4, requires_grad=True)
    value = loss(logits, boundary_logits, labels)
    value.backward()
    assert float(value.detach()) == 0
    assert float(boundary_logits.grad.abs().sum()) == 0
    for single in (0, 0 if classes == 1 else 1):  # one class alone has no boundary
        value = loss(logits, torch.full((1, 1, 4, 4), -100.0), torch.full((1, 16, 16), single))
        assert torch.isfinite(value)
        assert float(loss.term_values["boundary_classes"]) == 0

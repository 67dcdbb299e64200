"""Masked classes: logits of -inf or of the type's least number, against float64 on clamped logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_formulas import FORMULAS, IGNORED

from segplus.losses import LOSSES, build_criterion

CLASSES, SIZE = 5, (24, 24)
MASKED = CLASSES - 1
FLOAT32 = torch.finfo(torch.float32)
EACH_TERM = pytest.mark.parametrize("term", sorted(LOSSES))
EACH_MASK = pytest.mark.parametrize("mask", [FLOAT32.min, -torch.inf], ids=["finfo.min", "-inf"])
PHASES, ROWS = (6, 6), (7, 5)  # the walks by a whole scale and by any other


def draw(mask, low, dtype=torch.float32):
    """Return logits whose last class is masked, and labels without it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, *low, generator=generator).to(dtype) * 2
    logits[:, MASKED] = mask
    blocks = torch.randint(0, MASKED, (2, 1, 4, 4), generator=generator).float()
    labels = F.interpolate(blocks, size=SIZE)[:, 0].long()
    labels[0, :3] = IGNORED
    return logits, labels


def differentiate(term, logits, labels, **options):
    leaf = logits.clone().requires_grad_()
    value = build_criterion({term: FORMULAS[term][0]}, logits.shape[1], **options)(leaf, labels)
    value.backward()
    return value.detach(), leaf.grad


def compute_reference(term, logits, labels):
    _, formula, arguments = FORMULAS[term]
    leaf = logits.double().clamp(min=max(torch.finfo(logits.dtype).min, FLOAT32.min)).requires_grad_()
    full = F.interpolate(leaf, size=SIZE, mode="bilinear", align_corners=False)
    value = formula(full, labels, torch.ones(CLASSES, dtype=torch.float64), **arguments)
    value.backward()
    return value.detach(), leaf.grad


@EACH_TERM
@pytest.mark.parametrize(("mask", "low"), [(FLOAT32.min, PHASES), (-torch.inf, ROWS)], ids=["finfo.min", "-inf"])
def test_a_masked_class_is_float64_on_clamped_logits(term, mask, low):
    logits, labels = draw(mask, low)
    value, gradient = differentiate(term, logits, labels)
    expected, slope = compute_reference(term, logits, labels)
    assert value.dtype == gradient.dtype == torch.float32
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert torch.isfinite(gradient).all()
    defined = slope.isfinite()  # the written-out root of focal Tversky has no derivative at the absent class
    assert defined.sum() >= slope.numel() * (CLASSES - 1) / CLASSES or term == "focal_tversky"
    assert torch.allclose(gradient[defined].double(), slope[defined], rtol=1e-5, atol=1e-9)
    plain, _ = differentiate(term, logits, labels, plain=True)
    assert float(plain) == pytest.approx(float(expected), rel=1e-6)


@EACH_TERM
def test_a_true_class_that_is_masked_has_a_finite_large_loss(term):
    logits, labels = draw(-torch.inf, PHASES)
    before, _ = differentiate(term, logits, labels)
    labels[:, 10:14, 5:9] = MASKED
    value, gradient = differentiate(term, logits, labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    expected, _ = compute_reference(term, logits, labels)
    if expected.isfinite():  # the written-out focal losses have the logarithm of a probability that is 0
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert value > (1e30 if "cross_entropy" in term or ("focal" in term and term != "focal_tversky") else before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_masked_class_in_other_precisions(dtype):
    for mask in (torch.finfo(dtype).min, -torch.inf):
        logits, labels = draw(mask, PHASES, dtype)
        value, gradient = differentiate("dice", logits, labels)
        expected, slope = compute_reference("dice", logits, labels)
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
        assert torch.allclose(gradient.double(), slope, rtol=0.02, atol=1e-5)


@EACH_MASK
def test_one_logit_far_below(mask):
    logits = torch.full((1, 1, 4, 4), mask, requires_grad=True)
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    value = build_criterion({"binary_cross_entropy": 1.0}, 1)(logits, labels)
    value.backward()
    assert float(value.detach()) == 0.0
    assert float(logits.grad.abs().max()) == 0.0
    large = build_criterion({"binary_cross_entropy": 2.0}, 1)(logits, labels + 1)
    assert float(large.detach()) == FLOAT32.max


def test_every_class_masked_is_every_class_alike():
    logits = torch.full((1, 4, 4, 4), -torch.inf)
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert float(build_criterion({"cross_entropy": 1.0}, 4)(logits, labels)) == pytest.approx(1.3862944)

"""One small scene on which every loss term is compared with its oracle, and the comparison."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from segplus.losses import build_criterion

CLASSES, LOW, HIGH = 4, (6, 5), (24, 20)


def draw_scene():
    """Logits at stride 4 and labels without an ignored pixel, float64."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, CLASSES, *LOW, generator=generator, dtype=torch.float64) * 2
    blocks = torch.randint(0, CLASSES, (2, 1, 4, 5), generator=generator)
    labels = F.interpolate(blocks.float(), size=HIGH)[:, 0].long()
    return logits.requires_grad_(), labels


def enlarge(logits):
    return F.interpolate(logits, size=HIGH, mode="bilinear", align_corners=False)


def assert_same(config, logits, labels, expected, **options):
    """Compare value and gradient within 1e-6, and in fact far closer."""
    value = build_criterion(config, CLASSES, **options)(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    assert float(abs(value - expected).detach()) < 1e-6 * max(1.0, float(abs(expected).detach()))
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-6

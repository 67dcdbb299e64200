"""Every term is its formula on what F.interpolate builds, to 1e-10 in float64, at every scale."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loss_formulas import FORMULAS, VARIANTS

from segplus.losses import LOSSES, build_criterion, row_terms, upsample

CLASSES = 5
# Scales 1 to 32 with odd sides, one scale a direction, no whole number, one whole and one not, and below 1.
SIZES = [
    ((23, 21), (23, 21)),
    ((11, 10), (22, 20)),
    ((5, 7), (20, 28)),
    ((3, 5), (24, 40)),
    ((3, 2), (48, 32)),
    ((2, 1), (64, 32)),
    ((7, 4), (21, 20)),
    ((5, 7), (37, 23)),
    ((7, 8), (21, 19)),
    ((33, 32), (23, 20)),
]
FEW_SIZES = [SIZES[2], SIZES[7]]
ROWS = [(name, *row, low, high) for name, row in FORMULAS.items() for low, high in SIZES]
ROWS += [(*row, low, high) for row in VARIANTS for low, high in FEW_SIZES]
NAMES = [f"{name}({','.join(options)})-{low}-{high}" for name, options, _, _, low, high in ROWS]
WEIGHTS = torch.tensor([0.5, 2.0, 0.25, 3.0, 1.5], dtype=torch.float64)


def draw(low, high):
    """Return logits and blocky labels of three images: one with holes, one with a third ignored, one wholly ignored.

    No image has class 2, and only the first has class 4.
    """
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(3, CLASSES, *low, generator=generator, dtype=torch.float64) * 2
    blocks = torch.randint(0, CLASSES, (3, 1, 4, 3), generator=generator).double()
    labels = F.interpolate(blocks, size=high)[:, 0].long()
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    labels[1, : high[0] // 3, : high[1] // 2] = 255
    labels[2] = 255
    labels[labels == 2] = 1
    labels[1][labels[1] == 4] = 3
    return logits.requires_grad_(), labels


def test_every_term_has_a_formula():
    assert set(FORMULAS) == set(LOSSES)


@pytest.mark.parametrize("least_phase_bytes", [0, 1 << 40], ids=["phases", "rows"])
@pytest.mark.parametrize(("name", "options", "formula", "arguments", "low", "high"), ROWS, ids=NAMES)
def test_every_scale(name, options, formula, arguments, low, high, least_phase_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", least_phase_bytes)
    monkeypatch.setattr(upsample, "CHUNK_BYTES", 4000)  # several chunks an image
    monkeypatch.setattr(row_terms, "CHUNK_BYTES", 4000)
    logits, labels = draw(low, high)
    value = build_criterion({name: options}, CLASSES, class_weights=WEIGHTS)(logits, labels)
    full = F.interpolate(logits, size=high, mode="bilinear", align_corners=False)
    expected = formula(full, labels, WEIGHTS, **arguments)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-10)
    (gradient,), (slope,) = torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits)
    assert float((gradient - slope).norm() / slope.norm()) < 1e-10

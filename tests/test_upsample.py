"""The chunks of the upsampled grid are what F.interpolate builds, and their adjoint is its backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segplus.losses import upsample
from segplus.losses.upsample import Phases, Rows, choose_grid, list_taps

SIZES = [
    ((5, 7), (5, 7)),
    ((5, 6), (10, 12)),
    ((7, 5), (28, 20)),
    ((4, 3), (32, 24)),
    ((3, 4), (48, 64)),
    ((2, 3), (64, 96)),
    ((1, 1), (4, 4)),
    ((4, 6), (12, 30)),
    ((6, 5), (12, 20)),
    ((5, 7), (37, 23)),
    ((9, 8), (13, 16)),
    ((9, 8), (5, 4)),
]


GRIDS = pytest.mark.parametrize("least_phase_bytes", [0, 1 << 40], ids=["phases", "rows"])


def walk(grid, image, weights):
    """Return the upsampled image and the gradient of its sum with weights, both put together from chunks."""
    arranged, seen = grid.arrange(weights), torch.zeros_like(grid.arrange(weights))
    gradient = torch.zeros_like(image)

    def compute(chunk, position):
        where = (slice(None), *position)
        seen[where] = chunk
        chunk.copy_(arranged[where])

    grid.visit(image, compute, gradient)
    return grid.restore(seen), gradient


@GRIDS
@pytest.mark.parametrize("small_chunks", [False, True])
@pytest.mark.parametrize(("low", "high"), SIZES)
def test_chunks_are_the_interpolation_and_its_adjoint(low, high, small_chunks, least_phase_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", least_phase_bytes)
    if small_chunks:
        monkeypatch.setattr(upsample, "CHUNK_BYTES", 400)
        monkeypatch.setattr(upsample, "STRETCHED_ROWS", 2)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, *low, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, *high, generator=generator, dtype=torch.float64)
    expected = F.interpolate(image[None], size=high, mode="bilinear", align_corners=False)[0]
    (slope,) = torch.autograd.grad(expected, image, weights)
    grid = choose_grid(low, high, 3)
    whole = high[0] % low[0] == 0 and high[1] % low[1] == 0
    assert isinstance(grid, Phases if whole and least_phase_bytes == 0 else Rows)
    full, gradient = walk(grid, image.detach(), weights)
    assert torch.allclose(full, expected.detach(), rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient, slope, rtol=1e-12, atol=1e-12)


def test_rows_with_a_halo_see_their_neighbours_and_cover_every_row_once():
    grid = Rows((5, 4), (19, 9), rows=4, halo=3)
    image = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = F.interpolate(image[None], size=(19, 9), mode="bilinear", align_corners=False)[0]
    spans = []

    def compute(chunk, position):
        spans.append((position[0].start, position[0].stop))
        assert torch.allclose(chunk, expected[:, position[0]], atol=1e-12)

    grid.visit(image, compute, None)
    assert spans == [(0, 7), (1, 11), (5, 15), (9, 19), (13, 19)]


def test_taps_of_scale_four_by_hand():
    assert list_taps(4) == [(0, 0.375, 0.625), (0, 0.125, 0.875), (1, 0.875, 0.125), (1, 0.625, 0.375)]
    assert list_taps(1) == [(1, 1.0, 0.0)]


def test_arrange_puts_nothing_at_the_filler():
    grid = Phases((3, 4), (4, 4), rows=2)
    arranged = grid.arrange(torch.ones(12, 16))
    assert arranged.shape == (4, 4, 3, 6)
    assert arranged.sum() == 12 * 16


@GRIDS
@pytest.mark.parametrize(("low", "high"), SIZES)
def test_restore_undoes_arrange(low, high, least_phase_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", least_phase_bytes)
    full = torch.arange(2 * high[0] * high[1]).view(2, *high)
    grid = choose_grid(low, high, 3)
    assert torch.equal(grid.restore(grid.arrange(full)), full)


def test_a_small_phase_goes_by_rows():
    assert isinstance(choose_grid((32, 32), (128, 128), 19), Phases)
    assert isinstance(choose_grid((8, 8), (128, 128), 19), Rows)

"""The chunks of the upsampled grid are what F.interpolate builds, and their adjoint is its backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segplus.losses import upsample
from segplus.losses.upsample import Phases, Rows, Source, choose_grid, list_taps

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


def walk(grid, images, weights):
    """Return the upsampled images (C, n, H, W) and the gradient of their sum with weights, put together from chunks."""
    arranged, seen = grid.arrange(weights), torch.zeros_like(grid.arrange(weights))
    gradient = torch.zeros_like(images)

    def compute(chunk, position):
        seen[position] = chunk
        chunk.copy_(arranged[position])

    grid.visit(Source(images, gradient), compute)
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
    full, gradient = walk(grid, image.detach()[:, None], weights[:, None])
    assert torch.allclose(full[:, 0], expected.detach(), rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient[:, 0], slope, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [1e-3, 0.3, 1.0])
@pytest.mark.parametrize(("low", "high"), SIZES)
def test_joined_images_are_the_interpolation_and_its_adjoint(low, high, share, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_DEVICE_BYTES", 0)
    monkeypatch.setattr(upsample, "DEVICE_SHARE", share)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *low, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, *high, generator=generator, dtype=torch.float64)
    expected = F.interpolate(images, size=high, mode="bilinear", align_corners=False)
    (slope,) = torch.autograd.grad(expected, images, weights)
    grid = choose_grid(low, high, 3, joined_images=2)
    full, gradient = walk(grid, images.detach().transpose(0, 1), weights.transpose(0, 1))
    assert grid.rows == max(1, int(share * high[0]))
    assert torch.allclose(full.transpose(0, 1), expected.detach(), rtol=1e-12, atol=1e-12)
    assert torch.allclose(gradient.transpose(0, 1), slope, rtol=1e-12, atol=1e-12)


def test_a_chunk_of_joined_images_is_a_share_of_them_unless_it_is_small():
    """A sixteenth of 8 images with 150 classes; of a small batch as much as a launch is worth."""
    assert choose_grid((128, 128), (512, 512), 150, joined_images=8).rows == 32
    assert choose_grid((32, 32), (128, 128), 19, joined_images=2).rows == 128


def test_rows_with_a_halo_see_their_neighbours_and_cover_every_row_once():
    grid = Rows((5, 4), (19, 9), rows=4, halo=3)
    image = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = F.interpolate(image[None], size=(19, 9), mode="bilinear", align_corners=False)[0]
    spans = []

    def compute(chunk, position):
        spans.append((position[-2].start, position[-2].stop))
        assert torch.allclose(chunk[:, 0], expected[position], atol=1e-12)

    grid.visit(Source(image[:, None], None), compute)
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

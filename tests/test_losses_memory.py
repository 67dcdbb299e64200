"""No upsampled logits: the largest tensor of a step, and all that is alive at once, as torch's allocator tells."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from segplus.losses import LOSSES, build_criterion, row_terms, upsample

IMAGES, CLASSES, LOW, HIGH = 2, 48, (96, 8), (768, 64)
ONE_IMAGE = 4 * CLASSES * HIGH[0] * HIGH[1]  # bytes of the upsampled logits of one image
# Maps of the labels are alive, with up to 24 bytes a pixel (Lovasz sorts): the upsampled logits have 192.
LABEL_MAPS = 24 * IMAGES * HIGH[0] * HIGH[1]
TERMS = sorted(LOSSES)


def draw(high):
    """Return logits and labels of all classes, in blocks of 16 pixels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(IMAGES, CLASSES, *LOW, generator=generator).requires_grad_()
    blocks = torch.randint(0, CLASSES, (IMAGES, high[0] // 16, high[1] // 16), generator=generator)
    return logits, blocks.repeat_interleave(16, 1).repeat_interleave(16, 2).to(torch.uint8)


def measure_allocations(step):
    """Return the bytes of the largest allocation, and of all that are alive at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    alive = torch.tensor(sizes).cumsum(0)
    return max(sizes), int(alive.max())


def measure_step(config, *, high=HIGH, plain=False):
    logits, labels = draw(high)
    criterion = build_criterion(config, CLASSES, plain=plain)
    return measure_allocations(lambda: criterion(logits, labels).backward())


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(upsample, "CHUNK_BYTES", 1 << 17)
    monkeypatch.setattr(row_terms, "CHUNK_BYTES", 1 << 17)


@pytest.mark.parametrize("term", TERMS)
def test_a_step_holds_no_upsampled_image(term, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", 0)
    largest, alive = measure_step({term: 1.0})
    assert 4 * IMAGES * CLASSES * LOW[0] * LOW[1] <= largest <= LABEL_MAPS
    assert alive < ONE_IMAGE


@pytest.mark.parametrize("term", ["binary_cross_entropy", "cross_entropy", "dice", "lovasz_softmax"])
def test_nor_does_a_step_by_rows(term):
    largest, alive = measure_step({term: 1.0}, high=(752, 62))
    assert largest <= LABEL_MAPS
    assert alive < ONE_IMAGE


def test_nor_does_a_step_with_several_terms():
    config = {"cross_entropy": {"label_smoothing": 0.1}, "dice": 1.0, "lovasz_softmax": 1.0, "boundary": 1.0}
    largest, alive = measure_step(config)
    assert largest <= LABEL_MAPS
    assert alive < ONE_IMAGE


@pytest.mark.parametrize("term", ["cross_entropy", "dice"])
def test_the_plain_way_holds_several(term):
    """What is measured does see upsampled logits where there are any."""
    largest, alive = measure_step({term: 1.0}, plain=True)
    assert largest >= IMAGES * ONE_IMAGE
    assert alive >= 3 * IMAGES * ONE_IMAGE

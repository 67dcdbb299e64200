"""The engine where small images do not reach by themselves: phases a few rows at a time, many chunks, threads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segplus.losses import LOSSES, build_criterion, concurrency, row_terms, upsample
from segplus.losses.upsample import Phases, Rows, Source, choose_grid, weigh_rows

CLASSES, LOW = 4, (15, 6)
CPU, GROUPS = torch.device("cpu"), [slice(i, i + 1) for i in range(3)]
EACH_TERM = pytest.mark.parametrize("term", sorted(LOSSES))


def draw(high, images=2):
    """Return logits and blocky labels, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(images, CLASSES, *LOW, generator=generator, dtype=torch.float64) * 2
    blocks = torch.randint(0, CLASSES, (images, 1, 5, 4), generator=generator).double()
    labels = F.interpolate(blocks, size=high)[:, 0].long()
    return logits.requires_grad_(), labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.1, 255)


def differentiate(value, logits):
    return torch.cat([value.detach()[None], torch.autograd.grad(value, logits)[0].flatten()])


def assert_near(found, expected):
    assert float((found - expected).norm() / expected.norm()) < 1e-10


@EACH_TERM
@pytest.mark.parametrize("chunk_bytes", [1, 4 * CLASSES * 8 * 4, 1 << 21])
def test_phases_in_chunks_are_the_plain_way(term, chunk_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", 0)
    monkeypatch.setattr(upsample, "CHUNK_BYTES", chunk_bytes)
    high = (4 * LOW[0], 2 * LOW[1])
    assert isinstance(choose_grid(LOW, high, CLASSES), Phases)
    logits, labels = draw(high)
    streamed, plain = (build_criterion({term: 1.0}, CLASSES, plain=plain)(logits, labels) for plain in (False, True))
    assert_near(differentiate(streamed, logits), differentiate(plain, logits))


@EACH_TERM
@pytest.mark.parametrize("height", [56, 60, 64])
def test_many_chunks_of_rows_are_the_plain_way(term, height, monkeypatch):
    """Neighbours are seen across chunks, and every row and region is counted once."""
    monkeypatch.setattr(upsample, "CHUNK_BYTES", 4 * CLASSES * 23 * 3)
    monkeypatch.setattr(row_terms, "CHUNK_BYTES", 1)
    assert isinstance(choose_grid(LOW, (height, 23), CLASSES), Rows)
    logits, labels = draw((height, 23))
    streamed, plain = (build_criterion({term: 1.0}, CLASSES, plain=plain)(logits, labels) for plain in (False, True))
    assert_near(differentiate(streamed, logits), differentiate(plain, logits))


def test_an_error_on_a_thread_arrives_and_gives_the_threads_back():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            concurrency.map_images(lambda images: 1 / (images.start - 1), GROUPS, CPU, concurrency.LEAST_VALUES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@EACH_TERM
def test_inference_mode_gives_the_value(term, monkeypatch):
    monkeypatch.setattr(concurrency, "LEAST_VALUES", 0)
    logits, labels = draw((60, 12), images=3)
    criterion, threads = build_criterion({term: 1.0}, CLASSES), torch.get_num_threads()
    expected = criterion(logits, labels).detach()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                assert torch.allclose(criterion(logits * 1, labels), expected, rtol=1e-12)
    finally:
        torch.set_num_threads(threads)


def test_factors_by_class_move_with_the_module():
    config = {
        "focal": {"alpha": [1.0, 2.0, 3.0, 4.0]},
        "binary_cross_entropy": {"positive_weight": [1.0, 2.0, 3.0, 4.0]},
    }
    criterion = build_criterion(config, CLASSES, class_weights=[1.0, 1.0, 1.0, 2.0]).to("meta")
    criterion.set_progress(0.5)
    assert criterion.terms["focal"][1].alpha.device.type == "meta"
    assert criterion.terms["binary_cross_entropy"][1].positive_weight.device.type == "meta"
    assert criterion.class_weights.device.type == "meta"
    assert not criterion.state_dict()


def test_given_normalizers_are_not_counted_again(monkeypatch):
    logits, labels = draw((60, 12))
    criterion = build_criterion({"cross_entropy": 1.0}, CLASSES)
    expected, counts = criterion(logits, labels), criterion.count_normalizers(labels)
    monkeypatch.setattr(criterion.terms["cross_entropy"][1].__class__, "count", None)
    assert criterion(logits, labels, normalizers=counts) == expected


def test_the_weights_of_rows_are_kept():
    """Of five chunks, for both images: on an accelerator each would be a copy that is waited for."""
    weigh_rows.cache_clear()
    grid, seen = Rows((5, 4), (19, 9), rows=4), []
    for image in torch.randn(2, 2, 1, 5, 4):
        grid.visit(Source(image, None), lambda *chunk: seen.append(chunk))
    assert (weigh_rows.cache_info().misses, len(seen)) == (5, 10)


@pytest.mark.parametrize("plain", [False, True])
def test_lovasz_in_float32_is_near_to_float64(plain):
    """A class of a few pixels among many: the steps are far smaller than the rounding of a quotient near 1."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 400, 400, generator=generator, dtype=torch.float64)
    labels = (torch.rand(1, 400, 400, generator=generator) < 2e-4).long()
    criterion = build_criterion({"lovasz_softmax": 1.0}, 2, plain=plain)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        leaf = logits.to(dtype).requires_grad_()
        gradients.append(torch.autograd.grad(criterion(leaf, labels), leaf)[0].double())
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-5

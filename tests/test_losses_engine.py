"""The engine where small pictures do not reach by themselves: phases and tiles, many slabs, threads, exact options."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from segplus.losses import LOSSES, build_criterion, concurrency, slabs, upsample
from segplus.losses.upsample import Phases, Slabs, choose_grid
from segplus.training import SegmentationTrainer

CLASSES, LOW = 4, (15, 6)
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
@pytest.mark.parametrize("piece_bytes", [1, 4 * CLASSES * 8 * 4, 1 << 21])
def test_phases_and_their_tiles_are_the_plain_way(term, piece_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", 0)
    monkeypatch.setattr(upsample, "PIECE_BYTES", piece_bytes)
    high = (4 * LOW[0], 2 * LOW[1])
    assert isinstance(choose_grid(LOW, high, CLASSES), Phases)
    logits, labels = draw(high)
    streamed, plain = (build_criterion({term: 1.0}, CLASSES, plain=plain)(logits, labels) for plain in (False, True))
    assert_near(differentiate(streamed, logits), differentiate(plain, logits))


@EACH_TERM
@pytest.mark.parametrize("height", [56, 60, 64])
def test_many_slabs_are_the_plain_way(term, height, monkeypatch):
    """Neighbours are seen across slabs, and every row and region is counted once."""
    monkeypatch.setattr(upsample, "PIECE_BYTES", 4 * CLASSES * 23 * 3)
    monkeypatch.setattr(slabs, "PIECE_BYTES", 1)
    assert isinstance(choose_grid(LOW, (height, 23), CLASSES), Slabs)
    logits, labels = draw((height, 23))
    streamed, plain = (build_criterion({term: 1.0}, CLASSES, plain=plain)(logits, labels) for plain in (False, True))
    assert_near(differentiate(streamed, logits), differentiate(plain, logits))


def test_an_error_on_a_thread_arrives_and_gives_the_threads_back():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            concurrency.map_images(lambda i: 1 / (i - 1), 3, torch.device("cpu"), concurrency.LEAST_VALUES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("option", ["plain", "log", "class_weighted"])
@pytest.mark.parametrize("term", ["dice", "jaccard"])
def test_options_of_overlaps_are_their_formulas(term, option):
    logits, labels = draw((60, 12))
    full, valid = F.interpolate(logits, size=(60, 12), mode="bilinear").softmax(1).movedim(1, -1), labels != 255
    kept, truth = full[valid], F.one_hot(labels[valid], CLASSES).double()
    hits, areas, counts = (kept * truth).sum(0), kept.sum(0), truth.sum(0)
    overlap = (2 * hits + 3) / (areas + counts + 3) if term == "dice" else (hits + 3) / (areas + counts - hits + 3)
    weights = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
    losses = -overlap.log() if option == "log" else 1 - overlap
    expected = (losses * weights).sum() / weights.sum() if option == "class_weighted" else losses.mean()
    config = {term: {"smooth": 3.0} | ({} if option == "plain" else {option: True})}
    value = build_criterion(config, CLASSES, class_weights=weights)(logits, labels)
    assert_near(differentiate(value, logits), differentiate(expected, logits))


@pytest.mark.parametrize("term", ["focal", "binary_cross_entropy"])
def test_alpha_and_weights_of_pixel_terms_are_their_formulas(term):
    logits, labels = draw((60, 12))
    weights, alpha = torch.tensor([[0.5, 2.0, 1.0, 3.0], [0.25, 0.5, 1.0, 2.0]], dtype=torch.float64)
    full, valid = F.interpolate(logits, size=(60, 12), mode="bilinear").movedim(1, -1), labels != 255
    kept, truth = full[valid], labels[valid]
    if term == "focal":
        losses = F.cross_entropy(kept, truth, reduction="none")
        options = {"alpha": alpha.tolist()}
        expected = (alpha[truth] * weights[truth] * (1 - (-losses).exp()) ** 2 * losses).sum() / weights[truth].sum()
    else:
        targets, options = F.one_hot(truth, CLASSES).double(), {"positive_weight": alpha.tolist()}
        total = F.binary_cross_entropy_with_logits(kept, targets, weights, reduction="sum", pos_weight=alpha)
        expected = total / (len(kept) * weights.sum())
    value = build_criterion({term: options}, CLASSES, class_weights=weights)(logits, labels)
    assert_near(differentiate(value, logits), differentiate(expected, logits))


def test_the_trainer_moves_the_schedules():
    logits, labels = draw((60, 12))
    run = SimpleNamespace(state=SimpleNamespace(global_step=3, max_steps=4), current_gradient_accumulation_steps=1)
    criterion = build_criterion({"dice": {"schedule": "linear", "to": 2.0}}, CLASSES)
    value = SegmentationTrainer._compute_criterion(run, criterion, logits, labels, {})
    assert torch.allclose(value, criterion.parts["dice"] * 1.5)

"""What holds for every entry of LOSSES, whatever is drawn, and in every setting that a person may call it in."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

from segplus.losses import LOSSES, build_criterion, configuration
from segplus.losses.overlap import OverlapTerm, divide
from segplus.losses.pixelwise import PixelTerm
from segplus.losses.sigmoid import SigmoidTerm

CLASSES, LOW, HIGH = 4, (6, 5), (24, 20)
EACH_TERM = pytest.mark.parametrize("term", sorted(LOSSES))
BETWEEN_0_AND_1 = {"dice", "jaccard", "tversky", "focal_tversky", "lovasz_softmax", "soft_boundary_f1"}
UNBOUNDED = {"boundary", "rmi"}


def draw(seed=0, scale=2.0, images=2, ignored=0.1):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, *LOW, generator=generator, dtype=torch.float64) * scale
    blocks = torch.randint(0, CLASSES, (images, 1, 4, 4), generator=generator).double()
    labels = F.interpolate(blocks, size=HIGH)[:, 0].long()
    return logits, labels.masked_fill(torch.rand(labels.shape, generator=generator) < ignored, 255)


def differentiate(config, logits, labels, **options):
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = build_criterion(config, logits.shape[1], **options)(leaf, labels)
    value.backward()
    return value.detach(), leaf.grad


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@EACH_TERM
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 30), ignored=st.floats(0, 1))
def test_range(term, seed, scale, ignored):
    logits, labels = draw(seed, scale, ignored=ignored)
    value, gradient = differentiate({term: 1.0}, logits, labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    if term not in UNBOUNDED:
        assert value >= -1e-9
    if term in BETWEEN_0_AND_1:
        assert value <= 1 + 1e-9


@EACH_TERM
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(CLASSES)))
def test_a_permutation_of_the_classes_permutes_the_gradient(term, seed, order):
    logits, labels = draw(seed)
    order, weights = torch.tensor(order), torch.tensor([0.5, 2.0, 1.0, 3.0])
    renamed = torch.where(labels == 255, 255, order.argsort()[labels.clamp(max=CLASSES - 1)])
    value, gradient = differentiate({term: 1.0}, logits, labels, class_weights=weights)
    other, moved = differentiate({term: 1.0}, logits[:, order], renamed, class_weights=weights[order])
    assert torch.allclose(value, other, rtol=1e-9)
    assert relative(moved, gradient[:, order]) < 1e-6


@EACH_TERM
def test_what_only_ignored_pixels_see_changes_nothing(term):
    """Half of the image is ignored: logits that reach no other pixel have no gradient and may be anything."""
    logits, labels = draw()
    labels[:, 12:] = 255
    changed = logits.clone()
    changed[:, :, 4:] = 50 * logits[:, :, 4:].flip(1)
    value, gradient = differentiate({term: 1.0}, logits, labels)
    other, same = differentiate({term: 1.0}, changed, labels)
    assert torch.allclose(value, other, rtol=1e-9)
    assert relative(same, gradient) < 1e-9
    assert gradient[:, :, 4:].abs().max() == 0
    assert gradient[:, :, :3].abs().max() > 0


def test_the_whole_is_the_sum_of_all_terms_in_one_criterion():
    logits, labels = draw()
    config = {name: 0.1 * (number + 1) for number, name in enumerate(sorted(LOSSES))}
    leaf, criterion = logits.clone().requires_grad_(), build_criterion(config, CLASSES)
    total = criterion(leaf, labels)
    total.backward()
    alone = {name: differentiate({name: 1.0}, logits, labels) for name in config}
    assert list(criterion.term_values) == list(config)
    for name, (value, _) in alone.items():
        assert criterion.term_values[name] == pytest.approx(float(value), rel=1e-10)
        assert not criterion.term_values[name].requires_grad
    assert float(total.detach()) == pytest.approx(sum(config[name] * float(alone[name][0]) for name in config))
    assert relative(leaf.grad, sum(config[name] * alone[name][1] for name in config)) < 1e-10


@EACH_TERM
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_have_float32_sums(term, dtype):
    """The value is that of the same logits in float32, and the gradient its rounding."""
    logits, labels = draw()
    rounded = logits.to(dtype)
    value, gradient = differentiate({term: 1.0}, rounded, labels)
    expected, slope = differentiate({term: 1.0}, rounded.float(), labels)
    assert value.dtype == torch.float32
    assert value == expected
    assert gradient.dtype == dtype
    assert torch.equal(gradient, slope.to(dtype))


@EACH_TERM
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2.0, 100.0])
def test_a_class_of_one_pixel(term, dtype, size):
    logits, labels = draw(ignored=0)
    labels[labels == 3] = 2
    labels[1, 7, 11] = 3
    value, gradient = differentiate({term: 1.0}, (logits.clamp(-1, 1) * size).to(dtype), labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@EACH_TERM
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_but_ignored_pixels(term, dtype):
    logits, labels = draw(ignored=2)
    value, gradient = differentiate({term: 1.0}, logits.to(dtype), labels, class_weights=[1.0, 2.0, 0.0, 1.0])
    assert value == 0
    assert gradient.abs().max() == 0


@EACH_TERM
def test_memory_layout_changes_nothing(term):
    logits, labels = draw()
    expected, slope = differentiate({term: 1.0}, logits, labels)
    strided = torch.stack([logits, logits], -1).flatten(-2)[..., ::2]
    transposed = labels.transpose(1, 2).contiguous().transpose(1, 2)
    for other in (logits.to(memory_format=torch.channels_last), strided):
        assert not other.is_contiguous()
        value, gradient = differentiate({term: 1.0}, other, transposed)
        assert torch.allclose(value, expected, rtol=1e-12)
        assert relative(gradient, slope) < 1e-12


@pytest.mark.parametrize(
    ("term", "options"),
    [("dice", {}), ("dice", {"squared": True}), ("jaccard", {}), ("tversky", {}), ("cross_entropy", {}),
     ("lovasz_softmax", {})],
)  # fmt: skip
def test_float32_sums_of_a_large_flat_image(term, options):
    """A million equal addends: one after the other in float32, all would be rounded the same way, by 2 % in the end."""
    logits = torch.zeros(1, 2, 256, 256, dtype=torch.float64)
    logits[:, 0] = 3.5
    labels = torch.zeros(1, 1024, 1024, dtype=torch.uint8)
    labels[:, :16] = 1
    value, gradient = differentiate({term: options}, logits.float(), labels)
    exact, slope = differentiate({term: options}, logits, labels)
    assert float(value) == pytest.approx(float(exact), rel=2e-5)
    assert relative(gradient.double(), slope) < 2e-5


# torch's own warnings while it traces
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("config", [{"cross_entropy": {"label_smoothing": 0.1}, "dice": 1.0}, {"lovasz_softmax": 1.0},
                                    {"boundary": 1.0, "rmi": 1.0, "soft_boundary_f1": 1.0}])  # fmt: skip
def test_a_compiled_step_has_the_same_gradient(config, backend):
    """Compiled model, criterion and optimizer step in one function; the criterion itself runs as it is."""
    logits, labels = draw()
    pixels, criterion = logits.float(), build_criterion(config, CLASSES)
    torch.compiler.reset()
    counter = CompileCounterWithBackend(backend)

    def take_steps(compile_step):
        torch.manual_seed(0)
        head = torch.nn.Sequential(torch.nn.Conv2d(CLASSES, 8, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(8, 4, 1))
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)

        def step(pixels, labels):
            optimizer.zero_grad()
            loss = criterion(head(pixels) * 2, labels)
            loss.backward()
            return loss.detach()

        run = torch.compile(step, backend=counter) if compile_step else step
        values = []
        for _ in range(3):
            values.append(float(run(pixels, labels)))
            optimizer.step()
        return values, [parameter.grad.clone() for parameter in head.parameters()]

    (values, gradients), (expected, slopes) = take_steps(True), take_steps(False)
    assert counter.frame_count >= 1
    assert values == pytest.approx(expected, rel=1e-5)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert torch.allclose(gradient, slope, rtol=1e-4, atol=1e-6)


# A newcomer's losses: one function each, none of them in LOSSES.


@dataclass(frozen=True)
class PolyCrossEntropy(PixelTerm):
    def losses(self, log_target):
        return -log_target + 2 * (1 - log_target.exp())


@dataclass(frozen=True)
class SquaredError(SigmoidTerm):
    def losses(self, logits, targets):
        return (logits.sigmoid() - targets).square()


@dataclass(frozen=True)
class Kulczynski(OverlapTerm):
    def score(self, overlaps):
        return 1 - (divide(overlaps.hits, overlaps.areas) + divide(overlaps.hits, overlaps.counts)) / 2


def compute_newcomer(term, full, truth):
    probabilities, targets = full.softmax(1), F.one_hot(truth, CLASSES).to(full)
    if term is SquaredError:
        return (full.sigmoid() - targets).square().mean()
    if term is Kulczynski:
        hits = (probabilities * targets).sum(0)
        return (1 - (hits / probabilities.sum(0) + hits / targets.sum(0)) / 2).mean()
    return F.cross_entropy(full, truth) + 2 * (1 - (probabilities * targets).sum(1)).mean()


@pytest.mark.parametrize("term", [PolyCrossEntropy, SquaredError, Kulczynski])
def test_a_new_term_is_one_function(term, monkeypatch):
    monkeypatch.setitem(configuration.LOSSES, "new", term)
    logits, labels = draw()
    value, gradient = differentiate({"new": 1.0}, logits, labels)
    leaf = logits.clone().requires_grad_()
    full = F.interpolate(leaf, size=HIGH, mode="bilinear", align_corners=False).movedim(1, -1)
    expected = compute_newcomer(term, full[labels != 255], labels[labels != 255])
    expected.backward()
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-10)
    assert relative(gradient, leaf.grad) < 1e-10

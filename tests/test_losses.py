"""Every term against the plain way, and its properties."""

from __future__ import annotations

import pytest
import torch

from segplus.losses import LOSSES, build_criterion, concurrency, upsample

# Every term as it is by default, then variants and mixtures.
ROWS = [{name: {}} for name in sorted(LOSSES)] + [
    {"binary_cross_entropy": {"positive_weight": 3.0}},
    {"boundary": {"background": False}},
    {"boundary_cross_entropy": {"label_smoothing": 0.1}},
    {"cross_entropy": {"label_smoothing": 0.1}},
    {"dice": {"squared": True, "per_image": True, "background": False}},
    {"dice": {"log": True, "present_only": False, "class_weighted": True}},
    {"focal": {"gamma": 1.5, "alpha": 0.3}},
    {"focal": {"gamma": 0.5}},
    {"jaccard": {"per_image": True}},
    {"lovasz_softmax": {"per_image": True}},
    {"lovasz_softmax": {"present_only": False}},
    {"ohem_cross_entropy": {"threshold": 0.6, "min_kept": 20}},
    {"sigmoid_focal": {"alpha": 0.25}},
    {"cross_entropy": {"label_smoothing": 0.2, "weight": 0.5}, "dice": {"weight": 0.7, "squared": True}, "focal": 0.3},
    {"cross_entropy": 1.0, "dice": 0.5, "lovasz_softmax": 0.4, "soft_boundary_f1": 0.2},
]
NAMES = [" + ".join(f"{name}({','.join(map(str, row[name]))})" if isinstance(row[name], dict) else name for name in row)
         for row in ROWS]  # fmt: skip
EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=NAMES)
# Images of tests are small: without this they would never be walked by phases.
GRIDS = pytest.mark.parametrize("least_phase_bytes", [0, 1 << 40], ids=["phases", "rows"])
SIZES = [((5, 6), (20, 24)), ((12, 9), (12, 9)), ((5, 7), (37, 23))]


def draw_labels(classes, high, generator, images=2):
    """Return blocky labels with a tenth ignored, int64, shape (images, *high)."""
    blocks = torch.randint(0, classes, (images, 4, 4), generator=generator)
    labels = torch.nn.functional.interpolate(blocks[:, None].float(), size=high)[:, 0].long()
    return labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.1, 255)


def draw(classes=5, low=(5, 6), high=(20, 24), seed=0, scale=2.0, images=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, *low, generator=generator, dtype=torch.float64) * scale
    return logits.to(dtype).requires_grad_(), draw_labels(classes, high, generator, images)


def differentiate(criterion, logits, labels, **options):
    """Return value and gradient."""
    leaf = logits.detach().clone().requires_grad_()
    value = criterion(leaf, labels, **options)
    value.backward()
    return value.detach(), leaf.grad


def relative(found, expected):
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


@GRIDS
@EACH_ROW
@pytest.mark.parametrize(("low", "high"), SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_streamed_is_plain(row, low, high, weighted, least_phase_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", least_phase_bytes)
    logits, labels = draw(low=low, high=high)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0]) if weighted else None
    streamed, plain = (build_criterion(row, 5, class_weights=weights, plain=plain) for plain in (False, True))
    value, gradient = differentiate(streamed, logits, labels)
    expected, expected_gradient = differentiate(plain, logits, labels)
    assert abs(value - expected) <= 1e-10 * max(1.0, abs(expected))
    assert relative(gradient, expected_gradient) < 1e-10
    assert streamed.term_values.keys() == plain.term_values.keys() == row.keys()
    with torch.no_grad():
        assert abs(streamed(logits, labels) - expected) <= 1e-10 * max(1.0, abs(expected))


@GRIDS
@EACH_ROW
def test_gradcheck(row, least_phase_bytes, monkeypatch):
    monkeypatch.setattr(upsample, "LEAST_PHASE_BYTES", least_phase_bytes)
    logits, labels = draw(classes=3, low=(3, 3), high=(12, 12), images=1, scale=1.0)
    criterion = build_criterion(row, 3)
    assert torch.autograd.gradcheck(lambda x: criterion(x, labels), logits, eps=1e-6, atol=1e-5, rtol=1e-4)


@EACH_ROW
def test_all_ignored_is_exactly_zero(row):
    logits, labels = draw()
    value, gradient = differentiate(build_criterion(row, 5), logits, torch.full_like(labels, 255, dtype=torch.uint8))
    assert value == 0
    assert gradient.abs().max() == 0


@EACH_ROW
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite(row, dtype):
    logits, labels = draw()
    extreme = (logits.detach().sign() * 100).to(dtype)
    labels[0, 0, 0] = 4  # a class of one pixel
    labels[labels == 3] = 255
    value, gradient = differentiate(build_criterion(row, 5), extreme, labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient.dtype == dtype
    assert value.dtype in (torch.float32, torch.float64)


@EACH_ROW
def test_float32_is_as_near_to_float64_as_the_plain_way(row):
    logits, labels = draw(low=(16, 16), high=(64, 64), seed=3)
    _, exact = differentiate(build_criterion(row, 5, plain=True), logits, labels)
    _, plain = differentiate(build_criterion(row, 5, plain=True), logits.float(), labels)
    _, streamed = differentiate(build_criterion(row, 5), logits.float(), labels)
    assert relative(streamed.double(), exact) <= max(3 * relative(plain.double(), exact), 5e-6)


@EACH_ROW
def test_uint8_labels_are_int64_labels(row):
    logits, labels = draw()
    criterion = build_criterion(row, 5)
    assert criterion(logits, labels.to(torch.uint8)) == criterion(logits, labels)
    assert criterion(logits, labels.to(torch.int32)) == criterion(logits, labels)


@EACH_ROW
def test_permuted_classes_change_nothing(row):
    if any(row[name].get("background") is False for name in row if isinstance(row[name], dict)):
        pytest.skip("class 0 is special without the background")
    logits, labels = draw()
    order = torch.tensor([2, 0, 4, 1, 3])
    renamed = torch.where(labels == 255, 255, order.argsort()[labels.clamp(max=4)])
    criterion = build_criterion(row, 5)
    first = criterion(logits, labels)
    assert torch.allclose(first, criterion(logits[:, order], renamed), rtol=1e-9)


@EACH_ROW
def test_logits_under_ignored_pixels_do_not_matter(row):
    logits, labels = draw(low=(12, 9), high=(12, 9))
    changed = torch.where((labels == 255)[:, None], logits.detach() + 7, logits.detach())
    criterion = build_criterion(row, 5)
    value, gradient = differentiate(criterion, logits, labels)
    other, _ = differentiate(criterion, changed, labels)
    assert torch.allclose(value, other, rtol=1e-9)
    assert gradient.movedim(1, -1)[labels == 255].abs().max() < 1e-12


@EACH_ROW
def test_accumulated_micro_batches_are_the_whole_batch(row):
    """Terms with a denominator are exact under accumulation, however unequal the ignored areas."""
    logits, labels = draw(images=4)
    labels[0, :17], labels[1, 3:], labels[2] = 255, 255, 255
    criterion = build_criterion(row, 5)
    if set(criterion.count_normalizers(labels)) != set(row):
        pytest.skip("averaged over micro-batches by definition")
    value, gradient = differentiate(criterion, logits, labels)
    counts = [criterion.count_normalizers(labels[i : i + 1]) for i in range(4)]
    totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
    steps = [
        differentiate(
            criterion, logits[i : i + 1], labels[i : i + 1], normalizers=totals, accumulation_steps=4
        )
        for i in range(4)
    ]  # fmt: skip
    assert relative(torch.cat([step[1] for step in steps]), gradient) < 1e-12
    assert abs(sum(step[0] for step in steps) - value) <= 1e-12 * max(1.0, abs(value))


def test_overlap_terms_are_averaged_over_micro_batches():
    logits, labels = draw(images=2)
    criterion = build_criterion({"dice": 1.0}, 5)
    assert criterion.count_normalizers(labels) == {}
    alone = [criterion(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
    shares = [
        criterion(logits[i : i + 1], labels[i : i + 1], normalizers={}, accumulation_steps=2) for i in range(2)
    ]  # fmt: skip
    assert torch.allclose(sum(shares), sum(alone) / 2)


def test_terms_and_weights_add_up():
    logits, labels = draw()
    criterion = build_criterion({"focal": 1.0, "dice": {"weight": 0.5, "squared": True}}, 5)
    total = criterion(logits, labels)
    assert not criterion.term_values["dice"].requires_grad
    assert torch.allclose(total, criterion.term_values["focal"] + 0.5 * criterion.term_values["dice"])


def test_schedules_move_weights_and_parameters():
    logits, labels = draw()
    config = {
        "cross_entropy": {"label_smoothing": {"schedule": "linear", "from": 0.0, "to": 0.2}},
        "boundary": {"schedule": "linear", "from": 0.0, "to": 0.02, "start": 0.5},
    }
    criterion = build_criterion(config, 5)
    assert torch.allclose(criterion(logits, labels), build_criterion({"cross_entropy": 1.0}, 5)(logits, labels))
    criterion.set_progress(0.75)
    fixed = build_criterion({"cross_entropy": {"label_smoothing": 0.15}, "boundary": 0.01}, 5)
    assert torch.allclose(criterion(logits, labels), fixed(logits, labels))


@pytest.mark.parametrize("name", ["focal", "binary_cross_entropy"])
def test_schedules_move_a_factor_for_all_classes(name):
    logits, labels = draw()
    parameter = "alpha" if name == "focal" else "positive_weight"
    criterion = build_criterion({name: {parameter: {"schedule": "linear", "from": 1.0, "to": 3.0}}}, 5)
    criterion.set_progress(0.25)
    value, gradient = differentiate(criterion, logits, labels)
    expected, slope = differentiate(build_criterion({name: {parameter: [1.5] * 5}}, 5), logits, labels)
    assert torch.allclose(value, expected, rtol=1e-12)
    assert torch.allclose(gradient, slope, rtol=1e-12)


def test_schedules_move_whole_numbers():
    logits, labels = draw()
    config = {
        "ohem_cross_entropy": {"threshold": 0.1, "min_kept": {"schedule": "linear", "from": 200, "to": 61}},
        "soft_boundary_f1": {"width_px": {"schedule": "step", "from": 5, "to": 3, "end": 0.5}},
    }
    criterion = build_criterion(config, 5)
    for share, kept, width in ((0.0, 200, 5), (0.25, 165, 5), (0.5, 130, 3), (1.0, 61, 3)):
        criterion.set_progress(share)
        fixed = {"ohem_cross_entropy": {"threshold": 0.1, "min_kept": kept}, "soft_boundary_f1": {"width_px": width}}
        assert criterion(logits, labels) == build_criterion(fixed, 5)(logits, labels)


def test_a_scheduled_share_moves_its_denominator():
    _, labels = draw()
    criterion = build_criterion({"ohem_cross_entropy": {"share": {"schedule": "linear", "from": 1.0, "to": 0.5}}}, 5)
    counts = []
    for share in (0.0, 1.0):
        criterion.set_progress(share)
        counts.append(float(criterion.count_normalizers(labels)["ohem_cross_entropy"]))
    valid = (labels != 255).flatten(1).sum(1)
    assert counts == [float(valid.sum()), float((valid * 0.5).ceil().sum())]


def test_autocast_does_not_reach_the_sums():
    logits, labels = draw(dtype=torch.float32)
    criterion = build_criterion({"cross_entropy": 1.0, "dice": 1.0, "rmi": 1.0}, 5)
    expected = criterion(logits, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert criterion(logits, labels) == expected


@EACH_ROW
def test_number_of_threads_changes_nothing(row, monkeypatch):
    monkeypatch.setattr(concurrency, "LEAST_VALUES", 0)
    logits, labels = draw(images=3)
    criterion, threads = build_criterion(row, 5), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(differentiate(criterion, logits, labels))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-12)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-10, atol=1e-14)


def test_gradient_scale_of_the_caller_is_kept():
    logits, labels = draw()
    criterion = build_criterion({"cross_entropy": 1.0}, 5)
    (once,) = torch.autograd.grad(criterion(logits, labels), logits)
    (scaled,) = torch.autograd.grad(criterion(logits, labels) * 1024, logits)
    assert torch.allclose(scaled, once * 1024)

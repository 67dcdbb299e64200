"""label_map: equal to F.interpolate(...).argmax(1) at any size, layout and precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segplus.metrics import label_map, label_maps
from segplus.metrics import labels as module

SIZES = [
    (8, 12, 32, 48),  # even scale
    (8, 12, 24, 36),  # odd scale
    (7, 11, 53, 97),  # primes
    (30, 20, 31, 29),  # scale near 1
    (32, 32, 90, 120),
    (30, 20, 13, 11),  # downsampling
    (30, 20, 7, 50),  # one axis down, one up
    (1, 1, 9, 7),
    (5, 1, 20, 3),
    (16, 16, 16, 16),
    (6, 6, 192, 192),
    (40, 40, 1, 1),
]


def interpolate(logits, size):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def make_logits(texture, classes, height, width, seed=0, images=2):
    generator = torch.Generator().manual_seed(seed)
    if texture == "smooth":
        coarse = torch.randn(images, classes, max(1, height // 6), max(1, width // 6), generator=generator)
        return F.interpolate(coarse * 3, size=(height, width), mode="bicubic")
    return torch.randn(images, classes, height, width, generator=generator)


def assert_best(labels, logits, size):
    """Every label is a best class, up to the rounding of float32 interpolation."""
    exact = interpolate(logits.double(), size)
    assert labels.shape == exact[:, 0].shape
    chosen = exact.gather(1, labels.long()[:, None])[:, 0]
    # F.interpolate rounds positions in float32: a position of 100 pixels is known to 1e-5 of a pixel.
    bound = 4e-6 * max(1.0, max(logits.shape[-2:]) / 8) * float(logits.abs().max())
    assert float((exact.amax(1) - chosen).max()) <= bound


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("classes", [1, 2, 19, 150])
@pytest.mark.parametrize("texture", ["noise", "smooth"])
def test_equals_interpolation_and_argmax(shape, classes, texture):
    height, width, *size = shape
    logits = make_logits(texture, classes, height, width)
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = logits.contiguous(memory_format=layout)
        reference, labels = interpolate(arranged, size).argmax(1), label_map(arranged, size)
        assert labels.dtype == torch.uint8
        assert torch.equal(labels.long(), reference)


# Not from one pixel: there a class leads by a unit at all four corners, and keeps the cell.
NEAR_TIE_SIZES = [*(shape for shape in SIZES if shape[:2] != (1, 1)), (60, 45, 480, 360), (40, 60, 159, 311)]


@pytest.mark.parametrize("shape", NEAR_TIE_SIZES, ids=str)
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 19])
def test_near_ties_go_where_interpolation_puts_them(shape, classes):
    # Every class lies within two units in the last place of every other: the order of roundings decides each pixel.
    height, width, *size = shape
    units = torch.randint(-2, 3, (1, classes, height, width), generator=torch.Generator().manual_seed(classes))
    logits = make_logits("noise", 1, height, width, images=1) * (1 + 2.0**-23 * units)
    logits = logits.clone(memory_format=torch.contiguous_format)
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = logits.contiguous(memory_format=layout)
        reference, labels = interpolate(arranged, size).argmax(1), label_map(arranged, size)
        assert torch.equal(labels.long(), reference)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_few_near_ties_of_a_large_map_go_where_interpolation_puts_them(layout):
    # Two classes cross along lines; so near to them that both ways of rounding are met many times.
    logits = (make_logits("smooth", 6, 60, 90, images=4) + 1000).contiguous(memory_format=layout)
    size = (360, 480)
    assert torch.equal(label_map(logits, size).long(), interpolate(logits, size).argmax(1))


@pytest.mark.parametrize("shape", [(40, 60, 159, 311), (30, 20, 200, 29), (32, 32, 90, 120)], ids=str)
@pytest.mark.parametrize("classes", [3, 5, 19])
@pytest.mark.parametrize("texture", ["noise", "whole numbers"])
def test_each_layout_goes_where_interpolation_puts_it(shape, classes, texture):
    # channels_last scores are added up in another order: whole numbers tie often, and go elsewhere.
    height, width, *size = shape
    logits = make_logits("noise", classes, height, width)
    if texture == "whole numbers":
        logits = (2 * logits).round()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = logits.contiguous(memory_format=layout)
        found.append(label_map(arranged, size).long())
        assert torch.equal(found[-1], interpolate(arranged, size).argmax(1))
    if texture == "whole numbers" and classes == 19 and height == 40:
        assert not torch.equal(*found)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("classes", [2, 3, 19])
def test_ties_go_to_the_lowest_class_where_arithmetic_is_exact(scale, classes):
    logits = torch.randint(-3, 4, (2, classes, 13, 9), generator=torch.Generator().manual_seed(classes)).float()
    size = (13 * scale, 9 * scale)
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = logits.contiguous(memory_format=layout)
        assert torch.equal(label_map(arranged, size).long(), interpolate(arranged, size).argmax(1))


def test_equal_classes_give_the_lowest():
    assert int(label_map(torch.zeros(1, 5, 3, 4), (17, 23)).max()) == 0


def test_two_by_two_by_hand():
    # One row of two pixels at scale 4: class 1 wins left of the middle, class 0 right of it.
    logits = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]])
    assert label_map(logits, (1, 8)).tolist() == [[[1, 1, 1, 1, 0, 0, 0, 0]]]


def test_class_that_wins_only_inside_a_cell():
    # The four corners are won by 0 and 1; between them class 2 is above both.
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 0] = torch.tensor([[4.0, -4.0], [4.0, -4.0]])
    logits[0, 1] = torch.tensor([[-4.0, 4.0], [-4.0, 4.0]])
    logits[0, 2] = 3.0
    assert set(label_map(logits, (32, 32)).unique().tolist()) == {0, 1, 2}
    assert torch.equal(label_map(logits, (32, 32)).long(), interpolate(logits, (32, 32)).argmax(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = make_logits("smooth", 19, 24, 32).to(dtype)
    assert torch.equal(label_map(logits, (90, 120)), label_map(logits.float(), (90, 120)))


def test_double_precision_is_kept():
    logits = make_logits("noise", 4, 9, 9).double()
    assert torch.equal(label_map(logits, (27, 40)).long(), interpolate(logits, (27, 40)).argmax(1))


@pytest.mark.parametrize(("classes", "dtype"), [(255, torch.uint8), (256, torch.int16), (300, torch.int16)])
def test_type_holds_every_class_and_leaves_255_free(classes, dtype):
    logits = torch.zeros(1, classes, 2, 2)
    logits[0, classes - 1] = 1
    labels = label_map(logits, (5, 5))
    assert labels.dtype == dtype
    assert int(labels.min()) == classes - 1


def test_chunks_join_without_seams(monkeypatch):
    logits = make_logits("smooth", 7, 40, 23)
    whole = label_map(logits, (131, 92))
    assert torch.equal(whole.long(), interpolate(logits, (131, 92)).argmax(1))
    monkeypatch.setattr(module, "_CHUNK_CELLS", 50)
    monkeypatch.setattr(module, "count_values", lambda _: 100)
    assert torch.equal(label_map(logits, (131, 92)), whole)
    monkeypatch.setattr(module, "_MIXED_SHARE", 0.0)
    assert torch.equal(label_map(logits, (131, 92)), whole)


def test_slices_and_expanded_tensors():
    logits = make_logits("smooth", 6, 20, 30)[:, 1:5, ::2, 3:21]
    assert torch.equal(label_map(logits, (40, 72)), label_map(logits.contiguous(), (40, 72)))
    expanded = logits[:1, :1].expand(1, 4, -1, -1)
    assert int(label_map(expanded, (40, 72)).max()) == 0


def test_nan_never_leaves_the_range():
    logits = make_logits("noise", 5, 6, 6)
    logits[0, 2, 3, 3] = float("nan")
    for layout in (torch.contiguous_format, torch.channels_last):
        assert int(label_map(logits.contiguous(memory_format=layout), (24, 24)).max()) < 5


def test_sizes_per_image():
    logits = make_logits("smooth", 5, 12, 12, images=3)
    sizes = [(48, 48), (37, 53), (5, 90)]
    labels = label_maps(logits, torch.tensor(sizes))
    for image, one, size in zip(logits, labels, sizes, strict=True):
        assert torch.equal(one, label_map(image[None], size)[0])
    with pytest.raises(ValueError, match="3 images but 2 sizes"):
        label_maps(logits, sizes[:2])


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 0, 4, 4)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="logits must have shape"):
        label_map(torch.zeros(shape), (8, 8))
    with pytest.raises(ValueError, match="two positive numbers"):
        label_map(torch.zeros(1, 2, 4, 4), (0, 8))


@settings(max_examples=60, deadline=None)
@given(
    low=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    classes=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_any_size(low, size, classes, seed):
    logits = make_logits("noise", classes, *low, seed=seed, images=1)
    assert_best(label_map(logits, size), logits, size)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    renamed = label_map(logits[:, order], size)
    assert float((order[renamed.long()] == label_map(logits, size)).float().mean()) > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    logits = make_logits("smooth", 19, 64, 64)
    labels = label_map(logits.cuda(), (256, 200))
    assert labels.is_cuda
    assert_best(labels.cpu(), logits, (256, 200))

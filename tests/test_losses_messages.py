"""What a person can get wrong about losses, each told in one message."""

from __future__ import annotations

import pytest
import torch

from segplus.errors import InputError
from segplus.losses import build_criterion


def draw():
    """Return logits (2, 5, 5, 6) and labels (2, 20, 24)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 5, 6, generator=generator), torch.randint(0, 5, (2, 20, 24), generator=generator)


NAN, INFINITE = float("nan"), float("inf")
ERRORS = [
    ({"losses": {"dice": NAN}}, r"losses\.dice\.weight"),
    ({"losses": {"focal": {"gamma": INFINITE}}}, r"losses\.focal\.gamma"),
    ({"losses": {"focal": {"alpha": NAN}}}, r"losses\.focal\.alpha"),
    ({"losses": {"focal": {"alpha": -1}}}, r"losses\.focal\.alpha"),
    ({"losses": {"focal": {"alpha": {"schedule": "linear", "to": -1}}}}, r"losses\.focal\.alpha"),
    ({"losses": {"focal": {"alpha": [1, 1, "a", 1, 1]}}}, r"losses\.focal\.alpha: weights are finite numbers"),
    ({"losses": {"binary_cross_entropy": {"positive_weight": -2}}}, r"losses\.binary_cross_entropy\.positive_weight"),
    ({"losses": {"dice": {"weight": {"schedule": "linear", "to": NAN}}}}, r"losses\.dice\.weight\.to"),
    ({"losses": {"dice": {"smooth": -1}}}, r"losses\.dice\.smooth"),
    ({"losses": {"jaccard": {"smooth": -1}}}, r"losses\.jaccard\.smooth"),
    ({"losses": {"focal_tversky": {"smooth": -1}}}, r"losses\.focal_tversky\.smooth"),
    ({"losses": {"focal_tversky": {"beta": -1}}}, r"losses\.focal_tversky\.beta"),
    (
        {"losses": {"boundary_cross_entropy": {"label_smoothing": 1}}},
        r"losses\.boundary_cross_entropy\.label_smoothing",
    ),
    ({"losses": {"boundary_cross_entropy": {"sigma_px": 0}}}, r"losses\.boundary_cross_entropy\.sigma_px"),
    ({"losses": {"dice": 1}, "class_weights": "enet"}, r"compute_class_weights\(counts, 'enet'\)"),
    ({"losses": {"dice": 1}, "class_weights": "heavy"}, "weights are numbers"),
    ({"losses": {"dice": 1}, "class_weights": [1, 1, 1, 1, None]}, "finite numbers"),
    ({"losses": {"dice": 1}, "class_weights": 3}, "finite numbers"),
    ({"losses": {"dice": 1}, "class_weights": {"b": "x"}, "class_names": list("abcde")}, "finite numbers"),
    ({"losses": {"cros_entropy": 1}}, "cross_entropy"),
    ({"losses": {"dice": {"squard": True}}}, "did you mean 'squared'"),
    ({"losses": {"dice": {"squared": 1}}}, "true or false"),
    ({"losses": {"dice": {"squared": {"schedule": "step", "to": 1}}}}, "true or false"),
    ({"losses": {"ohem_cross_entropy": {"min_kept": 0.5}}}, "a whole number, or a schedule"),
    # 3 to 7 goes through even numbers
    (
        {"losses": {"soft_boundary_f1": {"width_px": {"schedule": "linear", "from": 3, "to": 7}}}},
        r"width_px\n.*4\n.*odd",
    ),
    ({"losses": {"cross_entropy": {"label_smoothing": {"schedule": "linear", "to": 1.0}}}}, r"label_smoothing\n.*1\.0"),
    ({"losses": {"dice": {"weight": {"schedule": "warmup", "from": 1, "to": 2}}}}, "a warmup starts at 0"),
    ({"losses": {"dice": {"schedule": "linear"}}}, "no value to end at"),
    ({"losses": {"focal": {"gamma": -1.0}}}, "focal.gamma"),
    ({"losses": {"focal": {"gamma": "2"}}}, "a finite number"),
    ({"losses": {"focal": -0.5}}, "focal.weight"),
    ({"losses": {}}, "no term"),
    ({"losses": {"soft_boundary_f1": {"width_px": 4}}}, "odd"),
    ({"losses": {"cross_entropy": {"label_smoothing": 1.0}}}, "label_smoothing"),
    ({"losses": {"dice": 1}, "num_classes": 1}, "binary_cross_entropy"),
    ({"losses": {"dice": 1}, "class_weights": [1.0, 2.0]}, "5 numbers"),
    ({"losses": {"dice": 1}, "class_weights": [1.0, 2.0, 1.0, 1.0, -1.0]}, "negative"),
    ({"losses": {"dice": 1}, "class_weights": {"rode": 2.0}, "class_names": ["road", "b", "c", "d", "e"]}, "'road'"),
    ({"losses": {"dice": {"weight": {"schedule": "cosin", "to": 1}}}}, "'cosine'"),
    ({"losses": {"dice": {"weight": {"schedule": "linear", "too": 1}}}}, "'to'"),
    ({"losses": {"dice": {"weight": {"schedule": "linear", "to": 1, "start": 0.9, "end": 0.1}}}}, "shares"),
]


@pytest.mark.parametrize(("given", "message"), ERRORS)
def test_mistakes_are_told_in_one_message(given, message):
    options = {"num_classes": 5, **given}
    with pytest.raises(InputError, match=message):
        build_criterion(options.pop("losses"), **options)


def test_labels_outside_the_classes_are_refused():
    logits, labels = draw()
    labels[0, 0, 0] = 5
    with pytest.raises(InputError, match="1 pixels are outside the classes"):
        build_criterion({"cross_entropy": 1.0}, 5)(logits, labels)
    with pytest.raises(InputError, match=r"\(2, H, W\)"):
        build_criterion({"cross_entropy": 1.0}, 5)(logits, labels[:1])
    with pytest.raises(InputError, match="integer"):
        build_criterion({"cross_entropy": 1.0}, 5)(logits, labels.float())


def test_class_weights_by_name():
    named = build_criterion({"cross_entropy": 1.0}, 3, class_weights={"lane": 3.0}, class_names=["road", "lane", "sky"])
    assert named.class_weights.tolist() == [1.0, 3.0, 1.0]


@pytest.mark.parametrize("plain", [False, True])
def test_labels_without_a_region_are_refused_by_rmi(plain):
    logits, labels = draw()
    criterion = build_criterion({"rmi": 1.0}, 5, plain=plain)
    with pytest.raises(InputError, match=r"losses\.rmi: labels without a region"):
        criterion(logits, labels[:, :2, :2])
    assert torch.isfinite(criterion(logits, labels[:, :7, :7]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint16])
def test_labels_of_every_width_are_checked_in_their_own_numbers(dtype):
    logits, labels = draw()
    criterion = build_criterion({"cross_entropy": 1.0}, 5)
    assert criterion(logits, labels.to(dtype)) == criterion(logits, labels)
    wrong = labels.to(torch.int32).masked_fill(labels == 4, -1 if dtype == torch.int8 else 256)
    with pytest.raises(InputError, match="pixels are outside the classes"):
        criterion(logits, wrong.to(dtype))


def test_eight_bits_do_not_wrap_around():
    logits, labels = torch.randn(1, 300, 4, 4), torch.full((1, 16, 16), 7, dtype=torch.uint8)
    many = build_criterion({"cross_entropy": 1.0}, 300, ignore_index=400)
    assert many(logits, labels) == many(logits, labels.long())
    labels[:] = 156  # -100 in eight bits
    with pytest.raises(InputError, match="256 pixels are outside the classes"):
        build_criterion({"cross_entropy": 1.0}, 5, ignore_index=-100)(logits[:, :5], labels)
    assert build_criterion({"cross_entropy": 1.0}, 5, class_weights=[1.0] * 5).count_normalizers(labels) == {
        "cross_entropy": 0.0
    }

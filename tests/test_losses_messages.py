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


ERRORS = [
    ({"losses": {"cros_entropy": 1}}, "cross_entropy"),
    ({"losses": {"dice": {"squard": True}}}, "did you mean 'squared'"),
    ({"losses": {"dice": {"squared": 1}}}, "true or false"),
    ({"losses": {"focal": {"gamma": -1.0}}}, "focal.gamma"),
    ({"losses": {"focal": {"gamma": "2"}}}, "a number"),
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

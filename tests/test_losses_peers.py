"""The settings that docs/losses.md calls the same as another library's: values on one scene, where it is installed."""

from __future__ import annotations

import pytest
import torch
from loss_scene import CLASSES, draw_scene, enlarge

from segplus.losses import build_criterion

ALL = {"present_only": False}
EXACT = {"smooth": 0.0, "per_image": True, **ALL}
# Library, its loss with settings, ours, and the factor of ours.
ROWS = [
    ("kornia", ("focal_loss", {"alpha": 0.25, "gamma": 2.0, "reduction": "mean"}),
     {"focal": {"gamma": 2.0, "alpha": [0.75, 0.25, 0.25, 0.25]}}, 1 / CLASSES),
    ("kornia", ("dice_loss", {"average": "macro"}), {"dice": EXACT}, 1),
    ("kornia", ("tversky_loss", {"alpha": 0.3, "beta": 0.7}), {"tversky": EXACT}, 1),
    ("kornia", ("lovasz_softmax_loss", {}), {"lovasz_softmax": {"per_image": True, **ALL}}, 1),
    ("monai", ("FocalLoss", {"gamma": 2.0, "alpha": 0.25, "use_softmax": True, "to_onehot_y": True}),
     {"focal": {"gamma": 2.0, "alpha": [0.75, 0.25, 0.25, 0.25]}}, 1 / CLASSES),
    ("monai", ("DiceLoss", {"softmax": True, "to_onehot_y": True, "smooth_nr": 1.0, "smooth_dr": 1.0}),
     {"dice": {"smooth": 1.0, "per_image": True, **ALL}}, 1),
    ("monai", ("DiceCELoss", {"softmax": True, "to_onehot_y": True, "smooth_nr": 1.0, "smooth_dr": 1.0}),
     {"dice": {"smooth": 1.0, "per_image": True, **ALL}, "cross_entropy": 1.0}, 1),
    ("segmentation_models_pytorch", ("DiceLoss", {"mode": "multiclass", "smooth": 1.0}), {"dice": {"smooth": 2.0}}, 1),
    ("segmentation_models_pytorch", ("JaccardLoss", {"mode": "multiclass", "smooth": 1.0}),
     {"jaccard": {"smooth": 1.0}}, 1),
    ("segmentation_models_pytorch", ("TverskyLoss", {"mode": "multiclass", "smooth": 1.0, "alpha": 0.3, "beta": 0.7}),
     {"tversky": {"smooth": 1.0, "alpha": 0.3, "beta": 0.7}}, 1),
    ("segmentation_models_pytorch", ("FocalLoss", {"mode": "multiclass", "gamma": 2.0}),
     {"sigmoid_focal": {"gamma": 2.0}}, 1),
    ("segmentation_models_pytorch", ("LovaszLoss", {"mode": "multiclass"}), {"lovasz_softmax": {}}, 1),
    ("mmseg", ("CrossEntropyLoss", {}), {"cross_entropy": {}}, 1),
]  # fmt: skip
# How each library is called with logits at the labels' size.
CALLS = {
    "kornia": ("kornia.losses", lambda loss, settings, full, labels: loss(full, labels, **settings)),
    "monai": ("monai.losses", lambda loss, settings, full, labels: loss(**settings)(full, labels[:, None])),
    "segmentation_models_pytorch": (
        "segmentation_models_pytorch.losses",
        lambda loss, settings, full, labels: loss(**settings)(full.float(), labels),
    ),
    "mmseg": ("mmseg.models.losses", lambda loss, settings, full, labels: loss(**settings)(full, labels)),
}


@pytest.mark.parametrize(("library", "peer", "config", "factor"), ROWS, ids=[f"{row[0]}-{row[1][0]}" for row in ROWS])
def test_the_same_as(library, peer, config, factor):
    module, call = CALLS[library]
    losses = pytest.importorskip(module, reason=f"{library} is not installed", exc_type=ImportError)
    logits, labels = draw_scene()
    assert labels.unique().tolist() == list(range(CLASSES))
    expected = call(getattr(losses, peer[0]), peer[1], enlarge(logits.detach()), labels)
    value = build_criterion(config, CLASSES)(logits, labels)
    assert float(value.detach()) * factor == pytest.approx(float(expected), rel=1e-5)


def test_a_number_for_alpha_is_a_factor_of_every_class():
    """Not the complement for class 0, which kornia and MONAI take."""
    logits, labels = draw_scene()
    plain, scaled = (build_criterion({"focal": {"alpha": alpha}}, CLASSES)(logits, labels) for alpha in (1.0, 0.25))
    assert torch.allclose(scaled, plain / 4)

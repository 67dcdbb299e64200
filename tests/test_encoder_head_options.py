"""Neck, detail branch and point head of the encoder-head model: shapes, training, saving, bad values, what they do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_heads import NUM_LABELS, build_tiny_model
from torch import nn

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.models import freeze_unused_parameters, load_model, load_segmentation_checkpoint, widen_model
from segplus.models.heads.blocks import Stage
from segplus.models.heads.detail_branch import DetailBranch
from segplus.models.heads.fusion_neck import FusionLayer, FusionNeck, WeightedFusion
from segplus.models.heads.point_refinement import PointRefinement
from segplus.recipe import ModelRecipe

CLASSES = ClassMap.build(["road", "car", "tree"])
OPTIONS: dict[str, dict[str, Any]] = {
    "neck": {"neck": "bifpn", "neck_config": {"channels": 8, "layers": 1}},
    "detail": {"detail_branch": True, "detail_config": {"channels": 8}},
    "point": {"refinement": "point", "refinement_config": {"channels": 8, "layers": 2, "scale": 2}},
}
ALL = {key: value for option in OPTIONS.values() for key, value in option.items()}
PAIRS = [("fcn", "resnet"), ("fpn", "swin"), ("unet", "resnet"), ("mlp", "dinov2"), ("lraspp", "mobilenet_v2")]


@pytest.mark.parametrize(("head", "encoder"), PAIRS)
def test_every_weight_learns_in_a_step_and_any_size_is_served(head: str, encoder: str) -> None:
    plain = build_tiny_model(head, encoder)
    model = build_tiny_model(head, encoder, use_auxiliary_head=True, **ALL)
    assert freeze_unused_parameters(model, (64, 64)) == freeze_unused_parameters(plain, (64, 64))  # the encoder's own
    output = model.train()(torch.randn(2, 3, 64, 64))
    output.logits.sin().mean().backward()
    for part in (model.fusion_neck, model.decode_head, model.detail_branch, model.refinement):
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in part.parameters())
    assert output.auxiliary_logits[0].shape[:2] == (2, NUM_LABELS)
    height, width = 70, 90
    with torch.no_grad():
        base = plain.eval()(torch.randn(1, 3, height, width)).logits.shape
        served = model.eval()(torch.randn(1, 3, height, width)).logits
    finest = [max(side, -(-size // 4)) for side, size in zip(base[2:], (height, width), strict=True)]
    assert served.shape == (1, NUM_LABELS, 2 * finest[0], 2 * finest[1])


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_saving_keeps_every_bit_and_new_weights_are_those_of_a_new_model(option: str, tmp_path: Path) -> None:
    model = build_tiny_model("fcn", "resnet", **OPTIONS[option]).eval()
    model.save_pretrained(tmp_path / "with")
    again = load_segmentation_checkpoint(str(tmp_path / "with"))
    pixel_values = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(pixel_values).logits, model(pixel_values).logits)
    build_tiny_model("fcn", "resnet").save_pretrained(tmp_path / "without")
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path / "without"), config=OPTIONS[option]), CLASSES).model
    fusions = [part for part in loaded.modules() if isinstance(part, WeightedFusion)]
    assert all(torch.equal(part.weights, torch.ones_like(part.weights)) for part in fusions)
    assert all(torch.isfinite(p).all() for p in loaded.parameters())
    if option == "detail":
        assert not loaded.detail_branch.correction.weight.any()


def test_other_channels_reach_the_detail_branch() -> None:
    model = build_tiny_model("fcn", "resnet", **OPTIONS["detail"]).eval()
    nn.init.normal_(model.detail_branch.correction.weight)
    wide = widen_model(model, 6).eval()
    pixel_values = torch.randn(1, 3, 64, 64)
    twice = wide(pixel_values.repeat(1, 2, 1, 1)).logits
    assert torch.allclose(twice, model(pixel_values).logits, atol=1e-5)


def test_a_detail_branch_begins_as_the_head_alone() -> None:
    branch, logits = DetailBranch(3, 2, channels=4), torch.randn(1, 2, 4, 6)
    branch.correction.initialize_weights()
    expected = nn.functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=False)
    assert torch.equal(branch.eval()(logits, torch.randn(1, 3, 64, 96)), expected)
    finer = torch.randn(1, 2, 32, 48)
    assert torch.equal(branch(finer, torch.randn(1, 3, 64, 96)), finer)


def test_a_fusion_is_a_weighted_mean_of_what_is_positive() -> None:
    fusion = WeightedFusion(2, 1)
    fusion.convolution = nn.Identity()
    fusion.weights.data = torch.tensor([3.0, 1.0])
    maps = [torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 5.0)]
    assert torch.allclose(fusion(maps), torch.full((1, 1, 2, 2), 8 / 4.0001))
    fusion.weights.data = torch.tensor([1.0, -1.0])
    assert torch.allclose(fusion(maps), torch.full((1, 1, 2, 2), 1 / 1.0001))


def test_a_neck_carries_every_map_into_every_other() -> None:
    torch.manual_seed(0)
    neck = FusionNeck([Stage(2, 4), Stage(2, 8), Stage(2, 16)], channels=4, layers=1).eval()
    assert isinstance(neck.layers[0], FusionLayer)
    for source in range(3):
        maps = [torch.randn(1, 2, 16 >> index, 16 >> index) for index in range(3)]
        before = [one.clone() for one in neck(maps)]
        maps[source] = maps[source] + 1
        assert all(not torch.equal(one, other) for one, other in zip(before, neck(maps), strict=True)), source
        assert [tuple(one.shape) for one in before] == [(1, 4, 16, 16), (1, 4, 8, 8), (1, 4, 4, 4)]


def build_point_head(share: float = 0.25, scale: int = 1) -> PointRefinement:
    """Return a point head that adds 1 to every logit of a cell that it sees."""
    head = PointRefinement(Stage(2, 4), 3, channels=4, layers=1, points_share=share, scale=scale)
    nn.init.zeros_(head.classifier.weight)
    nn.init.ones_(head.classifier.bias)
    return head


def test_the_most_uncertain_cells_are_classified_again() -> None:
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = torch.arange(16.0).reshape(4, 4)  # the first cells are the least certain
    refined = build_point_head().eval()(logits, torch.randn(1, 2, 8, 8))
    changed = (refined - logits).amin(1).flatten()
    assert changed.tolist() == [1.0] * 4 + [0.0] * 12
    finer = build_point_head(0.25, scale=4).eval()(logits, torch.randn(1, 2, 8, 8))
    assert finer.shape == (1, 3, 16, 16)


def test_in_training_each_drawn_cell_is_changed_once() -> None:
    torch.manual_seed(0)
    head = build_point_head(0.25).train()
    logits = torch.randn(2, 3, 8, 8)
    change = head(logits, torch.randn(2, 2, 16, 16)) - logits
    assert torch.allclose(change.sum((1, 2, 3)), torch.full((2,), 3 * 16.0), atol=1e-4)
    assert torch.allclose(change.abs().amax(), torch.ones(()), atol=1e-5)
    every = build_point_head(1.0).train()
    assert torch.allclose(every(logits, torch.randn(2, 2, 16, 16)) - logits, torch.ones(()), atol=1e-5)


def test_points_are_read_where_they_lie() -> None:
    """With weights that pass on the fine map, each cell gets the fine map's value at its own place."""
    head = PointRefinement(Stage(1, 4), 1, channels=1, layers=1, points_share=1.0)
    for layer in (head.hidden[0], head.classifier):
        layer.weight.data = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
        nn.init.zeros_(layer.bias)
    fine = torch.rand(1, 1, 5, 7)
    assert torch.allclose(head.eval()(torch.zeros(1, 1, 5, 7), fine), fine, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"neck": "fpn"}, "neck: found 'fpn', allowed: bifpn, null"),
        ({"neck": "bifpn", "neck_config": {"chanels": 8}}, "neck_config: bifpn has no 'chanels'; did you mean"),
        ({"neck_config": {"channels": 8}}, "neck_config: there is no neck that it could be for"),
        ({"detail_branch": 3}, "detail_branch: found 3, allowed: true, false"),
        ({"refinement": "points"}, "refinement: found 'points', allowed: point, null"),
        ({"refinement": "point", "refinement_config": {"scale": 3}}, "refinement_config.scale: found 3"),
        ({"refinement": "point", "refinement_config": {"points_share": 2}}, "refinement_config.points_share: found 2"),
    ],
)
def test_values_that_cannot_be_are_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_model(ModelRecipe(config={"model_type": "segplus-encoder-head", **values}), CLASSES)

"""Any encoder under any head: every pair trains a step or says why not; sizes, saving, memory, bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_heads import NUM_LABELS, TINY_ENCODERS, TINY_HEADS, build_tiny_model
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, SegformerImageProcessor, pipeline

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.models import load_model, load_segmentation_checkpoint, widen_model
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.heads import HEADS
from segplus.recipe import ModelRecipe

CLASSES = ClassMap.build(["road", "car", "tree"])
SINGLE_STRIDE = "takes maps of one stride from several layers"
MESSAGES = {("setr_mla", encoder): SINGLE_STRIDE for encoder in ("resnet", "swin", "convnext", "mobilenet_v2")}
# One head of each family, on one encoder of each.
KINDS = [
    ("deeplabv3plus", "mobilenet_v2"),
    ("fcn_fusion", "convnext"),
    ("fpn", "dinov2"),
    ("mlp", "swin"),
    ("pspnet", "resnet"),
    ("segmenter_mask", "dinov2"),
    ("setr_mla", "dinov2"),
    ("unet", "resnet"),
]


def take_step(model: EncoderHeadForSemanticSegmentation, pixel_values: torch.Tensor) -> torch.Tensor:
    output = model(pixel_values)
    loss = output.logits.float().square().mean()
    for auxiliary in output.auxiliary_logits or ():
        loss = loss + auxiliary.float().square().mean()
    loss.backward()
    return loss


@pytest.mark.parametrize("encoder", sorted(TINY_ENCODERS))
@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_on_every_encoder_trains_a_step_or_says_why_not(head: str, encoder: str) -> None:
    if (head, encoder) in MESSAGES:
        with pytest.raises(ValueError, match=MESSAGES[head, encoder]):
            build_tiny_model(head, encoder)
        return
    model = build_tiny_model(head, encoder).train()
    assert torch.isfinite(take_step(model, torch.randn(2, 3, 64, 64)))
    gradients = [p.grad for name, p in model.named_parameters() if name.startswith("decode_head.")]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.backbone.parameters())
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients if gradient is not None)


@pytest.mark.parametrize(("head", "encoder"), KINDS)
def test_odd_sizes_give_logits_of_the_whole_image(head: str, encoder: str) -> None:
    model = build_tiny_model(head, encoder).eval()
    with torch.no_grad():
        for height, width in ((70, 90), (97, 65)):
            logits = model(torch.randn(1, 3, height, width)).logits
            assert logits.shape[:2] == (1, NUM_LABELS)
            strides = height / logits.shape[2], width / logits.shape[3]
            # Both sides are reduced alike, but for one row or column of rounding.
            assert strides[0] == pytest.approx(strides[1], rel=0.25)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("head", "encoder"), KINDS)
def test_saving_and_loading_keep_every_bit(head: str, encoder: str, tmp_path: Path) -> None:
    model = build_tiny_model(head, encoder).eval()
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["backbone_config"]["model_type"] == encoder
    assert saved["backbone"] is None
    again = load_segmentation_checkpoint(str(tmp_path))
    assert isinstance(again, EncoderHeadForSemanticSegmentation)
    assert again.plan == model.plan
    pixel_values = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(pixel_values).logits, model(pixel_values).logits)


def build_with_auxiliary_head(head: str, encoder: str) -> EncoderHeadForSemanticSegmentation:
    model = build_tiny_model(head, encoder, use_auxiliary_head=True).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
            module.p = 0.0
    return model


@pytest.mark.parametrize(("head", "encoder"), KINDS)
def test_checkpointing_changes_neither_gradients_nor_statistics(head: str, encoder: str) -> None:
    plain, saving = build_with_auxiliary_head(head, encoder), build_with_auxiliary_head(head, encoder)
    saving.activation_checkpointing_enable({"use_reentrant": False})
    pixel_values = torch.randn(2, 3, 64, 64)
    held: dict[str, list[int]] = {"plain": [], "saving": []}
    for name, model in (("plain", plain), ("saving", saving)):
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=held[name]: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            output = model(pixel_values)
        (output.logits.square().mean() + output.auxiliary_logits[0].square().mean()).backward()
    assert sum(held["saving"]) < sum(held["plain"])
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            assert torch.equal(one.grad, other.grad), name
    for (name, one), (_, other) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(("head", "encoder"), KINDS)
def test_a_step_in_bfloat16_is_finite(head: str, encoder: str) -> None:
    model = build_with_auxiliary_head(head, encoder)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(2, 3, 64, 64))
    loss = output.logits.float().square().mean() + output.auxiliary_logits[0].float().square().mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_one_image_is_a_batch_for_pooled_branches() -> None:
    for head in ("deeplabv3", "pspnet"):
        model = build_tiny_model(head, "resnet").train()
        assert torch.isfinite(take_step(model, torch.randn(1, 3, 96, 96)))


def test_auxiliary_logits_exist_in_training_alone() -> None:
    model = build_tiny_model("pspnet", "resnet", use_auxiliary_head=True)
    output = model.train()(torch.randn(2, 3, 64, 64))
    assert [logits.shape for logits in output.auxiliary_logits] == [(2, NUM_LABELS, 4, 4)]
    assert output.logits.shape == (2, NUM_LABELS, 2, 2)
    assert model.eval()(torch.randn(2, 3, 64, 64)).auxiliary_logits is None
    with pytest.raises(ValueError, match="computes no loss"):
        model(torch.randn(1, 3, 64, 64), labels=torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\), found \(1, 4, 64, 64\)"):
        model(torch.randn(1, 4, 64, 64))


@pytest.mark.parametrize("encoder", ["resnet", "swin", "mobilenet_v2", "dinov2"])
def test_other_channels_come_from_widening_and_are_saved(encoder: str, tmp_path: Path) -> None:
    model = build_tiny_model("fpn", encoder).eval()
    wide = widen_model(model, 6)
    pixel_values = torch.randn(1, 3, 64, 64)
    twice = wide.eval()(torch.cat([pixel_values, pixel_values], dim=1)).logits
    assert torch.allclose(twice, model(pixel_values).logits, atol=1e-5)
    wide.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).backbone_config.num_channels == 6
    assert load_segmentation_checkpoint(str(tmp_path)).config.num_channels == 6


def test_the_auto_classes_and_the_pipeline_know_it(tmp_path: Path) -> None:
    model = build_tiny_model("lraspp", "mobilenet_v2").eval()
    model.config.id2label = {0: "road", 1: "car", 2: "tree"}
    assert type(AutoModel.from_config(model.config)) is EncoderHeadForSemanticSegmentation
    assert type(AutoModelForSemanticSegmentation.from_config(model.config)) is EncoderHeadForSemanticSegmentation
    model.save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    segment = pipeline("image-segmentation", model=str(tmp_path))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    found = segment(image)
    assert {row["label"] for row in found} <= {"road", "car", "tree"}
    assert sum(np.asarray(row["mask"]).astype(bool).sum() for row in found) == 50 * 70


def test_the_default_is_a_resnet_and_its_config_is_written_down() -> None:
    config = EncoderHeadConfig(num_labels=2)
    assert config.backbone_config is None
    assert config.complete().model_type == "resnet"
    assert config.to_dict()["backbone_config"]["depths"] == [3, 4, 6, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": "deeplab3"}, "model.config: head: unknown head 'deeplab3'; did you mean 'deeplabv3'?"),
        ({"head": "fpn", "head_config": {"chanels": 8}}, "head_config: fpn has no 'chanels'; did you mean 'channels'?"),
        ({"head": "fpn", "head_config": {"channels": "8"}}, "head_config.channels: found '8', wanted int"),
        ({"head_config": {"rates": [6, 0]}}, "head_config.rates: found [6, 0], wanted Sequence[int] | None"),
        ({"head": "segmenter_linear", "head_config": {"channels": 8}}, "it has no values of its own"),
        ({"backbone_config": {"model_type": "resnt"}}, "unknown encoder 'resnt'; did you mean 'resnet'?"),
        ({"backbone_config": {"model_type": "bert"}}, "unknown encoder 'bert'"),
        ({"backbone_config": {"model_type": "resnet", "depth": [1]}}, "resnet has no 'depth'; did you mean 'depths'?"),
        ({"backbone_config": {"depths": [1, 1, 1, 1]}}, "it names no model_type"),
        ({"output_stride": 12}, "output_stride: found 12, allowed: 8, 16, 32"),
        ({"backbone_config": TINY_ENCODERS["swin"], "output_stride": 8}, "the stages of swin cannot be dilated"),
        ({"backbone_config": TINY_ENCODERS["swin"], "head": "setr_mla"}, SINGLE_STRIDE),
        ({"head": "unet", "head_config": {"channels": [8, 8]}}, "head unet: channels names 2 blocks"),
        ({"head": "fcn_fusion", "head_config": {"fused_maps": 9}}, "fused_maps is 9, the encoder has 4 maps"),
        ({"head": "segmenter_mask", "head_config": {"num_heads": 5}}, "5 heads do not divide 2048 channels"),
        ({"backbone": "/nowhere/at/all"}, "model.config.backbone: no such folder: /nowhere/at/all"),
        ({"hed": "fpn"}, "has no 'hed'\n  fix: did you mean 'head'?"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_message(values: dict[str, Any], message: str) -> None:
    recipe = ModelRecipe(config={"model_type": "segplus-encoder-head", **values})
    with pytest.raises(InputError, match=re.escape(message)):
        load_model(recipe, CLASSES)


def test_light_heads_stay_light() -> None:
    """CONTRIBUTING shows LR-ASPP as the smallest head."""
    path = Path(str(__import__("segplus.models.heads.lraspp", fromlist=["x"]).__file__))
    assert len(path.read_text().splitlines()) < 60
    assert set(TINY_HEADS) == set(HEADS)

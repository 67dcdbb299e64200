"""Structure: parameters as the authors' code counts them, the same logits as other people's code with its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from encoder_heads import build_tiny_model
from torch import nn
from transformers import SegformerConfig, SwinConfig, UperNetConfig, UperNetForSemanticSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.encoders import ADAPTED_ENCODERS, plan_encoder, read_maps
from segplus.models.heads import HEADS
from segplus.models.heads.blocks import SegmentationHead, Stage

DENSE = {"separable": False}
RESNET: dict[str, Any] = {"model_type": "resnet"}
VIT_SMALL: dict[str, Any] = {
    "model_type": "vit", "image_size": 512, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536,
}  # fmt: skip
STAGES = [Stage(8, 4), Stage(16, 8), Stage(24, 16), Stage(32, 32)]


def build_on_meta(**values: Any) -> EncoderHeadForSemanticSegmentation:
    config = EncoderHeadConfig(**values)
    with torch.device("meta"):
        return EncoderHeadForSemanticSegmentation(config)


def count_millions(parameters: Iterable[nn.Parameter]) -> float:
    return sum(parameter.numel() for parameter in parameters) / 1e6


@pytest.mark.parametrize(
    ("values", "labels", "serving", "training"),
    [
        ({"head": "fcn", "backbone_config": RESNET, "output_stride": 8}, 21, 32.96, 35.32),
        ({"head": "deeplabv3", "backbone_config": RESNET, "output_stride": 8}, 21, 39.64, 42.00),
        (
            {"head": "deeplabv3plus", "head_config": DENSE, "backbone_config": RESNET, "output_stride": 16},
            21, 39.76, None,
        ),
        (
            {
                "head": "deeplabv3plus", "head_config": DENSE,
                "backbone_config": {"model_type": "mobilenet_v2"}, "output_stride": 16,
            },
            21, 5.23, None,
        ),
        (
            {
                "head": "pspnet", "backbone_config": {"model_type": "rt_detr_resnet", "embedding_size": 128},
                "output_stride": 8,
            },
            21, 46.72, 49.08,
        ),
        ({"head": "segmenter_mask", "backbone_config": VIT_SMALL}, 150, 26.03, None),
        ({"head": "segmenter_linear", "backbone_config": VIT_SMALL}, 150, 22.04, None),
    ],
    ids=["fcn-r50", "deeplabv3-r50", "deeplabv3plus-r50", "deeplabv3plus-mv2", "pspnet-r50", "mask", "linear"],
)  # fmt: skip
def test_parameters_are_those_of_the_authors_code(
    values: dict[str, Any], labels: int, serving: float, training: float | None
) -> None:
    model = build_on_meta(**values, num_labels=labels, use_auxiliary_head=training is not None)
    total = count_millions(model.parameters())
    extra = count_millions(model.auxiliary_heads.parameters())
    assert total - extra == pytest.approx(serving, rel=0.005)
    if training is not None:
        assert total == pytest.approx(training, rel=0.005)


def test_upernet_has_the_librarys_parameters() -> None:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    with torch.device("meta"):
        theirs = UperNetForSemanticSegmentation(
            UperNetConfig(backbone_config=SwinConfig(out_features=stages), num_labels=150)
        )
    ours = build_on_meta(backbone_config={"model_type": "swin"}, head="upernet", num_labels=150)
    for part in ("backbone", "decode_head"):
        found = count_millions(getattr(ours, part).parameters())
        assert found == count_millions(getattr(theirs, part).parameters())


def test_resnets_of_output_stride_8_have_torchvisions_strides_and_dilations() -> None:
    """Layer by layer, written out from the rule: a stage's first block keeps the dilation of the stage before."""
    for output_stride, expected in ((8, {2: [1, 2, 2], 3: [2, 4, 4]}), (16, {2: [1, 1, 1], 3: [1, 2, 2]})):
        model = build_tiny_model(
            "fcn", "resnet", output_stride=output_stride,
            backbone_values={"layer_type": "bottleneck", "depths": [1, 1, 3, 3]},
        )  # fmt: skip
        for stage, dilations in expected.items():
            blocks = model.backbone.encoder.stages[stage].layers
            middle = [block.layer[1].convolution for block in blocks]
            assert [convolution.dilation[0] for convolution in middle] == dilations
            assert [convolution.padding[0] for convolution in middle] == dilations
            strided = [m for m in model.backbone.encoder.stages[stage].modules() if getattr(m, "stride", 1) == (2, 2)]
            assert len(strided) == (2 if output_stride == 16 and stage == 2 else 0)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize(
    "encoder",
    [
        {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        {"model_type": "rt_detr_resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        {"model_type": "mobilenet_v2", "depth_multiplier": 0.25},
        {"model_type": "mobilevit", "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8] * 6 + [16]},
        {"model_type": "bit", "embedding_size": 32, "hidden_sizes": [128] * 4, "depths": [1, 1, 1, 1]},
        {"model_type": "efficientnet", "width_coefficient": 0.25, "depth_coefficient": 0.3},
        {"model_type": "hgnet_v2"},
    ],
    ids=lambda values: values["model_type"],
)
def test_maps_have_the_strides_that_are_planned(encoder: dict[str, Any], output_stride: int) -> None:
    values = {"backbone_config": encoder, "head": "fpn", "output_stride": output_stride}
    if encoder["model_type"] in ("hgnet_v2", "efficientnet"):  # wide by default: shapes alone
        model, device = build_on_meta(**values).eval(), "meta"
    else:
        model, device = EncoderHeadForSemanticSegmentation(EncoderHeadConfig(**values)).eval(), "cpu"
    with torch.no_grad():
        maps = read_maps(model.backbone, model.plan, torch.zeros(1, 3, 128, 64, device=device))
    assert [stage.stride for stage in model.plan.stages] == [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    for features, stage in zip(maps, model.plan.stages, strict=True):
        assert features.shape == (1, stage.channels, 128 // stage.stride, 64 // stage.stride)


def test_dilation_keeps_what_the_undilated_encoder_computes_at_every_other_place() -> None:
    """The rule's exact form: with stride replaced by dilation, the kept places hold the strided encoder's values."""
    torch.manual_seed(0)
    values = {"backbone_values": {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "layer_type": "bottleneck"}}
    strided = build_tiny_model("fcn", "resnet", **values).eval()
    dilated = build_tiny_model("fcn", "resnet", output_stride=16, **values).eval()
    dilated.load_state_dict(strided.state_dict())
    pixel_values = torch.randn(1, 3, 128, 128)
    coarse = read_maps(strided.backbone, strided.plan, pixel_values)[-1]
    fine = read_maps(dilated.backbone, dilated.plan, pixel_values)[-1]
    assert torch.allclose(fine[..., ::2, ::2], coarse, atol=1e-6)


# Weights of other people's code


def scatter_statistics(module: nn.Module) -> None:
    """Give BatchNorm statistics and affine values that a wrong order would show."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.5, generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)


def copy_in_order(source: Iterable[nn.Module], target: Iterable[nn.Module]) -> None:
    """Copy tensor by tensor, in order of definition, between lists of modules of one structure."""
    given = [tensor for module in source for tensor in module.state_dict().values()]
    wanted = [tensor for module in target for tensor in module.state_dict().values()]
    assert [tensor.shape for tensor in given] == [tensor.shape for tensor in wanted]
    for one, other in zip(given, wanted, strict=True):
        other.copy_(one)


def make_maps(strides: Iterable[int] = (4, 8, 16, 32)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    channels = {2: 8, 4: 8, 8: 16, 16: 24, 32: 32}
    return [torch.randn(2, channels[stride], 128 // stride, 96 // stride, generator=generator) for stride in strides]


def assert_same(ours: SegmentationHead, theirs: torch.Tensor, maps: list[torch.Tensor]) -> None:
    with torch.no_grad():
        found = ours.eval()(maps)
    assert found.shape == theirs.shape
    assert float((found - theirs).abs().max()) < 1e-4 * max(1.0, float(theirs.abs().max()))
    assert float(theirs.std()) > 1e-3


@torch.no_grad()
def test_the_all_mlp_head_is_the_librarys() -> None:
    config = SegformerConfig(hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=12, num_labels=5)
    theirs, ours = SegformerDecodeHead(config).eval(), HEADS["mlp"](STAGES, 5, channels=12)  # type: ignore[call-arg]
    scatter_statistics(theirs)
    for projection, given in zip(ours.projections, theirs.linear_projections, strict=True):
        projection.weight.copy_(given.proj.weight[:, :, None, None])
        projection.bias.copy_(given.proj.bias)
    # The library joins the maps from coarse to fine.
    ours.fusion[0].weight.copy_(torch.cat(theirs.linear_fuse.weight.chunk(4, dim=1)[::-1], dim=1))
    copy_in_order([theirs.batch_norm, theirs.classifier], [ours.fusion[1], ours.classifier])
    maps = make_maps()
    assert_same(ours, theirs(maps), maps)


@torch.no_grad()
def test_upernets_head_is_the_librarys() -> None:
    from transformers.models.upernet.modeling_upernet import UperNetHead

    theirs = UperNetHead(UperNetConfig(hidden_size=12, num_labels=5), [8, 16, 24, 32]).eval()
    ours = HEADS["upernet"](STAGES, 5, channels=12)  # type: ignore[call-arg]
    scatter_statistics(theirs)
    copy_in_order(
        [theirs.psp_modules, theirs.bottleneck, theirs.lateral_convs, theirs.fpn_convs, theirs.fpn_bottleneck,
         theirs.classifier],
        [ours.pooling, ours.bottleneck, ours.laterals, ours.smoothing, ours.fusion, ours.classifier],
    )  # fmt: skip
    maps = make_maps()
    assert_same(ours, theirs(maps), maps)


@torch.no_grad()
def test_the_unet_decoder_is_smps() -> None:
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.unet.decoder")
    theirs = decoder.UnetDecoder((3, 8, 8, 16, 24, 32), (16, 12, 10, 8, 6), n_blocks=5).eval()
    classifier = nn.Conv2d(6, 5, 3, padding=1)
    ours = HEADS["unet"]([Stage(8, 2), *STAGES], 5, channels=(16, 12, 10, 8, 6))  # type: ignore[call-arg]
    scatter_statistics(theirs)
    copy_in_order([theirs.blocks, classifier], [ours.blocks, ours.classifier])
    maps = make_maps((2, 4, 8, 16, 32))
    assert_same(ours, classifier(theirs([torch.zeros(2, 3, 128, 96), *maps])), maps)


@torch.no_grad()
def test_the_fpn_head_is_smps(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.fpn.decoder")
    monkeypatch.setattr(decoder, "F", AlignedCorners)
    theirs = decoder.FPNDecoder([8, 8, 16, 24, 32], pyramid_channels=16, segmentation_channels=32).eval()
    classifier = nn.Conv2d(32, 5, 1)
    ours = HEADS["fpn"](STAGES, 5, pyramid_channels=16, channels=32)  # type: ignore[call-arg]
    laterals = [theirs.p2.skip_conv, theirs.p3.skip_conv, theirs.p4.skip_conv, theirs.p5]
    copy_in_order([*laterals, *reversed(theirs.seg_blocks), classifier], [ours.laterals, ours.levels, ours.classifier])
    maps = make_maps()
    assert_same(ours, classifier(theirs(maps)), maps)


class AlignedCorners:
    """The peer upsamples with align_corners=True, which shifts maps against the image: set to ours for comparison."""

    @staticmethod
    def interpolate(features: torch.Tensor, scale_factor: float, mode: str, **_: Any) -> torch.Tensor:
        corners = {"align_corners": False} if mode == "bilinear" else {}
        return nn.functional.interpolate(features, scale_factor=scale_factor, mode=mode, **corners)


@torch.no_grad()
def test_the_separable_deeplabv3plus_head_is_smps() -> None:
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.deeplabv3.decoder")
    theirs = decoder.DeepLabV3PlusDecoder((3, 8, 8, 16, 24, 32), 5, 12, (6, 12, 18), 16, True, 0.5).eval()
    theirs.aspp = theirs.aspp[0]  # the peer has one more convolution behind the pyramid than the paper
    theirs.up.align_corners = False
    classifier = nn.Conv2d(12, 5, 1)
    stages = [*STAGES[:3], Stage(32, 16)]
    ours = HEADS["deeplabv3plus"](stages, 5, channels=12, separable=True)  # type: ignore[call-arg]
    scatter_statistics(theirs)
    copy_in_order(
        [theirs.aspp, theirs.block1, theirs.block2, classifier],
        [ours.pyramid, ours.projection, ours.refinement, ours.classifier],
    )
    maps = [*make_maps((4, 8, 16)), torch.randn(2, 32, 8, 6)]
    assert_same(ours, classifier(theirs([torch.zeros(2, 3, 128, 96), torch.zeros(2, 8, 64, 48), *maps])), maps)


@torch.no_grad()
def test_the_lraspp_head_is_torchvisions() -> None:
    lraspp = pytest.importorskip("torchvision.models.segmentation.lraspp")
    theirs = lraspp.LRASPPHead(16, 32, 5, 12).eval()
    ours = HEADS["lraspp"](STAGES, 5, channels=12)  # type: ignore[call-arg]
    scatter_statistics(theirs)
    copy_in_order(
        [theirs.cbr, theirs.scale, theirs.high_classifier, theirs.low_classifier],
        [ours.convolution, ours.gate, ours.classifier, ours.low_classifier],
    )
    maps = make_maps()
    assert_same(ours, theirs({"low": maps[1], "high": maps[3]}), maps)


@torch.no_grad()
@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_whole_models_of_output_stride_8_are_torchvisions(head: str) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    build = {"fcn": segmentation.fcn_resnet50, "deeplabv3": segmentation.deeplabv3_resnet50}[head]
    torch.manual_seed(0)
    theirs = build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    scatter_statistics(theirs)
    ours = EncoderHeadForSemanticSegmentation(
        EncoderHeadConfig(backbone_config=RESNET, head=head, output_stride=8, use_auxiliary_head=True, num_labels=21)
    ).eval()
    weights = {rename(name): value for name, value in theirs.backbone.state_dict().items()}
    assert set(weights) == set(ours.backbone.state_dict())
    ours.backbone.load_state_dict(weights)
    copy_in_order([theirs.classifier, theirs.aux_classifier], [ours.decode_head, ours.auxiliary_heads[0]])
    pixel_values = torch.randn(1, 3, 65, 97)
    maps = read_maps(ours.backbone, ours.plan, pixel_values)
    features = theirs.backbone(pixel_values)
    assert_same(ours.decode_head, theirs.classifier(features["out"]), maps)
    assert_same(ours.auxiliary_heads[0], theirs.aux_classifier(features["aux"]), maps[:-1])


def rename(name: str) -> str:
    """Return the library's name of a tensor of torchvision's ResNet."""
    name = re.sub(r"layer(\d)\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = re.sub(r"layers\.(\d+)\.conv(\d)", lambda m: f"layers.{m[1]}.layer.{int(m[2]) - 1}.convolution", name)
    name = re.sub(r"layers\.(\d+)\.bn(\d)", lambda m: f"layers.{m[1]}.layer.{int(m[2]) - 1}.normalization", name)
    name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
    return re.sub(r"^(conv|bn)1", lambda m: f"embedder.embedder.{PARTS[m[1]]}", name)


PARTS = {"conv": "convolution", "bn": "normalization"}


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_timms_models_are_encoders(name: str) -> None:
    pytest.importorskip("timm")
    values = {"model_type": "timm_backbone", "backbone": name}
    model = EncoderHeadForSemanticSegmentation(EncoderHeadConfig(backbone_config=values, head="fpn")).train()
    model(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    assert any(p.grad is not None for p in model.backbone.parameters())
    if name == "resnet18":
        dilated = build_on_meta(backbone_config=values, head="deeplabv3", output_stride=8)
        assert dilated.plan.stages[-1].stride == 8
        with pytest.raises(ValueError, match="timm_backbone cannot be read as maps: Input height"):
            build_on_meta(backbone_config={**values, "backbone": "vit_tiny_patch16_224"}, head="fpn")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", sorted({*MODEL_FOR_BACKBONE_MAPPING_NAMES, *ADAPTED_ENCODERS}))
def test_every_encoder_of_the_library_gives_maps_or_says_why_not(encoder: str) -> None:
    refused = {
        "dinat": "natten",
        "lw_detr_vit": "device",
        "pp_lcnet_v4": "reduces height and width by different factors",
        "timm_backbone": "timm",
        "vitpose_backbone": "gives tokens",
    }
    config = EncoderHeadConfig(backbone_config={"model_type": encoder}).complete()
    if encoder in refused:
        with pytest.raises(ValueError, match=refused[encoder]):
            plan_encoder(config, "pyramid")
        return
    strides = [stage.stride for stage in plan_encoder(config, "pyramid").stages]
    assert strides in ([4, 8, 16, 32], [14], [16])

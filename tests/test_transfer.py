"""An encoder's weights from a classifier, another segmentation model, a self-supervised one; what the log says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_heads import TINY_ENCODERS, build_tiny_model
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    Dinov2Config,
    Dinov2Model,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2ImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    ViTImageProcessor,
)

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.models import freeze_encoder, load_image_processor, load_model, load_segmentation_checkpoint
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.recipe import ModelRecipe

CLASSES = ClassMap.build(["road", "car", "tree"])
MIT = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
ADAPTED: dict[str, dict[str, Any]] = {
    "segformer": {**MIT, "num_attention_heads": [1, 2, 2, 4]},
    "mobilevit": {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "vit": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32},
    "deit": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32},
}


def load(source: Path, head: str = "fpn", channels: int = 3, **values: Any) -> Any:
    config = {"model_type": "segplus-encoder-head", "backbone": str(source), "head": head, **values}
    return load_model(ModelRecipe(config=config), CLASSES, channels=channels)


def assert_encoder_is(model: torch.nn.Module, given: torch.nn.Module) -> None:
    weights = given.state_dict()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_a_classifier_gives_its_encoder_and_the_line_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {key: value for key, value in TINY_ENCODERS["resnet"].items() if key != "model_type"}
    classifier = ResNetForImageClassification(ResNetConfig(**values, num_labels=7))
    classifier.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert_encoder_is(loaded.model, classifier.resnet)
    assert all(not name.startswith("backbone.") for name in loaded.new_parameters)
    tensors = len(loaded.model.backbone.state_dict())
    assert f"encoder: {tensors} tensors from {tmp_path}, left over: classifier.1" in loaded.describe()
    assert "new: decode_head." in loaded.describe()
    assert loaded.model.config.backbone is None
    assert loaded.model.config.backbone_config.num_labels == 2  # its seven classes are nobody's now


def test_the_saved_model_needs_the_encoders_checkpoint_no_more(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tmp_path / "source"
    MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.25)).save_pretrained(source)
    loaded = load(source, "deeplabv3plus", output_stride=16)
    loaded.model.save_pretrained(tmp_path / "saved")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()
    for file in source.iterdir():
        file.unlink()
    again = load_segmentation_checkpoint(str(tmp_path / "saved"))
    pixel_values = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(pixel_values).logits, loaded.model.eval()(pixel_values).logits)


def test_a_segmentation_model_of_another_head_gives_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = build_tiny_model("deeplabv3plus", "swin")
    ours.save_pretrained(tmp_path / "ours")
    loaded = load(tmp_path / "ours", "upernet")
    assert loaded.transfer.loaded
    for name in loaded.transfer.loaded:
        assert torch.equal(loaded.model.backbone.state_dict()[name], ours.backbone.state_dict()[name])
    assert "left over: decode_head." in loaded.describe()
    theirs = SegformerForSemanticSegmentation(SegformerConfig(**MIT))
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = load(tmp_path / "theirs", "unet")
    assert_encoder_is(loaded.model, theirs.segformer)


def test_a_self_supervised_encoder_is_probed_and_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {key: value for key, value in TINY_ENCODERS["dinov2"].items() if key != "model_type"}
    encoder = Dinov2Model(Dinov2Config(**values))
    encoder.save_pretrained(tmp_path)
    model = load(tmp_path, "linear_probe").model
    assert_encoder_is(model, encoder)
    freeze_encoder(model)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {f"decode_head.{part}.{name}" for part in ("norm", "classifier") for name in ("weight", "bias")}


@pytest.mark.parametrize("model_type", sorted(ADAPTED))
def test_encoders_without_a_backbone_class_are_read_and_loaded(model_type: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = AutoModel.from_config(AutoConfig.for_model(model_type, **ADAPTED[model_type]))
    encoder.save_pretrained(tmp_path)
    model = load(tmp_path, "fpn", use_auxiliary_head=True).model
    assert_encoder_is(model, encoder)
    is_plain = model_type in ("vit", "deit")
    assert [stage.stride for stage in model.plan.stages] == ([16] * 4 if is_plain else [4, 8, 16, 32])
    output = model.train()(torch.randn(2, 3, 96, 96))
    (output.logits.square().mean() + output.auxiliary_logits[0].square().mean()).backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.backbone.parameters())


def test_channels_widen_the_loaded_encoder(tmp_path: Path) -> None:
    build_tiny_model("fcn", "resnet").save_pretrained(tmp_path)
    narrow, wide = load(tmp_path).model.eval(), load(tmp_path, channels=6)
    assert "first convolution widened from 3 to 6 channels" in wide.describe()
    pixel_values = torch.randn(1, 3, 64, 64)
    maps = wide.model.eval().backbone(torch.cat([pixel_values, pixel_values], dim=1)).feature_maps
    for found, expected in zip(maps, narrow.backbone(pixel_values).feature_maps, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_the_normalisation_is_the_encoders(tmp_path: Path) -> None:
    build_tiny_model("fcn", "resnet").save_pretrained(tmp_path)
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
    recipe = ModelRecipe(
        config={"model_type": "segplus-encoder-head", "backbone": str(tmp_path)},
        image_processor={"size": {"height": 64, "width": 96}},
    )
    processor = load_image_processor(recipe, load_model(recipe, CLASSES).model.config)
    assert list(processor.image_mean) == [0.1, 0.2, 0.3]
    assert list(processor.image_std) == [0.4, 0.5, 0.6]
    assert hasattr(processor, "post_process_semantic_segmentation")
    assert (processor.size["height"], processor.size["width"]) == (64, 96)
    MobileNetV2ImageProcessor().save_pretrained(tmp_path)
    processor = load_image_processor(recipe, load_model(recipe, CLASSES).model.config)
    assert type(processor).__name__.startswith("MobileNetV2")
    assert processor.do_center_crop is False


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    build_tiny_model("fcn", "resnet").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"model.config.backbone {tmp_path}: no weight of it fits")):
        load(tmp_path, backbone_config={"embedding_size": 12, "hidden_sizes": [12, 20, 28, 36]})
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="model.config: .*'bert' is no encoder"):
        load(tmp_path / "bert")


def test_values_over_the_checkpoints_are_kept(tmp_path: Path) -> None:
    build_tiny_model("fcn", "swin").save_pretrained(tmp_path)
    model = load(tmp_path, backbone_config={"drop_path_rate": 0.3}).model
    assert isinstance(model, EncoderHeadForSemanticSegmentation)
    assert model.config.backbone_config.drop_path_rate == 0.3
    assert model.config.backbone_config.embed_dim == 8


def test_the_checkpoints_beside_the_tests_give_their_encoders(test_data: Path) -> None:
    for name, head in (("mobilenet-v2-imagenet-hf", "unet"), ("deeplabv3-mobilenet-v2-voc-hf", "lraspp")):
        loaded = load(test_data / "models" / name, head)
        assert len(loaded.transfer.loaded) == len(loaded.model.backbone.state_dict()) == 306
        assert loaded.transfer.new == ()


def build_named_segformer(folder: Path, names: list[str]) -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    labels = dict(enumerate(names))
    values = {key: value for key, value in ADAPTED["segformer"].items() if key != "model_type"}
    config = SegformerConfig(**values, id2label=labels, label2id={name: index for index, name in labels.items()})
    model = SegformerForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(model.decode_head.classifier.bias)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("known", [["wall", "truck", "street"], ["wall", "truck", "street", "bus"]])
def test_classes_begin_as_the_mean_of_the_checkpoints(tmp_path: Path, known: list[str]) -> None:
    """With as many classes as the checkpoint has, and with fewer."""
    source = build_named_segformer(tmp_path, known)
    mapping = {"road": ["street"], "car": known[1::2], "tree": ["wall", "street"]}
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path), checkpoint_classes=mapping), CLASSES)
    assert loaded.new_parameters == []
    assert "3 of 3 classes begin as the checkpoint's" in loaded.describe()
    image = torch.randn(1, 3, 64, 64)
    given = source(image).logits
    expected = [given[:, [known.index(one) for one in mapping[name]]].mean(dim=1) for name in CLASSES.names]
    torch.testing.assert_close(loaded.model.eval()(image).logits, torch.stack(expected, dim=1))


def test_a_class_that_is_not_named_begins_with_random_weights(tmp_path: Path) -> None:
    source = build_named_segformer(tmp_path, ["street", "sky"])
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path), checkpoint_classes={"road": ["street"]}), CLASSES)
    assert {"decode_head.classifier.weight", "decode_head.classifier.bias"} <= set(loaded.new_parameters)
    weight = loaded.model.get_parameter("decode_head.classifier.weight")
    assert torch.equal(weight[0], source.decode_head.classifier.weight[0])
    assert not torch.equal(weight[1], source.decode_head.classifier.weight[1])


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"raod": ["street"]}, "the data have no class 'raod'"),
        ({"road": ["streat"]}, "did you mean 'street'?"),
        ({"road": []}, "a class without any of the checkpoint's"),
    ],
)
def test_a_class_nobody_has_is_named(tmp_path: Path, mapping: dict[str, list[str]], said: str) -> None:
    build_named_segformer(tmp_path, ["street", "sky"])
    with pytest.raises(InputError, match=re.escape(said)):
        load_model(ModelRecipe(checkpoint=str(tmp_path), checkpoint_classes=mapping), CLASSES)

"""Loading any model, its processor, its modules; the folded head computes what the library's does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    DPTConfig,
    DPTForSemanticSegmentation,
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)
from transformers.utils import logging

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.inference.checkpoint import find_checkpoint
from segplus.models import (
    check_input_size,
    expose_auxiliary_logits,
    find_batch_norms,
    fold_decode_head,
    freeze_encoder,
    freeze_unused_parameters,
    load_image_processor,
    load_model,
    load_segmentation_checkpoint,
)
from segplus.models.library_failures import explain_failures
from segplus.models.model_configs import load_config
from segplus.recipe import ModelRecipe

CLASSES = ClassMap.build(["road", "car", "tree"])
SMALL = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}


def build_segformer(**values: object) -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    config = SegformerConfig(
        **{**SMALL, "num_labels": 3, "classifier_dropout_prob": 0.0, "drop_path_rate": 0.0, **values}
    )
    return SegformerForSemanticSegmentation(config)


@pytest.mark.parametrize("size", [(64, 96), (90, 70)])
@pytest.mark.parametrize("training", [False, True])
def test_the_folded_head_gives_the_same_logits_and_gradients(size: tuple[int, int], training: bool) -> None:
    plain, folded = build_segformer().double().train(training), build_segformer().double().train(training)
    pixel_values = torch.randn(2, 3, *size, dtype=torch.float64)
    with fold_decode_head(folded) as is_folded:
        assert is_folded
        found = folded(pixel_values).logits
    expected = plain(pixel_values).logits
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()
    (found * direction).sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), folded.named_parameters(), strict=True):
        assert torch.allclose(other.grad, one.grad, rtol=1e-8, atol=1e-12), name


def test_folding_ends_with_its_outermost_block() -> None:
    model = build_segformer()
    with fold_decode_head(model):
        with fold_decode_head(model):
            pass
        assert "forward" in vars(model.decode_head)
    assert "forward" not in vars(model.decode_head)
    with fold_decode_head(torch.nn.Conv2d(3, 3, 1)) as is_folded:
        assert not is_folded


def test_an_encoder_of_a_known_type_gets_a_new_head_and_another_is_refused(tmp_path: Path) -> None:
    """nvidia/mit-b0 holds an image classifier."""
    torch.manual_seed(0)
    classifier = SegformerForImageClassification(SegformerConfig(**SMALL, num_labels=7))
    classifier.save_pretrained(tmp_path / "mit")
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path / "mit")), CLASSES)
    assert loaded.new_parameters
    assert all(name.startswith("decode_head.") for name in loaded.new_parameters)
    for name, parameter in classifier.segformer.named_parameters():
        assert torch.equal(loaded.model.get_parameter(f"segformer.{name}"), parameter), name
    ConvNextModel(ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])).save_pretrained(
        tmp_path / "convnext"
    )
    with pytest.raises(InputError, match=r"convnext is no semantic-segmentation model[\s\S]*allowed: .*upernet"):
        load_model(ModelRecipe(checkpoint=str(tmp_path / "convnext")), CLASSES)


def test_random_weights_come_from_a_config_and_a_checkpoint_keeps_its_own(tmp_path: Path) -> None:
    random = load_model(ModelRecipe(config={"model_type": "segformer", **SMALL}), CLASSES)
    assert random.model.config.id2label == {0: "road", 1: "car", 2: "tree"}
    assert random.describe().endswith("all from random weights")
    random.model.save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 40, "width": 56}, do_reduce_labels=True).save_pretrained(tmp_path)
    more = ClassMap.build(["road", "car", "tree", "sky", "sign"])
    loaded = load_model(ModelRecipe(checkpoint=str(tmp_path)), more)
    assert loaded.new_parameters == ["decode_head.classifier.bias", "decode_head.classifier.weight"]
    assert "new: decode_head.classifier" in loaded.describe()
    assert torch.equal(loaded.model.decode_head.linear_fuse.weight, random.model.decode_head.linear_fuse.weight)
    processor = load_image_processor(ModelRecipe(checkpoint=str(tmp_path)), loaded.model.config)
    assert (processor.size["height"], processor.size["width"]) == (40, 56)
    assert processor.do_reduce_labels is False


def test_a_processor_that_would_serve_another_geometry_is_refused() -> None:
    recipe = ModelRecipe(config={"model_type": "mobilenet_v2"}, image_processor={"do_center_crop": True})
    with pytest.raises(InputError, match=r"image_processor.do_center_crop\n  found: True\n  allowed: False"):
        load_image_processor(recipe, load_model(recipe, CLASSES).model.config)
    recipe = ModelRecipe(config={"model_type": "segformer", **SMALL}, image_processor={"sise": {}})
    with pytest.raises(InputError, match="unknown key 'sise'\n  fix: did you mean 'size'"):
        load_image_processor(recipe, load_model(recipe, CLASSES).model.config)


def test_a_backbone_without_its_head_is_no_checkpoint_to_predict_with(tmp_path: Path) -> None:
    build_segformer().segformer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is no semantic-segmentation model\n  found: SegformerModel"):
        load_segmentation_checkpoint(str(tmp_path))


@pytest.mark.parametrize(("key", "told"), [("model.checkpoint", True), ("checkpoint", False)])
def test_a_recipe_whose_checkpoint_is_out_of_reach_hears_of_random_weights(key: str, told: bool) -> None:
    with pytest.raises(InputError, match="cannot load some/model") as raised, explain_failures(key, "some/model"):
        raise OSError("no connection")
    assert ("random weights" in str(raised.value)) is told


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path: Path) -> None:
    build_segformer().save_pretrained(tmp_path)
    recipe = ModelRecipe(checkpoint=str(tmp_path), config={"hidden_sizes": [16, 16, 32, 32]})
    with pytest.raises(InputError, match="no weight of the backbone fits|cannot load"):
        load_model(recipe, CLASSES)


def build_dpt(**values: object) -> DPTForSemanticSegmentation:
    return DPTForSemanticSegmentation(
        DPTConfig(
            is_hybrid=False, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, image_size=64,
            num_labels=3, **values,
        )
    )  # fmt: skip


def test_the_auxiliary_logits_of_dpt_are_in_its_output_in_training_while_the_block_runs() -> None:
    model = build_dpt()
    with expose_auxiliary_logits(model) as has_head:
        assert has_head
        output = model.train()(torch.randn(1, 3, 64, 64))
        assert output.auxiliary_logits.shape[:2] == (1, 3)
        assert "auxiliary_logits" not in model.eval()(torch.randn(1, 3, 64, 64))
    assert "auxiliary_logits" not in model.train()(torch.randn(1, 3, 64, 64))
    with expose_auxiliary_logits(build_segformer()) as has_head:
        assert not has_head


def test_a_refused_size_names_one_that_is_taken() -> None:
    model = build_dpt()
    assert check_input_size(model, (64, 64), "key") == (64, 64)
    with pytest.raises(
        InputError, match=r"key: DPTForSemanticSegmentation cannot take this size[\s\S]*fix: use (\d+) x \1"
    ):
        check_input_size(model, (48, 64), "key")


@pytest.mark.parametrize("shown", [True, False])
def test_loading_leaves_progress_bars_as_they_were(tmp_path: Path, shown: bool) -> None:
    build_segformer().save_pretrained(tmp_path)
    switches = {True: logging.enable_progress_bar, False: logging.disable_progress_bar}
    before = logging.is_progress_bar_enabled()
    try:
        switches[shown]()
        load_segmentation_checkpoint(str(tmp_path))
        assert logging.is_progress_bar_enabled() is shown
    finally:
        switches[before]()


def test_freezing_the_encoder_leaves_the_head_to_learn() -> None:
    model = build_segformer()
    frozen = freeze_encoder(model)
    assert frozen == sum(p.numel() for p in model.segformer.parameters())
    assert all(p.requires_grad for p in model.decode_head.parameters())
    assert len(find_batch_norms(model)) == 1


def test_the_attention_implementation_follows_the_recipe(tmp_path: Path) -> None:
    build_dpt().save_pretrained(tmp_path)
    recipe = ModelRecipe(checkpoint=str(tmp_path), attn_implementation="eager")
    assert load_model(recipe, CLASSES).model.config._attn_implementation == "eager"
    assert load_model(ModelRecipe(checkpoint=str(tmp_path)), CLASSES).model.config._attn_implementation == "sdpa"


def test_weights_that_dpt_never_uses_are_frozen() -> None:
    model = build_dpt()
    unused = freeze_unused_parameters(model, (64, 64))
    assert unused
    assert all("residual_layer1" in name or "layernorm" in name for name in unused)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert any(name.startswith("auxiliary_head") and p.requires_grad for name, p in model.named_parameters())
    assert freeze_unused_parameters(build_segformer(), (64, 64)) == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"resample": "x"}, "resample"),
        ({"resample": 99}, "resample"),
        ({"image_std": [0.5, 0.5, 0]}, "image_std"),
        ({"size": []}, "image_processor"),
    ],
)
def test_values_that_no_image_survives_are_refused(values: dict[str, Any], key: str) -> None:
    recipe = ModelRecipe(config={"model_type": "segformer", **SMALL}, image_processor=values)
    with pytest.raises(InputError, match=f"model.image_processor.*{key}|model.{key}"):
        load_image_processor(recipe, load_model(recipe, CLASSES).model.config)


@pytest.mark.parametrize("values", [{"depths": [-1, 1, 1, 1]}, {"drop_path_rate": 2.0}, {"drop_path_rate": math.nan}])
def test_numbers_that_no_network_has_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"model.config.{next(iter(values))}"):
        load_model(ModelRecipe(config={"model_type": "segformer", **SMALL, **values}), CLASSES)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_network_that_takes_no_image_is_told_as_such() -> None:
    loaded = load_model(ModelRecipe(config={"model_type": "segformer", **SMALL, "num_encoder_blocks": 0}), CLASSES)
    with pytest.raises(InputError, match="model.config: no image goes through this Segformer"):
        check_input_size(loaded.model, (32, 32), "transforms.crop_size_px")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_range": [1]}, r"image_range\n  found: \[1\]"),
        ({"image_mean": None}, "does not work with these values"),
        ({"image_processor_type": "BertTokenizer"}, "image_processor_type"),
        (None, "of no image processor"),
    ],
)
def test_a_checkpoint_with_a_processor_that_cannot_serve_is_refused(
    tmp_path: Path, change: dict[str, Any] | None, told: str
) -> None:
    build_segformer().save_pretrained(tmp_path)
    values = SegformerImageProcessor(size={"height": 32, "width": 32}).to_dict()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"a": 1} if change is None else values | change))
    with pytest.raises(InputError, match=f"preprocessor_config.json.*{told}"):
        find_checkpoint(str(tmp_path))


def test_a_billion_labels_are_refused_before_each_gets_a_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "segformer", "num_labels": 1000000000}')
    with pytest.raises(InputError, match=r"config.json: num_labels\n  found: 1000000000"):
        load_config(str(tmp_path), "checkpoint")


TINY_BEIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 64}


@pytest.mark.parametrize("model_type", ["beit", "data2vec-vision"])
@pytest.mark.parametrize(
    ("values", "indices"),
    [
        ({"num_hidden_layers": 8}, [2, 4, 6, 8]),
        ({"num_hidden_layers": 6, "out_indices": [1, 2, 4, 6]}, [1, 2, 4, 6]),
        ({"out_indices": [2, 4, 6, 12]}, [2, 4, 6, 12]),
    ],
)
def test_beit_of_another_depth_reads_the_layers_that_are_asked_for(
    model_type: str, values: dict[str, Any], indices: list[int], tmp_path: Path
) -> None:
    config = {"model_type": model_type, **TINY_BEIT, **values}
    model = load_model(ModelRecipe(config=config), CLASSES).model
    assert list(model.config.out_indices) == indices
    assert model.eval()(torch.zeros(1, 3, 64, 64)).logits.shape == (1, CLASSES.num_classes, 16, 16)
    model.save_pretrained(tmp_path)
    shallow = load_model(ModelRecipe(checkpoint=str(tmp_path), config={"num_hidden_layers": 4}), CLASSES).model
    assert list(shallow.config.out_indices) == [1, 2, 3, 4]


@pytest.mark.parametrize("values", [{"out_indices": [1, 2]}, {"num_hidden_layers": 3}, {"out_indices": [1, 2, 3, 40]}])
def test_layers_that_beit_cannot_read_are_told(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="out_indices"):
        load_model(ModelRecipe(config={"model_type": "beit", **TINY_BEIT, **values}), CLASSES)

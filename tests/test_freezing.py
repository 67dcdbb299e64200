"""What does not learn, by name and in stages; how fast each layer of an encoder learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES
from encoder_heads import build_tiny_model
from tiny_model import NAMES, Squares, build_arguments, build_model
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedModel, TrainerCallback

from segplus.errors import InputError
from segplus.models import find_parameters, freeze_modules, number_layers
from segplus.recipe import ModelRecipe
from segplus.recipe.sections import OptimizerRecipe
from segplus.training import SegmentationTrainer
from segplus.training.optimizer import group_parameters
from segplus.training.unfreezing import install_unfreezing, plan_unfreezing

STAGED = {0.5: ["encoder.stages.1"], 5.0: ["encoder"]}


def build_on_meta(model_type: str, **values: Any) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForSemanticSegmentation.from_config(AutoConfig.for_model(model_type, **values))


def find_depth(depths: dict[str, int], start: str) -> set[int]:
    return {depth for name, depth in depths.items() if name.startswith(start)}


@pytest.mark.parametrize(
    ("model_type", "layers", "stem", "first", "last"),
    [
        ("segformer", 4, None, "segformer.stages.0.", "segformer.stages.3."),
        ("dpt", 12, "dpt.embeddings.", "dpt.encoder.layer.0.", "dpt.layernorm."),
        ("mobilevit", 5, "mobilevit.conv_stem.", "mobilevit.encoder.layer.0.", "mobilevit.encoder.layer.4."),
        ("mobilenet_v2", 16, "mobilenet_v2.conv_stem.", "mobilenet_v2.layer.0.", "mobilenet_v2.conv_1x1."),
    ],
)  # fmt: skip
def test_layers_of_the_librarys_models_are_numbered_from_the_stem(
    model_type: str, layers: int, stem: str | None, first: str, last: str
) -> None:
    depths = number_layers(build_on_meta(model_type))
    if stem is None:  # SegFormer's stages hold their own patch embeddings
        assert find_depth(depths, first) == {0}
        assert max(depths.values()) == layers - 1
    else:
        assert find_depth(depths, stem) == {0}
        assert find_depth(depths, first) == {1}
        assert max(depths.values()) == layers
    assert find_depth(depths, last) == {max(depths.values())}


@pytest.mark.parametrize("encoder", ["resnet", "swin", "convnext", "mobilenet_v2", "dinov2"])
def test_layers_of_an_encoder_under_a_head_are_numbered(encoder: str) -> None:
    model = build_tiny_model("fcn", encoder)
    depths = number_layers(model)
    assert set(depths) == {name for name, _ in model.named_parameters() if name.startswith("backbone.")}
    expected = {"mobilenet_v2": 16}.get(encoder, 4)
    assert set(depths.values()) == set(range(expected + 1))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.model_type)
def test_layers_of_every_network_begin_with_a_stem_and_leave_none_out(architecture: Any) -> None:
    model = architecture.build()
    depths = number_layers(model)
    assert set(depths.values()) == set(range(max(depths.values()) + 1))
    assert max(depths.values()) >= 2
    stem = set(find_parameters(model, ["encoder.stem"], "model.freeze"))
    if "stem" in dict(model.backbone.named_children()):  # a module of that name is what is meant
        assert stem == {name for name in depths if name.startswith("backbone.stem.")}
    else:
        assert stem == {name for name, depth in depths.items() if depth == 0}


def test_modules_are_frozen_by_name_and_by_the_encoders_own() -> None:
    model = build_tiny_model("fcn", "resnet")
    freeze_modules(model, ["encoder.stem", "encoder.stages.1", "decode_head.convolution"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    starts = ("backbone.embedder.", "backbone.encoder.stages.1.", "decode_head.convolution.")
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(starts)}
    assert all(any(name.startswith(start) for name in frozen) for start in starts)
    every = build_tiny_model("fcn", "resnet")
    assert freeze_modules(every, ["encoder"]) == sum(p.numel() for p in every.backbone.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.stagse.0", "no module 'encoder.stagse.0' in .*\n  fix: did you mean 'encoder.stages.0'"),
        ("decod_head", "did you mean 'decode_head'"),
        ("encoder.stem.0", "no module 'encoder.stem.0'"),
        ("bakbone", "no module 'bakbone'"),
    ],
)
def test_a_module_that_there_is_not_is_told_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        freeze_modules(build_model(), [name])


def test_what_leaves_nothing_to_learn_is_refused() -> None:
    with pytest.raises(InputError, match="model.freeze: nothing of SegformerForSemanticSegmentation is left to learn"):
        freeze_modules(build_model(), ["encoder", "decode_head"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unfreeze": {0.5: ["encoder"]}}, "model.unfreeze: nothing is frozen"),
        ({"freeze": ["encoder"], "unfreeze": {0.0: ["encoder"]}}, "model.unfreeze\n  found: 0.0"),
        ({"freeze": ["encoder"], "unfreeze": {1.5: ["encoder"]}}, "model.unfreeze\n  found: 1.5"),
    ],
)
def test_moments_that_are_none_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelRecipe(checkpoint="x", **values)


def test_every_layer_learns_slower_than_the_next() -> None:
    model = build_tiny_model("fcn", "dinov2")
    recipe = OptimizerRecipe(head_learning_rate_multiplier=10.0, layer_decay=0.5)
    groups = group_parameters(model, recipe, 1e-3, 0.1)
    rates = {group["name"]: group["lr"] for group in groups}
    for depth in range(5):
        assert rates[f"backbone_layer_{depth}"] == pytest.approx(1e-3 * 0.5 ** (4 - depth))
        assert rates[f"backbone_layer_{depth}_no_decay"] == rates[f"backbone_layer_{depth}"]
    assert rates["head"] == pytest.approx(1e-2)
    named = {id(p): name for name, p in model.named_parameters()}
    assert sorted(named[id(p)] for group in groups for p in group["params"]) == sorted(named.values())
    by_name = {named[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert by_name["backbone.embeddings.cls_token"] == pytest.approx(1e-3 * 0.5**4)
    assert {rate for name, rate in by_name.items() if ".layer.3." in name} == {1e-3}
    plain = group_parameters(model, OptimizerRecipe(layer_decay=1.0), 1e-3, 0.1)
    assert {group["name"] for group in plain} == {"backbone", "backbone_no_decay", "head", "head_no_decay"}


@pytest.mark.parametrize("decay", [0.0, 1.1, float("nan")])
def test_a_layer_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="optimizer.layer_decay"):
        OptimizerRecipe(layer_decay=decay)


def build_staged(folder: Path, **values: Any) -> SegmentationTrainer:
    """Return a trainer of eight steps: the encoder frozen, its stage 1 from step 4 on, the rest from step 5 on."""
    model = build_model()
    freeze_modules(model, ["encoder"])
    stages = plan_unfreezing(model, STAGED | values.pop("unfreeze", {}))
    defaults = {"max_steps": 8, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True}
    trainer = SegmentationTrainer(
        model,
        build_arguments(folder, **{**defaults, **values}),
        train_dataset=Squares(),
        losses={"cross_entropy": 1.0},
        classes=NAMES,
        optimizer_recipe=OptimizerRecipe(),
    )
    install_unfreezing(trainer, stages)
    return trainer


class Recorder(TrainerCallback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.after[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}


def test_a_stage_learns_from_its_step_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer, recorder = build_staged(tmp_path, save_strategy="no"), Recorder()
    trainer.add_callback(recorder)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    at = recorder.after
    of_encoder = {name for name in start if name.startswith("segformer.")}
    for name in of_encoder:
        stage_1 = name.startswith("segformer.stages.1.")
        assert torch.equal(start[name], at[4][name]), name
        if not stage_1:
            assert torch.equal(start[name], at[5][name]), name
    for prefix, before, after in (
        ("decode_head.", start, at[1]),
        ("segformer.stages.1.", at[4], at[5]),
        ("segformer.stages.0.", at[5], at[6]),
    ):
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith(prefix)), prefix
    said = capsys.readouterr().out
    assert "step 4: encoder.stages.1 learns from here" in said
    assert "step 5: encoder learns from here" in said


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = build_staged(tmp_path / "whole", save_steps=3)
    whole.train()
    for step in (3, 6):  # before the stages, behind them
        again = build_staged(tmp_path / "again", save_strategy="no")
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, again.model.state_dict()[name]), (step, name)


def test_a_frozen_module_keeps_its_statistics_until_its_stage(tmp_path: Path) -> None:
    model = build_tiny_model("fcn", "resnet")
    freeze_modules(model, ["encoder"])
    stages = plan_unfreezing(model, {2.0: ["encoder.encoder.stages.3"]})
    data = Squares()
    data.labels = data.labels.clamp(max=2).where(data.labels != 255, 255)
    trainer = SegmentationTrainer(
        model,
        build_arguments(tmp_path, max_steps=3, report_to="none", use_cpu=True, save_strategy="no"),
        train_dataset=data,
        losses={"cross_entropy": 1.0},
        classes=NAMES[:3],
        optimizer_recipe=OptimizerRecipe(),
    )
    install_unfreezing(trainer, stages)
    trainer.train()
    counted = {name: int(value) for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    for name, count in counted.items():
        expected = 3 if name.startswith("decode_head.") else 1 if ".stages.3." in name else 0
        assert count == expected, name


def test_stages_that_cannot_be_are_told(tmp_path: Path) -> None:
    model = build_model()
    with pytest.raises(InputError, match="model.unfreeze: nothing of it is frozen at 0.5"):
        plan_unfreezing(model, {0.5: ["encoder"]})
    with pytest.raises(InputError, match="model.unfreeze: the training ends before\n  found: 8 "):
        build_staged(tmp_path, unfreeze={5.0: ["encoder.stages.0"], 8.0: ["encoder"]}).train()

"""The trainer's arithmetic: accumulation and processes change nothing, groups and guards do what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
import trainer_gradients
from launching import build_launcher
from transformers import (
    DPTConfig,
    DPTForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    TrainingArguments,
)

from segplus.classes import ClassMap
from segplus.errors import InputError
from segplus.losses import build_criterion
from segplus.recipe import OptimizerRecipe
from segplus.training import SegmentationTrainer, group_parameters, load_callbacks

# Of these the denominator follows from the labels: pixel terms, and what is finished image by image.
COUNTED = [
    "cross_entropy",
    "focal",
    "ohem_cross_entropy",
    "boundary_cross_entropy",
    "binary_cross_entropy",
    "sigmoid_focal",
    "boundary",
    "soft_boundary_f1",
    "rmi",
    "dice per image",
    "lovasz per image",
]


def assert_equal(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Compare all gradients as one vector."""
    difference = torch.cat([(expected[name] - found[name]).flatten() for name in expected])
    size = torch.cat([value.flatten() for value in expected.values()])
    assert float(difference.norm() / size.norm()) < 1e-6


@pytest.mark.parametrize("term", COUNTED)
def test_eight_accumulated_batches_of_one_give_the_gradient_of_a_batch_of_eight(tmp_path: Path, term: str) -> None:
    losses = trainer_gradients.LOSSES_BY_NAME[term]
    whole = trainer_gradients.compute_gradients(losses, tmp_path / "whole", batch_size=8, accumulation=1)
    parts = trainer_gradients.compute_gradients(losses, tmp_path / "parts", batch_size=1, accumulation=8)
    assert_equal(whole, parts)


def test_class_weights_are_part_of_the_denominator_across_accumulation(tmp_path: Path) -> None:
    weights = [0.1, 1.0, 5.0, 2.0]
    whole = trainer_gradients.compute_gradients({"cross_entropy": 1.0}, tmp_path / "whole", 8, 1, weights)
    parts = trainer_gradients.compute_gradients({"cross_entropy": 1.0}, tmp_path / "parts", 2, 4, weights)
    assert_equal(whole, parts)


def test_overlap_terms_over_the_batch_are_not_exact_under_accumulation(tmp_path: Path) -> None:
    """As docs/losses.md says; the comparisons above can see a difference."""
    whole = trainer_gradients.compute_gradients({"dice": 1.0}, tmp_path / "whole", 8, 1)
    parts = trainer_gradients.compute_gradients({"dice": 1.0}, tmp_path / "parts", 1, 8)
    with pytest.raises(AssertionError):
        assert_equal(whole, parts)


def test_the_plain_way_gives_the_same_gradient(tmp_path: Path) -> None:
    config = {"cross_entropy": 1.0, "dice": 0.5}
    streamed = trainer_gradients.compute_gradients(config, tmp_path / "streamed", 8, 1)
    plain = trainer_gradients.compute_gradients(config, tmp_path / "plain", 8, 1, plain=True)
    assert_equal(plain, streamed)


@pytest.mark.slow
def test_two_processes_with_four_images_give_the_gradient_of_one_with_eight(tmp_path: Path) -> None:
    """Through accelerate launch, for every term, those included that are fractions of sums."""
    names = list(trainer_gradients.LOSSES_BY_NAME)
    command = [*build_launcher(2), trainer_gradients.__file__, str(tmp_path), *names]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        losses = trainer_gradients.LOSSES_BY_NAME[name]
        alone = trainer_gradients.compute_gradients(losses, tmp_path / f"alone {name}", 8, 1)
        halves = [torch.load(tmp_path / f"{name}, process {rank}.pt") for rank in range(2)]
        assert [half["processes"] for half in halves] == [2, 2]
        assert [len(half["read"]) for half in halves] == [4, 4]
        assert sorted(halves[0]["read"] + halves[1]["read"]) == list(range(8))
        for half in halves:
            assert_equal(alone, half["gradient"])


def test_a_scheduled_share_moves_the_denominator_with_the_loss(tmp_path: Path) -> None:
    """The second of two steps, half of the way: accumulated or not, the same as with that share from the start."""
    moving = {"ohem_cross_entropy": {"share": {"schedule": "linear", "from": 1.0, "to": 0.4}}}
    fixed = trainer_gradients.compute_gradients({"ohem_cross_entropy": {"share": 0.7}}, tmp_path / "fixed", 8, 1)
    for batch_size, accumulation in ((8, 1), (2, 4)):
        folder = tmp_path / f"moving {batch_size}"
        assert_equal(fixed, trainer_gradients.compute_gradients(moving, folder, batch_size, accumulation, steps=2))


@pytest.mark.parametrize("losses", [{"cross_entropy": 0.8}, {"cross_entropy": 1.0, "dice": 0.5, "boundary": 0.1}])
def test_logged_parts_times_their_weights_are_the_logged_loss(tmp_path: Path, losses: dict[str, float]) -> None:
    """With an auxiliary head, whose parts are logged by name too."""
    config = DPTConfig(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=64,
                       patch_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, num_labels=4,
                       backbone_out_indices=[0, 1, 2, 3], use_auxiliary_head=True, semantic_loss_ignore_index=255,
                       use_batch_norm_in_fusion_residual=False)  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        max_steps=2,
        logging_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = SegmentationTrainer(
        DPTForSemanticSegmentation(config),
        losses=build_criterion(losses, 4),
        classes=ClassMap.build(trainer_gradients.NAMES),
        auxiliary_loss_weight=0.3,
        args=arguments,
        train_dataset=trainer_gradients.UnequalImages(),
    )
    trainer.train()
    line = trainer.state.log_history[0]
    main, auxiliary = (
        sum(weight * line[f"loss/{head}{name}"] for name, weight in losses.items()) for head in ("", "auxiliary/")
    )
    assert main > 0
    assert auxiliary > 0
    assert line["loss"] == pytest.approx(main + 0.3 * auxiliary, rel=1e-4)


def build_model() -> SegformerForSemanticSegmentation:
    return SegformerForSemanticSegmentation(
        SegformerConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], decoder_hidden_size=16, num_labels=3)
    )


def test_groups_hold_every_parameter_once_with_its_rate_and_decay() -> None:
    model = build_model()
    groups = group_parameters(model, OptimizerRecipe(head_learning_rate_multiplier=10.0), 0.1, 0.01)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in groups] == [
        ("backbone", 0.1, 0.01),
        ("backbone_no_decay", 0.1, 0.0),
        ("head", 1.0, 0.01),
        ("head_no_decay", 1.0, 0.0),
    ]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = named[id(parameter)]
            assert name.startswith("segformer.") == group["name"].startswith("backbone")
            is_plain = name.endswith("bias") or "norm" in name
            assert is_plain == group["name"].endswith("no_decay"), name


def test_frozen_parameters_stand_in_no_group() -> None:
    model = build_model()
    model.segformer.requires_grad_(False)
    groups = group_parameters(model, OptimizerRecipe(), 0.1, 0.01)
    assert [group["name"] for group in groups] == ["head", "head_no_decay"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformers.EarlyStopingCallback", "did you mean 'EarlyStoppingCallback'"),
        ("nowhere.Callback", "cannot import 'nowhere.Callback'"),
        ("pathlib.Path", "is no transformers.TrainerCallback"),
        ("Callback", "cannot import 'Callback'"),
    ],
)
def test_a_wrong_callback_is_told(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_callbacks([name])


def test_a_callback_takes_the_arguments_that_it_has() -> None:
    name = "transformers.EarlyStoppingCallback"
    (callback,) = load_callbacks([{name: {"early_stopping_patience": 7}}])
    assert callback.early_stopping_patience == 7
    with pytest.raises(InputError, match="allowed: arguments: early_stopping_patience, early_stopping_threshold"):
        load_callbacks([{name: {"patience": 7}}])

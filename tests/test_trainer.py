"""The trainer's arithmetic: accumulation and processes change nothing, groups and guards do what they say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
import trainer_gradients
from launching import build_launcher
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segplus.errors import InputError
from segplus.recipe import OptimizerRecipe
from segplus.training import group_parameters, load_callbacks

PIXELWISE = ["cross_entropy", "focal", "ohem_cross_entropy", "boundary_cross_entropy"]
SUMMED = ["dice", "jaccard", "tversky", "focal_tversky", "lovasz_softmax", "boundary", "soft_boundary_f1"]


def assert_equal(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Compare all gradients as one vector."""
    difference = torch.cat([(expected[name] - found[name]).flatten() for name in expected])
    size = torch.cat([value.flatten() for value in expected.values()])
    assert float(difference.norm() / size.norm()) < 1e-6


@pytest.mark.parametrize("term", ["cross_entropy", "focal", "boundary_cross_entropy"])
def test_eight_accumulated_batches_of_one_give_the_gradient_of_a_batch_of_eight(tmp_path: Path, term: str) -> None:
    whole = trainer_gradients.compute_gradients({term: 1.0}, tmp_path / "whole", batch_size=8, accumulation=1)
    parts = trainer_gradients.compute_gradients({term: 1.0}, tmp_path / "parts", batch_size=1, accumulation=8)
    assert_equal(whole, parts)


def test_class_weights_are_part_of_the_denominator_across_accumulation(tmp_path: Path) -> None:
    weights = [0.1, 1.0, 5.0, 2.0]
    whole = trainer_gradients.compute_gradients({"cross_entropy": 1.0}, tmp_path / "whole", 8, 1, weights)
    parts = trainer_gradients.compute_gradients({"cross_entropy": 1.0}, tmp_path / "parts", 2, 4, weights)
    assert_equal(whole, parts)


def test_the_plain_way_gives_the_same_gradient(tmp_path: Path) -> None:
    config = {"cross_entropy": 1.0, "dice": 0.5}
    streamed = trainer_gradients.compute_gradients(config, tmp_path / "streamed", 8, 1)
    plain = trainer_gradients.compute_gradients(config, tmp_path / "plain", 8, 1, plain=True)
    assert_equal(plain, streamed)


@pytest.mark.slow
def test_two_processes_with_four_images_give_the_gradient_of_one_with_eight(tmp_path: Path) -> None:
    """Through accelerate launch, for every term, those included that are fractions of sums."""
    command = [*build_launcher(2), trainer_gradients.__file__, str(tmp_path), *PIXELWISE, *SUMMED]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for term in [*PIXELWISE, *SUMMED]:
        alone = trainer_gradients.compute_gradients({term: 1.0}, tmp_path / f"alone {term}", 8, 1)
        assert_equal(alone, torch.load(tmp_path / f"{term}.pt"))


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

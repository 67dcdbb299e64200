"""Mask transformers trained: four images by heart, a killed run to the same weights, two processes as one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from launching import kill_when, run, write_recipe
from safetensors.torch import load_file
from test_architectures import measure_mean_iou, read_camvid
from tiny_mask_transformers import FAMILIES, SPLITTING, TINY
from transformers import AutoConfig, AutoModelForUniversalSegmentation

from segplus.models.mask_transformers import MatchingLoss, compute_scores, expose_queries
from segplus.training.annealing import compute_mask_probabilities

# Steps, and the highest learning rate: at 2e-3 MaskFormer ends where it began.
SCHEDULES = {
    "eomt": (400, 2e-3),
    "eomt_dinov3": (1000, 2e-3),
    "mask2former": (400, 2e-3),
    "maskformer": (3000, 1e-3),
    "oneformer": (1000, 2e-3),
}
STEPWISE = {"strategy": "steps", "steps": 2}
_LARGER = {
    "backbone_config": {"embed_dim": 24, "num_heads": [1, 2, 4, 8]},
    "decoder_config": {"d_model": 64, "num_queries": 16, "decoder_ffn_dim": 128},
    "feature_size": 64,
    "mask_feature_size": 64,
    "fpn_feature_size": 64,
    "conv_dim": 64,
    "mask_dim": 64,
    "hidden_dim": 64,
    "num_queries": 16,
    "train_num_points": 1024,
}
_LARGER_VIT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_queries": 16,
    "num_upscale_blocks": 2,
    "train_num_points": 1024,
    "image_size": 128,
}
pytestmark = pytest.mark.slow


def enlarge(model_type: str) -> dict[str, Any]:
    """Return the tiny config with room for four photographs."""
    config = copy.deepcopy(TINY[model_type])
    for key, value in (_LARGER_VIT if model_type in SPLITTING else _LARGER).items():
        if key in config:
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


@pytest.mark.networks
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_four_photographs_are_learned_by_heart(model_type: str, test_data: Path) -> None:
    assert learn_by_heart(model_type, test_data, *SCHEDULES[model_type]) > 0.9


def learn_by_heart(model_type: str, test_data: Path, steps: int, learning_rate: float) -> float:
    """Return the mean IoU on four images of CamVid, labels at 48 x 64, after so many steps on them."""
    pixel_values, labels = read_camvid(test_data, 4)  # 192 x 256
    if model_type in SPLITTING:
        pixel_values = torch.nn.functional.interpolate(pixel_values, (128, 128), mode="bilinear")
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **enlarge(model_type), num_labels=11)
    model = AutoModelForUniversalSegmentation.from_config(config).train()
    criterion = MatchingLoss(config, 255)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for step in range(steps):
        criterion.set_progress(step / steps)
        if model_type in SPLITTING:
            model.attn_mask_probs.copy_(torch.tensor(compute_mask_probabilities(step / steps, 1)))
        with expose_queries(model):
            loss = criterion(model(pixel_values=pixel_values), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if model_type in SPLITTING:
        model.attn_mask_probs.zero_()
    return measure_mean_iou(compute_scores(model.eval(), pixel_values), labels)


def write_tiny_recipe(folder: Path, model_type: str, **training: Any) -> Path:
    """Write a recipe of ten scenes, at the size that the tiny models take."""
    size = {} if model_type in SPLITTING else {"image_processor": {"size": {"height": 64, "width": 64}}}
    recipe = {
        "data": {"synthetic_size_px": [64, 64]},
        "model": {"image_processor": {}, "config": {"model_type": model_type, **TINY[model_type]}, **size},
        "transforms": {"crop_size_px": [64, 64]},
        "training": {"dataloader_drop_last": True, **training},
    }
    path = write_recipe(folder, recipe)
    values = yaml.safe_load(path.read_text())
    del values["losses"]
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("model_type", ["eomt", "mask2former"])
def test_a_killed_run_goes_on_to_the_same_weights(model_type: str, tmp_path: Path) -> None:
    weights = []
    saving = {"max_steps": 8} | {f"{name}_{key}": value for name in ("eval", "save") for key, value in STEPWISE.items()}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        recipe = write_tiny_recipe(tmp_path / name, model_type, **saving)
        if name == "killed":
            kill_when((recipe.parent / "run" / "checkpoint-4" / "manifest.json").exists, recipe)
        done = run(recipe)
        assert done.returncode == 0, done.stderr[-2000:]
        assert name == "whole" or "resuming from" in done.stdout
        weights.append(load_file(recipe.parent / "run" / "model.safetensors"))
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


@pytest.mark.parametrize("model_type", FAMILIES)
def test_two_processes_learn_as_one(model_type: str, tmp_path: Path) -> None:
    losses = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        batch = {"per_device_train_batch_size": 4 // processes, "max_steps": 2, "learning_rate": 1e-5}
        done = run(write_tiny_recipe(folder, model_type, **batch), processes=processes)
        assert done.returncode == 0, done.stderr[-3000:]
        losses.append([line.split("loss ")[1].split()[0] for line in done.stdout.splitlines() if "step 1/" in line])
    one, two = (float(values[0]) for values in losses)
    assert two == pytest.approx(one, abs=2e-4)  # a line shows four digits

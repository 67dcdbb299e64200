"""The code of docs/python.md, docs/extending.md and docs/deploy.md runs as printed, against a local Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

import hub_server
import numpy as np
import pytest
import torch
import yaml
from launching import ROOT, TINY
from PIL import Image
from tiny_model import Squares, build_arguments, build_model
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

import run_segmentation
from segplus.inference.checkpoint import find_checkpoint
from segplus.training import SegmentationTrainer


def read_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_the_script_without_a_recipe_is_short() -> None:
    script = read_blocks("docs/python.md", "python")[0]
    assert len([line for line in script.splitlines() if line]) <= 25


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own
def test_the_page_on_python_runs_as_printed(
    empty_folder: Path, hub: hub_server.HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in read_blocks("docs/python.md", "python"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= set(
        hub.repositories["someone/out"].files
    )
    assert "mean_iou" in capsys.readouterr().out


def test_ones_own_functions_run_from_a_recipe(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All yaml blocks together are the recipe, but for the folder and the tiny model."""
    (empty_folder / "my_project.py").write_text("\n".join(read_blocks("docs/extending.md", "python")))
    monkeypatch.syspath_prepend(empty_folder)
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(empty_folder / f"{number}_image.png")
        Image.fromarray(rng.integers(0, 4, (48, 64), np.uint8)).save(empty_folder / f"{number}_mask.png")
    recipe = {"model": TINY["model"]}
    for block in read_blocks("docs/extending.md", "yaml"):
        recipe |= yaml.safe_load(block)
    recipe["data"] |= {"dataset": str(empty_folder), "validation_share": 0.3}
    recipe["transforms"]["crop_size_px"] = [32, 32]
    recipe["training"] |= {**TINY["training"], "output_dir": "run", "num_train_epochs": 1, "report_to": "none"}
    (empty_folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert run_segmentation.main([str(empty_folder / "recipe.yaml")]) == 0
    assert re.fullmatch(r"\d+ 0\.\d{4}\n", (empty_folder / "my_scores.txt").read_text())
    measured = json.loads((empty_folder / "run" / "metrics.json").read_text())["evaluations"]["validation"]
    assert measured["images"] == 2
    assert 1 <= measured["user_metrics"]["classes_seen"] <= 4
    assert "mean_boundary_iou" in measured
    assert "classes_seen" in (empty_folder / "run" / "report.html").read_text()

    import my_project

    trainer = SegmentationTrainer(
        build_model(), build_arguments(empty_folder), eval_dataset=Squares(), compute_metrics=my_project.count_classes
    )
    assert 1 <= trainer.evaluate()["eval_classes_seen"] <= 4


def write_tiny_run(folder: Path) -> None:
    build_model().save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(folder)


def read_deployment_block(word: str) -> str:
    (block,) = [block for block in read_blocks("docs/deploy.md", "python") if word in block]
    return block


def test_the_lines_that_prune_set_three_weights_of_ten_to_zero(empty_folder: Path) -> None:
    write_tiny_run(empty_folder / "runs" / "my_recipe")
    exec(compile(read_deployment_block("prune."), "docs/deploy.md", "exec"), {})
    checkpoint = find_checkpoint("runs/my_recipe_pruned")
    pruned = checkpoint.load(device="cpu").model
    layers = [one.weight for one in pruned.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    zeros, weights = sum(int((one == 0).sum()) for one in layers), sum(one.numel() for one in layers)
    assert abs(zeros / weights - 0.3) < 1e-3
    assert checkpoint.image_processor.size == {"height": 32, "width": 48}

"""The Python of the pages runs as printed, against a local Hub where it needs one."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_server
import numpy as np
import pytest
import torch
import yaml
from launching import ROOT, TINY
from PIL import Image
from test_inference_commands import write_data, write_model
from tiny_model import Squares, build_arguments, build_model
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

import run_segmentation
from segplus.classes import ClassMap
from segplus.inference.checkpoint import find_checkpoint
from segplus.losses.pixelwise import PixelTerm
from segplus.training import SegmentationTrainer

RUN = {
    f"docs/{name}.md"
    for name in ["augmentation", "data", "evaluation", "extending", "losses", "predict", "python", "report"]
}
# They need a server or repositories of the Hub (lines that prune are run below); `test_docs.py` looks at their imports.
NOT_RUN = {"docs/deploy.md", "docs/mask_transformers.md", "docs/models.md"}


def read_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def run_page(page: str, **names: object) -> dict[str, Any]:
    """Run the Python of a page, block after block, with the names that it takes for given; return all names."""
    names["__name__"] = "__main__"
    for block in read_blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    return names


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
    run_page("docs/python.md")
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


def test_no_page_with_python_is_forgotten() -> None:
    pages = [path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    assert {page for page in pages if read_blocks(page, "python")} == RUN | NOT_RUN


def test_the_page_on_data_runs_as_printed(empty_folder: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, shape, end in (("images", (12, 16, 3), 256), ("masks", (12, 16), 2)):
        (empty_folder / "my_data" / folder).mkdir(parents=True)
        for number in range(4):
            pixels = Image.fromarray(rng.integers(0, end, shape, np.uint8))
            pixels.save(empty_folder / "my_data" / folder / f"{number}.png")
    names = run_page("docs/data.md")
    assert names["data"].classes.names == ("ground", "crack")
    assert names["pair"]["label"].shape == (12, 16)


def test_the_page_on_augmentation_runs_as_printed(empty_folder: Path) -> None:
    served = SegformerImageProcessorPil(size={"height": 256, "width": 512})
    names = run_page("docs/augmentation.md", image_processor=served)
    assert names["training_set"][0]["pixel_values"].shape == (3, 192, 256)
    assert len(names["sampler"]) >= len(names["split"])


def test_the_page_on_losses_runs_as_printed() -> None:
    logits = torch.randn(2, 19, 8, 8, requires_grad=True)
    given = {"dataclass": dataclass, "PixelTerm": PixelTerm, "Tensor": torch.Tensor}
    names = run_page("docs/losses.md", logits=logits, labels=torch.randint(0, 19, (2, 32, 32)), **given)
    assert names["criterion"].term_values.keys() == {"focal", "dice"}
    assert logits.grad is not None
    loss = names["PolyCrossEntropy"](epsilon=2.0).losses(torch.tensor([math.log(0.25)]))
    assert loss.item() == pytest.approx(-math.log(0.25) + 2 * 0.75)


def test_the_pages_on_evaluation_prediction_and_reports_run_as_printed(empty_folder: Path) -> None:
    for number, name in enumerate("ab"):
        write_model(empty_folder / "runs" / name, number)
    folder = write_data(empty_folder / "path" / "to" / "folder", [(40, 60)] * 3)
    for file in (*empty_folder.glob("runs/*/config.json"), folder / "id2label.json"):
        file.write_text(file.read_text().replace('"car"', '"crack"'))
    shutil.copytree(folder / "images", empty_folder / "photos")
    size, truth = {"height": 32, "width": 48}, torch.randint(0, 19, (1, 32, 48))
    names = run_page("docs/evaluation.md", logits=torch.randn(1, 19, 8, 12), truth=truth, **size)
    assert names["labels"].shape == (1, 32, 48)
    assert 0 < names["metrics"]["evaluations"]["validation"]["mean_iou"] < 1

    image = Image.open(empty_folder / "photos" / "0.png").convert("RGB")
    names = run_page("docs/predict.md", image=image)
    assert names["labels"].shape == names["prediction"].confidence.shape == (40, 60)
    assert (empty_folder / "out" / "areas.csv").is_file()

    (empty_folder / "runs" / "quickstart").mkdir()
    shutil.copy(empty_folder / "runs" / "a_on_folder" / "metrics.json", empty_folder / "runs" / "quickstart")
    maps = [np.full((40, 60), number % 4) for number in range(9)]
    run_page(
        "docs/report.md",
        classes=ClassMap.build(["sky", "road", "tree", "crack"]),
        names=[f"image {number}" for number in range(9)],
        images=[image] * 9,
        truths=maps,
        predictions=maps,
        scores=[number / 10 for number in range(9)],
    )
    assert "image 8" in (empty_folder / "report.html").read_text()


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

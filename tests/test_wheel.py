"""The wheel and nothing else: built, checked, installed in an empty environment, used from an empty folder."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import hub_server
import pytest
import yaml

ROOT = Path(__file__).parents[1]
SMALL = ["--data.synthetic_images", "{train: 8, validation: 4, test: 4}", "--max_steps", "2", "--eval_steps", "2"]

# The first use builds the wheel in an environment of its own, which may have to be downloaded.
pytestmark = [pytest.mark.slow, pytest.mark.wheel, pytest.mark.timeout(3600)]


PLAIN_DATASET = """
import datasets
import numpy as np
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor, TrainingArguments
from segplus import SegmentationTrainer

rng = np.random.default_rng(0)
masks = [rng.integers(0, 3, (2, 2)).repeat(16, 0).repeat(16, 1).astype(np.uint8) for _ in range(6)]
photographs = [Image.fromarray(np.stack([60 * mask] * 3, -1)) for mask in masks]
table = datasets.Dataset.from_dict({"image": photographs, "label": [Image.fromarray(mask) for mask in masks]})
processor = SegformerImageProcessor(size={"height": 32, "width": 32})
served = table.with_transform(lambda rows: processor(rows["image"], rows["label"], return_tensors="pt"))
config = SegformerConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], decoder_hidden_size=8, num_labels=3)
trainer = SegmentationTrainer(
    SegformerForSemanticSegmentation(config), TrainingArguments("plain", max_steps=2, report_to="none"),
    train_dataset=served, eval_dataset=served, classes=["road", "car", "sky"], processing_class=processor,
)
trainer.train()
print("score", trainer.evaluate()["eval_mean_iou"])
print("shape", trainer.predict(served).predictions[0].shape)
trainer.save_model()
"""
OWN_PIECES = """
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainerCallback, TrainingArguments
from segplus import SegmentationTrainer


class MyLoss(torch.nn.Module):
    def forward(self, logits, labels):
        print("sizes", tuple(logits.shape), tuple(labels.shape))
        return torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)


class Note(TrainerCallback):
    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        print("noted", sorted(metrics)[0], metrics["eval_images_seen"])


def count_images(prediction):
    return {"images_seen": len(prediction.predictions)}


torch.manual_seed(0)
samples = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.randint(0, 3, (32, 32))} for _ in range(4)]
config = SegformerConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], decoder_hidden_size=8, num_labels=3)
trainer = SegmentationTrainer(
    SegformerForSemanticSegmentation(config),
    TrainingArguments("own", max_steps=1, per_device_train_batch_size=2, eval_strategy="steps", report_to="none"),
    train_dataset=samples, eval_dataset=samples, losses=MyLoss(), compute_metrics=count_images, callbacks=[Note()],
)
trainer.train()
trainer.evaluate()
"""
TWO_PROCESSES = """
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainingArguments
from segplus import SegmentationTrainer

torch.manual_seed(0)
samples = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.randint(0, 3, (32, 32))} for _ in range(5)]
config = SegformerConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], decoder_hidden_size=8, num_labels=3)
trainer = SegmentationTrainer(
    SegformerForSemanticSegmentation(config),
    TrainingArguments("launched", max_steps=2, report_to="none", use_cpu=True),
    train_dataset=samples, eval_dataset=samples,
)
trainer.train()
trainer.evaluate()
if trainer.is_world_process_zero():
    pixels = int(trainer.scores.matrix.sum())
    print("processes", trainer.args.world_size, "images", trainer.scores.images, "pixels", pixels)
"""


@dataclasses.dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and what it needs, and nothing of this tree.

    Args:
        tools: Its bin folder.
        variables: What its processes see.
    """

    tools: Path
    variables: Mapping[str, str]

    def run(self, folder: Path, tool: str, *words: object, **variables: str) -> str:
        """Run one of its tools in a folder and return what it printed."""
        return run([self.tools / tool, *words], folder, {**self.variables, **variables})

    def run_script(self, folder: Path, text: str, *launcher: object, **variables: str) -> str:
        """Run a Python file, alone or behind the words of accelerate launch."""
        (folder / "script.py").write_text(text)
        tool, *words = launcher or ("python",)
        return self.run(folder, str(tool), *words, "script.py", **variables)

    def list_launcher(self) -> list[object]:
        """Return the words that start two processes, from the file that the wheel brought."""
        return ["accelerate", "launch", "--config_file", next(self.tools.parent.rglob("cpu_two_processes.yaml"))]


def run(command: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("twine")
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", folder, ROOT], folder)
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    run([sys.executable, "-m", "twine", "check", "--strict", *files], folder)
    return files[0]


def test_the_wheel_holds_every_recipe_and_template(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    brought = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    tracked = run(["git", "ls-files", "segplus"], ROOT).split()
    assert {f"segplus/{name}" for name in brought} <= inside
    assert set(tracked) <= inside
    assert not [name for name in inside if name.startswith(("tests/", "configs/", "benchmarks/"))]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel with the versions that segplus was tested with."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "environment", with_pip=True)
    tools = folder / "environment" / "bin"
    # PYTHONPATH would show this tree to pip, which then takes segplus as installed.
    own = {"PYTHONPATH", "SEGPLUS_DATA", "VIRTUAL_ENV"}
    variables = {name: value for name, value in os.environ.items() if name not in own}
    wanted = ["--constraint", ROOT / "requirements.txt", wheel]
    run([tools / "python", "-m", "pip", "install", "--quiet", *wanted], folder, variables)
    assert (tools / "segplus").is_file()
    variables |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "SEGPLUS_CACHE": str(folder / "cache")}
    return Installed(tools, variables)


def test_the_commands_train_and_predict(wheel: Path, installed: Installed, tmp_path: Path) -> None:
    def segplus(*words: object) -> str:
        return installed.run(tmp_path, "segplus", *words)

    assert segplus("--version") == f"segplus {wheel.name.split('-')[1]}\n"
    assert "camvid/segformer_b0 " in segplus("recipes")
    assert segplus("recipes", "show", "quickstart").startswith("# A small ResNet")
    assert "report.html lie in runs/quickstart" in segplus("train", "quickstart", *SMALL)
    saved = yaml.safe_load((tmp_path / "runs" / "quickstart" / "recipe.yaml").read_text(encoding="utf-8"))
    assert saved["training"]["report_to"] == "none"  # tensorboard is an extra
    segplus("predict", "runs/quickstart", tmp_path / "runs" / "quickstart" / "pictures" / "input.png", "-o", "mask.png")
    assert (tmp_path / "mask.png").stat().st_size > 100
    segplus("new", "synthetic", "--data.synthetic_images", "{train: 4, validation: 2}")
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))["data"]["dataset"] == "synthetic"


def test_the_command_trains_in_two_processes(installed: Installed, tmp_path: Path) -> None:
    words = ["-m", "segplus", "train", "quickstart", *SMALL, "--output_dir", "two"]
    said = installed.run(tmp_path, *map(str, installed.list_launcher()), *words)
    assert said.count("report.html lie in two") == 1
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert metrics["training"]["processes"] == 2
    assert metrics["evaluations"]["test"]["images"] == 4


def test_the_script_of_the_page_trains_scores_and_pushes(installed: Installed, tmp_path: Path) -> None:
    script = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)[0]
    with hub_server.HubServer() as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub_server.TOKEN, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        said = installed.run_script(tmp_path, script, HF_HUB_DISABLE_XET="1", **online)
        files = hub.repositories[f"{hub_server.USER}/out"].files
    assert re.search(r"'eval_mean_iou': '?0\.\d+", said)
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= set(files)


def test_a_plain_dataset_trains_and_predicts(installed: Installed, tmp_path: Path) -> None:
    said = installed.run_script(tmp_path, PLAIN_DATASET)
    assert re.search(r"^score 0\.\d+$", said, re.MULTILINE)
    assert "shape (32, 32)" in said
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {
        path.name for path in (tmp_path / "plain").iterdir()
    }


def test_a_loss_a_metric_and_a_callback_of_ones_own(installed: Installed, tmp_path: Path) -> None:
    said = installed.run_script(tmp_path, OWN_PIECES)
    assert "sizes (2, 3, 32, 32) (2, 32, 32)" in said
    assert said.count("noted") == 2
    assert said.rstrip().splitlines()[-1].endswith(" 4")


def test_a_script_of_two_processes_counts_every_image_once(installed: Installed, tmp_path: Path) -> None:
    said = installed.run_script(tmp_path, TWO_PROCESSES, *installed.list_launcher())
    assert said.count(f"processes 2 images 5 pixels {5 * 32 * 32}") == 1

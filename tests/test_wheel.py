"""The wheel and nothing else: built, checked, installed in an empty environment, used from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SMALL = ["--data.synthetic_images", "{train: 8, validation: 4, test: 4}", "--max_steps", "2", "--eval_steps", "2"]

# The first use builds the wheel in an environment of its own, which may have to be downloaded.
pytestmark = [pytest.mark.slow, pytest.mark.wheel, pytest.mark.timeout(3600)]


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


def test_an_empty_environment_trains_and_predicts_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "environment", with_pip=True)
    tools = tmp_path / "environment" / "bin"
    run([tools / "python", "-m", "pip", "install", "--quiet", wheel], tmp_path)
    folder = tmp_path / "empty"
    folder.mkdir()
    own = {"PYTHONPATH", "SEGPLUS_DATA", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"HF_HUB_OFFLINE": "1", "SEGPLUS_CACHE": str(tmp_path / "cache")}
    segplus = tools / "segplus"

    assert run([segplus, "--version"], folder, environment) == f"segplus {wheel.name.split('-')[1]}\n"
    assert "camvid/segformer_b0 " in run([segplus, "recipes"], folder, environment)
    assert run([segplus, "recipes", "show", "quickstart"], folder, environment).startswith("# A small SegFormer")
    said = run([segplus, "train", "quickstart", *SMALL], folder, environment)
    assert "report.html lie in runs/quickstart" in said
    saved = yaml.safe_load((folder / "runs" / "quickstart" / "recipe.yaml").read_text(encoding="utf-8"))
    assert saved["training"]["report_to"] == "none"  # tensorboard is an extra
    image = folder / "runs" / "quickstart" / "pictures" / "input.png"
    run([segplus, "predict", "runs/quickstart", image, "-o", "mask.png"], folder, environment)
    assert (folder / "mask.png").stat().st_size > 100
    run([segplus, "new", "synthetic", "--data.synthetic_images", "{train: 4}"], folder, environment)
    assert yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["data"]["dataset"] == "synthetic"
    launcher = [tools / "accelerate", "launch", "--config_file"]
    launcher.append(next((tmp_path / "environment").rglob("cpu_two_processes.yaml")))
    said = run([*launcher, "-m", "segplus", "train", "quickstart", *SMALL, "--output_dir", "two"], folder, environment)
    assert said.count("report.html lie in two") == 1

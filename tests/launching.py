"""Starting run_segmentation.py as a person does: in a process of its own, alone or under accelerate launch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
TWO_PROCESSES = ROOT / "configs" / "accelerate" / "cpu_two_processes.yaml"

# Seconds, not minutes: ten drawn scenes, a SegFormer with 50,000 weights. Seven validation images: an odd number.
TINY = {
    "data": {
        "dataset": "synthetic",
        "synthetic_images": {"train": 10, "validation": 7, "test": 5},
        "synthetic_size_px": [48, 64],
    },
    "model": {
        "config": {
            "model_type": "segformer",
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 16,
            "num_attention_heads": [1, 1, 2, 2],
        },
        "image_processor": {"size": {"height": 48, "width": 64}},
    },
    "transforms": {"preset": "light", "crop_size_px": [32, 32]},
    "losses": {"cross_entropy": 1.0, "dice": 0.5},
    "training": {
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "bf16": False,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "save_total_limit": None,
    },
}


def write_recipe(folder: Path, changes: dict | None = None) -> Path:
    """Write the tiny recipe with one level of changes over its sections, and its run below the same folder."""
    values = {key: {**section, **(changes or {}).get(key, {})} for key, section in TINY.items()}
    values |= {key: value for key, value in (changes or {}).items() if key not in TINY}
    values["training"] = {"output_dir": str(folder / "run"), **values["training"]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def build_launcher(processes: int) -> list[str]:
    """Return what stands before a script's name: python, or accelerate launch with gloo on the CPU."""
    if processes == 1:
        return [sys.executable]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(TWO_PROCESSES)]
    return [*launch, "--num_processes", str(processes)]


def build_command(recipe: Path, arguments: Sequence[str] = (), processes: int = 1) -> list[str]:
    """Return the command line of a run."""
    return [*build_launcher(processes), str(ROOT / "run_segmentation.py"), str(recipe), *arguments]


def build_environment(folder: Path) -> dict[str, str]:
    """Return an environment with one thread, a cache of its own, and no way to the Hub."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "SEGPLUS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "tests"),
    }


def run(
    recipe: Path, arguments: Sequence[str] = (), processes: int = 1, *, offline: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a recipe to its end and return exit code and output."""
    return subprocess.run(
        build_command(recipe, arguments, processes),
        capture_output=True,
        text=True,
        env=build_environment(recipe.parent) | {"HF_HUB_OFFLINE": str(int(offline))},
        timeout=280,
        check=False,
        cwd=ROOT,
    )


def kill_when(
    has_come: Callable[[], bool], recipe: Path, processes: int = 1, how: signal.Signals = signal.SIGKILL
) -> None:
    """Start a run and kill it as soon as something is true."""
    with (recipe.parent / "killed.log").open("a") as log:
        process = subprocess.Popen(
            build_command(recipe, processes=processes),
            stdout=log,
            stderr=log,
            env=build_environment(recipe.parent),
            start_new_session=True,
            cwd=ROOT,
        )
        deadline = time.monotonic() + 200
        while not has_come() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, (recipe.parent / "killed.log").read_text()[-2000:]
        os.killpg(process.pid, how)
        # SIGKILL ends a process; of another signal the run makes an exit code, after a checkpoint.
        assert process.wait() == (-how if how == signal.SIGKILL else 128 + how)

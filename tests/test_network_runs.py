"""Networks of segplus' own through the real script and on two processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
import trainer_gradients
from architectures import ARCHITECTURES
from launching import build_launcher, kill_when, run, write_recipe
from safetensors.torch import load_file

from segplus.reporting.metrics_file import read_metrics

BY_TYPE = {architecture.model_type: architecture for architecture in ARCHITECTURES}
pytestmark = pytest.mark.slow


def write_network_recipe(folder: Path, model_type: str) -> Path:
    """Write the tiny recipe around a tiny network, without what it says of SegFormer."""
    folder.mkdir()
    path = write_recipe(folder)
    text = path.read_text()
    start, end = text.index("  config:\n"), text.index("  image_processor:")
    values = {"model_type": model_type, **BY_TYPE[model_type].tiny}
    return path.write_text(f"{text[:start]}  config: {values}\n{text[end:]}") and path


def test_a_network_with_all_heads_runs_and_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, killed = (write_network_recipe(tmp_path / name, "segplus-pidnet") for name in ("whole", "killed"))
    done = run(whole)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "PIDNetForSemanticSegmentation" in done.stdout
    kill_when(lambda: (killed.parent / "run" / "checkpoint-5" / "trainer_state.json").is_file(), killed)
    done = run(killed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming from" in done.stdout
    expected, found = (load_file(path.parent / "run" / "model.safetensors") for path in (whole, killed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert (whole.parent / "run" / "modeling_segplus_pidnet.py").is_file()
    assert "test" in read_metrics(whole.parent / "run" / "metrics.json")["evaluations"]


def test_two_processes_give_the_gradient_of_one_with_every_auxiliary_head(tmp_path: Path) -> None:
    names = ["segplus-ddrnet", "segplus-bisenet", "segplus-espnetv2"]
    command = [*build_launcher(2), trainer_gradients.__file__, str(tmp_path), *names]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        alone = trainer_gradients.compute_gradients(
            {"cross_entropy": 1.0}, tmp_path / f"alone {name}", 8, 1, architecture=BY_TYPE[name]
        )
        for rank in range(2):
            half = torch.load(tmp_path / f"{name}, process {rank}.pt")
            assert half["processes"] == 2
            difference = torch.cat([(alone[key] - half["gradient"][key]).flatten() for key in alone])
            size = torch.cat([value.flatten() for value in alone.values()])
            assert float(difference.norm() / size.norm()) < 1e-6, name

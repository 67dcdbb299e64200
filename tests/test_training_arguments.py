"""TrainingArguments of a recipe do what they say, in tiny runs through the real script."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import TINY, write_recipe
from safetensors.torch import load_file

import run_segmentation


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))


# Compiled code draws other random numbers.
STILL = TINY["model"]["config"] | {"classifier_dropout_prob": 0.0, "drop_path_rate": 0.0}


def train(
    folder: Path, steps: int = 3, config: dict[str, Any] = TINY["model"]["config"], **training: Any
) -> list[dict[str, float]]:
    """Run the tiny recipe and return its lines."""
    folder.mkdir()
    values = {"max_steps": steps, "eval_strategy": "no", "save_strategy": "steps", "save_steps": steps, **training}
    assert run_segmentation.main([str(write_recipe(folder, {"training": values, "model": {"config": config}}))]) == 0
    state = json.loads((folder / "run" / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


# transformers 5.23 calls it activation_checkpointing, earlier versions do not.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.slow
def test_gradient_checkpointing_changes_no_loss(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    saving = train(tmp_path / "saving", gradient_checkpointing=True)
    assert [line["loss"] for line in saving] == pytest.approx([line["loss"] for line in plain], rel=1e-5)
    assert [line["grad_norm"] for line in saving] == pytest.approx([line["grad_norm"] for line in plain], rel=1e-4)


def decay_cosine(step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / 10))


def decay_polynomial(step: int) -> float:
    """lr_end is 1e-7, as in transformers."""
    return ((1e-3 - 1e-7) * (1 - step / 10) ** 0.9 + 1e-7) / 1e-3


@pytest.mark.parametrize(
    ("schedule", "values", "decay"),
    [
        pytest.param("cosine", {}, decay_cosine, marks=pytest.mark.slow),
        ("polynomial", {"lr_scheduler_kwargs": {"power": 0.9}}, decay_polynomial),
    ],
)
def test_a_schedule_reaches_its_learning_rates(tmp_path: Path, schedule: str, values: dict, decay: Any) -> None:
    lines = train(tmp_path / "run", 10, lr_scheduler_type=schedule, warmup_steps=0, **values)
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-3 * decay(step) for step in range(10)])


def test_a_short_run_learns_from_its_first_step_on(tmp_path: Path) -> None:
    """A twentieth of three steps is one step of warm-up, whose learning rate would be 0."""
    lines = train(tmp_path / "run", 3, lr_scheduler_type="constant_with_warmup", warmup_steps=0.05)
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-3] * 3)


def test_bfloat16_trains_on_a_cpu(tmp_path: Path) -> None:
    single = train(tmp_path / "float32")
    half = train(tmp_path / "bfloat16", bf16=True, use_cpu=True)
    assert [line["loss"] for line in half] == pytest.approx([line["loss"] for line in single], rel=0.05)
    assert [line["loss"] for line in half] != [line["loss"] for line in single]
    metrics = json.loads((tmp_path / "bfloat16" / "run" / "metrics.json").read_text())
    assert metrics["training"]["precision"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_trains_alike(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", 2, STILL)
    compiled = train(tmp_path / "compiled", 2, STILL, torch_compile=True)
    assert [line["loss"] for line in compiled] == pytest.approx([line["loss"] for line in plain], rel=1e-3)


@pytest.mark.slow
def test_running_the_saved_recipe_again_repeats_the_run(tmp_path: Path) -> None:
    """To the last bit, in another folder, with dropout and augmentation."""
    assert run_segmentation.main([str(write_recipe(tmp_path, {"transforms": {"preset": "standard"}}))]) == 0
    saved = tmp_path / "run" / "recipe.yaml"
    torch.rand(3)  # the generator's state before a run has no part in it
    assert run_segmentation.main([str(saved), "--training.output_dir", str(tmp_path / "again")]) == 0
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["evaluations"] for name in ("run", "again")]
    for split in ("validation", "test"):
        assert scores[0][split]["confusion_matrix"] == scores[1][split]["confusion_matrix"]

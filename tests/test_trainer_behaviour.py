"""What transformers' page on Trainer promises holds of SegmentationTrainer, on a model of ten thousand weights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import hub_server
import pytest
import torch
from launching import ROOT, build_launcher
from safetensors.torch import load_file
from tiny_model import Squares, build_arguments, build_model
from transformers import EarlyStoppingCallback, TrainerCallback

from segplus.metrics import MeanIoU
from segplus.training import SegmentationTrainer


def build_trainer(folder: Path, *, model: Any = None, others: dict[str, Any] | None = None, **values: Any) -> Any:
    arguments = build_arguments(folder, **{"save_steps": 2, "logging_steps": 2, **values})
    given = {"train_dataset": Squares(16), "eval_dataset": Squares(5, seed=1), **(others or {})}
    return SegmentationTrainer(model or build_model(), arguments, **given)


def test_a_run_that_is_resumed_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole = build_trainer(tmp_path / "whole", max_steps=4)
    whole.train()
    half = build_trainer(tmp_path / "half", max_steps=4, others={"callbacks": [DieAt(3)]})
    with pytest.raises(InterruptedError):
        half.train()
    again = build_trainer(tmp_path / "half", max_steps=4)
    assert again.train(resume_from_checkpoint=True).global_step == 4
    for (name, one), other in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


class DieAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            raise InterruptedError


def test_save_total_limit_and_the_best_by_our_metric(tmp_path: Path) -> None:
    """Also a metric of a class; the best of the checkpoints that stand is loaded at the end."""
    monitored = {"metric_for_best_model": "iou/sky", "load_best_model_at_end": True, "eval_strategy": "steps"}
    trainer = build_trainer(tmp_path, max_steps=6, eval_steps=2, save_total_limit=2, learning_rate=1e-2, **monitored)
    trainer.train()
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    scores = [entry["eval_iou/sky"] for entry in trainer.state.log_history if "eval_iou/sky" in entry]
    assert trainer.state.best_metric == max(scores)
    saved = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    trainer.save_model(str(tmp_path / "model"))
    assert all(torch.equal(one, saved[name]) for name, one in load_file(tmp_path / "model/model.safetensors").items())


def test_a_dict_of_evaluation_sets_and_another_set(tmp_path: Path) -> None:
    sets = {"day": Squares(3, seed=1), "night": Squares(3, seed=2)}
    trainer = build_trainer(tmp_path, others={"eval_dataset": sets})
    metrics = trainer.evaluate()
    assert metrics["eval_day_mean_iou"] == trainer.evaluate(sets["day"])["eval_mean_iou"]
    assert metrics["eval_night_mean_iou"] == trainer.evaluate(sets["night"], metric_key_prefix="x")["x_mean_iou"]
    assert metrics["eval_day_mean_iou"] != metrics["eval_night_mean_iou"]


def test_an_interrupted_evaluation_leaves_nothing_in_the_next(tmp_path: Path) -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            if index == 3:
                raise OSError("gone")
            return super().__getitem__(index)

    trainer = build_trainer(tmp_path, per_device_eval_batch_size=1)
    expected = trainer.evaluate()["eval_mean_iou"]
    with pytest.raises(OSError, match="gone"):
        trainer.evaluate(Broken())
    assert trainer.evaluate()["eval_mean_iou"] == expected


def test_callbacks_run_in_their_order_and_early_stopping_stops(tmp_path: Path) -> None:
    calls: list[str] = []

    class Note(TrainerCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            calls.append(self.name if "eval_mean_iou" in metrics else "no score")

    callbacks = [Note("first"), EarlyStoppingCallback(1), Note("second")]
    values = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "mean_iou", "learning_rate": 0.0}
    trainer = build_trainer(tmp_path, max_steps=8, **values, others={"callbacks": callbacks, "freeze_batch_norm": True})
    assert trainer.train().global_step == 4  # no better at the second evaluation
    assert calls == ["first", "second"] * 2


def test_an_optimizer_of_the_callers_is_the_one_that_steps(tmp_path: Path) -> None:
    model = build_model()
    before = [parameter.clone() for parameter in model.parameters()]
    trainer = build_trainer(
        tmp_path, model=model, others={"optimizers": (torch.optim.SGD(model.parameters(), lr=0.0), None)}
    )
    trainer.train()
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_evaluates_metrics_are_computed_in_batches_beside_ours(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, per_device_eval_batch_size=2, others={"compute_metrics": ["mean_iou", MeanIoU()]})
    trainer.model.decode_head.classifier.bias.data[0] = 5.0
    metrics = trainer.evaluate()
    for name in ("mean_iou", "mean_accuracy", "overall_accuracy"):
        assert metrics[f"eval_{name}"] == pytest.approx(trainer.scores.describe()[name])
    assert metrics["eval_per_category_iou/car"] == pytest.approx(metrics["eval_iou/car"])


@pytest.mark.slow
def test_hyperparameter_search_of_two_trials(tmp_path: Path) -> None:
    trainer = SegmentationTrainer(
        args=build_arguments(tmp_path, eval_strategy="steps", eval_steps=2, save_strategy="no"),
        model_init=lambda: build_model(),  # Trainer counts its parameters
        train_dataset=Squares(16),
        eval_dataset=Squares(5, seed=1),
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [1e-5, 1e-2])},
        compute_objective=lambda metrics: metrics["eval_mean_iou"],
        n_trials=2,
        direction="maximize",
    )
    assert best.hyperparameters["learning_rate"] in (1e-5, 1e-2)
    assert 0 <= best.objective <= 1


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # huggingface_hub's own
def test_push_to_hub_brings_weights_and_our_card(tmp_path: Path, hub: hub_server.HubServer) -> None:
    trainer = build_trainer(tmp_path / "squares")
    trainer.evaluate()
    trainer.push_to_hub(dataset="squares", license="mit")
    files = hub.repositories["someone/squares"].files
    assert {"config.json", "model.safetensors", "README.md"} <= set(files)
    card = files["README.md"].decode()
    assert "license: mit" in card
    assert "type: mean_iou" in card
    assert re.search(r"\| road \| \d", card)


@pytest.mark.slow
def test_two_processes_train_an_auxiliary_head_with_default_arguments(tmp_path: Path) -> None:
    """DDP once called its parameters ready twice; weights and scores are those of one process."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import json, sys, torch
            from pathlib import Path
            from transformers import DPTConfig, DPTForSemanticSegmentation, TrainingArguments
            from tiny_model import NAMES, Squares
            from segplus.training import SegmentationTrainer
            torch.manual_seed(0)
            model = DPTForSemanticSegmentation(DPTConfig(
                hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
                patch_size=8, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, num_labels=4,
                backbone_out_indices=[0, 1, 2, 3], use_auxiliary_head=True, use_batch_norm_in_fusion_residual=False))
            count = int(sys.argv[2])
            arguments = TrainingArguments(sys.argv[1], max_steps=2, per_device_train_batch_size=count, use_cpu=True,
                per_device_eval_batch_size=2, train_sampling_strategy="sequential", save_strategy="no",
                learning_rate=1e-3)
            trainer = SegmentationTrainer(model, arguments, train_dataset=Squares(8), eval_dataset=Squares(5, seed=1),
                compute_metrics=lambda p: {"seen": len(p.predictions)}, freeze_batch_norm=True)
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            trainer.train()
            metrics = trainer.evaluate()
            if trainer.is_world_process_zero():
                trainer.save_model()
                (Path(sys.argv[1]) / "metrics.json").write_text(json.dumps(metrics))
        """)
    )
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [*build_launcher(processes), str(script), str(folder), str(4 // processes)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found.append((json.loads((folder / "metrics.json").read_text()), load_file(folder / "model.safetensors")))
    (alone, weights), (together, others) = found
    assert together["eval_seen"] == alone["eval_seen"] == 5
    assert together["eval_mean_iou"] == pytest.approx(alone["eval_mean_iou"], abs=1e-3)
    for name, one in weights.items():
        assert torch.allclose(one, others[name], atol=1e-4), name

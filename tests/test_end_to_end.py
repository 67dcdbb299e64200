"""The main job through the real script: a run and what it leaves, two processes, a run that is killed, a push."""

from __future__ import annotations

import json
from pathlib import Path

import hub_server
import numpy as np
import pytest
import torch
from launching import ROOT, kill_when, run, write_recipe
from safetensors.torch import load_file
from transformers import pipeline

from segplus.data import load_segmentation_dataset
from segplus.metrics import ConfusionMatrix
from segplus.recipe import load_recipe
from segplus.reporting.metrics_file import read_metrics

STILL = {"learning_rate": 0.0, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(write_recipe(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "step 10/10" in done.stdout
    assert "test split, 5 images" in done.stdout
    return folder / "run"


def score_through_pipeline(run_dir: Path, split_name: str) -> torch.Tensor:
    """Return the confusion matrix of the masks that transformers' pipeline serves for a split."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the run had: the last bits of a network's logits depend on their number
    data = load_segmentation_dataset(load_recipe(run_dir / "recipe.yaml").data)
    segment = pipeline("image-segmentation", model=str(run_dir))
    matrix = ConfusionMatrix(data.classes.num_classes)
    for pair in data.splits[split_name]:
        served = np.zeros(pair["label"].shape, dtype=np.int64)
        for region in segment(pair["image"], subtask="semantic"):
            served[np.asarray(region["mask"]) > 0] = data.classes.label2id[region["label"]]
        matrix.update(torch.from_numpy(served)[None], torch.from_numpy(pair["label"])[None])
    torch.set_num_threads(threads)
    return matrix.matrix


def test_a_run_leaves_model_scores_card_and_report(finished_run: Path) -> None:
    metrics = read_metrics(finished_run / "metrics.json")
    assert set(metrics["evaluations"]) == {"validation", "test"}
    assert metrics["evaluations"]["validation"]["images"] == 7
    assert metrics["training"]["steps"] == 10
    card = (finished_run / "README.md").read_text()
    assert f"value: {metrics['evaluations']['test']['mean_iou']:.4f}"[:12] in card
    assert str(finished_run.parent) not in card
    report = (finished_run / "report.html").read_text()
    assert report.count("<html") == 1
    assert f"All {metrics['evaluations']['test']['images']} images of the test split" in report
    assert "Validation IoU of each class" in report
    assert (finished_run / "pictures" / "input.png").is_file()
    assert (finished_run / "pictures" / "batch.png").is_file()
    state = json.loads((finished_run / "checkpoint-10" / "trainer_state.json").read_text())
    first = state["log_history"][0]
    assert {"loss", "loss/cross_entropy", "loss/dice", "images_per_second", "data_wait_share"} <= set(first)
    assert first["loss"] == pytest.approx(first["loss/cross_entropy"] + 0.5 * first["loss/dice"], rel=1e-5)


def test_what_is_evaluated_is_what_the_pipeline_serves(finished_run: Path) -> None:
    reported = read_metrics(finished_run / "metrics.json")["evaluations"]["test"]["confusion_matrix"]
    assert score_through_pipeline(finished_run, "test").tolist() == reported


@pytest.mark.slow
def test_real_photographs_are_served_as_they_were_evaluated(test_data: Path, tmp_path: Path) -> None:
    """CamVid on the pretrained checkpoint: a served size that is not the images', an output stride of 16."""
    values = ["--training.output_dir", str(tmp_path / "run"), "--max_steps", "2", "--eval_steps", "2"]
    values += ["--data.max_images", "{train: 8, validation: 3, test: 12}", "--data.dataset", str(test_data / "camvid")]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((ROOT / "configs" / "camvid" / "mobilenetv2_deeplabv3.yaml").read_text())
    done = run(recipe, values)
    assert done.returncode == 0, done.stderr[-3000:]
    reported = read_metrics(tmp_path / "run" / "metrics.json")["evaluations"]["test"]["confusion_matrix"]
    assert score_through_pipeline(tmp_path / "run", "test").tolist() == reported


def test_the_best_checkpoint_is_the_saved_model(finished_run: Path) -> None:
    folders = sorted(finished_run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((folders[-1] / "trainer_state.json").read_text())
    best = load_file(finished_run / Path(state["best_model_checkpoint"]).name / "model.safetensors")
    saved = load_file(finished_run / "model.safetensors")
    assert best.keys() == saved.keys()
    assert all(torch.equal(best[name], saved[name]) for name in best)
    scores = [entry["eval_mean_iou"] for entry in state["log_history"] if "eval_mean_iou" in entry]
    assert state["best_metric"] == max(scores)


def test_the_last_monitored_score_is_the_reported_one(finished_run: Path) -> None:
    """In float32 the trainer's evaluation and the saved folder's give the same figures."""
    state = json.loads((finished_run / "checkpoint-10" / "trainer_state.json").read_text())
    reported = read_metrics(finished_run / "metrics.json")["evaluations"]["validation"]["mean_iou"]
    assert state["best_metric"] == pytest.approx(reported, abs=1e-4)


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(finished_run: Path) -> None:
    before = load_file(finished_run / "model.safetensors")
    done = run(finished_run.parent / "recipe.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    after = load_file(finished_run / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_push_to_hub_uploads_the_run_in_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server.HubServer() as server:
        for key, value in {
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": hub_server.TOKEN,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(key, value)
        values = ["--push_to_hub", "true", "--hub_model_id", "someone/streets", "--max_steps", "2"]
        values += ["--eval_strategy", "steps", "--eval_steps", "2"]
        done = run(write_recipe(tmp_path), values, offline=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (repository,) = server.repositories.values()
    assert len(repository.commits) == 1
    pushed = repository.files
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md", "metrics.json"} <= set(pushed)
    assert {"report.html", "recipe.yaml"} <= set(pushed)
    assert any(name.startswith("logs/") for name in pushed)
    assert not any(name.startswith("checkpoint-") for name in pushed)
    assert pushed["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_evaluate_like_one(finished_run: Path, tmp_path: Path) -> None:
    """Seven images on two processes: the padded repeat is ignored. Weights and statistics stand still."""
    figures = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        recipe = write_recipe(folder, {"model": {"freeze_batch_norm": True}, "training": STILL})
        values = ["--training.max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2"]
        done = run(recipe, values, processes)
        assert done.returncode == 0, done.stderr[-3000:]
        state = json.loads((folder / "run" / "checkpoint-2" / "trainer_state.json").read_text())
        logged = next(entry for entry in state["log_history"] if "eval_mean_iou" in entry)
        during = {key: value for key, value in logged.items() if "iou" in key or "accuracy" in key}
        final = read_metrics(folder / "run" / "metrics.json")["evaluations"]
        assert read_metrics(folder / "run" / "metrics.json")["training"]["processes"] == processes
        figures[processes] = during, {name: scores["confusion_matrix"] for name, scores in final.items()}
    assert figures[1] == figures[2]


# Saves inside of epochs of five steps (three with two processes), a worker that lives through epochs, dropout, mixing.
RESTLESS = {
    "training": {"dataloader_num_workers": 1, "max_steps": 7, "eval_strategy": "steps", "eval_steps": 3},
    "transforms": {"preset": "standard", "classmix": 0.5, "sampling": "repeat_factor"},
}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_four_times_ends_in_the_same_weights(tmp_path: Path, processes: int) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    undisturbed = run(write_recipe(tmp_path / "whole", RESTLESS), processes=processes)
    assert undisturbed.returncode == 0, undisturbed.stderr[-3000:]
    recipe = write_recipe(tmp_path / "killed", RESTLESS)
    output = tmp_path / "killed" / "run"
    moments = [
        lambda: (output / "logs").is_dir(),  # nothing is saved yet
        lambda: (output / "checkpoint-3").is_dir(),  # the first checkpoint is being written
        lambda: (output / "checkpoint-6" / "optimizer.pt").is_file(),  # the second, in another epoch
        lambda: (output / "model.safetensors").is_file(),  # the final evaluation
    ]
    for has_come in moments:
        kill_when(has_come, recipe, processes)
    done = run(recipe, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = load_file(tmp_path / "whole" / "run" / "model.safetensors")
    found = load_file(output / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    again = read_metrics(output / "metrics.json")
    assert again["training"]["steps"] == 7
    assert not (output / "checkpoint-8").exists()

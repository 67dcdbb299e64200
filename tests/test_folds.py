"""k-fold: a folder for each fold, and the summary over all of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from launching import write_recipe

import run_segmentation
from segplus.__main__ import main
from segplus.commands.folds import render_folds, summarize_folds
from segplus.data import load_segmentation_dataset
from segplus.errors import InputError
from segplus.metrics import compute_intervals, compute_scores
from segplus.recipe import load_recipe, save_recipe
from segplus.reporting.image_counts import write_image_counts
from segplus.reporting.metrics_file import read_metrics, write_metrics
from segplus.reporting.results import name_repository
from segplus.training.checkpoints import claim_output_dir

# Rows truth, columns prediction. IoU of fold 0: 3/4, 4/5, no third class; of fold 1: 2/4, 4/7, 0/1.
MATRICES = ([[3, 1, 0], [0, 4, 0], [0, 0, 0]], [[2, 0, 0], [2, 4, 0], [0, 1, 0]])
TEST = [[6, 2, 0], [0, 1, 0], [0, 0, 1]]


def write_fold(folder: Path, fold: int, folds: int = 2, arguments: tuple[str, ...] = ()) -> Path:
    """Write what a fold's run leaves: recipe.yaml and metrics.json."""
    chosen = ["--folds", str(folds), "--fold", str(fold), *arguments]
    recipe = load_recipe(write_recipe(folder), chosen)
    run_folder = Path(recipe.training["output_dir"])
    run_folder.mkdir(parents=True)
    save_recipe(recipe, run_folder / "recipe.yaml")
    evaluations = {
        "validation": {**compute_scores(np.array(MATRICES[fold % 2])), "confusion_matrix": MATRICES[fold % 2]},
        "test": {**compute_scores(np.array(TEST)), "confusion_matrix": TEST},
    }
    for evaluation in evaluations.values():
        evaluation["images"] = 4 + fold
    metrics = {"dataset": "streets", "class_names": ["a", "b", "c"], "evaluations": evaluations}
    write_metrics(run_folder / "metrics.json", metrics)
    return run_folder


@pytest.fixture
def two_folds(tmp_path: Path) -> Path:
    """Return a run's folder with two finished folds in it."""
    for fold in (0, 1):
        write_fold(tmp_path, fold)
    return tmp_path / "run"


def test_mean_spread_and_pooled_score_are_those_computed_by_hand(two_folds: Path) -> None:
    validation = summarize_folds([two_folds])["evaluations"]["validation"]
    first, second = (3 / 4 + 4 / 5) / 2, (2 / 4 + 4 / 7 + 0) / 3
    scores = validation["scores"]["mean_iou"]
    assert scores["values"] == pytest.approx([first, second])
    assert scores["mean"] == pytest.approx((first + second) / 2)
    assert scores["std"] == pytest.approx(abs(first - second) / math.sqrt(2))
    of_b = validation["per_category_iou"][1]
    assert (of_b["mean"], of_b["std"]) == pytest.approx(((4 / 5 + 4 / 7) / 2, (4 / 5 - 4 / 7) / math.sqrt(2)))
    of_c = validation["per_category_iou"][2]
    assert of_c["mean"] == 0.0
    assert math.isnan(of_c["std"])
    assert math.isnan(of_c["values"][0])
    # the sum of both: 5 1 0, 2 8 0, 0 1 0
    assert validation["pooled"]["confusion_matrix"].tolist() == [[5, 1, 0], [2, 8, 0], [0, 1, 0]]
    assert validation["pooled"]["per_category_iou"] == pytest.approx([5 / 8, 8 / 12, 0])
    assert validation["pooled"]["mean_iou"] == pytest.approx((5 / 8 + 8 / 12) / 3)
    assert validation["images"] == [4, 5]


def test_every_metric_that_was_asked_for_is_summarized_by_class(two_folds: Path) -> None:
    for fold, distances in enumerate(([1.0, 2.0, math.nan], [3.0, 2.5, 4.0])):
        path = two_folds / f"fold-{fold}" / "metrics.json"
        metrics = read_metrics(path)
        validation = metrics["evaluations"]["validation"]
        validation |= {"hausdorff_95": float(np.nanmean(distances)), "per_category_hausdorff_95": distances}
        validation |= {"trimap_iou": {"3": 0.25 * (fold + 1)}, "protocol": {"name": "fixed"}}
        write_metrics(path, metrics)
    summary = summarize_folds([two_folds])
    validation = summary["evaluations"]["validation"]
    assert validation["scores"]["hausdorff_95"]["values"] == [1.5, pytest.approx(9.5 / 3)]
    assert validation["scores"]["trimap_iou/3"]["mean"] == 0.375
    assert [spread["mean"] for spread in validation["per_category_hausdorff_95"]] == [2.0, 2.25, 4.0]
    assert "hausdorff_95" not in summary["evaluations"]["test"]["scores"]
    text = render_folds(summary)
    assert "| hausdorff 95 a | 2 ± 1.414 |  | 1 | 3 |" in text
    assert "| **trimap iou/3** | 37.5 ± 17.7 |  | 25.0 | 50.0 |" in text
    assert "| precision c | " in text


def test_intervals_are_over_the_images_of_all_folds(two_folds: Path) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for fold in (0, 1):
        truth = np.full((8, 3), 50)
        hits = rng.integers(10, 40, (8, 3))
        parts.append(np.stack([hits, truth, hits], 1))
        names = [f"patient{fold * 4 + index // 2}_{index}" for index in range(8)]
        write_image_counts(two_folds / f"fold-{fold}" / "image_counts.npz", {"validation": (names, parts[-1])})
    pooled = summarize_folds([two_folds])["evaluations"]["validation"]["pooled"]
    expected = compute_intervals(np.concatenate(parts), 1000, 0)
    assert pooled["intervals"]["mean_iou"] == expected["mean_iou"]
    low, high = (f"{100 * bound:.1f}" for bound in expected["mean_iou"])
    assert f"({low} to {high})" in (two_folds / "folds.md").read_text(encoding="utf-8")
    for fold in (0, 1):
        path = two_folds / f"fold-{fold}" / "recipe.yaml"
        text = path.read_text(encoding="utf-8")
        assert "bootstrap_group_pattern: null" in text
        path.write_text(text.replace("pattern: null", r"pattern: ^(patient\d)"), encoding="utf-8")
    grouped = summarize_folds([two_folds])["evaluations"]["validation"]["pooled"]["intervals"]
    groups = [str(index // 2) for index in range(16)]
    assert grouped["mean_iou"] == compute_intervals(np.concatenate(parts), 1000, 0, groups)["mean_iou"]
    (two_folds / "fold-1" / "image_counts.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=r"image_counts.npz: damaged"):
        summarize_folds([two_folds])


def test_the_test_split_is_the_same_in_each_fold_and_not_pooled(two_folds: Path) -> None:
    test = summarize_folds([two_folds])["evaluations"]["test"]
    assert "pooled" not in test
    assert test["scores"]["mean_iou"]["std"] == 0.0
    assert test["per_category_iou"][0]["mean"] == pytest.approx(6 / 8)


def test_both_files_are_written_and_printed(two_folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folds", str(two_folds)]) == 0
    printed = capsys.readouterr().out
    written = json.loads((two_folds / "folds.json").read_text())
    assert written["runs"] == {str(fold): str(two_folds / f"fold-{fold}") for fold in (0, 1)}
    assert written["evaluations"]["validation"]["per_category_iou"][2] == {
        "mean": 0.0,
        "std": None,
        "values": [None, 0.0],
    }
    text = (two_folds / "folds.md").read_text()
    assert text in printed
    assert "| validation, 9 images | mean ± std | pooled | fold 0 | fold 1 |" in text
    assert "| **mIoU** | 56.6 ± 29.5 | 43.1 | 77.5 | 35.7 |" in text
    assert "| IoU c | 0.0 ± — | 0.0 | — | 0.0 |" in text


def test_folders_of_folds_may_be_named_one_by_one(two_folds: Path, tmp_path: Path) -> None:
    together = summarize_folds([two_folds])
    apart = summarize_folds([two_folds / "fold-1", two_folds / "fold-0"], tmp_path / "summary")
    assert render_folds(apart) == render_folds(together) == (tmp_path / "summary" / "folds.md").read_text()


def test_a_missing_fold_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    for fold in (0, 2):
        write_fold(tmp_path, fold, folds=4)
    with pytest.raises(InputError, match=r"folds 1, 3 of 4 have no finished run\n.*\[0, 2\]\n.*--folds 4 --fold 1"):
        summarize_folds([tmp_path / "run"])


def test_a_fold_that_did_not_finish_is_named(two_folds: Path) -> None:
    (two_folds / "fold-1" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"folds 1 of 2 have no finished run\n  found: no metrics.json in .*fold-1"):
        summarize_folds([two_folds])


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    write_fold(tmp_path, 0)
    write_fold(tmp_path, 1, arguments=("--learning_rate", "0.5"))
    with pytest.raises(InputError, match=r"found: training.learning_rate is 0.001 there, 0.5 here"):
        summarize_folds([tmp_path / "run"])


def test_what_changes_no_score_may_differ(tmp_path: Path) -> None:
    write_fold(tmp_path, 0)
    write_fold(
        tmp_path, 1, arguments=("--dataloader_num_workers", "1", "--card.license", "mit", "--logging_steps", "7")
    )
    assert summarize_folds([tmp_path / "run"])["folds"] == 2


def test_a_fold_that_is_there_twice_is_refused(two_folds: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match="fold 1 is there twice"):
        summarize_folds([two_folds, write_fold(other, 1)])


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_folds_is_told(tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nothing"
    if there:
        folder.mkdir()
        save_recipe(load_recipe(write_recipe(tmp_path)), folder / "recipe.yaml")
    assert main(["folds", str(folder)]) == 2
    assert f"{folder}: no run of a fold" in capsys.readouterr().err


def test_an_unknown_option_is_refused(two_folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folds", str(two_folds), "--split", "test"]) == 2
    assert "'--split' is no option of segplus folds" in capsys.readouterr().err


def test_each_fold_has_a_folder_of_its_own(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    recipe = load_recipe(path, ["--fold", "2", "--folds", "5"])
    assert (recipe.data.fold, recipe.data.folds) == (2, 5)
    assert recipe.training["output_dir"] == str(tmp_path / "run" / "fold-2")
    assert recipe == load_recipe(path, ["--data.fold=2", "--data.folds=5"])
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    other = load_recipe(tmp_path / "saved.yaml", ["--fold", "3"])
    assert other.training["output_dir"] == str(tmp_path / "run" / "fold-3")
    assert name_repository(recipe, tmp_path / "run" / "fold-2") == "run-fold-2"
    assert load_recipe(path).training["output_dir"] == str(tmp_path / "run")


def test_the_run_on_all_images_may_lie_beside_its_folds(two_folds: Path, tmp_path: Path) -> None:
    summarize_folds([two_folds])
    recipe = load_recipe(write_recipe(tmp_path))
    claim_output_dir(recipe, two_folds)
    assert load_recipe(two_folds / "recipe.yaml") == recipe
    assert summarize_folds([two_folds])["folds"] == 2


def test_drawn_scenes_have_folds(tmp_path: Path) -> None:
    names: list[str] = []
    for fold in range(3):
        section = {"dataset": "synthetic", "synthetic_images": {"train": 10, "test": 2}, "folds": 3, "fold": fold}
        data = load_segmentation_dataset({**section, "synthetic_size_px": [16, 16]})
        held_out = [name.split("/")[1] for name in data.splits["validation"].names]
        assert not set(held_out) & {name.split("/")[1] for name in data.splits["train"].names}
        assert len(held_out) + len(data.splits["train"]) == 10
        names += held_out
    assert sorted(names) == [f"{scene:06d}" for scene in range(10)]


@pytest.mark.slow
def test_three_runs_of_the_script_are_summarized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGPLUS_CACHE", str(tmp_path / "cache"))
    recipe = write_recipe(tmp_path, {"data": {"synthetic_images": {"train": 10, "test": 2}}})
    for fold in range(3):
        arguments = ["--folds", "3", "--fold", str(fold), "--max_steps", "2", "--eval_strategy", "no"]
        assert run_segmentation.main([str(recipe), *arguments]) == 0
    assert main(["folds", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "folds.json").read_text())
    metrics = [json.loads((tmp_path / "run" / f"fold-{fold}" / "metrics.json").read_text()) for fold in range(3)]
    validation = summary["evaluations"]["validation"]
    assert sum(validation["images"]) == 10
    values = [entry["evaluations"]["validation"]["mean_iou"] for entry in metrics]
    assert validation["scores"]["mean_iou"]["values"] == values
    assert validation["scores"]["mean_iou"]["mean"] == pytest.approx(sum(values) / 3)
    # every scene of the training split counts once, with all its pixels that are not void
    section = {
        "dataset": "synthetic",
        "synthetic_images": {"train": 10, "validation": 1},
        "synthetic_size_px": [48, 64],
    }
    labels = [pair["label"] for pair in load_segmentation_dataset(section).splits["train"]]
    counted = np.bincount(np.concatenate([label[label != 255] for label in labels]), minlength=7)
    assert np.array(validation["pooled"]["confusion_matrix"]).sum(axis=1).tolist() == counted.tolist()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "", "not a metrics.json"),
        ("metrics.json", "[]", "list"),
        ("metrics.json", '{"class_names": [1]}', r"class_names: \[1\]"),
        ("metrics.json", '{"class_names": ["a"], "class_colors": [[1, 2]]}', "class_colors"),
        ("metrics.json", '{"evaluations": [1]}', "evaluations"),
        ("metrics.json", '{"evaluations": {"test": 1}}', r"evaluations\.test"),
        ("metrics.json", '{"evaluations": {"test": {"mean_iou": "x"}}}', r"evaluations\.test\.mean_iou"),
        ("metrics.json", '{"evaluations": {"test": {"confusion_matrix": [[1, 2]]}}}', "confusion_matrix"),
        ("metrics.json", '{"class_names": ["a"], "evaluations": {"test": {}}}', "no evaluations.test.mean_iou"),
        ("metrics.json", '{"class_names": ["a"]}', "no evaluations"),
        ("metrics.json", '{"a": ' * 100_000, "not a metrics.json"),
        ("metrics.json", "\udcff", "not a metrics.json"),
        ("recipe.yaml", "data: [", "recipe.yaml: damaged"),
        ("recipe.yaml", "data: {folds: 2, fold: 2}\ntraining: {}", "data.fold: 2"),
        ("recipe.yaml", "data: {folds: x, fold: 0}\ntraining: {}", "data.folds: 'x'"),
        ("recipe.yaml", "data: {folds: 2, fold: 0}", "not the recipe that a run saves"),
        ("recipe.yaml", "", "not the recipe that a run saves"),
    ],
)
def test_a_damaged_run_is_named(two_folds: Path, file: str, content: str, message: str) -> None:
    (two_folds / "fold-1" / file).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=message) as refused:
        summarize_folds([two_folds])
    assert str(two_folds / "fold-1" / file) in str(refused.value)
    assert not (two_folds / "folds.json").exists()


def test_names_are_escaped_in_the_table(two_folds: Path) -> None:
    summary = summarize_folds([two_folds]) | {"dataset": "a|b", "class_names": ["<b>", "[c](d)", "lane_marking"]}
    text = render_folds(summary)
    assert text.startswith("# 2 folds of a\\|b\n")
    assert all(f"| IoU {name} |" in text for name in (r"\<b\>", r"\[c\](d)", "lane_marking"))

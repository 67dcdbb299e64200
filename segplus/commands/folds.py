"""Cross-validation: the scores of all folds' runs, their mean and spread, and the score of all folds together."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segplus.data.splits import find_groups
from segplus.errors import InputError
from segplus.files import explain_refusals, place_outputs, write_text
from segplus.metrics import compute_intervals, compute_scores
from segplus.recipe.differences import find_difference, keep_learning_keys
from segplus.recipe.paths import is_fold_folder
from segplus.reporting.environment import list_versions
from segplus.reporting.image_counts import read_image_counts
from segplus.reporting.markdown import escape_text
from segplus.reporting.metrics_file import read_metrics, write_metrics
from segplus.reporting.table import ABSENT, format_interval, format_score

MEANS = {
    "mean_iou": "mIoU",
    "mean_accuracy": "mean accuracy",
    "overall_accuracy": "overall accuracy",
    "mean_dice": "mean Dice",
    "frequency_weighted_iou": "frequency-weighted IoU",
}
_METRICS, _RECIPE, _COUNTS = "metrics.json", "recipe.yaml", "image_counts.npz"
# Numbers of an evaluation that are no score, and words in the names of scores that are no share.
_NO_SCORES = ("images", "seconds", "classes_present", "groups")
_NO_SHARES = ("hausdorff", "objects", "images", "unmatched")
_REPEAT = "repeat the run of this fold"


@dataclass(frozen=True)
class FoldRun:
    """One fold's finished run.

    Args:
        folder: Its output folder.
        fold: The fold that was its validation split, from 0.
        recipe: Its recipe, as plain mappings.
        metrics: Its metrics.json.
    """

    folder: Path
    fold: int
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]


def summarize_folds(folders: Sequence[str | Path], output: str | Path | None = None) -> dict[str, Any]:
    """Write folds.json and folds.md over the runs of all folds, and return the summary.

    Args:
        folders: The folds' own folders, or the folder that holds them as fold-0, fold-1, ...
        output: Folder to write into; by default the one that holds the folds' folders.
    Returns:
        "folds", "dataset", "class_names", "runs" (fold -> folder), and "evaluations": split -> images, "scores" and
        "per_category_iou" with mean, standard deviation (n - 1) and the value of each fold; for the validation split
        also "pooled": the scores of the sum of the folds' confusion matrices, in which each image counts once.
    Raises:
        InputError: If a fold is missing, unfinished or there twice, or the runs differ in more than the fold.
    """
    runs = read_runs(folders)
    class_names = list(runs[0].metrics["class_names"])
    summary = {
        "segplus_version": list_versions()["segplus"],
        "dataset": runs[0].metrics.get("dataset"),
        "folds": len(runs),
        "class_names": class_names,
        "runs": {str(run.fold): str(run.folder) for run in runs},
        "evaluations": {split: _summarize_split(runs, split) for split in _find_splits(runs)},
    }
    target = Path(output) if output is not None else _find_parent(runs)
    table, text = place_outputs(target, ["folds.json", "folds.md"], "")
    write_metrics(table, summary)
    write_text(text, render_folds(summary))
    return {**summary, "written_to": str(target)}


def read_runs(folders: Sequence[str | Path]) -> list[FoldRun]:
    """Return the finished runs of all folds, in their order.

    Raises:
        InputError: If a fold is missing, unfinished or there twice, or the runs differ in more than the fold.
    """
    found = [path for folder in folders for path in _list_runs(Path(folder))]
    recipes = {path: _read_recipe(path) for path in dict.fromkeys(found)}
    first = next(iter(recipes))
    total = int(recipes[first]["data"].get("folds"))
    paths: dict[int, Path] = {}
    for path, recipe in recipes.items():
        difference = find_difference(_keep_shared(recipes[first]), _keep_shared(recipe))
        if difference is not None:
            key, there, here = difference
            raise InputError(
                f"{path}: another recipe than {first}",
                found=f"{key} is {there!r} there, {here!r} here",
                fix="summarize runs of one recipe that differ in data.fold alone",
            )
        fold = int(recipe["data"]["fold"])
        if fold in paths:
            raise InputError(f"fold {fold} is there twice", found=f"{paths[fold]} and {path}", fix="name one of them")
        paths[fold] = path
    missing = [fold for fold in range(total) if fold not in paths or not (paths[fold] / _METRICS).is_file()]
    if missing:
        unfinished = [str(paths[fold]) for fold in missing if fold in paths]
        raise InputError(
            f"folds {', '.join(map(str, missing))} of {total} have no finished run",
            found=f"no {_METRICS} in {', '.join(unfinished)}" if unfinished else f"runs of folds {sorted(paths)}",
            fix=f"segplus train RECIPE --folds {total} --fold {missing[0]}",
        )
    runs = [_read_run(paths[fold], fold, recipes[paths[fold]]) for fold in sorted(paths)]
    other = next((run for run in runs if run.metrics["class_names"] != runs[0].metrics["class_names"]), None)
    if other is not None:
        raise InputError(f"{other.folder}: other classes than {runs[0].folder}", fix="repeat the runs on the same data")
    return runs


def _list_runs(folder: Path) -> list[Path]:
    if _is_fold_run(folder):
        return [folder]
    inside = [path for path in sorted(folder.glob("fold-*")) if is_fold_folder(path.name) and _is_fold_run(path)]
    if not inside:
        there = f"neither {_RECIPE} with data.folds nor fold-0, fold-1, ..." if folder.is_dir() else "no such folder"
        raise InputError(
            f"{folder}: no run of a fold",
            found=there,
            fix="segplus train RECIPE --folds 5 --fold 0, and so on",
        )
    return inside


def _is_fold_run(folder: Path) -> bool:
    return (folder / _RECIPE).is_file() and bool(_read_recipe(folder)["data"].get("folds"))


def _read_recipe(folder: Path) -> dict[str, Any]:
    """Return a run's recipe, its sections and folds of the right type.

    Raises:
        InputError: If it is damaged.
    """
    path = folder / _RECIPE
    with explain_refusals(path):
        content = path.read_bytes()
    try:
        recipe = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged", found=" ".join(str(error).split())[:200], fix=_REPEAT) from None
    sections = [recipe.get(key) for key in ("data", "training")] if isinstance(recipe, dict) else [None]
    if not all(isinstance(section, dict) for section in sections):
        raise InputError(f"{path}: not the recipe that a run saves", allowed="sections data and training", fix=_REPEAT)
    folds, fold = (recipe["data"].get(key) for key in ("folds", "fold"))
    if folds and not (type(folds) is int and type(fold) is int and 0 <= fold < folds):  # 0: a run on all images
        raise InputError(f"{path}: damaged", found=f"data.folds: {folds!r}, data.fold: {fold!r}", fix=_REPEAT)
    return dict(recipe)


def _read_run(folder: Path, fold: int, recipe: Mapping[str, Any]) -> FoldRun:
    """Return a finished run with the scores that a summary needs.

    Raises:
        InputError: If its metrics.json is damaged or lacks one of them.
    """
    path = folder / _METRICS
    metrics = read_metrics(path)
    lacking = [key for key in ("class_names", "evaluations") if key not in metrics]
    for split, scores in metrics.get("evaluations", {}).items():
        needed = (*MEANS, "images", "per_category_iou", "confusion_matrix")
        lacking += [f"evaluations.{split}.{key}" for key in needed if key not in scores]
    if lacking:
        raise InputError(f"{path}: not the scores of a finished run", found=f"no {lacking[0]}", fix=_REPEAT)
    return FoldRun(folder, fold, recipe, metrics)


def _keep_shared(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the fold itself, and what says where a run lies and how it is told of, not what it computes."""
    training = keep_learning_keys(
        recipe["training"], ("output_dir", "run_name", "report_to", "disable_tqdm", "logging_")
    )
    data = {key: value for key, value in recipe["data"].items() if key != "fold"}
    kept = {key: value for key, value in recipe.items() if key != "card"}
    return {**kept, "data": data, "training": training}


def _find_splits(runs: Sequence[FoldRun]) -> list[str]:
    return [split for split in ("validation", "test") if all(split in run.metrics["evaluations"] for run in runs)]


def _find_parent(runs: Sequence[FoldRun]) -> Path:
    parents = {run.folder.resolve().parent for run in runs}
    if len(parents) > 1:
        raise InputError(
            "folds: the runs lie in several folders",
            found=", ".join(map(str, sorted(parents))),
            fix="name one: --output",
        )
    return Path(os.path.relpath(parents.pop()))


def _summarize_split(runs: Sequence[FoldRun], split: str) -> dict[str, Any]:
    evaluations = [_flatten(run.metrics["evaluations"][split]) for run in runs]
    shared = [key for key in evaluations[0] if all(key in entry for entry in evaluations)]
    scores = [key for key in shared if key not in _NO_SCORES and all(_is_number(entry[key]) for entry in evaluations)]
    listed = [key for key in shared if key.startswith("per_category_")]
    summary: dict[str, Any] = {
        "images": [entry["images"] for entry in evaluations],
        "scores": {key: _spread([entry[key] for entry in evaluations]) for key in dict.fromkeys([*MEANS, *scores])},
        **{key: [_spread(column) for column in zip(*(e[key] for e in evaluations), strict=True)] for key in listed},
    }
    if split == "validation":
        matrix = np.sum([np.asarray(entry["confusion_matrix"], dtype=np.int64) for entry in evaluations], axis=0)
        summary["pooled"] = {**compute_scores(matrix), "confusion_matrix": matrix, **_resample_pooled(runs, split)}
    return summary


def _flatten(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluation with one entry for each width of trimap_iou."""
    widths = evaluation.get("trimap_iou") or {}
    return {**evaluation, **{f"trimap_iou/{width_px}": score for width_px, score in widths.items()}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _resample_pooled(runs: Sequence[FoldRun], split: str) -> dict[str, Any]:
    """Return the intervals over the images of all folds; nothing for runs that left no counts of their images."""
    paths = [run.folder / _COUNTS for run in runs]
    evaluation = runs[0].recipe.get("evaluation") or {}
    resamples = evaluation.get("bootstrap_resamples", 0)
    if not resamples or not all(path.is_file() for path in paths):
        return {}
    num_classes = len(runs[0].metrics["class_names"])
    names, counts = zip(*(read_image_counts(path, split, num_classes) for path in paths), strict=True)
    pattern, groups = evaluation.get("bootstrap_group_pattern"), None
    if pattern is not None:
        flat = [name for some in names for name in some]
        groups = find_groups(flat, pattern, "evaluation.bootstrap_group_pattern")
    seed = evaluation.get("bootstrap_seed", 0)
    return {"intervals": compute_intervals(np.concatenate(counts), resamples, seed, groups)}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and standard deviation (n - 1) of the values that are numbers, and all the values."""
    present = np.array([value for value in values if value is not None and not math.isnan(value)], dtype=np.float64)
    return {
        "mean": float(present.mean()) if len(present) else math.nan,
        "std": float(present.std(ddof=1)) if len(present) > 1 else math.nan,
        "values": list(values),
    }


def render_folds(summary: Mapping[str, Any]) -> str:
    """Return the summary as Markdown: one table a split, in percent."""
    lines = [f"# {summary['folds']} folds of {escape_text(summary['dataset'])}", ""]
    for split, entry in summary["evaluations"].items():
        lines += _render_split(split, entry, summary["class_names"], list(summary["runs"]))
    lines.append(
        "Mean ± standard deviation (n - 1) over the folds, in percent, distances and numbers as they are; a class "
        "counts in the folds that hold it."
    )
    if any("pooled" in entry for entry in summary["evaluations"].values()):
        lines.append(
            "Pooled: the score of the sum of the folds' confusion matrices, in which each image counts once; in "
            "brackets its 95 % interval."
        )
    return "\n".join(lines) + "\n"


def _render_split(split: str, entry: Mapping[str, Any], names: Sequence[str], folds: Sequence[str]) -> list[str]:
    pooled = entry.get("pooled")
    images = f"{sum(entry['images'])} images" if pooled else f"the same {entry['images'][0]} images in each fold"
    titles = [f"{split}, {images}", "mean ± std", *(["pooled"] if pooled else []), *(f"fold {fold}" for fold in folds)]
    rows = [
        (f"**{MEANS.get(key, key.replace('_', ' '))}**", key, spread, _find_pooled(pooled, key))
        for key, spread in entry["scores"].items()
    ]
    for key in (key for key in entry if key.startswith("per_category_")):
        title = "IoU" if key == "per_category_iou" else key.removeprefix("per_category_").replace("_", " ")
        rows += [
            (f"{title} {escape_text(name)}", key, spread, _find_pooled(pooled, key, index))
            for index, (name, spread) in enumerate(zip(names, entry[key], strict=True))
        ]
    table = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for title, key, spread, together in rows:
        show = _format_plain if any(word in key for word in _NO_SHARES) else format_score
        mean = f"{show(spread['mean'])} ± {show(spread['std'])}"
        table.append([title, mean, *([together] if pooled else []), *(show(value) for value in spread["values"])])
    return [*(f"| {' | '.join(row)} |" for row in table), ""]


def _find_pooled(pooled: Mapping[str, Any] | None, key: str, index: int | None = None) -> str:
    """Return the score of all folds together with its interval; empty where it cannot be had from their counts."""
    if pooled is None or key not in pooled:
        return ""
    intervals = pooled.get("intervals", {})
    score, interval = pooled[key], intervals.get(key)
    if index is not None:
        score, interval = score[index], None if interval is None else interval[index]
    told = format_interval(interval)
    return format_score(score) if told is None or math.isnan(score) else f"{format_score(score)} ({told})"


def _format_plain(value: float | None) -> str:
    return ABSENT if value is None or math.isnan(value) else f"{value:.4g}"


def run(options: argparse.Namespace, _: Sequence[str]) -> int:
    """Summarize the runs of all folds and print the tables."""
    summary = summarize_folds(options.runs, options.output)
    print(render_folds(summary))
    print(f"folds.json and folds.md lie in {summary['written_to']}")
    return 0

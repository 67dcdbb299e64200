"""Compare saved models on the same images: what `segplus compare` runs, alone or under accelerate launch."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segplus.classes import ClassMap
from segplus.commands.chosen_decision import name_recipe, read_chosen_decision
from segplus.commands.chosen_sections import read_sections
from segplus.data import SegmentationSplit
from segplus.errors import InputError
from segplus.files import place_outputs, prepare_folder, write_whole
from segplus.images import show_as_rgb
from segplus.inference.checkpoint import choose_device
from segplus.inference.decision_file import Changes
from segplus.inference.ensemble import find_ensemble, list_ensemble_files
from segplus.inference.evaluation_data import DataSource, list_input_files, name_data, open_split
from segplus.inference.prediction_files import write_table
from segplus.inference.predictor import Predictor
from segplus.inference.scoring import (
    build_evaluator,
    check_groups,
    iterate_split,
    join_processes,
    merge_evaluators,
    merge_processes,
    score_image,
)
from segplus.metrics import Evaluator, compare_counts
from segplus.recipe import DecisionRecipe, EvaluationRecipe
from segplus.reporting.drawing import draw_comparison
from segplus.reporting.metrics_file import refuse_foreign_results, write_metrics
from segplus.reporting.table import TOO_FEW, format_comparison_table

_IMAGES = 3


def compare(
    checkpoints: Sequence[str],
    data: DataSource,
    output: str | Path,
    *,
    recipe: EvaluationRecipe | None = None,
    decision: DecisionRecipe | Changes | None = None,
    split: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Score several saved models on one split and test each against the first.

    Writes `comparison.json`, `classes.csv` (IoU and differences per class), `disagreements.csv` (images, those with the
    most differing pixels first) and images of the first of these in `disagreements/`. Models are numbered from 1.

    Args:
        checkpoints: Two or more folders or Hub ids; the first is what the others are compared with. A folder that holds
            the runs of all folds is one contender, their ensemble.
        data: The data, a recipe's data section, or the folder or Hub id of a data set.
        output: Folder of the results.
        recipe: Protocol, resamples and seed.
        decision: How probabilities become label maps; by default each contender's own stored decision, a mapping says
            what to change of it.
        split: Which split; by default test, or else validation, or else train.
        device: Where to run; by default the accelerator, or else the CPU.
        trust_remote_code: Run the model code that lies in the checkpoints.
        progress: Show a progress bar.
    Returns:
        What comparison.json holds: "scores" (one entry a model), "differences" (model -> score -> difference, low,
        high, p_value) and "disagreements" (per image the share of valid pixels that models label differently, greatest
        first).
    Raises:
        InputError: If fewer than two checkpoints are given or they are the same, one cannot be loaded or has other
            classes than the data, a split is missing or empty, or a file cannot be written.
    """
    recipe = recipe or EvaluationRecipe()
    if len(checkpoints) < 2 or len(set(checkpoints)) < len(checkpoints):
        raise InputError("compare: not several models", found=", ".join(checkpoints), allowed="two and more, each once")
    state, output = join_processes(), Path(output)
    inputs: list[str | Path] = [
        *list_input_files(data),
        *list_ensemble_files(checkpoints),
    ]
    files = place_outputs(output, ["comparison.json", "classes.csv", "disagreements.csv"], "", inputs)
    sheets = place_outputs(output / "disagreements", [str(rank) for rank in range(1, _IMAGES + 1)], ".png")
    with state.main_process_first():
        found = [find_ensemble(source, decision, trust_remote_code=trust_remote_code) for source in checkpoints]
    members = [member for contender in found for member in contender.members]
    loaded, name, chosen = open_split(members, data, split, progress=progress)
    check_groups(chosen, recipe)
    with state.main_process_first():
        refuse_foreign_results([*files, *sheets], "differences")
        prepare_folder(output)
    chosen_device = choose_device(device, state.local_process_index)
    predictors = [contender.load(recipe.protocol, chosen_device) for contender in found]
    evaluators, disagreements = score_together(predictors, chosen, loaded.classes, recipe, name, progress)
    result = {
        "dataset": name_data(data),
        "split": name,
        "images": len(chosen),
        "class_names": list(loaded.classes.names),
        "protocol": recipe.protocol.describe(),
        "models": list(checkpoints),
        "decisions": [contender.decision.describe() for contender in found],
        **_compare_scores(checkpoints, evaluators, recipe),
        "disagreements": disagreements,
    }
    if state.is_main_process:
        _write_comparison(files, result)
        write_disagreements(sheets, predictors, chosen, loaded.classes, disagreements)
    state.wait_for_everyone()
    return result


def _compare_scores(
    checkpoints: Sequence[str], evaluators: Sequence[Evaluator], recipe: EvaluationRecipe
) -> dict[str, Any]:
    scores = [evaluator.compute(*recipe.list_bootstrap()) for evaluator in evaluators]
    return {"scores": scores, "differences": measure_differences(checkpoints, evaluators, recipe)}


def _write_comparison(files: Sequence[Path], result: dict[str, Any]) -> None:
    write_metrics(files[0], result)
    write_table(files[1], list_class_rows(result))
    write_table(files[2], result["disagreements"])


def score_together(
    predictors: Sequence[Predictor],
    split: SegmentationSplit,
    classes: ClassMap,
    recipe: EvaluationRecipe,
    title: str,
    progress: bool,
) -> tuple[list[Evaluator], list[dict[str, Any]]]:
    """Return an evaluator of the whole split for each model, and the images with the most disagreement first."""
    evaluators = [build_evaluator(recipe, classes) for _ in predictors]
    rows: list[dict[str, Any]] = []
    for index, pair, label in iterate_split(split, title, progress=progress):
        scored = [
            score_image(predictor, evaluator, pair["image"], label, index, pair["name"])
            for predictor, evaluator in zip(predictors, evaluators, strict=True)
        ]
        labels = [prediction for prediction, _ in scored]
        valid = label.to(labels[0].device) != classes.ignore_index
        differs = torch.stack([one != labels[0] for one in labels[1:]]).any(0) & valid
        pixels = int(valid.sum())
        own = [scores.compute()["mean_iou"] for _, scores in scored]
        row = {"name": pair["name"], "disagreement": int(differs.sum()) / pixels if pixels else math.nan}
        rows.append({"index": index, **row, **{f"mean_iou/{number}": value for number, value in enumerate(own, 1)}})
    gathered = [row for share in merge_processes(rows) for row in share]
    # An image without a valid pixel has no share; it comes last.
    gathered.sort(key=lambda row: (math.isnan(row["disagreement"]), -row["disagreement"], row["index"]))
    return [merge_evaluators(evaluator) for evaluator in evaluators], gathered


def write_disagreements(
    targets: Sequence[Path],
    predictors: Sequence[Predictor],
    split: SegmentationSplit,
    classes: ClassMap,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Draw the images that the models label most differently: photograph, truth, each prediction, differences."""
    for target, row in zip(targets, rows, strict=False):  # there may be fewer images
        pair = split[row["index"]]
        predictions = {
            f"model {number}, mIoU {100 * row[f'mean_iou/{number}']:.1f} %": predictor.predict(pair["image"])
            .cpu()
            .numpy()
            for number, predictor in enumerate(predictors, start=1)
        }
        title = f"{pair['name']}, {100 * row['disagreement']:.1f} % labelled differently"
        sheet = draw_comparison(show_as_rgb(pair["image"]), pair["label"], predictions, classes, title)
        with write_whole(target) as temporary:
            sheet.save(temporary, "PNG")


def measure_differences(
    checkpoints: Sequence[str], evaluators: Sequence[Evaluator], recipe: EvaluationRecipe
) -> dict[str, dict[str, Any]]:
    """Return, for each model but the first, the differences of its scores from the first's."""
    first = evaluators[0].stack_counts()
    resamples, seed = max(1, recipe.bootstrap_resamples), recipe.bootstrap_seed
    groups = evaluators[0].find_groups(recipe.bootstrap_group_pattern)
    differences: dict[str, dict[str, Any]] = {}
    for source, evaluator in zip(checkpoints[1:], evaluators[1:], strict=True):
        compared = compare_counts(first, evaluator.stack_counts(), resamples, seed, groups)
        differences[source] = {
            name: [dataclasses.asdict(one) for one in entry] if isinstance(entry, list) else dataclasses.asdict(entry)
            for name, entry in compared.items()
        }
    return differences


def list_class_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per class: each model's IoU, and for each but the first the difference, interval and p-value."""
    rows = []
    for class_id, name in enumerate(result["class_names"]):
        row = {"class": name}
        for number, scores in enumerate(result["scores"], start=1):
            row[f"iou/{number}"] = scores["per_category_iou"][class_id]
        for number, source in enumerate(result["models"][1:], start=2):
            entry = result["differences"][source]["per_category_iou"][class_id]
            row |= {f"{key}/{number}": value for key, value in entry.items()}
        rows.append(row)
    return rows


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Compare checkpoints and print each one's mIoU with its difference from the first."""
    section, recipe = read_sections(
        "compare", options.data, options.recipe, options.checkpoints[0], options.protocol, rest
    )
    result = compare(
        options.checkpoints,
        section,
        options.output,
        recipe=recipe,
        decision=read_chosen_decision(options, rest, name_recipe(options.data, options.recipe)),
        split=options.split,
        trust_remote_code=options.trust_remote_code,
    )
    if join_processes().is_main_process:
        print_comparison(options, result)
    return 0


def print_comparison(options: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Print each checkpoint's mIoU with what it gains on the first, and the classes."""
    for number, (name, scores) in enumerate(zip(options.checkpoints, result["scores"], strict=True), start=1):
        line = f"{number}: {name}: mIoU {100 * scores['mean_iou']:.2f} %"
        if name in result["differences"]:
            change = result["differences"][name]["mean_iou"]
            line += f"  ({100 * change['difference']:+.2f}, {_describe_certainty(change)})"
        print(line)
    print(f"{result['split']} split, {result['images']} images\n{format_comparison_table(result)}")
    print(f"written to {options.output}")


def _describe_certainty(change: Mapping[str, float]) -> str:
    if math.isnan(change["p_value"]):
        return f"{TOO_FEW} for an interval"
    return f"95 % {100 * change['low']:+.2f} to {100 * change['high']:+.2f}, p = {change['p_value']:.3f}"

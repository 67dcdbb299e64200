"""Evaluate a saved model on a data set: what `segplus evaluate` runs, alone or under accelerate launch."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segplus.classes import ClassMap
from segplus.commands.chosen_decision import name_recipe, read_chosen_decision
from segplus.commands.chosen_sections import read_sections
from segplus.data import SegmentationSplit
from segplus.files import place_outputs, prepare_folder, sweep_leftovers
from segplus.inference.checkpoint import choose_device
from segplus.inference.decision_file import Changes
from segplus.inference.ensemble import find_ensemble, list_ensemble_files
from segplus.inference.evaluation_data import DataSource, format_settings, list_input_files, name_data, open_split
from segplus.inference.example_predictions import predict_examples
from segplus.inference.prediction_files import check_mask_format, check_table_name, write_table
from segplus.inference.scoring import check_groups, evaluate_split, join_processes
from segplus.metrics import Evaluator
from segplus.metrics.confusion import score_each
from segplus.recipe import DecisionRecipe, EvaluationRecipe
from segplus.reporting.environment import describe_machine, list_versions
from segplus.reporting.failures import describe_failures
from segplus.reporting.gallery import Gallery
from segplus.reporting.html_report import write_html_report
from segplus.reporting.metrics_file import refuse_foreign_results, write_metrics
from segplus.reporting.table import format_class_table


def evaluate(
    checkpoint: str | Sequence[str],
    data: DataSource,
    output: str | Path,
    *,
    recipe: EvaluationRecipe | None = None,
    decision: DecisionRecipe | Changes | None = None,
    split: str | None = None,
    per_image: str = "per_image.csv",
    save_predictions: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Score a saved model on one split and write metrics.json, the scores of each image, and report.html.

    With `bootstrap_group_pattern` also per_group.csv, the scores of each group of images, such as a patient's.

    Args:
        checkpoint: Folder or Hub id of any semantic-segmentation model; several, or a folder that holds those of all
            folds, are an ensemble.
        data: The data, a recipe's data section, or the folder or Hub id of a data set.
        output: Folder of the results.
        recipe: Protocol and metrics.
        decision: How probabilities become a label map; by default the decision stored with the checkpoint, a mapping
            says what to change of it.
        split: Which split; by default test, or else validation, or else train.
        per_image: File of the scores per image inside `output`, .csv or .parquet.
        save_predictions: `ids`, `palette` or `overlay` writes the label maps to `output`/predictions.
        device: Where to run; by default the accelerator, or else the CPU.
        trust_remote_code: Run the model code that lies in the checkpoint.
        progress: Show a progress bar.
    Returns:
        What metrics.json holds.
    Raises:
        InputError: If the checkpoint cannot be loaded, its classes are not the data's, a split is missing or empty, or
            a file cannot be read or written, two images would become one file, or one a file of the data.
    """
    recipe = recipe or EvaluationRecipe()
    state, output = join_processes(), Path(output)
    check_table_name(Path(per_image))
    sources = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint)
    inputs: list[str | Path] = [*list_input_files(data), *list_ensemble_files(sources)]
    grouped = ["per_group.csv"] if recipe.bootstrap_group_pattern is not None else []
    files = place_outputs(output, ["metrics.json", per_image, "report.html", *grouped], "", inputs)
    with state.main_process_first():
        found = find_ensemble(sources, decision, trust_remote_code=trust_remote_code)
    loaded, name, chosen = open_split(found.members, data, split, progress=progress)
    check_groups(chosen, recipe)
    with state.main_process_first():
        refuse_foreign_results(files, "segplus_version")
        prepare_folder(output)
    if save_predictions:
        check_mask_format(save_predictions, loaded.classes.num_classes)
    predictor = found.load(recipe.protocol, choose_device(device, state.local_process_index))
    targets = place_predictions(output / "predictions", chosen) if save_predictions else []
    started = time.perf_counter()
    written = (targets, save_predictions) if save_predictions else None
    gallery = Gallery(loaded.classes, len(chosen))
    evaluator = evaluate_split(
        predictor, chosen, loaded.classes, recipe, targets=written, gallery=gallery, title=name, progress=progress
    )
    scores = evaluator.compute(*recipe.list_bootstrap())
    seconds = time.perf_counter() - started
    evaluations = {
        name: {**scores, "protocol": recipe.protocol.describe(), **found.describe_decision(), "seconds": seconds}
    }
    metrics = _collect_metrics(found.source, name_data(data), loaded.classes, evaluations)
    if state.is_main_process:
        write_metrics(files[0], metrics)
        _write_tables(files, evaluator, loaded.classes, recipe.bootstrap_group_pattern)
        examples = predict_examples(predictor, chosen, evaluator)
        settings = format_settings(data, recipe)
        write_html_report(files[2], metrics, loaded.classes, examples, [], settings, list_versions(), gallery=gallery)
    state.wait_for_everyone()
    return metrics


def place_predictions(folder: Path, split: SegmentationSplit) -> list[Path]:
    """Return the file of each image's label map, never an image or mask of the split itself.

    Raises:
        InputError: If two images would become one file, or something stands in the way.
    """
    names = [split.name(index) for index in range(len(split))]
    sources = (source for index in range(len(split)) for source in split.sources(index))
    targets = place_outputs(folder, names, ".png", sources)
    for parent in {target.parent for target in targets}:
        sweep_leftovers(parent)
    return targets


def _write_tables(files: Sequence[Path], evaluator: Evaluator, classes: ClassMap, pattern: str | None) -> None:
    write_table(files[1], list_image_rows(evaluator, classes))
    if pattern is not None:
        write_table(files[3], list_group_rows(evaluator, classes, pattern))


def _collect_metrics(
    source: str, dataset: str, classes: ClassMap, evaluations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what metrics.json holds."""
    versions = list_versions()
    return {
        "segplus_version": versions["segplus"],
        "model": source,
        "dataset": dataset,
        "class_names": list(classes.names),
        "class_colors": list(classes.colors),
        "evaluations": dict(evaluations),
        "environment": {**describe_machine(), "processes": join_processes().num_processes, "versions": versions},
    }


def list_image_rows(evaluator: Evaluator, classes: ClassMap) -> list[dict[str, Any]]:
    """Return one row per image: its name, its scores, and IoU, Dice and what metrics keep of each class.

    A class that is absent has NaN; the distance of one that only truth or only prediction holds is infinite.
    """
    counts, rows = evaluator.stack_counts(), []
    columns = {"dice": score_each(counts)["dice"], **evaluator.list_image_columns()}
    for position, image in enumerate(evaluator.images):
        scores = image.compute()
        per_class = {"iou": scores.pop("per_category_iou")} | {key: kept[position] for key, kept in columns.items()}
        cells = {
            f"{key}/{name}": float(value)
            for key, values in per_class.items()
            for name, value in zip(classes.names, values, strict=True)
        }
        rows.append({"name": image.name, **scores, **cells})
    return rows


def list_group_rows(evaluator: Evaluator, classes: ClassMap, pattern: str) -> list[dict[str, Any]]:
    """Return one row per group of images: its name, its images, and IoU and Dice of each class over all its pixels.

    Args:
        evaluator: Of a whole split.
        classes: Their names.
        pattern: Regular expression on an image's name; its first group names the image's group.
    """
    groups = np.array(evaluator.find_groups(pattern))
    names, group_of, images = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), 3, classes.num_classes), dtype=np.int64)
    np.add.at(sums, group_of, evaluator.stack_counts())
    scores = score_each(sums)
    return [
        {"group": str(name), "images": int(images[row])}
        | {f"{key}/{one}": float(scores[key][row, c]) for key in ("iou", "dice") for c, one in enumerate(classes.names)}
        for row, name in enumerate(names)
    ]


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Score a checkpoint and print the table of classes."""
    section, recipe = read_sections(
        "evaluate", options.data, options.recipe, options.checkpoint[0], options.protocol, rest
    )
    metrics = evaluate(
        options.checkpoint,
        section,
        options.output,
        recipe=recipe,
        decision=read_chosen_decision(options, rest, name_recipe(options.data, options.recipe)),
        split=options.split,
        per_image=options.per_image,
        save_predictions=options.save_predictions,
        trust_remote_code=options.trust_remote_code,
    )
    if join_processes().is_main_process:
        for name, scores in metrics["evaluations"].items():
            print(f"{name} split, {scores['images']} images\n{format_class_table(scores, metrics['class_names'])}")
            print("".join(f"{sentence}\n" for sentence in describe_failures(scores, metrics["class_names"])), end="")
        print(f"written to {options.output}")
    return 0

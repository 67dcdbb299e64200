"""Evaluate a saved model on a data set: what `segplus evaluate` runs, alone or under accelerate launch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from segplus.classes import ClassMap
from segplus.data import SegmentationData, SegmentationSplit, check_split, load_segmentation_dataset
from segplus.data.loading import build_section
from segplus.errors import InputError, suggest
from segplus.inference.checkpoint import Checkpoint, choose_device, find_checkpoint
from segplus.inference.example_predictions import predict_examples
from segplus.inference.prediction_files import check_kind, check_table_name, write_labels, write_table
from segplus.inference.predictor import Predictor
from segplus.inference.scoring import build_evaluator, iterate_split, join_processes, merge_evaluators, score_image
from segplus.metrics import Evaluator
from segplus.recipe import DataRecipe, EvaluationRecipe
from segplus.reporting.environment import describe_machine, list_versions
from segplus.reporting.html_report import write_html_report
from segplus.reporting.metrics_file import write_metrics
from segplus.reporting.results import name_dataset

DataSource = SegmentationData | DataRecipe | Mapping[str, Any] | str
_PREFERRED_SPLITS = ("test", "validation", "train")


def evaluate(
    checkpoint: str,
    data: DataSource,
    output: str | Path,
    *,
    recipe: EvaluationRecipe | None = None,
    split: str | None = None,
    per_image: str = "per_image.csv",
    save_predictions: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Score a saved model on one split and write metrics.json, the scores of each image, and report.html.

    Args:
        checkpoint: Folder or Hub id of any semantic-segmentation model.
        data: The data, a recipe's data section, or the folder or Hub id of a data set.
        output: Folder of the results.
        recipe: Protocol and metrics.
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
            a file cannot be read.
    """
    recipe = recipe or EvaluationRecipe()
    state, output = join_processes(), Path(output)
    check_table_name(output / per_image)
    with state.main_process_first():
        found = find_checkpoint(checkpoint, trust_remote_code=trust_remote_code)
    loaded, name, chosen = open_split([found], data, split, progress=progress)
    if save_predictions:
        check_kind(save_predictions, loaded.classes.num_classes)
    predictor = found.load(recipe.protocol, choose_device(device, state.local_process_index))
    folder = (output / "predictions", save_predictions) if save_predictions else None
    started = time.perf_counter()
    evaluator = evaluate_split(predictor, chosen, loaded.classes, recipe, folder=folder, title=name, progress=progress)
    scores = evaluator.compute(recipe.bootstrap_resamples, recipe.bootstrap_seed)
    seconds = time.perf_counter() - started
    evaluations = {name: {**scores, "protocol": recipe.protocol.describe(), "seconds": seconds}}
    metrics = _collect_metrics(found.source, name_data(data), loaded.classes, evaluations)
    if state.is_main_process:
        write_metrics(output / "metrics.json", metrics)
        write_table(output / per_image, list_image_rows(evaluator, loaded.classes))
        examples = predict_examples(predictor, chosen, evaluator)
        settings = format_settings(data, recipe)
        write_html_report(output / "report.html", metrics, loaded.classes, examples, [], settings, list_versions())
    state.wait_for_everyone()
    return metrics


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


def evaluate_split(
    predictor: Predictor,
    split: SegmentationSplit,
    classes: ClassMap,
    recipe: EvaluationRecipe,
    *,
    folder: tuple[Path, str] | None = None,
    title: str = "evaluation",
    progress: bool = True,
) -> Evaluator:
    """Return the evaluator of a whole split, on every process, each of which predicts its share of the images.

    Args:
        predictor: Forms the predictions.
        split: The images and masks.
        classes: Their classes.
        recipe: The metrics.
        folder: Where label maps are written, and of which kind; None writes none.
        title: Stands before the progress bar.
        progress: Show a progress bar.
    """
    evaluator = build_evaluator(recipe, classes)
    for index, pair, label in iterate_split(split, title, progress=progress):
        prediction, _ = score_image(predictor, evaluator, pair["image"], label, index, pair["name"])
        if folder:
            path = folder[0] / f"{pair['name']}.png"
            write_labels(path, prediction.cpu().numpy(), pair["image"], classes, folder[1])
    return merge_evaluators(evaluator)


def open_split(
    checkpoints: Sequence[Checkpoint], data: DataSource, split: str | None, *, progress: bool = True
) -> tuple[SegmentationData, str, SegmentationSplit]:
    """Return the data, and name and images of a split that the checkpoints can be scored on.

    Every mask is read once before, and a split that passed is remembered; data that come loaded are taken as checked.

    Raises:
        InputError: If the data cannot be read, their classes are not the checkpoints', or the split is missing or empty
            or holds a pair that is damaged, of two sizes, or of values outside the classes.
    """
    with join_processes().main_process_first():
        loaded = load_data(data, checkpoints)
        name, chosen = choose_split(loaded, split)
        for checkpoint in checkpoints:
            checkpoint.refuse_other_classes(loaded.classes)
        if loaded is not data:
            check_split(chosen, progress=progress)
    return loaded, name, chosen


def load_data(data: DataSource, checkpoints: Sequence[Checkpoint] = ()) -> SegmentationData:
    """Return the data that a data section, a folder or a Hub id stands for, read as the checkpoints take pictures.

    Raises:
        InputError: If the data cannot be read, or the checkpoints take pictures of other channels.
    """
    if isinstance(data, SegmentationData):
        return data
    section = build_section({"dataset": data} if isinstance(data, str) else data)
    fitted = [checkpoint.fit_section(section) for checkpoint in checkpoints] or [section]
    for other in fitted[1:]:
        if other != fitted[0]:
            raise InputError(
                "the checkpoints take pictures of different kinds",
                found=" and ".join(f"{one.channels} channels, range {one.image_range}" for one in (fitted[0], other)),
                fix="compare models that were trained on the same channels and data.image_range",
            )
    return load_segmentation_dataset(fitted[0])


def name_data(data: DataSource) -> str:
    """Return what metrics.json and the report call the data."""
    if isinstance(data, SegmentationData):
        return ""
    return name_dataset(str(_list_data_settings(data).get("dataset", "")))


def format_settings(data: DataSource, recipe: EvaluationRecipe) -> str:
    """Return the data and evaluation sections as YAML; data that come loaded have no section."""
    sections = {"evaluation": dataclasses.asdict(recipe)}
    if not isinstance(data, SegmentationData):
        sections = {"data": _list_data_settings(data), **sections}
    return str(yaml.safe_dump(sections, sort_keys=False, allow_unicode=True))


def _list_data_settings(data: DataRecipe | Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(data, DataRecipe):
        return dataclasses.asdict(data)
    return {"dataset": data} if isinstance(data, str) else dict(data)


def choose_split(data: SegmentationData, name: str | None) -> tuple[str, SegmentationSplit]:
    """Return name and images of the split asked for, or of the first of test, validation and train.

    Raises:
        InputError: If there is no such split or it is empty.
    """
    chosen = name or next((known for known in _PREFERRED_SPLITS if known in data.splits), next(iter(data.splits), ""))
    if chosen not in data.splits:
        raise InputError(f"the data have no split '{chosen}'", fix=suggest(chosen, data.splits))
    split = data.splits[chosen]
    if not len(split):
        raise InputError(f"the split '{chosen}' holds no images", allowed="1 and more")
    return chosen, split


def list_image_rows(evaluator: Evaluator, classes: ClassMap) -> list[dict[str, Any]]:
    """Return one row per image: its name, its scores, and the IoU of each class, NaN where it is absent."""
    rows = []
    for image in evaluator.images:
        scores = image.compute()
        per_class = scores.pop("per_category_iou")
        names = (f"iou/{name}" for name in classes.names)
        rows.append({"name": image.name, **scores, **dict(zip(names, per_class, strict=True))})
    return rows

"""What a run leaves for people: metrics.json, images, the model card and the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from transformers import PreTrainedModel

from segplus.classes import ClassMap
from segplus.files import write_text, write_whole
from segplus.images import ImageRange
from segplus.recipe import Recipe, format_chosen
from segplus.recipe.paths import expand_path, is_fold_folder
from segplus.reporting.drawing import draw_panel
from segplus.reporting.environment import describe_machine, list_versions
from segplus.reporting.examples import Example
from segplus.reporting.gallery import Gallery
from segplus.reporting.html_report import write_html_report
from segplus.reporting.licenses import find_license
from segplus.reporting.metrics_file import write_metrics
from segplus.reporting.model_card import ModelCardFacts, render_model_card
from segplus.reporting.table import find_background

_IMAGES_FOLDER = "pictures"
# Where a recipe may name a folder or a file of the machine it was written on.
_PATH_KEYS = [("model", "checkpoint"), ("training", "output_dir")]
_PATH_KEYS += [("data", key) for key in ("dataset", "cache", "annotations", "classes", "colors")]


@dataclass(frozen=True)
class RunResults:
    """All that is known at the end of a run.

    Args:
        folder: The run's folder; model and image processor lie there already, as does recipe.yaml.
        recipe: The merged recipe.
        classes: The classes.
        model: The model that was evaluated.
        evaluations: Split -> scores; the last one is what card and report show.
        training: Facts for people and programs: seconds, steps, epochs, images_per_second, ...
        examples: Heading -> images, for the report; the card shows the first of each.
        log_history: transformers' log entries.
        image_range: The values that become 0 and 255 in images deeper than 8 bits; None where all were 8-bit.
        gallery: Thumbnails of the last split's images, for the report.
    """

    folder: Path
    recipe: Recipe
    classes: ClassMap
    model: PreTrainedModel
    evaluations: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    examples: Mapping[str, Sequence[Example]]
    log_history: Sequence[Mapping[str, Any]]
    image_range: ImageRange | None = None
    gallery: Gallery | None = None


def write_results(results: RunResults) -> None:
    """Write metrics.json, the images, README.md (the model card) and report.html into the run's folder."""
    metrics = _collect_metrics(results)
    write_metrics(results.folder / "metrics.json", metrics)
    images = _write_images(results)
    recipe_text = (results.folder / "recipe.yaml").read_text(encoding="utf-8")
    write_text(results.folder / "README.md", render_model_card(_collect_facts(results, images)))
    write_html_report(
        results.folder / "report.html",
        metrics,
        results.classes,
        results.examples,
        results.log_history,
        recipe_text,
        list_versions(),
        gallery=results.gallery,
    )


def _collect_metrics(results: RunResults) -> dict[str, Any]:
    versions = list_versions()
    return {
        "segplus_version": versions["segplus"],
        "model": name_repository(results.recipe, results.folder),
        "base_model": _name_base_model(results.recipe),
        "dataset": _name_dataset(results.recipe),
        "class_names": list(results.classes.names),
        "class_colors": list(results.classes.colors),
        "evaluations": dict(results.evaluations),
        "training": dict(results.training),
        "environment": {**describe_machine(), "versions": versions},
    }


def _write_images(results: RunResults) -> list[tuple[str, str]]:
    """Save one panel a group, and the first photograph alone to try the model on; return paths and captions.

    An image with other channels is drawn in colour for the eye only, so there is none to try the model on.
    """
    listed, background = [], find_background(list(results.evaluations.values())[-1])
    for heading, examples in results.examples.items():
        for number, example in enumerate(examples):
            title = example.name if example.score is None else f"{example.name}, mIoU {100 * example.score:.1f} %"
            panel = draw_panel(
                example.image, example.truth, example.prediction, results.classes, title, background=background
            )
            path = f"{_IMAGES_FOLDER}/{heading.lower()}_{number + 1}.png"
            with write_whole(results.folder / path) as temporary:
                panel.save(temporary, "PNG")
            if number == 0:
                listed.append((path, f"{heading} image of the split: image, truth, prediction, errors"))
    first = next((example for examples in results.examples.values() for example in examples), None)
    if first is not None and results.recipe.data.channels == 3:
        with write_whole(results.folder / _IMAGES_FOLDER / "input.png") as temporary:
            first.image.save(temporary, "PNG")
    return listed


def _collect_facts(results: RunResults, images: Sequence[tuple[str, str]]) -> ModelCardFacts:
    recipe, split = results.recipe, list(results.evaluations)[-1]
    base = _find_base_model(recipe)
    dataset_on_hub = recipe.card.dataset_id or (recipe.data.dataset if _is_hub_id(recipe.data.dataset) else None)
    name = Path(name_repository(recipe, results.folder)).name
    return ModelCardFacts(
        name=name,
        model_id=name_repository(recipe, results.folder)
        if recipe.training.get("push_to_hub")
        else _hide_folder(str(results.folder)),
        architecture=type(results.model).__name__,
        parameters=sum(parameter.numel() for parameter in results.model.parameters()),
        class_names=results.classes.names,
        dataset=_name_dataset(recipe),
        evaluation=results.evaluations[split],
        split=split,
        channels=recipe.data.channels,
        image_range=results.image_range,
        license=find_license(base, recipe.card.license),
        recipe=hide_folders(format_chosen(recipe)),
        base_model=_name_base_model(recipe),
        base_model_is_on_hub=base is not None and not Path(base).is_dir(),
        dataset_is_on_hub=dataset_on_hub is not None,
        images=images,
        training=describe_training_facts(results.training),
        versions=list_versions(),
        tags=recipe.card.tags,
        language=recipe.card.language,
        description=recipe.card.description,
    )


def name_repository(recipe: Recipe, folder: Path) -> str:
    """Return the Hub repository that a run is pushed to: the recipe's, or one named as the folder (run-fold-2)."""
    name = f"{folder.parent.name}-{folder.name}" if is_fold_folder(folder.name) else folder.name
    return str(recipe.training.get("hub_model_id") or name)


def hide_folders(recipe: str) -> str:
    """Return a recipe's YAML with the name alone of every folder and file of this machine that it names.

    Args:
        recipe: A recipe; relative paths, ${VARIABLES} and Hub ids stay as they are.
    """
    sections = yaml.safe_load(recipe)
    for section, key in _PATH_KEYS:
        value = sections.get(section, {}).get(key)
        if isinstance(value, str):
            sections[section][key] = _hide_folder(value)
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def _hide_folder(path: str) -> str:
    is_local = PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or path.startswith("~")
    return PureWindowsPath(path).name if is_local else path


def _find_base_model(recipe: Recipe) -> str | None:
    """Return what gave the weights that training began with: a checkpoint, or that of the encoder alone."""
    checkpoint = recipe.model.checkpoint or recipe.model.config.get("backbone")
    return expand_path(checkpoint, "model.checkpoint") if isinstance(checkpoint, str) else None


def _name_base_model(recipe: Recipe) -> str | None:
    """Return the Hub id of the weights that training began with, or the name of their folder."""
    base = _find_base_model(recipe)
    return Path(base).name if base is not None and Path(base).is_dir() else base


def _name_dataset(recipe: Recipe) -> str:
    return recipe.card.dataset_id or name_dataset(recipe.data.dataset)


def name_dataset(dataset: str) -> str:
    """Return the Hub id of a data set, or the name of its folder."""
    return dataset if _is_hub_id(dataset) else Path(dataset).name


def _is_hub_id(dataset: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", dataset) is not None and not Path(dataset).exists()


def describe_training_facts(training: Mapping[str, Any]) -> dict[str, object]:
    """Return the rows of the card's training table, from the facts of a finished training."""
    machine = describe_machine()
    minutes = f"{float(training['seconds']) / 60:.1f} minutes" if "seconds" in training else "unknown"
    where = f"{machine.get('gpu', machine['processor'])}, {machine['cores']} CPU cores"
    return {
        "Steps": training.get("steps", "unknown"),
        "Epochs": "unknown" if training.get("epochs") is None else training["epochs"],
        "Time": minutes,
        "Machine": where,
        "Processes": training.get("processes", 1),
        "Precision": training.get("precision", "float32"),
        "Best checkpoint": training.get("best_checkpoint") or "the last one",
    }

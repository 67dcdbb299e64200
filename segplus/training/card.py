"""The model card of a training without a recipe: what the trainer knows, in the form that every card has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer

from segplus.files import write_text
from segplus.models import count_channels
from segplus.reporting.environment import list_versions
from segplus.reporting.licenses import find_license
from segplus.reporting.model_card import ModelCardFacts, render_model_card
from segplus.reporting.results import describe_training_facts
from segplus.training.scorekeeper import Scorekeeper


def write_model_card(
    trainer: Trainer,
    scores: Scorekeeper,
    language: str | Sequence[str] | None = None,
    license: str | None = None,  # noqa: A002, the library's name
    tags: str | Sequence[str] | None = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tasks: Any = None,  # noqa: ARG001
    dataset_tags: str | Sequence[str] | None = None,
    dataset: str | Sequence[str] | None = None,
    dataset_args: Any = None,  # noqa: ARG001
) -> None:
    """Write README.md into a trainer's output folder.

    Args:
        trainer: A SegmentationTrainer.
        scores: Of its last evaluation.
        language: Of the data.
        license: The licence; None inherits the base model's.
        tags: Tags beside ours.
        model_name: Title of the card; None takes the repository's or the folder's name.
        finetuned_from: The base model; None takes where the model was loaded from.
        tasks: Ignored: it is semantic segmentation.
        dataset_tags: Id of the data set on the Hub.
        dataset: Its name for people.
        dataset_args: Ignored: the card names the split.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    loaded_from = model.name_or_path if isinstance(model, PreTrainedModel) else None
    base = finetuned_from or loaded_from or None
    is_folder = base is not None and Path(base).exists()
    hub_dataset, name = _list(dataset_tags), trainer.hub_model_id or Path(trainer.args.output_dir).absolute().name
    facts = ModelCardFacts(
        name=model_name or name.split("/")[-1],
        model_id=name,
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        class_names=trainer.classes.names,
        dataset=(hub_dataset or _list(dataset) or ["unnamed images"])[0],
        evaluation=scores.describe(),
        split=scores.split,
        license=find_license(base, license),
        recipe="",
        channels=count_channels(model.config),
        base_model=Path(base).name if base is not None and is_folder else base,
        base_model_is_on_hub=base is not None and not is_folder and re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None,
        dataset_is_on_hub=bool(hub_dataset),
        training=describe_training_facts(trainer.describe_training()),
        versions=list_versions(),
        tags=_list(tags),
        language=_list(language),
    )
    write_text(Path(trainer.args.output_dir) / "README.md", render_model_card(facts))


def _list(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)

"""The model card: metadata that the Hub indexes, and what a reader wants to know."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from segplus.images import ImageRange
from segplus.reporting.failures import describe_failures
from segplus.reporting.licenses import License
from segplus.reporting.markdown import (
    choose_fence,
    escape_paragraphs,
    escape_text,
    quote_code,
    quote_python,
    quote_shell,
)
from segplus.reporting.metrics_file import clean_numbers
from segplus.reporting.table import ABSENT, INTERVAL, TOO_FEW, format_interval, format_score, list_class_rows

_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_METRICS = {
    "mean_iou": "mIoU",
    "mean_accuracy": "Mean accuracy",
    "overall_accuracy": "Pixel accuracy",
    "mean_dice": "Mean Dice",
}
_COLUMNS = {"share": "Share of pixels", INTERVAL: "IoU's 95 % interval"}
_WEAK_IOU = 0.3


@dataclass(frozen=True)
class ModelCardFacts:
    """Everything a model card says.

    Args:
        name: Title of the card, such as segformer-b0-camvid.
        model_id: What the snippets load: the repository on the Hub, or the folder.
        architecture: Class name of the model, such as SegformerForSemanticSegmentation.
        parameters: Number of weights.
        class_names: One name a class.
        dataset: Name of the data set for people, or its id on the Hub.
        evaluation: One entry of metrics.json's "evaluations".
        split: The split that `evaluation` measures.
        license: From `find_license`.
        recipe: The lines of the recipe that are no default, YAML; empty for a training without one.
        channels: Number of channels of the images; transformers' pipeline reads images of three.
        image_range: The values that become 0 and 255 in images deeper than 8 bits; None where all were 8-bit.
        base_model: Hub id (or name, for a folder) of the weights that training began with; None for random weights.
        base_model_is_on_hub: Whether `base_model` may stand in the metadata, where the Hub makes it a link.
        dataset_is_on_hub: Whether `dataset` is an id of the Hub, which then stands in the metadata.
        images: (path relative to the card, caption).
        training: Rows of the training table: name -> value, both for people.
        versions: Package -> version.
        tags: Further tags.
        language: Languages of the data, as the Hub spells them, where it has any.
        description: A paragraph on what the model is for.
    """

    name: str
    model_id: str
    architecture: str
    parameters: int
    class_names: Sequence[str]
    dataset: str
    evaluation: Mapping[str, Any]
    split: str
    license: License
    recipe: str
    channels: int = 3
    image_range: ImageRange | None = None
    base_model: str | None = None
    base_model_is_on_hub: bool = True
    dataset_is_on_hub: bool = False
    images: Sequence[tuple[str, str]] = ()
    training: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    language: Sequence[str] = ()
    description: str | None = None

    @property
    def is_deep(self) -> bool:
        """Whether the model was trained on images deeper than 8 bits as they are."""
        return self.image_range is not None and not self.image_range.round


def render_model_card(facts: ModelCardFacts) -> str:
    """Return the whole card, metadata and text, ready to be written to README.md.

    Args:
        facts: What the card says.
    Raises:
        ValueError: If huggingface_hub cannot read the metadata back.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters.update(score=format_score, count=_format_count, link=_quote_link, text=escape_text)
    environment.filters.update(paragraphs=escape_paragraphs, python=quote_python, shell=quote_shell)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    missing = dict.fromkeys(["images", *_METRICS])
    text = template.render(
        metadata=build_metadata(facts).to_yaml(),
        facts=facts,
        evaluation=missing | clean_numbers(facts.evaluation),
        split=facts.split,
        opening=_describe_model(facts),
        images_taken=_describe_channels(facts),
        measured=_describe_measurement(facts),
        class_table=_format_markdown_table(facts.evaluation, facts.class_names),
        fence=choose_fence(facts.recipe),
        limits=_list_limits(facts),
        license_line=_describe_license(facts),
    )
    return str(ModelCard(text))


def build_metadata(facts: ModelCardFacts) -> ModelCardData:
    """Return the card's metadata in the Hub's own terms.

    Args:
        facts: What the card says.
    """
    scores = clean_numbers(facts.evaluation)
    dataset_type = facts.dataset if facts.dataset_is_on_hub else _make_slug(facts.dataset)
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Semantic segmentation",
            dataset_type=dataset_type,
            dataset_name=facts.dataset,
            dataset_split=facts.split,
            metric_type=key,
            metric_name=title,
            metric_value=round(scores[key], 4),
        )
        for key, title in _METRICS.items()
        if scores.get(key) is not None
    ]
    has_base = facts.base_model is not None and facts.base_model_is_on_hub
    return ModelCardData(
        language=list(facts.language) or None,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        license=facts.license.identifier,
        license_name=facts.license.name,
        license_link=facts.license.link,
        base_model=facts.base_model if has_base else None,
        base_model_relation="finetune" if has_base else None,
        datasets=[facts.dataset] if facts.dataset_is_on_hub else None,
        metrics=[result.metric_type for result in results] or None,
        tags=list(dict.fromkeys(["image-segmentation", "semantic-segmentation", "vision", "segplus", *facts.tags])),
        model_name=facts.name if results else None,
        eval_results=results or None,
    )


def _describe_model(facts: ModelCardFacts) -> str:
    millions = f"{facts.parameters / 1e6:.1f} million" if facts.parameters >= 1e5 else _format_count(facts.parameters)
    dataset = _link_hub(f"datasets/{facts.dataset}", facts.dataset, facts.dataset_is_on_hub)
    classes = f"{len(facts.class_names)} classes" if len(facts.class_names) != 1 else "1 class"
    start = "trained from random weights"
    if facts.base_model is not None:
        start = f"fine-tuned from {_link_hub(facts.base_model, facts.base_model, facts.base_model_is_on_hub)}"
    images = "" if facts.channels == 3 else f" of images with {_count_channels(facts)}"
    model = f"`{facts.architecture}`, {millions} parameters"
    return f"Semantic segmentation{images} into {classes}: {model}, {start} on {dataset}."


def _count_channels(facts: ModelCardFacts) -> str:
    return f"{facts.channels} channels" if facts.channels != 1 else "1 channel"


def _describe_channels(facts: ModelCardFacts) -> str:
    """Return what an image must be like, where it is none that the pipeline reads."""
    scaled = "8-bit images"
    if facts.image_range is not None:
        scaled = f"images whose values {_describe_range(facts.image_range)}"
    return (
        f"The model takes {_count_channels(facts)}, in the order of the training data: {scaled}. TIFF files with all "
        "channels in one page or one page a channel, `.npy` and `.npz` files are read, and images that hold just these "
        "channels. transformers' pipeline reads colour images only and cannot serve this model; segplus does."
    )


def _describe_range(image_range: ImageRange) -> str:
    outside = "values outside are clipped" if image_range.clip else "a value outside is refused"
    return f"{image_range.low:g} to {image_range.high:g} become 0 to 255; {outside}"


def _describe_measurement(facts: ModelCardFacts) -> str:
    absent = [name for name, score in _pair_scores(facts) if score is None]
    text = "They are measured at each image's original resolution; ignored pixels are left out."
    interval = format_interval((facts.evaluation.get("intervals") or {}).get("mean_iou"))
    drawn = f"{facts.evaluation['groups']} groups of images" if "groups" in facts.evaluation else "images"
    if interval == TOO_FEW:
        text += " There are too few images for a 95 % interval of the mIoU."
    elif interval is not None:
        text += f" The mIoU's 95 % interval over {drawn} is {interval}."
    if absent:
        shown = len(facts.class_names) - len(absent)
        text += (
            f" Means are over the {shown} of {len(facts.class_names)} classes that the masks or the predictions of the "
            f"{escape_text(facts.split)} split show."
        )
    return text


def _list_limits(facts: ModelCardFacts) -> list[str]:
    pairs = [(escape_text(name), score) for name, score in _pair_scores(facts)]
    absent = [name for name, score in pairs if score is None]
    weak = [f"{name} ({format_score(score)})" for name, score in pairs if score is not None and score < _WEAK_IOU]
    dataset, split = escape_text(facts.dataset), escape_text(facts.split)
    limits = [
        "Every pixel gets one of the classes above, also where the image shows something else.",
        f"The scores hold for images like those of {dataset}; other cameras and places were not measured.",
    ]
    limits += [escape_text(sentence) for sentence in describe_failures(facts.evaluation, facts.class_names)]
    if weak:
        limits.append(
            f"Do not rely on classes with an IoU below {_WEAK_IOU:.0%}: {', '.join(weak)}.".replace("%:", " %:")
        )
    if absent:
        limits.append(
            f"Not measured, as neither truth nor prediction of the {split} split holds them: {', '.join(absent)}."
        )
    if facts.image_range is not None and facts.channels == 3:
        text = f"It was trained on images deeper than 8 bits, of which {_describe_range(facts.image_range)}. "
        if facts.image_range.round:
            text += "segplus does so again; the pipeline does not, so give it images that are scaled already."
        else:
            text += (
                "transformers' pipeline reads 8 bits and cannot serve such files; `segplus predict` and "
                "`segplus.inference.Predictor` do, as in training."
            )
        limits.append(text)
    if facts.base_model is None:
        limits.append("No pretrained weights were used: it has seen nothing but its training images.")
    limits.append("It was not examined for use where a mistake can hurt somebody.")
    return limits


def _describe_license(facts: ModelCardFacts) -> str:
    found, base = facts.license, quote_code(facts.base_model)
    if found.origin == "unknown":
        known = "No pretrained weights were used, and the recipe names no licence."
        if facts.base_model is not None:
            known = f"The base model {base} states no licence that could be read, and the recipe names none."
        return f"Unknown. {known} The data set may add terms of its own; ask the authors before you use the model."
    name = quote_code(found.name or found.identifier) + (f" ([text]({_quote_link(found.link)}))" if found.link else "")
    origin = f"inherited from the base model {base}" if found.origin == "base model" else "as the recipe states"
    return f"{name}, {origin}. The data set may add terms of its own."


def _pair_scores(facts: ModelCardFacts) -> list[tuple[str, float | None]]:
    scores = clean_numbers(facts.evaluation["per_category_iou"])
    return list(zip(facts.class_names, scores, strict=True))


def _format_markdown_table(evaluation: Mapping[str, Any], class_names: Sequence[str]) -> str:
    rows = list_class_rows(evaluation, class_names)
    titles = [title for title in rows[0] if title != "class"]
    heads = ["Class", *(_COLUMNS.get(title, title[0].upper() + title[1:]) for title in titles)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * len(titles)}"]
    lines += [f"| {' | '.join([escape_text(row['class']), *(row[title] for title in titles)])} |" for row in rows]
    return "\n".join(lines)


def _format_count(value: float | None) -> str:
    return ABSENT if value is None or math.isnan(value) else f"{int(value):,}"


def _quote_link(path: str) -> str:
    return quote(path, safe="/:._-~")


def _link_hub(path: str, text: str, is_on_hub: bool) -> str:
    return f"[{escape_text(text)}](https://huggingface.co/{_quote_link(path)})" if is_on_hub else quote_code(text)


def _make_slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "custom"

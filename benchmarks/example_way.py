"""The way of transformers' own semantic-segmentation example, re-created for the benchmarks that compare with it.

Kept as it is there: a datasets table whose transform runs albumentations; labels handed to the model, which upsamples
its logits and computes cross-entropy itself; every logit of the evaluation set kept until the end, then upsampled at
once, argmax, and evaluate's formulas image by image. Changed, in its favour or for equal scores: fill_mask where it
drops an argument; evaluate's tables on disk are left out; labels are reduced once, not twice; class 0 counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import albumentations
import datasets
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForSemanticSegmentation,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

IGNORE_INDEX = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_example_trainer(folder: Path, images: int, crop_px: int, num_classes: int, **arguments: Any) -> Trainer:
    """Return the example's trainer of the model in folder/model.

    Args:
        folder: Holds model/, and train/ and validation/, each with images/ and masks/; mask value 0 is void.
        images: Number of evaluation images.
        crop_px: Side of training crops and of evaluation images.
        num_classes: C.
        arguments: TrainingArguments.
    """
    training_arguments = TrainingArguments(remove_unused_columns=False, label_names=["labels"], **arguments)
    set_seed(training_arguments.seed)
    reduce = albumentations.Lambda(name="reduce_labels", mask=_reduce_labels, p=1.0)
    finish = [albumentations.Normalize(mean=MEAN, std=STD, max_pixel_value=255.0), albumentations.ToTensorV2()]
    train_steps = [
        reduce,
        albumentations.PadIfNeeded(crop_px, crop_px, border_mode=0, fill=255, fill_mask=IGNORE_INDEX),
        albumentations.RandomCrop(crop_px, crop_px),
        albumentations.HorizontalFlip(p=0.5),
        *finish,
    ]
    return Trainer(
        AutoModelForSemanticSegmentation.from_pretrained(folder / "model"),
        training_arguments,
        train_dataset=_open_split(folder / "train", None, train_steps),
        eval_dataset=_open_split(
            folder / "validation", images, [reduce, albumentations.Resize(crop_px, crop_px), *finish]
        ),
        compute_metrics=build_compute_metrics(num_classes),
        data_collator=default_data_collator,
    )


def _reduce_labels(labels: npt.NDArray[Any], **_: Any) -> npt.NDArray[Any]:
    labels = labels.copy()
    labels[labels == 0] = IGNORE_INDEX
    labels = labels - 1
    labels[labels == IGNORE_INDEX - 1] = IGNORE_INDEX
    return labels


def _open_split(folder: Path, count: int | None, steps: list[Any]) -> datasets.Dataset:
    columns = {
        "image": [str(path) for path in sorted((folder / "images").iterdir())[:count]],
        "label": [str(path) for path in sorted((folder / "masks").iterdir())[:count]],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = datasets.Dataset.from_dict(columns, features=features)
    rows.set_transform(partial(_transform_rows, transforms=albumentations.Compose(steps)))
    return rows


def _transform_rows(rows: dict[str, list[Any]], transforms: albumentations.Compose) -> dict[str, torch.Tensor]:
    changed = [
        transforms(image=np.array(image.convert("RGB")), mask=np.array(mask))
        for image, mask in zip(rows["image"], rows["label"], strict=True)
    ]
    return {
        "pixel_values": torch.stack([sample["image"] for sample in changed]).float(),
        "labels": torch.stack([sample["mask"] for sample in changed]).long(),
    }


def build_compute_metrics(num_classes: int) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the example's metric over all logits (N, C, h, w) and labels (N, H, W) of the evaluation set."""

    @torch.no_grad()
    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = prediction
        upsampled = F.interpolate(
            torch.from_numpy(logits), size=labels.shape[-2:], mode="bilinear", align_corners=False
        )
        return compute_mean_iou(upsampled.argmax(dim=1).numpy(), labels, num_classes)

    return compute_metrics


def compute_mean_iou(predictions: npt.NDArray[Any], labels: npt.NDArray[Any], num_classes: int) -> dict[str, float]:
    """Return the means of evaluate's mean_iou, from three histograms an image, shapes (N, H, W)."""
    totals = np.zeros((3, num_classes))
    count = partial(np.histogram, bins=num_classes, range=(0, num_classes - 1))
    for guess, truth in zip(predictions, labels, strict=True):
        counted = truth != IGNORE_INDEX
        guess, truth = guess[counted], truth[counted]
        totals += [count(part)[0] for part in (guess[guess == truth], guess, truth)]
    hits, predicted, present = totals
    with np.errstate(invalid="ignore"):
        iou, accuracy = hits / (predicted + present - hits), hits / present
    return {
        "mean_iou": float(np.nanmean(iou)),
        "mean_accuracy": float(np.nanmean(accuracy)),
        "overall_accuracy": float(hits.sum() / present.sum()),
        **{f"iou_{i}": float(value) for i, value in enumerate(iou)},
        **{f"accuracy_{i}": float(value) for i, value in enumerate(accuracy)},
    }

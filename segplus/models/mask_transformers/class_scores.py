"""Scores of classes on a grid of fixed size, from the classes and masks of queries, as the library serves them.

A class's score at a pixel is the sum over the queries of its probability times the mask's. It is no logit: scores are
resized as they are, and as probabilities they are divided by their sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.models.mask_transformers.families import Family, find_family, is_mask_transformer
from segplus.models.mask_transformers.queries import QueryOutput, expose_queries

Span = tuple[int, int]


@dataclass(frozen=True)
class SplitImages:
    """Square patches of images that are wider or higher than the model takes.

    Args:
        pixel_values: The patches, image by image, shape (N * P, C, side, side).
        spans: First pixel and the pixel after the last, along the longer side, of each of an image's P patches.
        size: Height and width of the images.
    """

    pixel_values: Tensor
    spans: list[Span]
    size: tuple[int, int]

    @property
    def is_high(self) -> bool:
        """Whether the patches lie one below the other."""
        return self.size[0] > self.size[1]

    def cut(self, images: Tensor) -> Tensor:
        """Return the patches, (N * P, ..., side, side), of images or label maps of the size, (N, ..., H, W)."""
        axis = -2 if self.is_high else -1
        parts = [images.narrow(axis, start, end - start) for start, end in self.spans]
        return torch.stack(parts, 1).flatten(0, 1)


def split_images(pixel_values: Tensor, side: int) -> SplitImages:
    """Cut images whose shorter side is the model's into overlapping squares, as EoMT's image processor does.

    Args:
        pixel_values: Shape (N, C, H, W).
        side: Side of the images that the model takes, in pixels.
    Raises:
        ValueError: If the shorter side is another.
    """
    height, width = pixel_values.shape[-2:]
    if min(height, width) != side:
        raise ValueError(f"the shorter side must be {side} pixels, found {height} x {width}")
    longer = max(height, width)
    count = math.ceil(longer / side)
    overlap = (count * side - longer) / (count - 1) if count > 1 else 0
    starts = [int(index * (side - overlap)) for index in range(count)]
    split = SplitImages(pixel_values, [(start, start + side) for start in starts], (height, width))
    return SplitImages(split.cut(pixel_values), split.spans, split.size)


@dataclass(frozen=True)
class QueryPrediction:
    """What the queries of a batch say, and where their masks lie.

    Args:
        queries: Classes and masks of the images, or of their patches.
        family: The model's.
        split: How the images were cut; None where they went through the model whole.
    """

    queries: QueryOutput
    family: Family
    split: SplitImages | None = None

    def score_classes(self) -> Tensor:
        """Return the scores of the classes, float32, shape (N, C, h, w): what the library resizes to an image's size.

        With split images the grid is that of the pixels, otherwise that of the masks, or of the fixed size that
        the library gives them.
        """
        classes, masks = (logits.float() for logits in self.queries.layers[0])
        classes = classes.softmax(-1)[..., :-1]  # without "no object"
        if self.split is not None:
            return _merge_patches(classes, masks, self.split)
        if self.family.mask_grid_px is not None:
            size = (self.family.mask_grid_px,) * 2
            masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        return torch.einsum("bqc, bqhw -> bchw", classes, masks.sigmoid())

    def iterate_images(self) -> Iterator[QueryPrediction]:
        """Yield the prediction of each image by itself."""
        count = 1 if self.split is None else len(self.split.spans)
        layers = self.queries.layers
        for start in range(0, len(layers[0][0]), count):
            cut = ((classes[start : start + count], masks[start : start + count]) for classes, masks in layers)
            yield QueryPrediction(QueryOutput(*zip(*cut, strict=True)), self.family, self.split)

    def fit_labels(self, labels: Tensor) -> Tensor:
        """Return the label maps of the images, (N, H, W), as maps of what went through the model."""
        if self.split is None:
            return labels
        served = F.interpolate(labels[:, None].float(), size=self.split.size, mode="nearest")[:, 0]
        return self.split.cut(served.to(labels.dtype))


def predict_queries(model: Any, pixel_values: Tensor) -> QueryPrediction:
    """Return the queries of a batch of images; those that are longer than the model takes go through it in patches.

    Args:
        model: A mask transformer.
        pixel_values: Shape (N, C, H, W).
    """
    family = find_family(model.config)
    split = split_images(pixel_values, model.config.image_size) if family.splits_images else None
    with expose_queries(model):
        queries = model(pixel_values=pixel_values if split is None else split.pixel_values)
    return QueryPrediction(queries, family, split)


def _merge_patches(classes: Tensor, masks: Tensor, split: SplitImages) -> Tensor:
    """Return the mean scores of the patches over each pixel, (N, C, H, W), one patch after the other.

    Args:
        classes: Probabilities, (N * P, Q, C).
        masks: Logits, (N * P, Q, h, w).
        split: Where the patches lie.
    """
    count, side = len(split.spans), min(split.size)
    height, width = split.size
    scores = masks.new_zeros(len(masks) // count, classes.shape[-1], height, width)
    counts = masks.new_zeros(height if split.is_high else width)
    for start, end in split.spans:
        counts[start:end] += 1
    axis = 1 if split.is_high else 2
    for index, (start, end) in enumerate(split.spans):
        for image, target in enumerate(scores):
            one = slice(image * count + index, image * count + index + 1)
            upsampled = F.interpolate(masks[one], size=(side, side), mode="bilinear").sigmoid_()
            target.narrow(axis, start, end - start).add_(torch.einsum("bqc, bqhw -> bchw", classes[one], upsampled)[0])
    return scores.div_(counts[:, None] if split.is_high else counts)


def compute_scores(model: Any, pixel_values: Tensor) -> Tensor:
    """Return the scores that any model serves, float32, shape (N, C, h, w): logits, or a mask transformer's scores."""
    if is_mask_transformer(model):
        return predict_queries(model, pixel_values).score_classes()
    scores: Tensor = model(pixel_values=pixel_values).logits.float()
    return scores


def normalize_scores(model: Any, scores: Tensor, axis: int) -> Tensor:
    """Return probabilities of the scores that `compute_scores` gave, resized or not.

    Args:
        model: Whose scores they are.
        scores: Any shape.
        axis: The axis of the classes.
    """
    if is_mask_transformer(model):
        return scores / scores.sum(axis, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
    return scores.softmax(axis)

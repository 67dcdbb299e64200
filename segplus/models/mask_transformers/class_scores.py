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
_LEAST_SCORE = 1e-30
_BLOCK_VALUES = 1 << 24  # scores, or pixels of masks, that are made at once
_LEAST_ROWS = 8


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

    def read_last(self) -> tuple[Tensor, Tensor]:
        """Return the last layer's class probabilities without "no object", (N, Q, C), and mask logits, float32."""
        classes, masks = (logits.float() for logits in self.queries.layers[0])
        return classes.softmax(-1)[..., :-1], masks

    @torch.no_grad()
    def score_classes(self) -> Tensor:
        """Return the scores of the classes, float32, shape (N, C, h, w): what the library resizes to an image's size.

        With split images the grid is that of the pixels, otherwise that of the masks, or of the fixed size that
        the library gives them.
        """
        classes, masks = self.read_last()
        if self.split is not None:
            return self._score_pixels(self.split, len(masks) // len(self.split.spans), classes.shape[-1])
        if self.family.mask_grid_px is not None:
            size = (self.family.mask_grid_px,) * 2
            masks = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
        return torch.einsum("bqc, bqhw -> bchw", classes, masks.sigmoid())

    def _score_pixels(self, split: SplitImages, images: int, num_classes: int) -> Tensor:
        scores = split.pixel_values.new_empty(images, num_classes, *split.size, dtype=torch.float32)
        for target, one in zip(scores, self.iterate_images(), strict=True):
            top = 0
            for rows in one.iterate_rows():
                target[:, top : top + rows.shape[1]] = rows
                top += rows.shape[1]
        return scores

    @torch.no_grad()
    def iterate_rows(self) -> Iterator[Tensor]:
        """Yield the scores of one split image from the top, some rows of pixels at a time, (C, n, W)."""
        assert self.split is not None
        classes, masks = self.read_last()
        height, width = self.split.size
        rows = max(_LEAST_ROWS, _BLOCK_VALUES // (max(classes.shape[1:]) * width))
        for top in range(0, height, rows):
            yield _score_rows(classes, masks, self.split, top, min(top + rows, height))

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


def _score_rows(classes: Tensor, masks: Tensor, split: SplitImages, top: int, bottom: int) -> Tensor:
    """Return the mean scores of one image's patches over the pixels of some rows, (C, bottom - top, W).

    Args:
        classes: Probabilities, (P, Q, C).
        masks: Logits, (P, Q, h, w).
        split: Where the patches lie.
        top: The first row.
        bottom: The row after the last.
    """
    height, width = split.size
    scores = masks.new_zeros(classes.shape[-1], bottom - top, width)
    counts = masks.new_zeros(bottom - top, width)
    for (start, end), probabilities, logits in zip(split.spans, classes, masks, strict=True):
        first, last = (max(top, start), min(bottom, end)) if split.is_high else (top, bottom)
        if first >= last:
            continue
        offset = start if split.is_high else 0
        upsampled = _upsample_rows(logits, min(height, width), first - offset, last - offset).sigmoid_()
        rows = slice(first - top, last - top)
        columns = slice(0, width) if split.is_high else slice(start, end)
        scores[:, rows, columns] += torch.einsum("bqc, bqhw -> bchw", probabilities[None], upsampled[None])[0]
        counts[rows, columns] += 1
    return scores.div_(counts)


def _upsample_rows(masks: Tensor, side: int, top: int, bottom: int) -> Tensor:
    """Return rows of masks, (Q, h, w), that are resized to a square: (Q, bottom - top, side).

    At a whole number of pixels a step, only the steps around the rows are resized: their weights are the same.
    """
    scale = side // masks.shape[1]
    if side % masks.shape[1]:
        return F.interpolate(masks[None], size=(side, side), mode="bilinear")[0, :, top:bottom]
    first, last = max(top // scale - 1, 0), min(-(-bottom // scale) + 1, masks.shape[1])
    size = ((last - first) * scale, side)
    rows = F.interpolate(masks[None, :, first:last], size=size, mode="bilinear")[0]
    return rows[:, top - first * scale : bottom - first * scale]


def compute_scores(model: Any, pixel_values: Tensor) -> Tensor:
    """Return the scores that any model serves, float32, shape (N, C, h, w): logits, or a mask transformer's scores."""
    if is_mask_transformer(model):
        return predict_queries(model, pixel_values).score_classes()
    scores: Tensor = model(pixel_values=pixel_values).logits.float()
    return scores


def compute_graph_scores(model: Any, pixel_values: Tensor) -> Tensor:
    """Return what `compute_scores` does by operations that an exported graph can hold: none writes into a tensor."""
    if not is_mask_transformer(model):
        scores: Tensor = model(pixel_values=pixel_values).logits
        return scores
    prediction = predict_queries(model, pixel_values)
    if prediction.split is None:
        return prediction.score_classes()
    return _join_patches(*prediction.read_last(), prediction.split)


def _join_patches(classes: Tensor, masks: Tensor, split: SplitImages) -> Tensor:
    """Return the mean scores of the patches at the pixels of their images, (N, C, H, W).

    Args:
        classes: Probabilities, (N * P, Q, C).
        masks: Logits, (N * P, Q, h, w).
        split: Where the patches lie.
    """
    side, longer, patches = min(split.size), max(split.size), len(split.spans)
    rows = max(_LEAST_ROWS, _BLOCK_VALUES // (max(classes.shape[1:]) * longer))
    blocks = []
    for top in range(0, side, rows):
        upsampled = _upsample_rows(masks.flatten(0, 1), side, top, min(top + rows, side)).sigmoid()
        blocks.append(torch.einsum("bqc, bqhw -> bchw", classes, upsampled.unflatten(0, masks.shape[:2])))
    scores = torch.cat(blocks, 2)  # (N * P, C, side, side)
    if patches == 1:
        return scores
    scores = scores.unflatten(0, (masks.shape[0] // patches, patches))
    around = [(start, longer - end) for start, end in split.spans]
    padded = [
        F.pad(scores[:, index], (0, 0, *margins) if split.is_high else margins) for index, margins in enumerate(around)
    ]
    counts = scores.new_tensor([sum(start <= place < end for start, end in split.spans) for place in range(longer)])
    return torch.stack(padded).sum(0) / (counts[:, None] if split.is_high else counts)


def is_split(model: Any, pixel_values: Tensor) -> bool:
    """Tell whether a model cuts these images into patches and scores each pixel: scores can then be made row by row."""
    if not (is_mask_transformer(model) and find_family(model.config).splits_images):
        return False
    return min(pixel_values.shape[-2:]) == model.config.image_size


def iterate_score_rows(model: Any, pixel_values: Tensor) -> Iterator[Tensor]:
    """Run a model on one image that it splits, and return its scores from the top, some rows at a time, (C, n, W).

    Args:
        model: A mask transformer that splits images.
        pixel_values: Shape (1, C, H, W).
    """
    with torch.no_grad():
        prediction = predict_queries(model, pixel_values)
    return prediction.iterate_rows()


def normalize_scores(model: Any, scores: Tensor, axis: int) -> Tensor:
    """Return probabilities of the scores that `compute_scores` gave, resized or not.

    Args:
        model: Whose scores they are.
        scores: Any shape.
        axis: The axis of the classes.
    """
    if is_mask_transformer(model):
        raised = scores + _LEAST_SCORE  # where no query has a mask, all classes are alike
        return raised / raised.sum(axis, keepdim=True)
    return scores.softmax(axis)

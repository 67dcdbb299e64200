"""Smoother outlines: the majority of a neighbourhood, openings and closings, a Gaussian over the probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segplus.inference.postprocessing.components import find_surroundings

Labels = npt.NDArray[Any]


def take_majority(labels: Labels, radius_px: int, num_classes: int) -> Labels:
    """Return the most frequent class of the square around each pixel; one that is as frequent stays.

    Beyond the image nothing is counted, and neither are ids from `num_classes` on, which keep their pixels.

    Args:
        labels: Class ids, shape (H, W).
        radius_px: The square has 2 * radius_px + 1 pixels a side.
        num_classes: C.
    """
    side = 2 * radius_px + 1
    most, own_count = np.zeros(labels.shape, dtype=np.int32), np.zeros(labels.shape, dtype=np.int32)
    best: Labels = labels.copy()
    for class_id in (int(one) for one in np.unique(labels) if one < num_classes):
        own = labels == class_id
        count = cv2.boxFilter(
            own.view(np.uint8), cv2.CV_32S, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        np.copyto(own_count, count, where=own)
        better = count > most
        np.copyto(most, count, where=better)
        np.copyto(best, np.array(class_id, dtype=labels.dtype), where=better)
    np.copyto(best, labels, where=(own_count == most) | (labels >= num_classes))
    return best


def open_class(labels: Labels, class_id: int, radius_px: int, num_classes: int) -> Labels:
    """Return the label map without the parts of a class that a disc of this radius does not fit into.

    They become the class that touches most of their outline, the class itself left out.

    Args:
        labels: Class ids, shape (H, W).
        class_id: The class.
        radius_px: Radius of the disc.
        num_classes: C.
    """
    own = (labels == class_id).view(np.uint8)
    # Beyond the border the class goes on, so that what the image cuts is not thinned.
    kept = cv2.morphologyEx(own, cv2.MORPH_OPEN, _draw_disc(radius_px), borderType=cv2.BORDER_REPLICATE)
    removed = own > kept
    if not removed.any():
        return labels
    _, numbers, _, _ = cv2.connectedComponentsWithStats(removed.view(np.uint8), None, None, None, 8)
    marked = labels.copy()
    marked[kept.view(bool)] = num_classes  # which is no class
    target = find_surroundings(marked, numbers, np.arange(numbers.max() + 1) > 0, num_classes)
    chosen = removed & (target[numbers] >= 0)
    opened: Labels = labels.copy()
    opened[chosen] = target[numbers[chosen]]
    return opened


def close_class(labels: Labels, class_id: int, radius_px: int) -> Labels:
    """Return the label map with the gaps of a class filled that a disc of this radius does not fit into.

    Args:
        labels: Class ids, shape (H, W).
        class_id: The class.
        radius_px: Radius of the disc.
    """
    own = (labels == class_id).view(np.uint8)
    padded = np.pad(own, radius_px)
    grown = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _draw_disc(radius_px))
    height, width = labels.shape
    closed: Labels = labels.copy()
    closed[grown[radius_px : radius_px + height, radius_px : radius_px + width].view(bool)] = class_id
    return closed


def _draw_disc(radius_px: int) -> npt.NDArray[np.uint8]:
    offsets = np.arange(-radius_px, radius_px + 1)
    inside = offsets[:, None] ** 2 + offsets**2 <= (radius_px + 0.5) ** 2  # radius 1 is the square of 9 pixels
    return np.asarray(inside, dtype=np.uint8)


def smooth_rows(rows: Iterator[tuple[int, Tensor]], sigma_px: float, height: int) -> Iterator[tuple[int, Tensor]]:
    """Yield rows of probabilities smoothed by a Gaussian; at the border it is the mean of what lies inside.

    Only the rows that the Gaussian reaches are held.

    Args:
        rows: First row and probabilities, shape (rows, W, C), top to bottom without gaps.
        sigma_px: Standard deviation; the Gaussian is cut at three of them.
        height: Rows in all.
    """
    radius = max(1, math.ceil(3 * sigma_px))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float32) / sigma_px) ** 2)
    held: Tensor | None = None
    first = done = 0
    for top, chunk in rows:
        across = _smooth_columns(chunk, kernel.to(chunk.device), radius)
        held = across if held is None else torch.cat([held, across])
        bottom = top + len(chunk)
        ready = height if bottom == height else bottom - radius
        if ready > done:
            yield done, _smooth_down(held, kernel.to(chunk.device), radius, first, (done, ready), height)
            done = ready
            keep = max(0, done - radius - first)
            held, first = held[keep:], first + keep


def _smooth_columns(rows: Tensor, kernel: Tensor, radius: int) -> Tensor:
    width = rows.shape[1]
    total, weight = torch.zeros_like(rows), torch.zeros(width, 1, device=rows.device)
    for offset in range(max(-radius, 1 - width), min(radius, width - 1) + 1):
        to, source = slice(max(0, -offset), width - max(0, offset)), slice(max(0, offset), width + min(0, offset))
        total[:, to].add_(rows[:, source], alpha=float(kernel[offset + radius]))
        weight[to] += kernel[offset + radius]
    return total / weight


def _smooth_down(held: Tensor, kernel: Tensor, radius: int, first: int, span: tuple[int, int], height: int) -> Tensor:
    """Return the rows of `span`; `held` begins at row `first`."""
    start, end = span
    total, weight = torch.zeros_like(held[: end - start]), torch.zeros(end - start, 1, 1, device=held.device)
    for offset in range(-radius, radius + 1):
        low, high = max(start, -offset), min(end, height - offset)
        if low < high:
            source = held[low + offset - first : high + offset - first]
            total[low - start : high - start].add_(source, alpha=float(kernel[offset + radius]))
            weight[low - start : high - start] += kernel[offset + radius]
    return total / weight

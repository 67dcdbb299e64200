"""The label map of bilinearly upsampled logits, without the upsampled logits.

Bilinear interpolation is a convex combination of four corners, class by class. A cell of the low-resolution grid whose
four corners have the same argmax has it everywhere. In a mixed cell the corners' winners are interpolated, and beside
them one bound: the corner-wise maximum of all other classes, whose interpolation is never below any of theirs. Where
the bound stays below the winners no other class can win, so a cell costs five interpolations however many classes there
are; only where it does not are all classes of the cell interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segplus.metrics.near_ties import (
    find_best_last,
    find_best_two,
    find_best_two_of_first,
    measure_tolerance,
    settle_near_ties,
)
from segplus.metrics.resizing import (
    Axis,
    choose_float_dtype,
    count_values,
    interpolate_columns,
    interpolate_rows,
    locate_pixels,
)

# Cells looked at together; with more than this share of mixed ones, every pixel of theirs is interpolated.
_CHUNK_CELLS = 1 << 18
_MIXED_SHARE = 0.5
# With fewer, classes come first where every class is interpolated: their maximum is vectorised over pixels.
_FEW_CLASSES = 64

Axes = tuple[Axis, Axis]  # vertical, horizontal


def choose_label_dtype(num_classes: int) -> torch.dtype:
    """Return the narrowest of uint8, int16 and int32 that holds every class id; 255 is left to the ignore index."""
    if num_classes <= 255:
        return torch.uint8
    return torch.int16 if num_classes <= 2**15 else torch.int32


def label_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Class ids at `size` of bilinearly resized logits, at about the cost of the low resolution.

    The result is F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1), pixel by pixel: where two
    classes come within rounding, F.interpolate itself decides, of logits in the same memory layout. Outside that
    promise lie a class that leads by a unit in the last place at all four corners of a cell (it keeps the cell), and
    infinite scores; on an accelerator near ties of channels_last logits are settled on contiguous ones. Exactly equal
    values give the lowest id, as argmax does. Half precision is interpolated in float32. A pixel near a NaN gets some
    class id, never a value outside [0, C).

    Args:
        logits: Raw scores, shape (N, C, h, w), contiguous or channels_last, any device.
        size: Height and width of the label map; larger, smaller or equal to the logits', at any ratio.
    Returns:
        Class ids, shape (N, height, width); uint8 up to 255 classes, int16 up to 32768, int32 above.
    Raises:
        ValueError: If logits are not (N, C, h, w) or a size is not positive.
    """
    height, width = (int(side) for side in size)
    if logits.ndim != 4 or 0 in logits.shape[1:]:
        raise ValueError(f"logits must have shape (N, C, h, w), found {tuple(logits.shape)}")
    if height < 1 or width < 1:
        raise ValueError(f"size must be two positive numbers, found {tuple(size)}")
    dtype = choose_label_dtype(logits.shape[1])
    labels = torch.empty(len(logits), height, width, dtype=dtype, device=logits.device)
    with torch.no_grad():
        for image, target in zip(logits, labels, strict=True):
            _fill_labels(image, target)
    return labels


def label_maps(logits: Tensor, sizes: Sequence[Sequence[int]] | Tensor) -> list[Tensor]:
    """Class ids of a batch whose images have different sizes.

    Args:
        logits: Raw scores, shape (N, C, h, w).
        sizes: Height and width per image, shape (N, 2).
    Returns:
        N label maps, each of shape (height, width).
    Raises:
        ValueError: If there are not as many sizes as images.
    """
    listed = sizes.tolist() if isinstance(sizes, Tensor) else [list(size) for size in sizes]
    if len(listed) != len(logits):
        raise ValueError(f"{len(logits)} images but {len(listed)} sizes")
    return [label_map(image[None], size)[0] for image, size in zip(logits, listed, strict=True)]


def _fill_labels(image: Tensor, target: Tensor) -> None:
    """Write the label map of one image, (C, h, w), to `target`, (height, width)."""
    classes, low_height, low_width = image.shape
    height, width = target.shape
    if classes == 1:
        target.zero_()
        return
    if (height, width) == (low_height, low_width):
        target.copy_(find_best_class(image))
        return
    dtype = choose_float_dtype(image)
    axes = locate_pixels(low_height, height, dtype, image.device), locate_pixels(low_width, width, dtype, image.device)
    if height < low_height or width < low_width:
        near_ties = _fill_rows(image, target, axes, 0, height)
    else:
        near_ties = _fill_chunks(image, target, axes)
    settle_near_ties(image, target, torch.cat(near_ties), axes)


def find_best_class(image: Tensor) -> Tensor:
    """Return the lowest best class of every pixel, shape (h, w), for scores of shape (C, h, w) in any memory layout."""
    classes, height, width = image.shape
    dtype = choose_label_dtype(classes)
    if image.stride(0) == 1 or image.device.type != "cpu":
        return find_best_last(image.permute(1, 2, 0)).to(dtype)
    # argmax over a strided axis is scalar code on a CPU; a maximum and a comparison are vectorised.
    ids = torch.arange(classes, dtype=dtype).view(-1, 1, 1)
    none = torch.tensor(classes - 1, dtype=dtype)
    best = torch.empty(height, width, dtype=dtype)
    rows = max(1, 8 * count_values(image.device) // (classes * width))
    for top in range(0, height, rows):
        chunk = image[:, top : top + rows]
        torch.amin(torch.where(chunk == chunk.amax(0), ids, none), 0, out=best[top : top + rows])
    return best


def _fill_rows(image: Tensor, target: Tensor, axes: Axes, top: int, bottom: int) -> list[Tensor]:
    """Interpolate every class of the output rows [top, bottom), a few rows at a time; return where classes tie."""
    vertical, horizontal = axes
    width = target.shape[1]
    rows = max(1, 2 * count_values(image.device) // (len(image) * width))
    near_ties = []
    for y in range(top, bottom, rows):
        end = min(y + rows, bottom)
        chunk = interpolate_rows(lambda first, last: image[:, first:last], vertical, y, end)
        tolerance = measure_tolerance(chunk)
        if width < image.shape[2]:
            labels, near = find_best_two(interpolate_columns(chunk, horizontal), tolerance)
        else:
            labels, near = _find_best_by_phase(chunk, horizontal, tolerance, target.dtype)
        target[y:end] = labels
        near_ties.append(near.flatten().nonzero().flatten() + y * width)
    return near_ties


def _find_best_by_phase(chunk: Tensor, axis: Axis, tolerance: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Upsample (rows, w, C) along w and find its best classes: every cell's first pixel, then every second, ..."""
    longest = axis.pixels.shape[1]
    framed = torch.cat([chunk[:, :1], chunk, chunk[:, -1:]], 1)  # (rows, w + 2, C)
    best = torch.empty(len(chunk), chunk.shape[1] + 1, longest, dtype=dtype, device=chunk.device)
    near = torch.empty(best.shape, dtype=torch.bool, device=chunk.device)
    by_class = chunk.shape[2] < _FEW_CLASSES and chunk.device.type == "cpu"
    if by_class:
        framed = framed.permute(2, 0, 1).contiguous()  # (C, rows, w + 2)
    near_side, far_side = (framed[..., :-1], framed[..., 1:]) if by_class else (framed[:, :-1], framed[:, 1:])
    scores = torch.empty(near_side.shape, dtype=chunk.dtype, device=chunk.device)
    close = torch.empty(near_side.shape, dtype=torch.bool, device=chunk.device)
    for phase in range(longest):
        share = axis.shares[:, phase] if by_class else axis.shares[:, phase, None]
        torch.lerp(near_side, far_side, share, out=scores)
        find = find_best_two_of_first if by_class else find_best_two
        best[..., phase], near[..., phase] = find(scores, tolerance, close)
    pixel = axis.cell * longest + torch.arange(len(axis.cell), device=chunk.device) - axis.start[axis.cell]
    return best.flatten(1).index_select(1, pixel), near.flatten(1).index_select(1, pixel)


def _fill_chunks(image: Tensor, target: Tensor, axes: Axes) -> list[Tensor]:
    """Write the label map of an upsampled image, a few rows of cells at a time; return where classes tie."""
    _, low_height, low_width = image.shape
    vertical, horizontal = axes
    low = find_best_class(image)
    cells = low.index_select(0, vertical.near), low.index_select(0, vertical.far)  # (h + 1, w) each
    corners = [side.index_select(1, edge) for side in cells for edge in (horizontal.near, horizontal.far)]
    mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
    # At a scale near 1 a cell may hold no output pixel.
    mixed &= (vertical.start.diff() > 0)[:, None] & (horizontal.start.diff() > 0)
    target.copy_(corners[0].index_select(1, horizontal.cell).index_select(0, vertical.cell))
    rows = max(1, _CHUNK_CELLS // (low_width + 1))
    near_ties = [torch.empty(0, dtype=torch.int64, device=image.device)]
    for top in range(0, low_height + 1, rows):
        chunk = mixed[top : top + rows]
        row, column = chunk.nonzero().unbind(1)
        if len(row) > _MIXED_SHARE * chunk.numel():
            start, end = vertical.start[top], vertical.start[min(top + rows, low_height + 1)]
            near_ties += _fill_rows(image, target, axes, int(start), int(end))
        elif len(row):
            near_ties += _fill_mixed_cells(image, target, low, (vertical, row + top), (horizontal, column))
    return near_ties


def _fill_mixed_cells(
    image: Tensor, target: Tensor, low: Tensor, vertical: tuple[Axis, Tensor], horizontal: tuple[Axis, Tensor]
) -> list[Tensor]:
    """Write the pixels of the given cells; return where classes tie."""
    _, _, low_width = image.shape
    width = target.shape[1]
    by_class = image.stride(0) != 1
    scores = image.flatten(1) if by_class else image.permute(1, 2, 0).flatten(0, 1)  # (C, hw) or (hw, C)
    low = low.flatten()
    (vertical_axis, all_rows), (horizontal_axis, all_columns) = vertical, horizontal
    pixels_per_cell = vertical_axis.pixels.shape[1] * horizontal_axis.pixels.shape[1]
    step = max(1, count_values(image.device) // pixels_per_cell)
    near_ties = []
    for row, column in zip(torch.split(all_rows, step), torch.split(all_columns, step), strict=True):
        sides = vertical_axis.near[row], vertical_axis.far[row]
        edges = horizontal_axis.near[column], horizontal_axis.far[column]
        corners = torch.stack([y * low_width + x for y in sides for x in edges])  # (4, M)
        shares = vertical_axis.shares[row].t()[:, None], horizontal_axis.shares[column].t()  # (Y, 1, M), (X, M)
        labels, near = _label_cells(scores, corners, low[corners].sort(0).values, by_class, shares)
        offsets = vertical_axis.pixels[row].t()[:, None] * width + horizontal_axis.pixels[column].t()  # (Y, X, M)
        target.view(-1)[offsets.flatten()] = labels.flatten()
        near_ties.append(offsets[near])
    return near_ties


def _label_cells(
    scores: Tensor, corners: Tensor, winners: Tensor, by_class: bool, shares: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the best class of the pixels of cells, (Y, X, M), and whether another comes near it.

    A cell has four corners i, whose weights b_i at a pixel are >= 0 and add up to 1, and class k has the score v_k,i at
    corner i. With W, the classes that win at a corner,

        score_k = sum_i b_i v_k,i  <=  sum_i b_i max_{j not in W} v_j,i = bound     for every class k not in W

    so where the best score of W stays above the bound at every pixel of a cell, no other class is looked at.

    Args:
        scores: Scores on the model's grid, (C, hw) or (hw, C).
        corners: Flat positions of the cells' corners, (4, M).
        winners: W, the best classes at the corners, (4, M), ascending: the first best is the lowest id.
        by_class: Whether the classes come first in `scores`.
        shares: Weights of the lower rows, (Y, 1, M), and of the right columns, (X, M), whose products are the b_i.
    """
    winner_scores, other_scores = _gather_winners(scores, corners, winners, by_class)
    tolerance = measure_tolerance(winner_scores)
    labels, near, exceeded = _choose_winner(winner_scores, other_scores, winners, shares, tolerance)
    classes = scores.shape[0 if by_class else 1]
    step = max(1, count_values(scores.device) // (4 * classes))
    open_cells = exceeded.nonzero().flatten()
    for start in range(0, len(open_cells), step):
        cells = open_cells[start : start + step]
        all_scores = _gather_corners(scores, corners[:, cells], by_class)
        all_scores = all_scores.permute(1, 2, 0).contiguous() if by_class else all_scores  # (4, m, C)
        found = _choose_class(all_scores, shares[0][..., cells], shares[1][:, cells], labels.dtype)
        labels[:, :, cells], near[:, :, cells] = found
    return labels, near


def _gather_winners(scores: Tensor, corners: Tensor, winners: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
    """Return the winners' scores, (4 winners, 4 corners, M), and the greatest of all other classes', (4 corners, M)."""
    count = corners.shape[1]
    chosen = torch.empty(4, 4, count, dtype=choose_float_dtype(scores), device=scores.device)
    others = torch.empty(4, count, dtype=chosen.dtype, device=scores.device)
    classes = scores.shape[0 if by_class else 1]
    step = max(1, count_values(scores.device) // (4 * classes))
    for start in range(0, count, step):
        chunk = slice(start, start + step)
        values = _gather_corners(scores, corners[:, chunk], by_class)  # (4, m, C) or (C, 4, m)
        chosen[..., chunk], others[:, chunk] = _split_winners(values, winners[:, chunk], by_class)
    return chosen, others


def _gather_corners(scores: Tensor, corners: Tensor, by_class: bool) -> Tensor:
    dtype = choose_float_dtype(scores)
    if by_class:
        return scores.index_select(1, corners.flatten()).view(len(scores), *corners.shape).to(dtype)
    return scores.index_select(0, corners.flatten()).view(*corners.shape, -1).to(dtype)


def _split_winners(values: Tensor, winners: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
    """Return the winners' values, (4 winners, 4 corners, M), the greatest other, (4 corners, M). Overwrites values."""
    index = winners.long()  # (4 winners, M)
    if by_class:
        index = index[:, None].expand(4, 4, -1)
        chosen = values.gather(0, index)
        return chosen, values.scatter_(0, index, -torch.inf).amax(0)
    index = index.t()[None].expand(4, -1, 4)  # (4 corners, M, 4 winners)
    chosen = values.gather(2, index).permute(2, 0, 1)
    return chosen, values.scatter_(2, index, -torch.inf).amax(2)


def _interpolate(corners: Tensor, shares: tuple[Tensor, Tensor]) -> Tensor:
    """Return the pixels, (Y, X, M), of cells with corners (4, M)."""
    top, bottom = torch.lerp(corners[0], corners[1], shares[1]), torch.lerp(corners[2], corners[3], shares[1])  # (X, M)
    return torch.lerp(top, bottom, shares[0])


def _choose_winner(
    winner_scores: Tensor, other_scores: Tensor, winners: Tensor, shares: tuple[Tensor, Tensor], tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best of four winners per pixel, (Y, X, M), and whether another winner comes near it.

    The third tensor, (M,), says in which cells the bound, interpolated from `other_scores`, comes near or exceeds it.
    """
    best = _interpolate(winner_scores[0], shares)
    labels = winners[0].expand(best.shape)
    second = torch.full_like(best, -torch.inf)
    for index in range(1, 4):
        pixels = _interpolate(winner_scores[index], shares)
        pixels.masked_fill_(winners[index] == winners[index - 1], -torch.inf)  # the same class once more
        labels = torch.where(pixels > best, winners[index], labels)
        torch.maximum(second, torch.minimum(best, pixels), out=second)
        torch.maximum(best, pixels, out=best)
    best -= tolerance
    bound = _interpolate(other_scores, shares)
    return labels, second >= best, (bound >= best).flatten(0, 1).any(0)


def _choose_class(values: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the best of all classes, (Y, X, M), of cells with corners (4, M, C), and whether another comes near it."""
    labels = torch.empty(len(rows), *columns.shape, dtype=dtype, device=values.device)
    near = torch.empty(labels.shape, dtype=torch.bool, device=values.device)
    tolerance = measure_tolerance(values)
    for x, share in enumerate(columns[..., None]):
        top, bottom = torch.lerp(values[0], values[1], share), torch.lerp(values[2], values[3], share)  # (M, C)
        for y, weight in enumerate(rows[:, 0, :, None]):
            labels[y, x], near[y, x] = find_best_two(torch.lerp(top, bottom, weight), tolerance)
    return labels, near

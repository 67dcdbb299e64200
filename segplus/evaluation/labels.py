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

from segplus.evaluation.resizing import (
    Axis,
    choose_float_dtype,
    count_values,
    interpolate_columns,
    interpolate_rows,
    locate_pixels,
)

# Cells looked at together; with more than this share of mixed ones, every pixel of theirs is interpolated.
_BAND_CELLS = 1 << 18
_MIXED_SHARE = 0.5


def choose_label_dtype(num_classes: int) -> torch.dtype:
    """Return the narrowest of uint8, int16 and int32 that holds every class id; 255 is left to the ignore index."""
    if num_classes <= 255:
        return torch.uint8
    return torch.int16 if num_classes <= 2**15 else torch.int32


def label_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Class ids at `size` of bilinearly resized logits, at about the cost of the low resolution.

    The result is F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1) wherever the two best
    classes of a pixel differ by more than the rounding of float32 interpolation, about 1e-6 of the largest logit;
    closer than that, either may stand. Exactly equal values give the lowest id, as argmax does. Half precision is
    interpolated in float32. A pixel near a NaN gets some class id, never a value outside [0, C).

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
    elif (height, width) == (low_height, low_width):
        target.copy_(find_best_class(image))
    elif height < low_height or width < low_width:
        _fill_rows(image, target, 0, height)
    else:
        _fill_bands(image, target)


def find_best_class(image: Tensor) -> Tensor:
    """Return the lowest best class of every pixel, shape (h, w), for scores of shape (C, h, w) in any memory layout."""
    classes, height, width = image.shape
    dtype = choose_label_dtype(classes)
    if image.stride(0) == 1 or image.device.type != "cpu":
        return _find_best_last(image.permute(1, 2, 0)).to(dtype)
    # argmax over a strided axis is scalar code on a CPU; a maximum and a comparison are vectorised.
    ids = torch.arange(classes, dtype=dtype).view(-1, 1, 1)
    none = torch.tensor(classes - 1, dtype=dtype)
    best = torch.empty(height, width, dtype=dtype)
    rows = max(1, 8 * count_values(image.device) // (classes * width))
    for top in range(0, height, rows):
        part = image[:, top : top + rows]
        torch.amin(torch.where(part == part.amax(0), ids, none), 0, out=best[top : top + rows])
    return best


def _find_best_last(scores: Tensor) -> Tensor:
    """Return the argmax of the last axis, int64."""
    # NumPy's argmax of long rows is vectorised where torch's is not: 7 against 25 ms for 131,072 rows of 150.
    if scores.device.type == "cpu" and scores.shape[-1] >= 64 and scores.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(scores.detach().numpy().argmax(-1))
    return scores.argmax(-1)


def _fill_rows(image: Tensor, target: Tensor, top: int, bottom: int) -> None:
    """Interpolate every class of the output rows [top, bottom), a few rows at a time."""
    classes, low_height, low_width = image.shape
    height, width = target.shape
    dtype = choose_float_dtype(image)
    vertical = locate_pixels(low_height, height, dtype, image.device)
    horizontal = locate_pixels(low_width, width, dtype, image.device)
    rows = max(1, 2 * count_values(image.device) // (classes * width))
    for y in range(top, bottom, rows):
        end = min(y + rows, bottom)
        slab = interpolate_rows(lambda first, last: image[:, first:last], vertical, y, end)
        if width < low_width:
            target[y:end] = _find_best_last(interpolate_columns(slab, horizontal))
        else:
            target[y:end] = _find_best_by_phase(slab, horizontal, target.dtype)


def _find_best_by_phase(slab: Tensor, axis: Axis, dtype: torch.dtype) -> Tensor:
    """Upsample (rows, w, C) along w and return its best classes: every cell's first pixel, then every second, ..."""
    longest = axis.pixels.shape[1]
    framed = torch.cat([slab[:, :1], slab, slab[:, -1:]], 1)  # (rows, w + 2, C)
    best = torch.empty(len(slab), slab.shape[1] + 1, longest, dtype=dtype, device=slab.device)
    for phase in range(longest):
        best[..., phase] = _find_best_last(torch.lerp(framed[:, :-1], framed[:, 1:], axis.shares[:, phase, None]))
    pixel = axis.cell * longest + torch.arange(len(axis.cell), device=slab.device) - axis.start[axis.cell]
    return best.flatten(1).index_select(1, pixel)


def _fill_bands(image: Tensor, target: Tensor) -> None:
    """Write the label map of an upsampled image, band of cells by band of cells."""
    _, low_height, low_width = image.shape
    dtype = choose_float_dtype(image)
    vertical = locate_pixels(low_height, target.shape[0], dtype, image.device)
    horizontal = locate_pixels(low_width, target.shape[1], dtype, image.device)
    low = find_best_class(image)
    cells = low.index_select(0, vertical.near), low.index_select(0, vertical.far)  # (h + 1, w) each
    corners = [side.index_select(1, edge) for side in cells for edge in (horizontal.near, horizontal.far)]
    mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
    # At a scale near 1 a cell may hold no output pixel.
    mixed &= (vertical.start.diff() > 0)[:, None] & (horizontal.start.diff() > 0)
    target.copy_(corners[0].index_select(1, horizontal.cell).index_select(0, vertical.cell))
    rows = max(1, _BAND_CELLS // (low_width + 1))
    for top in range(0, low_height + 1, rows):
        band = mixed[top : top + rows]
        row, column = band.nonzero().unbind(1)
        if len(row) > _MIXED_SHARE * band.numel():
            _fill_rows(image, target, int(vertical.start[top]), int(vertical.start[min(top + rows, low_height + 1)]))
        elif len(row):
            _fill_mixed_cells(image, target, low, (vertical, row + top), (horizontal, column))


def _fill_mixed_cells(
    image: Tensor, target: Tensor, low: Tensor, vertical: tuple[Axis, Tensor], horizontal: tuple[Axis, Tensor]
) -> None:
    """Write the pixels of the given cells."""
    classes, _, low_width = image.shape
    width = target.shape[1]
    by_class = image.stride(0) != 1
    scores = image.flatten(1) if by_class else image.permute(1, 2, 0).flatten(0, 1)  # (C, hw) or (hw, C)
    low = low.flatten()
    (vertical_axis, all_rows), (horizontal_axis, all_columns) = vertical, horizontal
    pixels_per_cell = vertical_axis.pixels.shape[1] * horizontal_axis.pixels.shape[1]
    chunk = max(1, count_values(image.device) // pixels_per_cell)
    for row, column in zip(torch.split(all_rows, chunk), torch.split(all_columns, chunk), strict=True):
        sides = vertical_axis.near[row], vertical_axis.far[row]
        edges = horizontal_axis.near[column], horizontal_axis.far[column]
        corners = torch.stack([y * low_width + x for y in sides for x in edges])  # (4, M)
        shares = vertical_axis.shares[row].t()[:, None], horizontal_axis.shares[column].t()  # (Y, 1, M), (X, M)
        winners = low[corners].sort(0).values  # (4, M), ascending: the first best is the lowest id
        labels, doubtful = _choose_winner(*_gather_winners(scores, corners, winners, by_class), winners, shares)
        step = max(1, count_values(image.device) // (4 * classes))
        cells = doubtful.nonzero().flatten()
        for start in range(0, len(cells), step):
            where = cells[start : start + step]
            values = _gather_corners(scores, corners[:, where], by_class)
            values = values.permute(1, 2, 0).contiguous() if by_class else values
            labels[:, :, where] = _choose_class(values, shares[0][..., where], shares[1][:, where], labels.dtype)
        offsets = vertical_axis.pixels[row].t()[:, None] * width + horizontal_axis.pixels[column].t()  # (Y, X, M)
        target.view(-1)[offsets.flatten()] = labels.flatten()


def _gather_winners(scores: Tensor, corners: Tensor, winners: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
    """Return the winners' values, (4 winners, 4 corners, M), and the greatest of all other classes', (4 corners, M)."""
    count = corners.shape[1]
    chosen = torch.empty(4, 4, count, dtype=choose_float_dtype(scores), device=scores.device)
    bound = torch.empty(4, count, dtype=chosen.dtype, device=scores.device)
    classes = scores.shape[0 if by_class else 1]
    step = max(1, count_values(scores.device) // (4 * classes))
    for start in range(0, count, step):
        part = slice(start, start + step)
        values = _gather_corners(scores, corners[:, part], by_class)  # (4, m, C) or (C, 4, m)
        chosen[..., part], bound[:, part] = _split_winners(values, winners[:, part], by_class)
    return chosen, bound


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
    values: Tensor, bound: Tensor, winners: Tensor, shares: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the best of four winners per pixel, (Y, X, M), and the cells, (M,), where another class may be better."""
    best = _interpolate(values[0], shares)
    labels = winners[0].expand(best.shape)
    for value, winner in zip(values[1:], winners[1:], strict=True):
        pixels = _interpolate(value, shares)
        labels = torch.where(pixels > best, winner, labels)
        best = torch.maximum(best, pixels)
    return labels, (_interpolate(bound, shares) >= best).flatten(0, 1).any(0)


def _choose_class(values: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the best of all classes per pixel, (Y, X, M), of cells with corners (4, M, C)."""
    labels = torch.empty(len(rows), *columns.shape, dtype=dtype, device=values.device)
    for x, share in enumerate(columns[..., None]):
        top, bottom = torch.lerp(values[0], values[1], share), torch.lerp(values[2], values[3], share)  # (M, C)
        for y, weight in enumerate(rows[:, 0, :, None]):
            labels[y, x] = _find_best_last(torch.lerp(top, bottom, weight))
    return labels

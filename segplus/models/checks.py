"""One forward pass on nothing, so that a size the model cannot take is told before training."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from segplus.errors import InputError
from segplus.models.channels import count_channels
from segplus.models.mask_transformers.class_scores import compute_scores

_REFUSALS = (ValueError, RuntimeError, AssertionError, IndexError)


def check_input_size(model: PreTrainedModel, size_px: tuple[int, int], key: str) -> tuple[int, int]:
    """Return the height and width of the scores that an input of this size gives.

    Args:
        model: The model, in any mode; it is left as it was.
        size_px: Height and width of the input.
        key: The recipe's key that holds the size, for the message.

    Raises:
        InputError: If the model cannot take the size, or none at all.
    """
    was_training = model.training
    model.eval()
    try:
        return _run(model, size_px)
    except _REFUSALS as error:
        accepted = find_accepted_size(model, size_px)
        said = (str(error).splitlines() or [type(error).__name__])[0][:300]
        if accepted is None:
            raise InputError(
                f"model.config: no image goes through this {type(model).__name__}",
                found=f"{said} ({size_px[0]} x {size_px[1]}, as in {key}, and other sizes)",
                fix="correct model.config: its values do not fit together",
            ) from None
        raise InputError(
            f"{key}: {type(model).__name__} cannot take this size",
            found=f"{size_px[0]} x {size_px[1]} (height x width): {said}",
            fix=f"use {accepted[0]} x {accepted[1]}",
        ) from None
    finally:
        model.train(was_training)


def find_accepted_size(model: PreTrainedModel, size_px: tuple[int, int]) -> tuple[int, int] | None:
    """Return this height and width, or others near it that the model takes; None where it takes none of them."""
    return next((size for size in [size_px, *_list_candidates(model, size_px)] if _accepts(model, size)), None)


def _run(model: PreTrainedModel, size_px: tuple[int, int]) -> tuple[int, int]:
    with torch.no_grad():
        channels = count_channels(model.config)
        pixel_values = torch.zeros(1, channels, *size_px, device=model.device, dtype=model.dtype)
        scores = compute_scores(model, pixel_values)
    return int(scores.shape[-2]), int(scores.shape[-1])


def _accepts(model: PreTrainedModel, size_px: tuple[int, int]) -> bool:
    try:
        _run(model, size_px)
    except _REFUSALS:
        return False
    return True


def _list_candidates(model: PreTrainedModel, size_px: tuple[int, int]) -> list[tuple[int, int]]:
    """List sizes near the refused one: multiples of common patches, squares, and the one that the config may name."""
    units = (16, 14, 32, 64)
    near = [tuple(max(unit, round(side / unit) * unit) for side in size_px) for unit in units]
    mean = sum(size_px) / 2
    squares = [(max(unit, round(mean / unit) * unit),) * 2 for unit in units]
    side = model.config.to_dict().get("image_size")
    own = [(side, side)] if isinstance(side, int) else []
    return [(height, width) for height, width in [*near, *squares, *own]]

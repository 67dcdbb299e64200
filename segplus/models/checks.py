"""One forward pass on nothing, so that a size the model cannot take is told before training."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from segplus.errors import InputError


def check_input_size(model: PreTrainedModel, size_px: tuple[int, int], key: str) -> tuple[int, int]:
    """Return the height and width of the logits that an input of this size gives.

    Args:
        model: The model, in any mode; it is left as it was.
        size_px: Height and width of the input.
        key: The recipe's key that holds the size, for the message.
    Raises:
        InputError: If the model cannot take the size.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            pixel_values = torch.zeros(1, 3, *size_px, device=model.device, dtype=model.dtype)
            logits = model(pixel_values=pixel_values).logits
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        raise InputError(
            f"{key}: {type(model).__name__} cannot take this size",
            found=f"{size_px[0]} x {size_px[1]} (height x width): {str(error).splitlines()[0][:300]}",
            fix=_suggest_size(model, size_px),
        ) from None
    finally:
        model.train(was_training)
    return int(logits.shape[-2]), int(logits.shape[-1])


def _suggest_size(model: PreTrainedModel, size_px: tuple[int, int]) -> str:
    patch = model.config.to_dict().get("patch_size")
    unit = patch if isinstance(patch, int) else 32
    # Attention over pairs of scales wants even grids, so two units.
    near = [max(2 * unit, round(side / (2 * unit)) * 2 * unit) for side in size_px]
    return f"use multiples of {2 * unit}, such as {near[0]} x {near[1]}"

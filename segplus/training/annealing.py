"""EoMT's masked attention, which is left out block by block in the course of the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

_POWER = 0.9


def compute_mask_probabilities(share: float, blocks: int) -> list[float]:
    """Return how likely each block's attention is masked, one number a block, in [0, 1].

    Training has two parts more than there are blocks. In the first all attention is masked, in the last none; in each
    of the others the next block's probability falls from 1 to 0.

    Args:
        share: Of the training that is done, in [0, 1].
        blocks: Number of blocks that the queries pass.
    Reference:
        Kerssies et al., Your ViT is Secretly an Image Segmentation Model, 2025, section 3.3; the parts and the power
        of the fall are those of the published recipes.
    """
    position = share * (blocks + 2)
    return [(1.0 - min(max(position - 1 - block, 0.0), 1.0)) ** _POWER for block in range(blocks)]


class MaskAnnealing(TrainerCallback):
    """Sets EoMT's `attn_mask_probs` for every step, by its number alone, so that a resumed run goes on exactly.

    Between steps, when the model is evaluated and saved, they are rounded to 0 or 1: in between the model would draw
    at random which queries are masked, also where it is served. transformers leaves the buffer at one.
    """

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Set the probabilities of this step."""
        _set_probabilities(model, state.global_step / max(state.max_steps, 1))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Round those of the next step."""
        buffer = _set_probabilities(model, state.global_step / max(state.max_steps, 1))
        if buffer is not None:
            buffer.round_()


def _set_probabilities(model: nn.Module, share: float) -> Tensor | None:
    """Set the probabilities in place and return them; None where the model has none."""
    buffer = dict(model.named_buffers(recurse=False)).get("attn_mask_probs")
    if buffer is not None:
        buffer.copy_(torch.tensor(compute_mask_probabilities(share, len(buffer))))
    return buffer

"""SegFormer's decode head at a fraction of its cost: the same numbers, with nothing upsampled but the result."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead


@contextmanager
def fold_decode_head(model: nn.Module) -> Iterator[bool]:
    """Let SegFormer's decode head mix channels before it upsamples while the block runs; give whether there is one.

    The library projects each stage to D channels, upsamples it to stride 4, concatenates 4 D channels there, and mixes
    them with a 1x1 convolution. Upsampling keeps constants and is linear, so it commutes with that convolution: one
    D x C_i matrix a stage, applied at the stage's own resolution, gives the same sum. Weights, names and checkpoints
    stay as they are, and after the block the model computes the library's own way.

    Args:
        model: Any model; one whose `decode_head` is not SegFormer's, or is folded already, is left alone.
    """
    head: Any = dict(model.named_children()).get("decode_head")
    is_segformer = isinstance(head, SegformerDecodeHead) and head.config.reshape_last_stage is not False
    if not is_segformer or "forward" in vars(head):
        yield is_segformer
        return
    head.forward = types.MethodType(_compute_logits, head)
    try:
        yield True
    finally:
        del head.forward


def _compute_logits(head: Any, encoder_hidden_states: Sequence[torch.Tensor], **_: Any) -> torch.Tensor:
    size = encoder_hidden_states[0].shape[2:]
    # The library concatenates the stages in reverse order.
    blocks = head.linear_fuse.weight[:, :, 0, 0].chunk(len(encoder_hidden_states), dim=1)[::-1]  # D x D each
    mixed = None
    for hidden, projection, block in zip(encoder_hidden_states, head.linear_projections, blocks, strict=True):
        weight, bias = block @ projection.proj.weight, block @ projection.proj.bias  # D x C_i, D
        stage = F.conv2d(hidden, weight[:, :, None, None], bias)  # (N, D, h_i, w_i)
        if stage.shape[2:] != size:
            stage = F.interpolate(stage, size=size, mode="bilinear", align_corners=False)
        mixed = stage if mixed is None else mixed + stage
    return head.classifier(head.dropout(head.activation(head.batch_norm(mixed))))

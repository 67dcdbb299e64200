"""The plain way, for comparison: `F.interpolate`, then the same formulas under ordinary autograd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.losses.channel_terms import ChannelTerm
from segplus.losses.overlap import Overlaps, OverlapTerm
from segplus.losses.pixelwise import PixelTerm
from segplus.losses.row_terms import RowTerm, evaluate_rows
from segplus.losses.sigmoid import SigmoidTerm, evaluate_sigmoid
from segplus.losses.terms import LabelBatch, Reduction, Summand


def evaluate_plainly(
    summands: Mapping[str, Summand[Any]], logits: Tensor, batch: LabelBatch, reduction: Reduction
) -> dict[str, Tensor]:
    """Return the value of every term by its name, differentiable by the logits, shape (N, C, h, w)."""
    full = F.interpolate(logits, size=batch.size, mode="bilinear", align_corners=False)
    log_probabilities = full.log_softmax(1)
    values = {}
    for name, summand in summands.items():
        if isinstance(summand.term, PixelTerm):
            values[name] = evaluate_pixels(summand, log_probabilities, batch, reduction)
        elif isinstance(summand.term, OverlapTerm):
            values[name] = evaluate_overlap(summand, log_probabilities.exp(), batch, reduction)
        elif isinstance(summand.term, ChannelTerm):
            values[name] = summand.term.evaluate(summand, log_probabilities.exp(), batch, reduction)
        elif isinstance(summand.term, SigmoidTerm):
            values[name] = evaluate_sigmoid(summand, full, batch)
        elif isinstance(summand.term, RowTerm):
            values[name] = evaluate_rows(summand, full, batch)
    return values


def evaluate_pixels(
    summand: Summand[PixelTerm], log_probabilities: Tensor, batch: LabelBatch, reduction: Reduction
) -> Tensor:
    """Return the value of a pixel term."""
    term, total, kept = summand.term, log_probabilities.sum() * 0, []
    for index, image in enumerate(log_probabilities):
        labels = batch.select_images(slice(index, index + 1), image.dtype)
        log_target = image.gather(0, labels.ids)  # (1, H, W)
        weights, emphasis = term.weigh(labels), term.emphasize(labels)
        counted = labels.valid if emphasis is None else labels.valid * emphasis
        weights = weights if emphasis is None else weights * emphasis
        if term.selects:
            chosen = term.select(log_target.detach(), labels.valid)
            weights = weights * chosen
            kept.append(chosen.sum())
        total = total + (1 - term.smoothing) * (term.losses(log_target) * weights).sum()
        if term.smoothing:
            mixture = torch.ones_like(image[:, 0, 0]) if batch.class_weights is None else batch.class_weights.to(image)
            uniform = (image * mixture[:, None, None]).sum(0) * counted
            total = total - term.smoothing / len(image) * uniform.sum()
    if summand.denominator is None:
        summand.denominator = term.divide_kept(torch.stack(kept).sum(), reduction)
    return total * summand.scale


def evaluate_overlap(
    summand: Summand[OverlapTerm], probabilities: Tensor, batch: LabelBatch, reduction: Reduction
) -> Tensor:
    """Return the value of an overlap term."""
    term = summand.term
    valid = batch.valid[:, None].to(probabilities)
    ids = batch.labels.long().masked_fill(~batch.valid, 0)
    truth = F.one_hot(ids, batch.num_classes).movedim(-1, 1).to(probabilities) * valid
    kept = probabilities * valid
    maps = (kept * truth, kept, kept * kept, truth)
    sums = torch.stack([values.sum((2, 3)) for values in maps])  # (4, N, C)
    if term.per_image:
        return term.finish(Overlaps(*sums), batch.class_weights).sum() * summand.scale
    sums = sums.sum(1, keepdim=True)
    if not term.sync:
        return term.finish(Overlaps(*sums), batch.class_weights).sum() * reduction.value_factor
    # The sum of all processes, of which only this process' own is differentiated.
    sums = sums + (reduction.add_over_processes(sums.detach()) - sums.detach())
    return reduction.scale_synced(term.finish(Overlaps(*sums), batch.class_weights).sum())

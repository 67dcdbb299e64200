"""The plain way, for comparison: `F.interpolate`, then the same formulas under ordinary autograd."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.losses.overlap import Overlaps, OverlapTerm
from segplus.losses.pixelwise import PixelTerm
from segplus.losses.terms import LabelBatch, Reduction, Term


def evaluate_plainly(
    terms: Mapping[str, Term],
    logits: Tensor,
    batch: LabelBatch,
    denominators: Mapping[str, Tensor | None],
    reduction: Reduction,
) -> dict[str, Tensor]:
    """Return the value of every term by its name, differentiable by the logits, shape (N, C, h, w)."""
    work = logits.to(torch.promote_types(logits.dtype, torch.float32))
    size = batch.labels.shape[-2:]
    full = F.interpolate(work, size=(size[0], size[1]), mode="bilinear", align_corners=False)
    log_probabilities = full.log_softmax(1)
    values = {}
    for name, term in terms.items():
        denominator = denominators[name]
        if isinstance(term, PixelTerm):
            assert denominator is not None
            total = add_pixel_losses(term, log_probabilities, batch)
            values[name] = total / denominator.to(work).masked_fill(denominator <= 0, 1)
        elif isinstance(term, OverlapTerm):
            values[name] = finish_overlap(term, log_probabilities.exp(), batch, denominator, reduction)
    return values


def add_pixel_losses(term: PixelTerm, log_probabilities: Tensor, batch: LabelBatch) -> Tensor:
    """Return the sum of a pixel term over a batch."""
    total = log_probabilities.new_zeros(())
    for index, image in enumerate(log_probabilities):
        labels = batch.select_image(index, image.dtype)
        log_target = image.gather(0, labels.ids[None])[0]
        total = total + (1 - term.smoothing) * (term.losses(log_target) * term.weigh(labels)).sum()
        if term.smoothing:
            mixture = torch.ones_like(image[:, 0, 0]) if batch.class_weights is None else batch.class_weights.to(image)
            uniform = (image * mixture[:, None, None]).sum(0) * labels.valid
            total = total - term.smoothing / len(image) * uniform.sum()
    return total


def finish_overlap(
    term: OverlapTerm, probabilities: Tensor, batch: LabelBatch, denominator: Tensor | None, reduction: Reduction
) -> Tensor:
    """Return the value of an overlap term."""
    valid = batch.valid[:, None].to(probabilities)
    ids = batch.labels.long().masked_fill(~batch.valid, 0)
    truth = F.one_hot(ids, batch.num_classes).movedim(-1, 1).to(probabilities) * valid
    kept = probabilities * valid
    maps = (kept * truth, kept, kept * kept, truth)
    sums = torch.stack([values.sum((2, 3)) for values in maps])  # (4, N, C)
    if term.per_image:
        assert denominator is not None
        value = term.finish(Overlaps(*sums), batch.class_weights).sum()
        return value / denominator.to(value).clamp(min=1)
    sums = sums.sum(1, keepdim=True)
    if not term.sync:
        return term.finish(Overlaps(*sums), batch.class_weights).sum() * reduction.lone_share
    # The sum of all processes, of which only this process' part is differentiated.
    sums = sums + (reduction.add_over_processes(sums.detach()) - sums.detach())
    value = term.finish(Overlaps(*sums), batch.class_weights).sum()
    return value.detach() * reduction.value_share + (value - value.detach()) * reduction.gradient_share

"""The loss of mask transformers: every class of an image is matched with one query, exact over any split of a batch.

The terms, their weights, the matching's costs and the points are those of the model's own loss in transformers. Four
things differ. Sums are divided by the numbers of the whole accumulated batch over all processes. Ignored pixels are
left out of the costs, the mask term and the dice term, and an image of nothing else is left out altogether. The points
of an image depend on its labels and the progress of the training alone, not on its place in a batch. Class weights of a
recipe weigh the class term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.models.mask2former.modeling_mask2former import (
    pair_wise_dice_loss,
    pair_wise_sigmoid_cross_entropy_loss,
    sample_point,
)
from transformers.models.maskformer.modeling_maskformer import pair_wise_sigmoid_focal_loss

from segplus.errors import InputError
from segplus.models.mask_transformers.families import count_queries, find_family
from segplus.models.mask_transformers.queries import QueryOutput

TERMS = ("cross_entropy", "mask", "dice")
_FOCAL_ALPHA = 0.25  # of MaskFormer; gamma is 2


@dataclass(frozen=True)
class Targets:
    """What the queries of one image are matched with.

    Args:
        classes: The classes that the image holds, ascending, int64, (n,).
        masks: Where each of them is, float32, (n, H, W).
        ignored: Where nothing is known, float32, (H, W).
    """

    classes: Tensor
    masks: Tensor
    ignored: Tensor


class MatchingLoss(nn.Module):
    """A mask transformer's loss on its queries; see the module.

    `term_values` keeps the detached, unweighted terms of the last call, summed over the decoder's layers.

    Args:
        config: The model's: weights of the terms, weight of "no object", and how many points are sampled.
        ignore_index: The label that is ignored.
        class_weights: One weight a class; None weighs all alike.
    Raises:
        InputError: If every weight is 0.
    """

    class_weights: Tensor

    def __init__(self, config: PreTrainedConfig, ignore_index: int, class_weights: Tensor | None = None) -> None:
        super().__init__()
        family, values = find_family(config), config.to_dict()
        self.num_classes, self.ignore_index = config.num_labels, ignore_index
        self.num_queries = count_queries(config)
        self.weights = dict(
            zip(TERMS, (values[key] for key in (family.class_weight, "mask_weight", "dice_weight")), strict=True)
        )
        self.costs = self.weights | (
            {"cross_entropy": family.matching_weight} if family.matching_weight is not None else {}
        )
        if not any(self.weights.values()):
            raise InputError("model.config: every part of the loss weighs 0", found=self.weights, allowed="one above 0")
        self.masks: _PointMasks | _DenseMasks = (
            _PointMasks(values["train_num_points"], values["oversample_ratio"], values["importance_sample_ratio"])
            if family.samples_points
            else _DenseMasks()
        )
        weights = torch.ones(config.num_labels) if class_weights is None else class_weights.float()
        no_object = torch.tensor([values["no_object_weight"]], dtype=torch.float32)
        self.register_buffer("class_weights", torch.cat([weights, no_object]), persistent=False)
        self.term_values: dict[str, Tensor] = {}
        self.set_progress(0.0)

    def set_progress(self, share: float) -> None:
        """Choose the points of this moment of the training, a share in [0, 1]."""
        self.key = round(share * 2**40)

    def count_normalizers(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the number of masks and the weight of the queries of a micro-batch.

        Args:
            labels: Class ids, int64, (N, H, W).
        Returns:
            Float64 scalars `masks` and `queries`, to be added over micro-batches and processes.
        Raises:
            InputError: If a label is outside the classes, or an image holds more classes than there are queries.
        """
        held = self._list_classes(labels)
        counts = held.sum(1)
        weights = held.double() @ self.class_weights[:-1].double()
        weights += (self.num_queries - counts) * self.class_weights[-1].double()
        return {"masks": counts.sum().double(), "queries": (weights * (counts > 0)).sum()}

    def forward(
        self,
        queries: QueryOutput,
        labels: Tensor,
        *,
        normalizers: Mapping[str, Tensor] | None = None,
        accumulation_steps: int = 1,
    ) -> Tensor:
        """Return this call's share of the loss, a float32 scalar; shares add up to the loss of the whole batch.

        Args:
            queries: Of the model.
            labels: Class ids, int64, (N, H, W), at any resolution; ignore_index is ignored.
            normalizers: `count_normalizers` summed over micro-batches and processes; None where the call is a whole
                batch by itself.
            accumulation_steps: Nothing is divided by it.
        """
        counts = self.count_normalizers(labels) if normalizers is None else normalizers
        masks, weight = (counts[key].float().clamp_min(1e-9) for key in ("masks", "queries"))
        sums = torch.stack([self._sum_image(queries, labels[index], index) for index in range(len(labels))]).sum(0)
        values = sums / torch.stack([weight, masks, masks])
        self.term_values = dict(zip(TERMS, values.detach(), strict=True))
        return (values * values.new_tensor([self.weights[term] for term in TERMS])).sum()

    def _list_classes(self, labels: Tensor) -> Tensor:
        """Return which classes each image holds, bool, (N, C)."""
        ignored = labels == self.ignore_index
        held = torch.zeros(len(labels), self.num_classes + 1, dtype=torch.bool, device=labels.device)
        outside = ~ignored & ((labels < 0) | (labels >= self.num_classes))
        ids = labels.masked_fill(ignored | outside, self.num_classes)
        held.scatter_(1, ids.flatten(1), True)
        bad, most = torch.stack([outside.sum(), held[:, :-1].sum(1).max()]).tolist()
        if bad:
            found, allowed = torch.unique(labels[outside])[:5].tolist(), f"0..{self.num_classes - 1}"
            raise InputError(
                f"labels: {bad} pixels are outside the classes",
                found=found,
                allowed=f"{allowed}, or {self.ignore_index} for ignored pixels",
            )
        if most > self.num_queries:
            raise InputError(
                "model.config.num_queries: an image holds more classes than there are queries",
                found=f"{most} classes, {self.num_queries} queries",
                fix=f"set it to {most} or more",
            )
        return held[:, :-1]

    def _sum_image(self, queries: QueryOutput, label: Tensor, index: int) -> Tensor:
        """Return the three terms of one image, summed over masks (or weights of queries) and layers, (3,)."""
        layers = [(logits[index].float(), masks[index].float()) for logits, masks in queries.layers]
        ids = torch.arange(self.num_classes, device=label.device)
        shown = label[label != self.ignore_index]
        classes = ids[torch.zeros_like(ids, dtype=torch.bool).scatter_(0, shown, True)]
        if not len(classes):
            return sum(part.sum() * 0.0 for layer in layers for part in layer).expand(3)  # type: ignore[union-attr]
        masks = (label == classes[:, None, None]).float()
        targets = Targets(classes, masks, (label == self.ignore_index).float())
        generator = torch.Generator(label.device).manual_seed(_hash_label(label) ^ self.key)
        return torch.stack([self._sum_layer(*layer, targets, generator) for layer in layers]).sum(0)

    def _sum_layer(self, logits: Tensor, masks: Tensor, targets: Targets, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            mask_cost, dice_cost = self.masks.compare_all(masks, targets, generator)
            cost = self.costs["mask"] * mask_cost + self.costs["dice"] * dice_cost
            cost -= self.costs["cross_entropy"] * logits.softmax(-1)[:, targets.classes]
            most = torch.finfo(cost.dtype).max
            cost = cost.nan_to_num(nan=most, posinf=most, neginf=most)
            query, target = (torch.as_tensor(part) for part in linear_sum_assignment(cost.cpu()))
        query, target = query.to(logits.device), target.to(logits.device)
        wanted = torch.full((len(logits),), self.num_classes, device=logits.device)
        wanted[query] = targets.classes[target]
        chosen = F.cross_entropy(logits, wanted, self.class_weights, reduction="sum")
        mask, dice = self.masks.compare_pairs(masks[query], targets, target, generator)
        return torch.stack([chosen, mask, dice])


class _PointMasks:
    """Masks compared at points, most of them where a prediction is in doubt.

    Reference:
        Kirillov et al., PointRend, 2020, section 4.1; Cheng et al., Masked-attention Mask Transformer, 2022.
    """

    def __init__(self, count: int, oversampling: float, uncertain_share: float) -> None:
        self.count, self.drawn = count, int(count * oversampling)
        self.uncertain = int(count * uncertain_share)

    def compare_all(self, masks: Tensor, targets: Targets, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the mask cost and the dice cost of every query, (Q, h, w), with every target: (Q, n) each."""
        points = torch.rand(1, self.count, 2, device=masks.device, generator=generator)
        known = _sample(targets.ignored[None], points)[0] == 0
        points = points[:, known]
        predicted, wanted = (_sample(grids, points) for grids in (masks, targets.masks))
        return pair_wise_sigmoid_cross_entropy_loss(predicted, wanted), pair_wise_dice_loss(predicted, wanted)

    def compare_pairs(
        self, masks: Tensor, targets: Targets, order: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mask term and the dice term, summed over the pairs of masks (n, h, w) and targets."""
        with torch.no_grad():
            points = self._draw_points(masks.detach(), generator)
            wanted = _sample(targets.masks[order], points)
            known = (_sample(targets.ignored.expand(len(order), -1, -1), points) == 0).float()
        predicted = _sample(masks, points)
        losses = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none")
        return _average(losses, known), _sum_dice(predicted.sigmoid(), wanted, known)

    def _draw_points(self, masks: Tensor, generator: torch.Generator) -> Tensor:
        """Return points in [0, 1] x [0, 1], (n, P, 2), a share of them the least certain of many."""
        count = len(masks)
        drawn = torch.rand(count, self.drawn, 2, device=masks.device, generator=generator)
        certainty = _sample(masks, drawn).abs()
        nearest = certainty.topk(self.uncertain, dim=1, largest=False).indices
        chosen = drawn.gather(1, nearest[..., None].expand(-1, -1, 2))
        rest = self.count - self.uncertain
        others = torch.rand(count, rest, 2, device=masks.device, generator=generator)
        return torch.cat([chosen, others], 1)


class _DenseMasks:
    """Masks compared at every pixel, by the focal loss.

    Reference:
        Cheng, Schwing, Kirillov, Per-Pixel Classification is Not All You Need, 2021, section 3.
    """

    def compare_all(self, masks: Tensor, targets: Targets, _: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the mask cost and the dice cost of every query, on the masks' grid: (Q, n) each."""
        size = masks.shape[-2:]
        known = F.interpolate(targets.ignored[None, None], size=size, mode="nearest").flatten() == 0
        wanted = F.interpolate(targets.masks[:, None], size=size, mode="nearest").flatten(1)[:, known]
        predicted = masks.flatten(1)[:, known]
        return pair_wise_sigmoid_focal_loss(predicted, wanted), pair_wise_dice_loss(predicted, wanted)

    def compare_pairs(
        self, masks: Tensor, targets: Targets, order: Tensor, _: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the mask term and the dice term, summed over pairs, at the labels' resolution."""
        wanted = targets.masks[order]
        predicted = F.interpolate(masks[:, None], size=wanted.shape[-2:], mode="bilinear", align_corners=False)
        predicted, wanted = predicted.flatten(1), wanted.flatten(1)
        known = 1 - targets.ignored.flatten().expand(len(wanted), -1)
        probabilities = predicted.sigmoid()
        missed = probabilities * (1 - wanted) + (1 - probabilities) * wanted
        alpha = _FOCAL_ALPHA * wanted + (1 - _FOCAL_ALPHA) * (1 - wanted)
        losses = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none") * missed**2 * alpha
        return _average(losses, known), _sum_dice(probabilities, wanted, known)


def _sample(grids: Tensor, points: Tensor) -> Tensor:
    """Return the values of grids, (n, h, w), at points of each, (n, P, 2), or of all, (1, P, 2): (n, P)."""
    shared = points.expand(len(grids), -1, -1)
    return sample_point(grids[:, None], shared, align_corners=False)[:, 0]


def _average(losses: Tensor, known: Tensor) -> Tensor:
    """Return the sum over masks of the mean over each one's known points, of values (n, P)."""
    return ((losses * known).sum(1) / known.sum(1).clamp_min(1)).sum()


def _sum_dice(probabilities: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Return the sum over masks of 1 - (2 |p t| + 1) / (|p| + |t| + 1) over the known points."""
    probabilities, wanted = probabilities * known, wanted * known
    common = 2 * (probabilities * wanted).sum(1)
    return (1 - (common + 1) / (probabilities.sum(1) + wanted.sum(1) + 1)).sum()


def _hash_label(label: Tensor) -> int:
    """Return a number of 40 bits that another label map most likely has another of."""
    flat = label.flatten().long()
    places = torch.arange(1, len(flat) + 1, device=flat.device)
    return int(((flat + 1) * (places * 2654435761 % 4294967291)).sum()) % (1 << 40)

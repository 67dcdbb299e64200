"""From passes of scores to a label map: the one place where it happens, whoever asks for it.

The order is: mean of all passes -> probabilities -> Gaussian, random field -> thresholds, uncertain pixels -> label map
-> steps on the label map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segplus.classes import IGNORE_INDEX, WIDE_IGNORE_INDEX
from segplus.images import DecodedImage, measure_image, show_as_rgb
from segplus.inference.decisions import build_rule, choose_classes
from segplus.inference.passes import ScorePass, average_passes, cut_chunks, fill_rows
from segplus.inference.postprocessing import apply_label_steps
from segplus.inference.postprocessing.dense_crf import refine_probabilities
from segplus.inference.postprocessing.label_steps import has_label_steps
from segplus.inference.postprocessing.outlines import smooth_rows
from segplus.metrics.labels import choose_label_dtype
from segplus.recipe.postprocess_section import DecisionRecipe

Rows = Iterator[tuple[int, Tensor]]  # first row, probabilities (rows, W, C)
OUTPUTS = ("confidence", "entropy", "probabilities")


@dataclass(frozen=True)
class Prediction:
    """What a prediction holds beside its label map, where it was asked for.

    Args:
        labels: Class ids, shape (H, W); the ignore index where the decision is left open.
        confidence: Probability of the class that was chosen, before any step on the label map, float32, shape (H, W).
        entropy: Of the probabilities, over its largest value, log C: 0 is certain, 1 knows nothing; float32, (H, W).
        probabilities: Of every class, 255 stands for 1, uint8, shape (C, H, W).
    """

    labels: Tensor
    confidence: Tensor | None = None
    entropy: Tensor | None = None
    probabilities: Tensor | None = None


class LabelMaker:
    """Makes label maps by one decision.

    Args:
        decision: Thresholds, what is left uncertain, and the steps that follow.
        class_names: Position is the class id; None for a model whose classes have no names.
        normalize: Gives the probabilities of scores of shape (..., C).
    Raises:
        InputError: If the decision names a class that there is not.
    """

    def __init__(
        self, decision: DecisionRecipe, class_names: Sequence[str] | None, normalize: Callable[[Tensor], Tensor]
    ) -> None:
        self.decision, self.steps = decision, decision.postprocess
        self.class_names, self.normalize = class_names, normalize
        self.rule = build_rule(decision, class_names or ())
        self.changes_labels = has_label_steps(self.steps)
        # The most probable class of the interpolated scores: found without interpolating every class.
        self.is_plain = (
            self.rule.is_argmax
            and not decision.uncertain_below
            and not self.steps.smooth_scores_px
            and not self.steps.crf.iterations
        )

    def make(
        self,
        passes: list[ScorePass],
        image: DecodedImage,
        wanted: Sequence[str] = (),
        device: str | torch.device = "cpu",
    ) -> Prediction:
        """Return the prediction of an image.

        Args:
            passes: Their mean is the score.
            image: The image.
            wanted: Some of `OUTPUTS`.
            device: Where the prediction lies.
        """
        size, classes = measure_image(image), len(passes[0].held)
        made = _allocate(classes, size, device, wanted, self.decision.uncertain_below > 0)
        if self.is_plain and len(passes) == 1 and passes[0].fits_pixels:
            self._fill_from_grid(passes[0], made, size[1])
        else:
            for top, probabilities in self.list_rows(passes, image):
                self._fill(made, top, probabilities)
        labels = self.change_labels(made.pop("labels"), classes)
        return Prediction(labels, **made)

    def list_rows(self, passes: list[ScorePass], image: DecodedImage) -> Rows:
        """Yield the probabilities that the decision is made from, a few rows at a time, (rows, W, C)."""
        size = measure_image(image)
        rows: Rows = ((top, self.normalize(scores)) for top, scores in average_passes(passes, size))
        if self.steps.smooth_scores_px:
            rows = smooth_rows(rows, self.steps.smooth_scores_px, size[0])
        if not self.steps.crf.iterations:
            yield from rows
            return
        whole = torch.cat([chunk for _, chunk in rows]).permute(2, 0, 1).contiguous()
        colors = torch.from_numpy(np.array(show_as_rgb(image))).permute(2, 0, 1)
        refined = refine_probabilities(whole, colors.to(whole.device), self.steps.crf)
        yield 0, refined.permute(1, 2, 0)

    def _fill_from_grid(self, scores: ScorePass, made: dict[str, Tensor], width: int) -> None:
        """Fill in the most probable classes; a score is interpolated for every pixel only where more is wanted."""
        row = top = 0
        further = {name: tensor for name, tensor in made.items() if name != "labels"}
        for chunk in cut_chunks(scores):
            row = fill_rows(made["labels"], row, chunk.find_labels(width))
            for rows in chunk.interpolate(width) if further else ():
                probabilities = self.normalize(rows)
                top = _fill_further(further, top, probabilities, probabilities.amax(-1))

    def _fill(self, made: dict[str, Tensor], top: int, probabilities: Tensor) -> None:
        chosen = choose_classes(probabilities, self.rule)
        confidence = probabilities.gather(-1, chosen[..., None])[..., 0]
        _fill_further(made, top, probabilities, confidence)
        if self.decision.uncertain_below:
            nothing = find_no_class(probabilities.shape[-1])
            chosen = torch.where(confidence < self.decision.uncertain_below, nothing, chosen)
        fill_rows(made["labels"], top, chosen)

    def change_labels(self, labels: Tensor, classes: int) -> Tensor:
        """Return a label map, shape (H, W), after the steps of the decision; `classes` is C."""
        if not self.changes_labels:
            return labels
        names = self.class_names or [str(class_id) for class_id in range(classes)]
        changed = apply_label_steps(labels.cpu().numpy(), self.steps, names)
        return torch.from_numpy(changed).to(labels.device)


def find_no_class(num_classes: int) -> int:
    """Return the label of a pixel without a class: the ignore index of so many classes."""
    return IGNORE_INDEX if num_classes <= IGNORE_INDEX else WIDE_IGNORE_INDEX


def _allocate(
    classes: int, size: tuple[int, int], device: str | torch.device, wanted: Sequence[str], may_be_uncertain: bool
) -> dict[str, Tensor]:
    """Return what is filled in row by row; small results go into one block made before."""
    dtype = choose_label_dtype(classes)
    if may_be_uncertain and classes > IGNORE_INDEX:
        dtype = torch.int32
    made = {"labels": torch.empty(size, dtype=dtype, device=device)}
    made |= {name: torch.empty(size, device=device) for name in ("confidence", "entropy") if name in wanted}
    if "probabilities" in wanted:
        made["probabilities"] = torch.empty(classes, *size, dtype=torch.uint8, device=device)
    return made


def _fill_further(made: dict[str, Tensor], top: int, probabilities: Tensor, confidence: Tensor) -> int:
    """Write what there is beside the labels of some rows; return the row after them."""
    height = next(iter(made.values())).shape[-2]
    bottom = min(top + len(probabilities), height)
    kept = probabilities[: bottom - top]
    if "confidence" in made:
        made["confidence"][top:bottom] = confidence[: bottom - top]
    if "entropy" in made:
        made["entropy"][top:bottom] = torch.special.entr(kept).sum(-1) / math.log(max(2, kept.shape[-1]))
    if "probabilities" in made:
        made["probabilities"][:, top:bottom] = (kept * 255).round_().to(torch.uint8).permute(2, 0, 1)
    return bottom

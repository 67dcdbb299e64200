"""Losses on logits at the model's stride, without a full-resolution logit."""

from segplus.losses.configuration import LOSSES, build_criterion
from segplus.losses.criterion import Criterion

__all__ = ["LOSSES", "Criterion", "build_criterion"]

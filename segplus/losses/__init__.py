"""Losses on logits at the model's stride, without a full-resolution logit."""

from segplus.losses.criterion import LOSSES, Criterion, build_criterion

__all__ = ["LOSSES", "Criterion", "build_criterion"]

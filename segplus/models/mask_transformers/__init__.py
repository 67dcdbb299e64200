"""Mask transformers: models whose queries each answer with a class and a mask."""

from __future__ import annotations

from segplus.models.mask_transformers.class_scores import (
    compute_graph_scores,
    compute_scores,
    is_split,
    iterate_score_rows,
    normalize_scores,
    predict_queries,
)
from segplus.models.mask_transformers.families import count_queries, is_mask_transformer, renew_class_head
from segplus.models.mask_transformers.matching import MatchingLoss
from segplus.models.mask_transformers.queries import expose_queries
from segplus.models.mask_transformers.tasks import save_task_tokenizer

__all__ = [
    "MatchingLoss",
    "compute_graph_scores",
    "compute_scores",
    "count_queries",
    "expose_queries",
    "is_mask_transformer",
    "is_split",
    "iterate_score_rows",
    "normalize_scores",
    "predict_queries",
    "renew_class_head",
    "save_task_tokenizer",
]

"""The network and the image processor that is saved with it."""

from __future__ import annotations

from segplus.models.auxiliary import AuxiliaryLogits
from segplus.models.checks import check_input_size
from segplus.models.image_processor import load_image_processor
from segplus.models.loading import LoadedModel, load_model, load_segmentation_checkpoint
from segplus.models.parts import find_batch_norms, freeze_encoder, is_head_parameter

__all__ = [
    "AuxiliaryLogits",
    "LoadedModel",
    "check_input_size",
    "find_batch_norms",
    "freeze_encoder",
    "is_head_parameter",
    "load_image_processor",
    "load_model",
    "load_segmentation_checkpoint",
]

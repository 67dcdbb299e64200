"""The network and the image processor that is saved with it."""

from __future__ import annotations

from segplus.models.auto import LoadedModel, load_model, load_segmentation_checkpoint
from segplus.models.auxiliary import expose_auxiliary_logits
from segplus.models.channels import count_channels, widen_model
from segplus.models.checks import check_input_size
from segplus.models.encoder_layers import number_layers
from segplus.models.folded_head import fold_decode_head
from segplus.models.folded_norms import fold_batch_norms, prepare_to_serve
from segplus.models.freezing import (
    find_batch_norms,
    find_parameters,
    find_still_modules,
    freeze_encoder,
    freeze_modules,
    freeze_unused_parameters,
    is_head_parameter,
    lay_out_channels_last,
)
from segplus.models.image_processor import find_image_range, load_image_processor
from segplus.models.registration import ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "LoadedModel",
    "check_input_size",
    "count_channels",
    "expose_auxiliary_logits",
    "find_batch_norms",
    "find_image_range",
    "find_parameters",
    "find_still_modules",
    "fold_batch_norms",
    "fold_decode_head",
    "freeze_encoder",
    "freeze_modules",
    "freeze_unused_parameters",
    "is_head_parameter",
    "lay_out_channels_last",
    "load_image_processor",
    "load_model",
    "load_segmentation_checkpoint",
    "number_layers",
    "prepare_to_serve",
    "widen_model",
]

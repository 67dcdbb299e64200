"""The architectures of segplus' own, made known to the Auto classes when segplus.models is imported."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    SegformerConfig,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from segplus.models.architecture import SegmentationNetwork
from segplus.models.encoder_head import EncoderHeadModel
from segplus.models.encoder_head_config import EncoderHeadConfig

ARCHITECTURES: tuple[tuple[type[PreTrainedConfig], type[SegmentationNetwork]], ...] = (
    (EncoderHeadConfig, EncoderHeadModel),
)


def register_architectures() -> None:
    """Let AutoConfig, AutoModel, AutoModelForSemanticSegmentation and AutoImageProcessor know every architecture."""
    kinds = IMAGE_PROCESSOR_MAPPING[SegformerConfig]
    for config, network in ARCHITECTURES:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, network, exist_ok=True)
        AutoModelForSemanticSegmentation.register(config, network, exist_ok=True)
        # SegFormer's resizes, rescales and normalises, and knows how the pipeline reads label maps.
        AutoImageProcessor.register(config, image_processor_classes=dict(kinds), exist_ok=True)

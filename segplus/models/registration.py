"""segplus' own architectures, made known to the Auto classes where `segplus.models` is imported."""

from __future__ import annotations

from typing import cast

from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, PreTrainedConfig, SegformerConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from segplus.models.architecture import SegmentationNetwork
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.loading import quiet_transformers

ARCHITECTURES: tuple[type[SegmentationNetwork], ...] = (EncoderHeadForSemanticSegmentation,)


def register_architectures() -> None:
    """Register every architecture's config, model and image processor."""
    with quiet_transformers():  # without torchvision the look-up itself warns
        kinds = IMAGE_PROCESSOR_MAPPING[SegformerConfig]
    for architecture in ARCHITECTURES:
        config = cast("type[PreTrainedConfig]", architecture.config_class)
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto in (AutoModel, AutoModelForSemanticSegmentation):
            auto.register(config, architecture, exist_ok=True)
        # SegFormer's resizes, rescales and normalises, and has a kind for each backend.
        IMAGE_PROCESSOR_MAPPING.register(config, kinds, exist_ok=True)


register_architectures()

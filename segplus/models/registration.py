"""segplus' own architectures, made known to the Auto classes where `segplus.models` is imported."""

from __future__ import annotations

from typing import cast

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    SegformerImageProcessorPil,
)
from transformers.utils import is_torchvision_available

from segplus.models.architecture import SegmentationNetwork
from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.networks.bisenet import BiSeNetForSemanticSegmentation
from segplus.models.networks.bisenetv2 import BiSeNetV2ForSemanticSegmentation
from segplus.models.networks.ddrnet import DDRNetForSemanticSegmentation
from segplus.models.networks.enet import ENetForSemanticSegmentation
from segplus.models.networks.espnetv2 import ESPNetV2ForSemanticSegmentation
from segplus.models.networks.pidnet import PIDNetForSemanticSegmentation
from segplus.models.networks.segnet import SegNetForSemanticSegmentation
from segplus.models.networks.unet import UNetForSemanticSegmentation

ARCHITECTURES: tuple[type[SegmentationNetwork], ...] = (
    BiSeNetForSemanticSegmentation,
    BiSeNetV2ForSemanticSegmentation,
    DDRNetForSemanticSegmentation,
    EncoderHeadForSemanticSegmentation,
    ENetForSemanticSegmentation,
    ESPNetV2ForSemanticSegmentation,
    PIDNetForSemanticSegmentation,
    SegNetForSemanticSegmentation,
    UNetForSemanticSegmentation,
)


def register_architectures() -> None:
    """Register every architecture's config, model and image processor."""
    # SegFormer's image processor resizes, rescales and normalises, and no more.
    processors: dict[str, type] = {"pil": SegformerImageProcessorPil}
    if is_torchvision_available():
        from transformers import SegformerImageProcessor

        processors["torchvision"] = SegformerImageProcessor
    for architecture in ARCHITECTURES:
        config = cast("type[PreTrainedConfig]", architecture.config_class)
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto in (AutoModel, AutoModelForSemanticSegmentation):
            auto.register(config, architecture, exist_ok=True)
        AutoImageProcessor.register(config, image_processor_classes=processors, exist_ok=True)


register_architectures()

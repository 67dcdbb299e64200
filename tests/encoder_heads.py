"""Tiny random models of every head and of five families of encoders."""

from __future__ import annotations

from typing import Any

import torch

from segplus.models.encoder_head import EncoderHeadForSemanticSegmentation
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.heads import HEADS

TINY_ENCODERS: dict[str, dict[str, Any]] = {
    "resnet": {
        "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 2],
        "layer_type": "basic",
    },
    "swin": {
        "model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4,
        "image_size": 64, "drop_path_rate": 0.0,
    },
    "convnext": {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 64},
    "mobilenet_v2": {"model_type": "mobilenet_v2", "depth_multiplier": 0.25, "tf_padding": False},
    "dinov2": {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 56,
        "patch_size": 14,
    },
}  # fmt: skip
TINY_HEADS: dict[str, dict[str, Any]] = {
    "deeplabv3": {"channels": 8},
    "deeplabv3plus": {"channels": 8, "low_channels": 4},
    "fcn": {"channels": 8},
    "fcn_fusion": {},
    "fpn": {"pyramid_channels": 8, "channels": 8, "groups": 2},
    "linear_probe": {},
    "lraspp": {"channels": 8},
    "mlp": {"channels": 8},
    "pspnet": {"channels": 8},
    "segmenter_linear": {},
    "segmenter_mask": {"num_layers": 1},
    "setr_mla": {"channels": 8},
    "setr_naive": {"channels": 8},
    "setr_pup": {"channels": 8},
    "unet": {"channels": [16, 8, 8, 8, 8]},
    "upernet": {"channels": 8},
}
assert set(TINY_HEADS) == set(HEADS)
NUM_LABELS = 3


def build_tiny_model(head: str, encoder: str, **values: Any) -> EncoderHeadForSemanticSegmentation:
    """Return the same random weights for the same names."""
    torch.manual_seed(0)
    head_config = {**TINY_HEADS[head], **values.pop("head_config", {})}
    backbone_config = {**TINY_ENCODERS[encoder], **values.pop("backbone_values", {})}
    config = EncoderHeadConfig(
        backbone_config=backbone_config, head=head, head_config=head_config, num_labels=NUM_LABELS, **values
    )
    return EncoderHeadForSemanticSegmentation(config)

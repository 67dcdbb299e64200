"""Mask transformers small enough for tests, one of each family, and scenes for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForUniversalSegmentation, PreTrainedModel

SIDE_PX = 64
_SWIN = {
    "model_type": "swin",
    "image_size": SIDE_PX,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 1, 1],
    "window_size": 4,
    "drop_path_rate": 0.0,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE_PX,
    "patch_size": 8,
    "num_blocks": 1,
    "num_queries": 8,
    "num_upscale_blocks": 1,
    "train_num_points": 64,
}
_DECODER = {
    "backbone_config": _SWIN,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "dim_feedforward": 32,
    "num_queries": 8,
    "dropout": 0.0,
    "train_num_points": 64,
}
_DETR = {
    "model_type": "detr",
    "num_queries": 8,
    "encoder_layers": 1,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_layers": 2,
    "decoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
    "d_model": 32,
    "dropout": 0.0,
}
TINY: dict[str, dict[str, Any]] = {
    "eomt": _VIT,
    "eomt_dinov3": {**_VIT, "intermediate_size": 32},
    "mask2former": {**_DECODER, "feature_size": 32, "mask_feature_size": 32},
    "maskformer": {
        "backbone_config": _SWIN,
        "decoder_config": _DETR,
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
    },
    "oneformer": {
        **_DECODER,
        "conv_dim": 32,
        "mask_dim": 32,
        "query_dec_layers": 1,
        "text_encoder_width": 64,
        "text_encoder_num_layers": 1,
    },
}
# Heads whose first weights are so small that all queries would say the same.
_LOUD = ("class_predictor", "class_embed", "mask_embed", "mask_head.fc3")
FAMILIES = sorted(TINY)
SPLITTING = ("eomt", "eomt_dinov3")


def build_model(model_type: str, num_classes: int = 5, *, loudness: float = 60.0, **values: Any) -> PreTrainedModel:
    """Return a model with random weights whose queries disagree, so that a label map has several classes.

    Args:
        model_type: One of `FAMILIES`.
        num_classes: Without "no object".
        loudness: Factor of the last weights; the rounding of float32 grows with it.
        values: Of the config.
    """
    torch.manual_seed(0)
    labels = {"id2label": {index: f"class {index}" for index in range(num_classes)}}
    config = AutoConfig.for_model(model_type, **{**TINY[model_type], **labels, **values})
    model = AutoModelForUniversalSegmentation.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in _LOUD) and parameter.ndim > 1:
                parameter.mul_(loudness)
    return model.eval()


def draw_labels(count: int, num_classes: int, side: int = SIDE_PX, seed: int = 0) -> Tensor:
    """Return label maps of 8 x 8 coloured squares, int64, (count, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randint(0, num_classes, (count, 8, 8), generator=generator)
    return squares.repeat_interleave(side // 8, 1).repeat_interleave(side // 8, 2)

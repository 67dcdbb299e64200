"""The encoder of a mask transformer from a checkpoint of its backbone alone."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from segplus.errors import InputError
from segplus.models.mask_transformers.families import find_family
from segplus.models.transfer import Transfer

# The values of a ViT's config that EoMT's must share.
_VIT_VALUES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "patch_size",
    "num_channels",
    "num_register_tokens",
    "mlp_ratio",
    "layerscale_value",
    "use_swiglu_ffn",
    "intermediate_size",
    "query_bias",
    "key_bias",
    "value_bias",
    "proj_bias",
    "mlp_bias",
    "use_gated_mlp",
    "rope_parameters",
    "pos_embed_rescale",
)
_VITS = {"eomt": ("dinov2", "dinov2_with_registers"), "eomt_dinov3": ("dinov3_vit",)}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


def read_encoder_values(config: PreTrainedConfig, source: str) -> dict[str, Any]:
    """Return the values of a mask transformer's config that make its encoder the backbone of a checkpoint.

    Args:
        config: Of the mask transformer.
        source: Hub id or folder of the backbone.
    Raises:
        InputError: If the model has no encoder of that type.
    """
    given = AutoConfig.from_pretrained(source)
    if not find_family(config).splits_images:
        return {"backbone_config": {**given.to_dict(), "out_features": _STAGES, "out_indices": None}}
    allowed = _VITS[config.model_type]
    if given.model_type not in allowed:
        raise InputError(
            f"model.config.backbone {source}: no encoder of {config.model_type}",
            found=given.model_type,
            allowed=", ".join(allowed),
        )
    stated, known = given.to_dict(), config.to_dict()
    values = {key: stated[key] for key in _VIT_VALUES if key in stated and key in known}
    return {"num_register_tokens": 0, **values}


def load_backbone_weights(model: PreTrainedModel, source: str) -> Transfer:
    """Load the encoder's weights from a checkpoint of the backbone, in place.

    Args:
        model: A mask transformer, on the CPU, whose config has the values of `read_encoder_values`.
        source: Hub id or folder of the backbone.
    Raises:
        InputError: If no tensor of it fits.
    """
    given = AutoModel.from_pretrained(source, dtype=torch.float32).state_dict()
    if find_family(model.config).splits_images:
        encoder, weights = model, _rename_vit(model, given)
    else:
        encoder = model.model.pixel_level_module.encoder
        prefix = next((name for name, _ in encoder.named_children() if hasattr(encoder, name)), "")
        weights = _match_prefix(encoder.state_dict(), given, prefix)
    own = encoder.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if not set(fitting) & {name for name, _ in encoder.named_parameters()}:
        raise InputError(
            f"model.config.backbone {source}: no weight of it fits the encoder",
            found=f"{len(given)} tensors without a counterpart",
            fix="check that backbone and backbone_config name the same architecture and sizes",
        )
    encoder.load_state_dict(fitting, strict=False)
    start = find_family(model.config).encoder[0] if encoder is not model else ""
    ours = [name for name in model.state_dict() if name.startswith(find_family(model.config).encoder)]
    loaded = {start + name for name in fitting}
    new, left = (name for name in ours if name not in loaded), (name for name in weights if name not in fitting)
    return Transfer(source, tuple(sorted(loaded)), tuple(new), tuple(left))


def _match_prefix(own: dict[str, Tensor], given: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return tensors by the encoder's names, which may put the name of the model inside before them."""
    return {name if name in own else f"{prefix}.{name}": value for name, value in given.items()}


def _rename_vit(model: PreTrainedModel, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a ViT's tensors by EoMT's names, position embeddings resized to its grid."""
    weights = {}
    for name, value in given.items():
        renamed = re.sub(r"^(encoder|model)\.layer\.", "layers.", name)
        renamed = re.sub(r"^norm\.", "layernorm.", renamed)
        if model.config.model_type == "eomt":
            renamed = renamed.replace("attention.o_proj", "attention.out_proj")
        weights[renamed] = value
    positions = weights.pop("embeddings.position_embeddings", None)  # (1, 1 + n, D), the first for the class token
    if positions is not None:
        weights["embeddings.cls_token"] = weights["embeddings.cls_token"] + positions[:, :1]
        side = round((positions.shape[1] - 1) ** 0.5)
        grid = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, D, side, side)
        resized = F.interpolate(grid, size=model.grid_size, mode="bicubic", align_corners=False)
        weights["embeddings.position_embeddings.weight"] = resized[0].flatten(1).t().contiguous()
    return weights

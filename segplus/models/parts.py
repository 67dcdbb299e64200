"""Which parameters are the backbone's and which the head's; what can be frozen."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from segplus.errors import InputError


def is_head_parameter(model: PreTrainedModel, name: str) -> bool:
    """Tell whether a parameter belongs to anything that is not the backbone: neck, decode head, auxiliary head."""
    prefix = model.base_model_prefix
    backbone = prefix if prefix in dict(model.named_children()) else "backbone"
    return not name.startswith(f"{backbone}.")


def freeze_encoder(model: PreTrainedModel) -> int:
    """Stop gradients of the backbone; return the number of frozen parameters.

    Raises:
        InputError: If the model has no backbone apart from its head.
    """
    frozen = 0
    for name, parameter in model.named_parameters():
        if not is_head_parameter(model, name):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    if frozen == 0:
        raise InputError(
            f"model.freeze_encoder: {type(model).__name__} has no backbone of its own", fix="set it to false"
        )
    return frozen


def find_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return every BatchNorm layer; in eval mode its statistics stay as they are while scale and shift still learn."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]

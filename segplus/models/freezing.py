"""Which parameters are the backbone's and which the head's; what can be frozen."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from segplus.errors import InputError
from segplus.models.architecture import SegmentationNetwork
from segplus.models.channels import count_channels
from segplus.models.mask_transformers.class_scores import predict_queries
from segplus.models.mask_transformers.families import find_family, is_mask_transformer


def is_head_parameter(model: PreTrainedModel, name: str) -> bool:
    """Tell whether a parameter belongs to anything that is not the backbone: neck, decode head, auxiliary head."""
    if is_mask_transformer(model):
        return not name.startswith(find_family(model.config).encoder)
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


def freeze_unused_parameters(model: PreTrainedModel, size_px: tuple[int, int]) -> list[str]:
    """Stop gradients of parameters that no output depends on, and return their names.

    DistributedDataParallel waits for every gradient, and DPT's neck has weights that it never uses.

    Args:
        model: On the CPU.
        size_px: Height and width of an input that the model takes.
    """
    outputs: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
        for name, module in model.named_children()
        if name == "auxiliary_head"
    ]
    was_training = model.training
    model.eval()  # one image suffices where BatchNorm needs no statistics
    # Of an architecture of our own, auxiliary heads run where the network itself, not its layers, is in training.
    model.training = isinstance(model, SegmentationNetwork)
    pixel_values = torch.zeros(1, count_channels(model.config), *size_px)
    if is_mask_transformer(model):
        outputs += [logits for layer in predict_queries(model, pixel_values).queries.layers for logits in layer]
    else:
        given = model(pixel_values=pixel_values)
        outputs += [given.logits, *(given.get("auxiliary_logits") or ())]
        outputs += [given["boundary_logits"]] if "boundary_logits" in given else []
    torch.stack([output.sum() for output in outputs]).sum().backward()
    for hook in hooks:
        hook.remove()
    model.train(was_training)
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    model.zero_grad(set_to_none=True)
    return unused


def lay_out_channels_last(model: PreTrainedModel) -> bool:
    """Lay out the weights of a convolutional backbone channels last, which oneDNN trains faster; return whether it did.

    SegFormer and DPT, whose convolutions are few, became slower.
    """
    is_convolutional = any(
        isinstance(module, _BatchNorm) and not is_head_parameter(model, f"{name}.weight")
        for name, module in model.named_modules()
    )
    if is_convolutional:
        model.to(memory_format=torch.channels_last)
    return is_convolutional


def find_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return every BatchNorm layer; in eval mode its statistics stay as they are while scale and shift still learn."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]

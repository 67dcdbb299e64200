"""Which parameters are the backbone's and which the head's; what can be frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from segplus.errors import InputError, suggest
from segplus.models.architecture import SegmentationNetwork
from segplus.models.channels import count_channels
from segplus.models.encoder_layers import name_encoder, number_layers
from segplus.models.mask_transformers.class_scores import predict_queries
from segplus.models.mask_transformers.families import find_family, is_mask_transformer

_ENCODER, _STEM = "encoder", "encoder.stem"


def is_head_parameter(model: PreTrainedModel, name: str) -> bool:
    """Tell whether a parameter belongs to anything that is not the backbone: neck, decode head, auxiliary head."""
    if is_mask_transformer(model):
        return not name.startswith(find_family(model.config).encoder)
    return not name.startswith(f"{name_encoder(model)}.")


def find_parameters(model: PreTrainedModel, names: Iterable[str], key: str) -> list[str]:
    """Return the names of the parameters of some modules, in the model's order.

    Args:
        model: The model.
        names: Of modules, as `named_modules` has them. `encoder` is the model's encoder whatever it is called there,
            `encoder.stages.0` a module inside of it or of its own `encoder`, `encoder.stem` what stands before its
            first layer (layer 0 of `number_layers`) where it has no module of that name.
        key: The recipe's key, for the message.
    Raises:
        InputError: If the model has no such module, or nothing in it can learn.
    """
    parameters = [name for name, _ in model.named_parameters()]
    encoder, depths = name_encoder(model), number_layers(model)
    found: set[str] = set()
    for name in names:
        starts = [f"{name}."]
        if name.split(".")[0] == _ENCODER:  # many encoders keep their layers in a module that is called so, too
            starts += [f"{inside}{name.removeprefix(_ENCODER)}." for inside in (encoder, f"{encoder}.{_ENCODER}")]
        own = [one for one in parameters if one.startswith(tuple(starts))]
        if name == _STEM:
            own = own or [one for one, depth in depths.items() if depth == 0]
        if not own and name == _ENCODER:
            raise InputError(f"{key}: {type(model).__name__} has no encoder of its own", fix="name its modules")
        if not own:
            raise InputError(f"{key}: no module '{name}' in {type(model).__name__}", fix=_suggest_module(model, name))
        found.update(own)
    return [name for name in parameters if name in found]


def _suggest_module(model: PreTrainedModel, name: str) -> str:
    """Name the module that is meant, in as many words as were given: a model has hundreds."""
    encoder, length = f"{name_encoder(model)}.", max(name.count("."), 1)
    modules = [one for one, module in model.named_modules() if one and any(True for _ in module.parameters())]
    inside = [one.removeprefix(encoder).removeprefix(f"{_ENCODER}.") for one in modules if one.startswith(encoder)]
    shown = [*(f"{_ENCODER}.{one}" for one in inside), *(one for one in modules if not one.startswith(encoder))]
    return suggest(name, [_ENCODER, _STEM, *(one for one in shown if one.count(".") <= length)])


def freeze_modules(model: PreTrainedModel, names: Sequence[str], key: str = "model.freeze") -> int:
    """Stop gradients of modules by their names; return the number of frozen parameters.

    Raises:
        InputError: As `find_parameters`, or if nothing is left that learns.
    """
    frozen = [model.get_parameter(name) for name in find_parameters(model, names, key)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"{key}: nothing of {type(model).__name__} is left to learn", found=", ".join(names))
    return sum(parameter.numel() for parameter in frozen)


def freeze_encoder(model: PreTrainedModel) -> int:
    """Stop gradients of the encoder; return the number of frozen parameters.

    Raises:
        InputError: If the model has no encoder apart from its head.
    """
    return freeze_modules(model, [_ENCODER])


def find_still_modules(model: nn.Module, *, freeze_batch_norm: bool) -> list[nn.Module]:
    """Return the modules that stay in eval mode in training.

    A module that does not learn keeps its statistics and drops nothing.

    Args:
        model: The model, with what is frozen.
        freeze_batch_norm: Whether every BatchNorm keeps its statistics.
    """
    still: list[nn.Module] = [*find_batch_norms(model)] if freeze_batch_norm else []
    return still + _list_frozen(model)


def _list_frozen(module: nn.Module) -> list[nn.Module]:
    """List the outermost modules inside of a module of which no parameter learns."""
    found: list[nn.Module] = []
    for child in module.children():
        learns = [parameter.requires_grad for parameter in child.parameters()]
        if learns:
            found += _list_frozen(child) if any(learns) else [child]
    return found


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

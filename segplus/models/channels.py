"""Models that take another number of channels than the checkpoint they start from."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from segplus.errors import InputError

_NARROW = (1, 3)  # grey and colour: what a kernel for other channels can be made of


def count_channels(config: PreTrainedConfig) -> int:
    """Return the number of input channels of a model, by its backbone's config or its own; 3 where neither says."""
    values = config.to_dict()
    for section in (values.get("backbone_config"), values):
        if isinstance(section, dict) and section.get("num_channels") is not None:
            return int(section["num_channels"])
    return 3


def set_channels(config: PreTrainedConfig, channels: int) -> PreTrainedConfig:
    """Return a copy of the config with another number of input channels, for the backbone's own config as well.

    Raises:
        InputError: If the config has no such number.
    """
    values: dict[str, Any] = config.to_dict()
    sections = [values, values.get("backbone_config")]
    counted = [section for section in sections if isinstance(section, dict) and "num_channels" in section]
    if not counted:
        raise InputError(
            f"data.channels: the config of {config.model_type} has no num_channels", found=channels, allowed=3
        )
    for section in counted:
        section["num_channels"] = channels
    # from_dict, not setattr: values that depend on each other are checked together, as in a file.
    return type(config).from_dict(values)


def widen_kernel(kernel: torch.Tensor, channels: int) -> torch.Tensor:
    """Return the kernel of a convolution that reads another number of channels.

    For one channel the given ones are summed: grey then gives what the same grey in every channel gave. For more, the
    given ones are repeated in turn (red, green, blue, red, ...) and scaled by old / new, so that activations keep their
    size: channels that repeat the old channels a whole number of times give what the old channels gave.

    Args:
        kernel: Weight of the convolution, shape (out, old, h, w).
        channels: Number of channels of the new one.
    Returns:
        Weight, shape (out, channels, h, w).
    Reference:
        Wightman, PyTorch Image Models (timm), the convention of `adapt_input_conv` for `in_chans`.
        https://github.com/huggingface/pytorch-image-models
    """
    given = kernel.shape[1]
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, torch.arange(channels) % given] * (given / channels)


def widen_model(model: PreTrainedModel, channels: int, **options: Any) -> PreTrainedModel:
    """Return the model with as many input channels, its weights kept and its first convolution widened.

    Which weights read the input is asked of the architecture: the same config with another `num_channels` gives them
    another shape. So nothing is guessed from names, several such convolutions are all widened, and the folder that is
    saved is loaded by transformers alone.

    Args:
        model: A pretrained model, on the CPU.
        channels: Number of channels that it shall take; the same number returns the model as it is.
        options: What the model was made with beside its config, such as `attn_implementation`.
    Raises:
        InputError: If the model takes neither one channel nor three, its config does not say how many, or what reads
            them is no plain convolution.
    """
    given = count_channels(model.config)
    if given == channels:
        return model
    network = type(model).__name__
    if given not in _NARROW:
        raise InputError(
            f"data.channels: the first convolution of {network} cannot be widened",
            found=f"a model of {given} channels, images of {channels}",
            allowed="models of 1 or 3 channels, or of as many as the images have",
            fix="start from another checkpoint, or choose the channels that fit the model",
        )
    config = set_channels(model.config, channels)
    wide = type(model)._from_config(config, dtype=torch.float32, **options)
    weights = model.state_dict()
    changed = [name for name, new in wide.state_dict().items() if new.shape != weights[name].shape]
    for name in changed:
        new = wide.state_dict()[name]
        widened = widen_kernel(weights[name], channels) if _reads(weights[name], given) else None
        if widened is None or widened.shape != new.shape:
            raise InputError(
                f"data.channels: the first convolution of {network} cannot be widened",
                found=f"{name} has shape {tuple(weights[name].shape)} for {given} channels, "
                f"{tuple(new.shape)} for {channels}",
                allowed=given,
            )
        weights[name] = widened
    if not changed:
        raise InputError(f"data.channels: {network} takes {given} channels, whatever its config says", found=channels)
    wide.load_state_dict(weights)
    return wide


def _reads(weight: torch.Tensor, channels: int) -> bool:
    return weight.ndim == 4 and weight.shape[1] == channels

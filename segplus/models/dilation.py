"""Output stride: the last stages of a convolutional encoder dilated instead of strided."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.efficientnet.modeling_efficientnet import EfficientNetDepthwiseLayer

OUTPUT_STRIDES = (8, 16, 32)
# Where an encoder's sections lie, and the stride before the first.
_SECTIONS = {
    "efficientnet": ("encoder.blocks", 2),
    "hgnet_v2": ("encoder.stages", 4),
    "resnet": ("encoder.stages", 4),
    "rt_detr_resnet": ("encoder.stages", 4),
}
# Encoders whose own config says where to stop striding.
_OWN_STRIDE = ("bit", "mobilenet_v2", "mobilevit", "timm_backbone")


def can_dilate(model_type: str) -> bool:
    """Tell whether an encoder can have another output stride than its own."""
    return model_type in _SECTIONS or model_type in _OWN_STRIDE


def list_dilatable() -> list[str]:
    """List the encoders that can have another output stride than their own."""
    return sorted([*_SECTIONS, *_OWN_STRIDE])


def set_own_stride(config: PreTrainedConfig, output_stride: int) -> bool:
    """Say the output stride in the encoder's own config; return whether it knows one."""
    if config.model_type not in _OWN_STRIDE:
        return False
    # Not every model of timm knows the word; those that do have 32 by themselves.
    is_default = config.model_type == "timm_backbone" and output_stride == 32
    config.output_stride = None if is_default else output_stride
    return True


def dilate_encoder(encoder: PreTrainedModel, output_stride: int) -> None:
    """Replace strides by dilation from where the output stride is reached; the weights stay.

    The layer that lost its stride keeps the dilation before it, as in the authors' and the common ports; all layers
    after it are dilated twice as much.

    Reference:
        Chen, Papandreou, Kokkinos, Murphy, Yuille, DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
        Atrous Convolution, and Fully Connected CRFs, 2016, section 3.1. https://arxiv.org/abs/1606.00915
    """
    section_name, stride = _SECTIONS[encoder.config.model_type]
    dilation = 1
    for section in encoder.get_submodule(section_name).children():
        if not any(True for _ in _list_strided(section)):
            _dilate_section(section, dilation, dilation)
        elif stride < output_stride:
            stride *= 2
        else:
            _dilate_section(section, dilation, 2 * dilation)
            dilation *= 2


def _dilate_section(section: nn.Module, before: int, after: int) -> None:
    strided = set(_list_strided(section))
    spatial = [module for module in section.modules() if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1]
    # Where a 1x1 convolution strides, the section's first spatial one takes its part.
    turn = next((module for module in spatial if module in strided), spatial[0])
    for module in spatial[: spatial.index(turn) + 1]:
        _set_dilation(module, before)
    for module in spatial[spatial.index(turn) + 1 :]:
        _set_dilation(module, after)
    for name, module in list(section.named_modules()):
        if isinstance(module, nn.AvgPool2d) and module in strided:
            section.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, EfficientNetDepthwiseLayer):
            module.stride = 1  # it pads by itself where it strides


def _set_dilation(module: nn.Conv2d, dilation: int) -> None:
    module.dilation = (dilation, dilation)
    if isinstance(module.padding, str):
        module.padding = "same"
    else:
        module.padding = tuple(dilation * (side // 2) for side in module.kernel_size)


def _list_strided(section: nn.Module) -> Iterator[nn.Module]:
    for module in section.modules():
        strides = module.stride if isinstance(module, nn.Conv2d | nn.AvgPool2d) else 1
        if strides not in (1, (1, 1)):
            yield module

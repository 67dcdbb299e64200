"""BatchNorm folded into the convolutions before it: the same numbers but for rounding, a layer less each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import PreTrainedModel

from segplus.models.channels import count_channels
from segplus.models.checks import find_accepted_size
from segplus.models.freezing import find_batch_norms, lay_out_channels_last

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass
class _Trace:
    """What a pass through the network showed: the module that made each node of autograd's graph, and their runs."""

    makers: dict[Any, str] = field(default_factory=dict)
    runs: Counter[str] = field(default_factory=Counter)


def prepare_to_serve(model: PreTrainedModel) -> int:
    """Make a model that only predicts from now on faster, in place; return how many BatchNorm layers were folded.

    On a CPU a convolutional backbone is laid out channels last, too. Logits differ by rounding alone.

    Args:
        model: Where it will run, in evaluation mode.
    """
    size_px = find_accepted_size(model, (64, 64)) if find_batch_norms(model) else None
    if model.device.type == "cpu":
        lay_out_channels_last(model)
    return 0 if size_px is None else fold_batch_norms(model, size_px)


def fold_batch_norms(model: PreTrainedModel, size_px: tuple[int, int] = (64, 64)) -> int:
    """Fold every BatchNorm that alone reads a convolution into it, in place; return how many.

    Which these are is not guessed from names: one pass on zeros records autograd's graph, and a pair is folded where
    the BatchNorm's only input is the convolution's output, nothing else uses that, and both run once.

    Args:
        model: In evaluation mode, for prediction alone: a folded model learns other statistics no more.
        size_px: Height and width of an input that the model takes.
    Returns:
        The number of BatchNorm layers that are gone.
    """
    trace = _Trace()
    modules: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _CONVOLUTIONS) or (isinstance(module, _BatchNorm) and module.running_mean is not None)
    }

    def record(name: str, output: Any) -> None:
        trace.runs[name] += 1
        trace.makers[output.grad_fn] = name

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: record(name, output))
        for name, module in modules.items()
    ]
    try:
        with torch.enable_grad():
            pixel_values = torch.zeros(1, count_channels(model.config), *size_px, device=model.device)
            root = model(pixel_values=pixel_values.to(model.dtype).requires_grad_()).logits.grad_fn
    finally:
        for hook in hooks:
            hook.remove()
    pairs = _find_pairs(trace, root, modules)
    for convolution, norm in pairs:
        given: Any = modules[convolution]
        fused = fuse_conv_bn_eval(given, modules[norm], transpose=isinstance(given, nn.ConvTranspose2d))  # type: ignore[arg-type]
        model.set_submodule(convolution, fused)
        model.set_submodule(norm, nn.Identity())
    return len(pairs)


def _find_pairs(trace: _Trace, root: Any, modules: dict[str, nn.Module]) -> list[tuple[str, str]]:
    readers: Counter[Any] = Counter()
    seen, waiting = {root}, [root]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            readers[node] += 1
            if node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    pairs = []
    for node, name in trace.makers.items():
        if not isinstance(modules[name], _BatchNorm) or node not in seen or trace.runs[name] != 1:
            continue
        source = node.next_functions[0][0]
        maker = trace.makers.get(source)
        is_convolution = maker is not None and isinstance(modules[maker], _CONVOLUTIONS)
        if maker is not None and is_convolution and readers[source] == 1 and trace.runs[maker] == 1:
            pairs.append((maker, name))
    return pairs

"""What all architectures of segplus' own have in common: output, forward pass, first weights, checkpointing, saving."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput

from segplus.models.checkpointing import keep_statistics


@dataclass
class SegmentationOutput(ModelOutput):
    """What an architecture gives for a batch of images.

    Args:
        loss: Always None: the criterion computes the loss.
        logits: Raw scores at the model's stride, shape (N, C, h, w).
        auxiliary_logits: One tensor (N, C, h_i, w_i) an auxiliary head; None outside training.
        boundary_logits: Scores of a boundary, shape (N, 1, h, w), of networks that learn boundaries; None outside
            training.
        hidden_states: Always None.
        attentions: Always None.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    auxiliary_logits: tuple[torch.Tensor, ...] | None = None
    boundary_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class SegmentationNetwork(PreTrainedModel):
    """A network that gives logits at its own stride, computes no loss and upsamples nothing at the end.

    A subclass writes `compute_logits`. What the optimizer takes for the pretrained part is its module `backbone`;
    `self.training` of the network itself says whether auxiliary heads run.
    """

    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Stage"]

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> SegmentationOutput | tuple[Any, ...]:
        """Return the logits of a batch of images.

        Args:
            pixel_values: Normalised images, float, shape (N, config.num_channels, H, W).
            labels: Refused.
            return_dict: False gives a tuple; None follows the config.
            options: What callers of the library's models pass beside; nothing here depends on it.
        Raises:
            ValueError: If labels are given, or the images have another number of channels.
        """
        if labels is not None:
            raise ValueError(
                f"{type(self).__name__} computes no loss: call it without labels and give its logits to a criterion"
            )
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"{type(self).__name__} takes pixel_values of shape (N, {self.config.num_channels}, H, W), "
                f"found {tuple(pixel_values.shape)}"
            )
        outputs = self.compute_logits(pixel_values)
        if return_dict is None:
            return_dict = self.config.return_dict
        return outputs if return_dict else outputs.to_tuple()

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits, and in training the auxiliary ones, of images of shape (N, channels, H, W)."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Write weights and config, and beside them the code as one module that needs no segplus."""
        from segplus.models.flat_module import AUTO_CLASSES, name_flat_module, write_flat_module

        module, config = name_flat_module(type(self)), type(self.config).__name__
        self.config.auto_map = {"AutoConfig": f"{module}.{config}"}
        self.config.auto_map |= {auto: f"{module}.{type(self).__name__}" for auto in AUTO_CLASSES}
        of_hub = ("repo_id", "commit_message", "private", "token", "revision", "create_pr") if push_to_hub else ()
        hub = {name: options.pop(name) for name in of_hub if name in options}
        super().save_pretrained(save_directory, is_main_process=is_main_process, **options)
        if is_main_process:
            write_flat_module(type(self), save_directory)
            if push_to_hub:  # now that every file stands there
                self.push_to_hub(**{"repo_id": os.path.basename(os.fspath(save_directory)), **hub})

    def _init_weights(self, module: nn.Module) -> None:
        """Start convolutions as He et al. do (2015, arXiv 1502.01852), by the inputs that reach an output."""
        if isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)
        elif isinstance(module, nn.ConvTranspose2d):
            reach = math.prod(module.kernel_size) / math.prod(module.stride)
            init.normal_(module.weight, std=math.sqrt(2 / (module.in_channels * reach)))
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        else:
            super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            init.zeros_(module.bias)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **options: Any
    ) -> None:
        """Checkpoint so that gradients and statistics are those of an ordinary step.

        The re-entrant form would lose the gradient of a stage that reads the image itself, so it is not used.
        """
        once = partial(_run_once, self, partial(gradient_checkpointing_func, use_reentrant=False))
        super()._set_gradient_checkpointing(enable, once, **options)


def _run_once(model: nn.Module, run_checkpoint: Callable[..., Any], function: Callable[..., Any], *inputs: Any) -> Any:
    """Checkpoint a function, whose second run leaves the statistics of BatchNorm as the first run left them."""
    runs = 0

    def run(*arguments: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs == 1:
            return function(*arguments)
        with keep_statistics(model):
            return function(*arguments)

    return run_checkpoint(run, *inputs)

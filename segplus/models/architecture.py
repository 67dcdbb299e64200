"""What every network of segplus' own keeps: logits at its stride, no loss, auxiliary logits in training only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput  # type: ignore[attr-defined]


@dataclass
class SegmentationOutput(ModelOutput):
    """What a segmentation network gives.

    Args:
        loss: Always None: the criterion computes the loss.
        logits: Raw scores at the network's stride, shape (N, C, h, w).
        auxiliary_logits: One tensor (N, C, h_i, w_i) for each auxiliary head; None outside training.
        boundary_logits: Shape (N, 1, h, w), of networks that learn boundaries; None outside training.
        hidden_states: None.
        attentions: None.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    auxiliary_logits: tuple[torch.Tensor, ...] | None = None
    boundary_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class SegmentationNetwork(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A semantic-segmentation network; a subclass writes `compute_logits`."""

    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return the logits of normalised images (N, C, H, W)."""
        raise NotImplementedError

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> SegmentationOutput | tuple[Any, ...]:
        """Return logits at the network's stride.

        Args:
            pixel_values: Normalised images, shape (N, C, H, W).
            labels: Refused: the criterion computes the loss, without upsampled logits.
            return_dict: False gives a tuple.

        Raises:
            ValueError: If labels are given, or the images have another number of channels.
        """
        if labels is not None:
            raise ValueError(f"{type(self).__name__} computes no loss: hand its logits and the labels to a criterion")
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"{type(self).__name__} takes pixel_values of shape (N, {self.config.num_channels}, H, W), "
                f"found {tuple(pixel_values.shape)}"
            )
        output = self.compute_logits(pixel_values)
        wants_tuple = not (self.config.return_dict if return_dict is None else return_dict)
        return output.to_tuple() if wants_tuple else output

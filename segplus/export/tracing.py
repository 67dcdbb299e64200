"""A model as a program of torch.export: in seconds, and so the test of whether it can be exported at all."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segplus.errors import InputError
from segplus.models.mask_transformers import compute_graph_scores

_MULTIPLES = (1, 32, 64)  # of the sides of images, where a network was written for such alone


class ScoresOf(nn.Module):
    """The part of a model that is exported.

    Args:
        model: Any semantic-segmentation model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return scores, shape (N, C, h, w), of pixel values (N, channels, H, W)."""
        return compute_graph_scores(self.model, pixel_values)


@dataclass(frozen=True)
class Captured:
    """A network as a program.

    Args:
        program: pixel_values (N, channels, H, W) -> scores (N, C, h, w): logits, or a mask transformer's.
        has_dynamic_batch: Whether N may be any number; otherwise it is 1.
        size_multiple: Height and width may be any multiples of it; 0 where they are those that it was traced at.
    """

    program: ExportedProgram
    has_dynamic_batch: bool
    size_multiple: int


def capture_program(
    model: nn.Module, channels: int, size_px: tuple[int, int], *, has_dynamic_size: bool = False
) -> Captured:
    """Return a model's program, as free in batch and size as its own code allows.

    Args:
        model: In evaluation mode, on the CPU, float32.
        channels: Number of channels of the images.
        size_px: (height, width) that it is traced at.
        has_dynamic_size: Whether the program is to take other sizes, too.
    Raises:
        InputError: If the model cannot be exported so.
    """
    network = ScoresOf(model).eval()
    failure: Exception | None = None
    with quiet_exporter(), plain_mask_probabilities(model), torch.no_grad():
        for multiple, batch in product(_MULTIPLES if has_dynamic_size else (0,), (2, 1)):
            # Sides of one number would be taken for one side.
            sides = [max(1, -(-side // max(multiple, 1)) + index) * multiple for index, side in enumerate(size_px)]
            example = torch.zeros(batch, channels, *(sides if multiple else size_px))
            shapes = {**({0: Dim("batch")} if batch == 2 else {}), **_free_sides(multiple)}
            try:
                program = torch.export.export(network, (example,), dynamic_shapes=(shapes or None,), strict=False)
                return Captured(program, batch == 2, multiple)
            except Exception as error:  # what a stranger's model breaks in the exporter has no common type
                failure = error
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    raise InputError(
        f"export: {type(model).__name__} cannot be exported"
        + (" for images of any size" if has_dynamic_size else f" at {size_px[0]} x {size_px[1]}"),
        found=f"{type(failure).__name__}: {(lines or [''])[0][:300]}",
        fix="give one size: --size 512x512 (height x width)" if has_dynamic_size else "choose another model or size",
    ) from failure


def _free_sides(multiple: int) -> dict[int, Any]:
    """Return what torch.export is told of height and width."""
    if not multiple:
        return {}
    height, width = Dim("rows", min=2), Dim("columns", min=2)
    return {2: height, 3: width} if multiple == 1 else {2: multiple * height, 3: multiple * width}


@contextmanager
def plain_mask_probabilities(model: nn.Module) -> Iterator[None]:
    """Let EoMT read how likely its attention is masked as numbers while the block runs: what it branches on is known.

    Args:
        model: Any model; all but EoMT have no such probabilities, and are left alone.
    Raises:
        InputError: If the model would draw at random which queries are masked.
    """
    buffer = dict(model.named_buffers(recurse=False)).get("attn_mask_probs")
    if buffer is None:
        yield
        return
    probabilities = tuple(buffer.tolist())
    if not set(probabilities) <= {0.0, 1.0}:
        raise InputError(
            f"export: {type(model).__name__} draws at random which of its attention is masked",
            found=f"attn_mask_probs: {list(probabilities)}",
            allowed="0 or 1 for each block",
            fix="train it to the end with segplus, or round them in the checkpoint",
        )
    del model._buffers["attn_mask_probs"]
    vars(model)["attn_mask_probs"] = probabilities
    try:
        yield
    finally:
        del vars(model)["attn_mask_probs"]
        model.register_buffer("attn_mask_probs", buffer)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporters and ONNX say of their own affairs."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.onnx._internal.exporter._registration")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)

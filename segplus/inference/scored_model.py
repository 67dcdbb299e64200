"""One model with its image processor: from an image to passes of scores on the model's own grid."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import BaseImageProcessor, PreTrainedModel

from segplus.errors import InputError
from segplus.images import DecodedImage, measure_image
from segplus.inference.passes import ScorePass
from segplus.inference.pixel_values import PixelReader, scale_image
from segplus.inference.windows import blend_windows, lay_windows, pad_size
from segplus.models.mask_transformers import compute_scores, is_split, iterate_score_rows, normalize_scores
from segplus.recipe.evaluation_section import ProtocolRecipe

_FIXES = {
    "fixed": "save another size with the image processor",
    "original": "use the protocol fixed, sliding with a window_px that it takes, or a stride_px that pads to one",
    "sliding": "choose a window_px that it takes, no larger than the images, or use the protocol fixed",
}


View = Literal["plain", "mirrored"]


class ScoredModel:
    """Scores images by one protocol.

    Args:
        model: Any semantic-segmentation model; put on `device` and into evaluation mode.
        image_processor: The processor that is saved with it.
        protocol: How a prediction is formed.
        device: Where to run; by default where the model is.
        channels: Number of channels that the model takes; None leaves it to the model to refuse others.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        image_processor: BaseImageProcessor,
        protocol: ProtocolRecipe,
        device: str | torch.device | None = None,
        channels: int | None = None,
    ) -> None:
        self.protocol = protocol
        self.model = model if device is None else model.to(device)
        self.model.eval()
        self.reader = PixelReader(image_processor, channels)
        self.views: tuple[View, ...] = ("plain", "mirrored") if protocol.flip else ("plain",)
        self.drops = False

    def split_views(self, dropout_samples: int = 0) -> list[ScoredModel]:
        """Return what is averaged, one by one: the plain and the mirrored view, each with dropout so many times.

        Raises:
            InputError: If dropout is asked of a model that has none.
        """
        if dropout_samples and not _list_dropouts(self.model):
            raise InputError(
                f"--dropout-samples: {type(self.model).__name__} drops nothing",
                found="no dropout above 0 in its config",
                fix="leave it out; several checkpoints, flips and scales disagree as well",
            )
        apart = []
        for view in self.views:
            for _ in range(max(1, dropout_samples)):
                one = copy.copy(self)
                one.views, one.drops = (view,), dropout_samples > 0
                apart.append(one)
        return apart

    def start_passes(self, image: DecodedImage) -> list[ScorePass]:
        """Return a pass for every scale; the model has run on the whole image, or on its first row of windows.

        Raises:
            InputError: If the model cannot take the size that the protocol gives it, or the image's channels.
        """
        start = self._start_served if self.protocol.name == "fixed" else self._start_windows
        return [start(image, scale) for scale in self.protocol.scales]

    def start_batch(self, images: Sequence[DecodedImage]) -> list[ScorePass]:
        """Return the pass of each image by the protocol `fixed`; images served at one size go through together."""
        served = [self.reader.read_served(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, pixel_values in enumerate(served):
            groups.setdefault(tuple(pixel_values.shape), []).append(index)
        passes: dict[int, ScorePass] = {}
        for members in groups.values():
            scores = self.score(torch.cat([served[index] for index in members]))
            for index, one in zip(members, scores, strict=True):
                passes[index] = ScorePass(iter([(one, one.shape[1])]), measure_image(images[index]))
        return [passes[index] for index in range(len(images))]

    def _start_served(self, image: DecodedImage, scale: float) -> ScorePass:
        pixel_values = self.reader.read_served(image, scale)
        size, height = measure_image(image), pixel_values.shape[-2]
        is_plain = self.views == ("plain",) and not self.drops and self.protocol.average == "logits"
        if is_plain and size[0] % height == 0 and is_split(self.model, pixel_values):
            rows = iterate_score_rows(self.model, pixel_values.to(self.model.device, self.model.dtype))
            return ScorePass(((block, height) for block in rows), size)
        scores = self.score(pixel_values)[0]
        return ScorePass(iter([(scores, scores.shape[1])]), size)

    def _start_windows(self, image: DecodedImage, scale: float) -> ScorePass:
        height, width = measure_image(image)
        scaled = image if scale == 1.0 else scale_image(image, scale)
        scaled_height, scaled_width = measure_image(scaled)
        total = pad_size((scaled_height, scaled_width), self.protocol.stride_px)
        covers = total[0] * height / scaled_height, total[1] * width / scaled_width

        def score(windows: list[tuple[int, int, int, int]]) -> Tensor:
            return self.score(torch.cat([self.reader.read_window(scaled, *window) for window in windows]))

        blocks: Iterator[tuple[Tensor, int]] = blend_windows(
            score, lay_windows(total, self.protocol), total, self.protocol
        )
        return ScorePass(blocks, covers)

    def score(self, pixel_values: Tensor) -> Tensor:
        """Return the scores of a batch, float32, (N, C, h, w), averaged with the mirrored batch's where asked for."""
        pixel_values = pixel_values.to(self.model.device, self.model.dtype)
        scores = [
            self._run_model(pixel_values) if view == "plain" else self._run_model(pixel_values.flip(-1)).flip(-1)
            for view in self.views
        ]
        return scores[0] if len(scores) == 1 else (scores[0] + scores[1]) / 2

    def _run_model(self, pixel_values: Tensor) -> Tensor:
        try:
            with torch.no_grad(), _drop(self.model) if self.drops else nullcontext():
                scores = compute_scores(self.model, pixel_values)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError, AssertionError, IndexError) as error:
            height, width = pixel_values.shape[-2:]
            raise InputError(
                f"evaluation.protocol: {type(self.model).__name__} cannot take an image of this size",
                found=f"{height} x {width} (height x width): {(str(error).splitlines() or [''])[0][:300]}",
                fix=_FIXES[self.protocol.name],
            ) from error
        return normalize_scores(self.model, scores, 1) if self.protocol.average == "probabilities" else scores

    def normalize(self, scores: Tensor) -> Tensor:
        """Return the probabilities of what `score` gave, resized or not, shape (..., C)."""
        return scores if self.protocol.average == "probabilities" else normalize_scores(self.model, scores, -1)


def _list_dropouts(model: nn.Module) -> list[nn.Module]:
    kinds = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)
    return [module for module in model.modules() if isinstance(module, kinds) and module.p > 0]


@contextmanager
def _drop(model: nn.Module) -> Iterator[None]:
    """Let the dropout of a model work while the block runs; everything else stays in evaluation mode."""
    dropouts = _list_dropouts(model)
    for module in dropouts:
        module.train()
    try:
        yield
    finally:
        for module in dropouts:
            module.eval()

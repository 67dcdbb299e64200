"""Predictor: from an image to its label map at its own size, by one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from segplus.errors import InputError
from segplus.images import DecodedImage, measure_image
from segplus.inference.passes import ScorePass, average_passes, cut_chunks, fill_rows
from segplus.inference.pixel_values import PixelReader, scale_image
from segplus.inference.windows import blend_windows, lay_windows, pad_size
from segplus.metrics import label_map
from segplus.metrics.labels import choose_label_dtype
from segplus.models.mask_transformers import compute_scores, is_split, iterate_score_rows, normalize_scores
from segplus.recipe.evaluation_section import ProtocolRecipe

_FIXES = {
    "fixed": "save another size with the image processor",
    "original": "use the protocol fixed, sliding with a window_px that it takes, or a stride_px that pads to one",
    "sliding": "choose a window_px that it takes, no larger than the images, or use the protocol fixed",
}


class Predictor:
    """Forms predictions at an image's own size.

    With the protocol `fixed` and one scale the label map is, to the pixel, what transformers' image-segmentation
    pipeline serves. Windows and flips are averaged on the model's own grid (logits, or probabilities), scales at the
    image's size; full-resolution scores exist a few rows at a time only.

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
        protocol: ProtocolRecipe | None = None,
        device: str | torch.device | None = None,
        channels: int | None = None,
    ) -> None:
        self.protocol = protocol or ProtocolRecipe()
        self.model = model if device is None else model.to(device)
        self.model.eval()
        self.reader = PixelReader(image_processor, channels)

    def predict(self, image: DecodedImage) -> Tensor:
        """Return the label map of an image.

        Args:
            image: PIL image in RGB, or an array, uint8, shape (H, W, channels).
        Returns:
            Class ids, shape (H, W); uint8 up to 255 classes.
        Raises:
            InputError: If the model cannot take the size that the protocol gives it, or the image's channels.
        """
        size = measure_image(image)
        return self._label(self._start_passes(image), size)

    def try_image(self, image: DecodedImage) -> None:
        """Run the model as a prediction begins: on the whole image or its first row of windows, at every scale.

        Raises:
            InputError: As `predict`.
        """
        self._start_passes(image)

    def predict_batch(self, images: Sequence[DecodedImage]) -> list[Tensor]:
        """Return the label maps of several images; those that are served at one size go through the model together.

        The last bits of a model's scores depend on the batch, so a pixel on the edge between two classes may too.
        """
        protocol = self.protocol
        if protocol.name != "fixed" or protocol.scales != [1.0] or len(images) == 1:
            return [self.predict(image) for image in images]
        served = [self.reader.read_served(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, pixel_values in enumerate(served):
            groups.setdefault(tuple(pixel_values.shape), []).append(index)
        labels: dict[int, Tensor] = {}
        for members in groups.values():
            scores = self._score(torch.cat([served[index] for index in members]))
            for index, one in zip(members, scores, strict=True):
                labels[index] = label_map(one[None], measure_image(images[index]))[0]
        return [labels[index] for index in range(len(images))]

    def predict_with_confidence(self, image: DecodedImage) -> tuple[Tensor, Tensor]:
        """Return the label map and the probability of the most probable class, float32, both of shape (H, W)."""
        size = measure_image(image)
        passes = self._start_passes(image)
        labels = self._make_labels(passes, size)
        confidence = torch.empty(size, dtype=torch.float32, device=self.model.device)
        if len(passes) > 1 or not passes[0].fits_pixels:
            for top, scores in average_passes(passes, size):
                fill_rows(labels, top, scores.argmax(-1))
                fill_rows(confidence, top, self._normalise(scores).amax(-1))
            return labels, confidence
        row = top = 0
        for chunk in cut_chunks(passes[0]):
            row = fill_rows(labels, row, chunk.find_labels(size[1]))
            for scores in chunk.interpolate(size[1]):
                top = fill_rows(confidence, top, self._normalise(scores).amax(-1))
        return labels, confidence

    def predict_probabilities(self, image: DecodedImage) -> Tensor:
        """Return the probability of every class, float32, shape (C, H, W): as large as that is."""
        size = measure_image(image)
        passes = self._start_passes(image)
        probabilities = torch.empty(*size, len(passes[0].held), device=self.model.device)
        for top, scores in average_passes(passes, size):
            fill_rows(probabilities, top, self._normalise(scores))
        return probabilities.permute(2, 0, 1).contiguous()

    def _normalise(self, scores: Tensor) -> Tensor:
        return scores if self.protocol.average == "probabilities" else normalize_scores(self.model, scores, -1)

    def _make_labels(self, passes: list[ScorePass], size: tuple[int, int]) -> Tensor:
        return torch.empty(size, dtype=choose_label_dtype(len(passes[0].held)), device=self.model.device)

    def _label(self, passes: list[ScorePass], size: tuple[int, int]) -> Tensor:
        labels = self._make_labels(passes, size)
        if len(passes) > 1 or not passes[0].fits_pixels:
            for top, scores in average_passes(passes, size):
                fill_rows(labels, top, scores.argmax(-1))
            return labels
        row = 0
        for chunk in cut_chunks(passes[0]):
            row = fill_rows(labels, row, chunk.find_labels(size[1]))
        return labels

    def _start_passes(self, image: DecodedImage) -> list[ScorePass]:
        start = self._start_served if self.protocol.name == "fixed" else self._start_windows
        return [start(image, scale) for scale in self.protocol.scales]

    def _start_served(self, image: DecodedImage, scale: float) -> ScorePass:
        pixel_values = self.reader.read_served(image, scale)
        size, height = measure_image(image), pixel_values.shape[-2]
        is_plain = not self.protocol.flip and self.protocol.average == "logits"
        if is_plain and size[0] % height == 0 and is_split(self.model, pixel_values):
            rows = iterate_score_rows(self.model, pixel_values.to(self.model.device, self.model.dtype))
            return ScorePass(((block, height) for block in rows), size)
        scores = self._score(pixel_values)[0]
        return ScorePass(iter([(scores, scores.shape[1])]), size)

    def _start_windows(self, image: DecodedImage, scale: float) -> ScorePass:
        height, width = measure_image(image)
        scaled = image if scale == 1.0 else scale_image(image, scale)
        scaled_height, scaled_width = measure_image(scaled)
        total = pad_size((scaled_height, scaled_width), self.protocol.stride_px)
        covers = total[0] * height / scaled_height, total[1] * width / scaled_width

        def score(windows: list[tuple[int, int, int, int]]) -> Tensor:
            return self._score(torch.cat([self.reader.read_window(scaled, *window) for window in windows]))

        blocks: Iterator[tuple[Tensor, int]] = blend_windows(
            score, lay_windows(total, self.protocol), total, self.protocol
        )
        return ScorePass(blocks, covers)

    def _score(self, pixel_values: Tensor) -> Tensor:
        """Return the scores of a batch, float32, (N, C, h, w), averaged with the mirrored batch's where asked for."""
        pixel_values = pixel_values.to(self.model.device, self.model.dtype)
        scores = self._run_model(pixel_values)
        if self.protocol.flip:
            scores = (scores + self._run_model(pixel_values.flip(-1)).flip(-1)) / 2
        return scores

    def _run_model(self, pixel_values: Tensor) -> Tensor:
        try:
            with torch.no_grad():
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

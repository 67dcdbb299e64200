"""Predictor: from an image to its label map at its own size, by one protocol, one decision, one model or several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from segplus.errors import InputError
from segplus.images import DecodedImage, measure_image
from segplus.inference.label_maker import LabelMaker, Prediction
from segplus.inference.passes import ScorePass, average_passes, fill_rows, join_passes
from segplus.inference.pixel_values import PixelReader
from segplus.inference.scored_model import ScoredModel
from segplus.models.mask_transformers import is_mask_transformer
from segplus.recipe.evaluation_section import ProtocolRecipe
from segplus.recipe.postprocess_section import DecisionRecipe


class Predictor:
    """Forms predictions at an image's own size.

    With the protocol `fixed` and one scale the label map is, to the pixel, what transformers' image-segmentation
    pipeline serves. Windows and flips are averaged on the model's own grid (logits, or probabilities), scales and the
    models of an ensemble at the image's size; full-resolution scores exist a few rows at a time only.

    Args:
        model: Any semantic-segmentation model; put on `device` and into evaluation mode.
        image_processor: The processor that is saved with it.
        protocol: How a prediction is formed.
        device: Where to run; by default where the model is.
        channels: Number of channels that the model takes; None leaves it to the model to refuse others.
        decision: How probabilities become a label map; by default each pixel gets the most probable class.
        class_names: Position is the class id; what the decision names.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        image_processor: BaseImageProcessor,
        protocol: ProtocolRecipe | None = None,
        device: str | torch.device | None = None,
        channels: int | None = None,
        *,
        decision: DecisionRecipe | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        member = ScoredModel(model, image_processor, protocol or ProtocolRecipe(), device, channels)
        self._set_up([member], decision, class_names)

    @classmethod
    def join(
        cls,
        members: Sequence[ScoredModel],
        decision: DecisionRecipe | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Predictor:
        """Return the predictor of an ensemble: the mean of the members' scores, of one protocol and the same classes.

        Args:
            members: On one device.
            decision: As of one model.
            class_names: Position is the class id.
        Raises:
            InputError: If logits of different kinds would be averaged.
        """
        ensemble = cls.__new__(cls)
        ensemble._set_up(list(members), decision, class_names)
        return ensemble

    def _set_up(
        self, members: list[ScoredModel], decision: DecisionRecipe | None, class_names: Sequence[str] | None
    ) -> None:
        self.members, self.protocol = members, members[0].protocol
        kinds = {is_mask_transformer(member.model) for member in members}
        if len(kinds) > 1 and self.protocol.average != "probabilities":
            raise InputError(
                "an ensemble of mask transformers and other models has no mean of logits",
                fix="set evaluation.protocol.average: probabilities",
            )
        self.label_maker = LabelMaker(decision or DecisionRecipe(), class_names, members[0].normalize)

    @property
    def model(self) -> PreTrainedModel:
        """The model, of an ensemble the first."""
        return self.members[0].model

    @property
    def reader(self) -> PixelReader:
        """How images become the model's input, of an ensemble the first model's."""
        return self.members[0].reader

    @property
    def decision(self) -> DecisionRecipe:
        """How probabilities become a label map."""
        return self.label_maker.decision

    def predict(self, image: DecodedImage) -> Tensor:
        """Return the label map of an image.

        Args:
            image: PIL image in RGB, or an array, uint8, shape (H, W, channels).
        Returns:
            Class ids, shape (H, W); uint8 up to 255 classes.
        Raises:
            InputError: If a model cannot take the size that the protocol gives it, or the image's channels.
        """
        return self.predict_with(image).labels

    def predict_with(self, image: DecodedImage, wanted: Sequence[str] = ()) -> Prediction:
        """Return the label map of an image, and what else is wanted of `label_maker.OUTPUTS`.

        Raises:
            InputError: As `predict`.
        """
        return self.label_maker.make(self.start_passes(image), image, wanted, self.model.device)

    def try_image(self, image: DecodedImage) -> None:
        """Run the models as a prediction begins: on the whole image or its first row of windows, at every scale.

        Raises:
            InputError: As `predict`.
        """
        self.start_passes(image)

    def predict_batch(self, images: Sequence[DecodedImage]) -> list[Tensor]:
        """Return the label maps of several images; those that are served at one size go through a model together.

        The last bits of a model's scores depend on the batch, so a pixel on the edge between two classes may too.
        """
        return [prediction.labels for prediction in self.predict_batch_with(images)]

    def predict_batch_with(self, images: Sequence[DecodedImage], wanted: Sequence[str] = ()) -> list[Prediction]:
        """Return `predict_with` of several images; see `predict_batch`."""
        protocol = self.protocol
        if protocol.name != "fixed" or protocol.scales != [1.0] or len(images) == 1:
            return [self.predict_with(image, wanted) for image in images]
        passes = zip(*(member.start_batch(images) for member in self.members), strict=True)
        return [
            self.label_maker.make(join_passes(list(one)), image, wanted, self.model.device)
            for one, image in zip(passes, images, strict=True)
        ]

    def predict_with_confidence(self, image: DecodedImage) -> tuple[Tensor, Tensor]:
        """Return the label map and the probability of the class that was chosen, float32, both of shape (H, W)."""
        made = self.predict_with(image, ["confidence"])
        assert made.confidence is not None
        return made.labels, made.confidence

    def predict_probabilities(self, image: DecodedImage) -> Tensor:
        """Return the probability of every class, float32, shape (C, H, W): as large as that is.

        They are those that the decision is made from: of the whole ensemble, and smoothed where the decision says so.
        """
        size = measure_image(image)
        passes = self.start_passes(image)
        probabilities = torch.empty(*size, len(passes[0].held), device=self.model.device)
        for top, rows in self.label_maker.list_rows(passes, image):
            fill_rows(probabilities, top, rows)
        return probabilities.permute(2, 0, 1).contiguous()

    def measure_disagreement(self, image: DecodedImage, dropout_samples: int = 0) -> Tensor:
        """Return how much the models, scales, mirrored views and dropout samples contradict each other, (H, W).

        It is the entropy of their mean without the mean of their entropies, over log C: 0 where all give the same
        probabilities, however unsure, 1 where each is sure of another class.

        Args:
            image: The image.
            dropout_samples: Predictions with dropout in place of each one without.
        Raises:
            InputError: If there is one prediction only, or a model has no dropout.
        Reference:
            Houlsby et al., Bayesian active learning for classification and preference learning, 2011, equation 2.
            https://arxiv.org/abs/1112.5745
        """
        views = [view for member in self.members for view in member.split_views(dropout_samples)]
        passes = [one for view in views for one in view.start_passes(image)]
        if len(passes) == 1:
            raise InputError(
                "disagreement: one prediction alone contradicts nothing",
                fix="give several checkpoints, --flip true, several scales, or --dropout-samples 8",
            )
        size = measure_image(image)
        disagreement = torch.empty(size, device=self.model.device)
        alone = (average_passes([one], size) for one in passes)
        for chunks in zip(*alone, strict=True):
            each = torch.stack([self.label_maker.normalize(scores) for _, scores in chunks])  # (passes, rows, W, C)
            spread = torch.special.entr(each.mean(0)).sum(-1) - torch.special.entr(each).sum(-1).mean(0)
            fill_rows(disagreement, chunks[0][0], (spread / math.log(max(2, each.shape[-1]))).clamp_(0, 1))
        return disagreement

    def start_passes(self, image: DecodedImage) -> list[ScorePass]:
        """Return the passes whose mean is the score; see `ScoredModel.start_passes`."""
        return join_passes([one for member in self.members for one in member.start_passes(image)])

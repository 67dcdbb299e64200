"""Terms that know where the boundaries are: weighted cross-entropy, Kervadec's distance loss and a soft boundary F1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from segplus.errors import InputError
from segplus.losses.channel_terms import Channels, ChannelTerm
from segplus.losses.pixelwise import CrossEntropy
from segplus.losses.row_terms import RowChunk, RowTerm
from segplus.losses.terms import ImageLabels, LabelBatch, Reduction, Summand, require_at_least


@dataclass(frozen=True)
class BoundaryCrossEntropy(CrossEntropy):
    """Cross-entropy with a weight of 1 + amount exp(-d^2 / (2 sigma^2)), d the distance to the nearest label boundary.

    It is divided by the sum of the class weights, as cross-entropy is, so that weights raise the loss at boundaries.

    Args:
        amount: Weight that a pixel at the boundary has more than one far away.
        sigma_px: Standard deviation of the weight, in pixels of the labels.
    Reference:
        Ronneberger et al., U-Net, 2015, equation 2, with the nearest boundary in place of the two nearest cells.
        https://arxiv.org/abs/1505.04597
    """

    amount: float = 5.0
    sigma_px: float = 5.0

    def check(self, key: str) -> None:
        """Raise InputError where a parameter is out of range."""
        super().check(key)
        require_at_least(key, self, ("amount",), 0)
        if self.sigma_px <= 0:
            raise InputError(f"{key}.sigma_px", found=self.sigma_px, allowed="above 0")

    def emphasize(self, image: ImageLabels) -> Tensor | None:
        """Return the weight of every pixel."""
        pairs = zip(image.ids, image.valid > 0, strict=True)
        distance = torch.stack([measure_boundary_distance(ids, valid) for ids, valid in pairs]).to(image.weights)
        return 1 + self.amount * torch.exp(distance.square() / (-2 * self.sigma_px**2))


def measure_boundary_distance(ids: Tensor, valid: Tensor) -> Tensor:
    """Return the distance of every pixel to the nearest one beside (left, right, above, below) another class.

    Args:
        ids: Class ids, shape (H, W).
        valid: Bool, shape (H, W); ignored pixels make no boundary.
    Returns:
        Pixels, float64, shape (H, W); infinite in an image without a boundary.
    """
    boundary = torch.zeros_like(valid)
    for dim in (0, 1):
        size = ids.shape[dim] - 1
        first, second = ids.narrow(dim, 0, size), ids.narrow(dim, 1, size)
        differs = (first != second) & valid.narrow(dim, 0, size) & valid.narrow(dim, 1, size)
        boundary.narrow(dim, 0, size).logical_or_(differs)
        boundary.narrow(dim, 1, size).logical_or_(differs)
    inside = ~boundary.cpu().numpy()
    if inside.all():
        return torch.full(ids.shape, torch.inf, dtype=torch.float64, device=ids.device)
    return torch.from_numpy(distance_transform_edt(inside)).to(ids.device)


def measure_signed_distance(ids: Tensor, valid: Tensor, index: int) -> Tensor:
    """Return one class's signed distance map: positive outside its region, 0 and below inside.

    An ignored pixel belongs to no region and bounds none: a pixel's distance to the outside is that to the nearest
    pixel of another class, and 0 where the whole image has none.

    Args:
        ids: Class ids, shape (H, W).
        valid: Bool, shape (H, W); 0 where ignored.
        index: A class that the image contains.
    Returns:
        Pixels, float64, shape (H, W).
    """
    counted = valid.cpu().numpy()
    region = (ids.cpu().numpy() == index) & counted
    signed, own = distance_transform_edt(~region), region | ~counted
    if not own.all():
        signed -= (distance_transform_edt(own) - 1) * region
    return torch.from_numpy(signed).to(ids.device)


@dataclass(frozen=True)
class Boundary(ChannelTerm):
    """The mean over pixels and counted classes of probability times signed distance to the class's boundary.

    Unbounded below and flat where a class is absent: it is meant beside an overlap or cross-entropy term, with a small
    weight that ramps in.

    Args:
        background: Count class 0.
    Reference:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, 2019, equation 5.
        https://arxiv.org/abs/1812.07032
    """

    background: bool = True

    def count(self, batch: LabelBatch) -> Tensor | None:
        """Return the number of pixels that count."""
        return batch.count_pixels()

    def walk(self, summand: Summand[ChannelTerm], channels: Channels, reduction: Reduction) -> None:
        """Add the value to the summand, and the gradient by `channels.add_gradient`."""
        for i in range(len(channels.logits)):
            for index, weights in self.weigh(channels.batch, i, channels.classes):
                probability = channels.upsample(slice(i, i + 1), index)
                slopes = weights.to(probability)[None] * summand.scale
                summand.value += (probability * slopes).sum()
                channels.add_gradient(slice(i, i + 1), index, probability, slopes.mul_(summand.weight))

    def evaluate(
        self, summand: Summand[ChannelTerm], probabilities: Tensor, batch: LabelBatch, reduction: Reduction
    ) -> Tensor:
        """Return the value the plain way, from probabilities (N, C, H, W)."""
        total = probabilities.sum() * 0
        for i, image in enumerate(probabilities):
            for index, weights in self.weigh(batch, i, len(image)):
                total = total + (image[index] * weights.to(image)).sum()
        return total * summand.scale

    def weigh(self, batch: LabelBatch, i: int, num_classes: int) -> Iterator[tuple[int, Tensor]]:
        """Yield every class that image i contains and that counts, with the weights of its probabilities, (H, W)."""
        ids, valid = batch.labels[i], batch.valid[i]
        first = 0 if self.background else 1
        for index in torch.unique(ids[valid]).tolist():
            if index >= first:
                yield index, measure_signed_distance(ids, valid, index) * valid / (num_classes - first)


@dataclass(frozen=True)
class SoftBoundaryF1(RowTerm):
    """1 - F1 of predicted and true boundaries, both drawn by max-pooling, so that it has a gradient everywhere.

    Precision and recall of every class that has a boundary in the image, averaged over these classes and over images.

    Args:
        width_px: Width of a boundary, odd.
        tolerance_px: Width within which a boundary is found, odd.
    Reference:
        Bokhovkin and Burnaev, Boundary Loss for Remote Sensing Imagery Semantic Segmentation, 2019, equations 1 to 6.
        https://arxiv.org/abs/1905.07852
    """

    width_px: int = 3
    tolerance_px: int = 5

    @property
    def halo_px(self) -> int:
        """Rows that a chunk must see beyond its own."""
        return (self.width_px - 1) // 2 + (self.tolerance_px - 1) // 2

    def check(self, key: str) -> None:
        """Raise InputError where a width is not odd or below 3."""
        for name, value in (("width_px", self.width_px), ("tolerance_px", self.tolerance_px)):
            if value < 3 or value % 2 == 0:
                raise InputError(f"{key}.{name}", found=value, allowed="an odd number from 3")

    def measure(self, chunk: RowChunk) -> Tensor:
        """Return hits and areas of predicted and of true boundaries, shape (4, C)."""
        predicted = _draw_boundary(chunk.probabilities, chunk.valid, self.width_px)
        true = _draw_boundary(chunk.truth, chunk.valid, self.width_px)
        near_predicted, near_true = _pool(predicted, self.tolerance_px), _pool(true, self.tolerance_px)
        maps = (predicted * near_true, predicted, true * near_predicted, true)
        return torch.stack([values[:, chunk.own].sum((1, 2)) for values in maps])

    def finish(self, sums: Tensor) -> Tensor:
        """Return the loss of one image; 0 without a boundary."""
        present = (sums[3] > 0).to(sums)
        precision, recall = sums[0] / (sums[1] + 1e-7), sums[2] / (sums[3] + 1e-7)
        score = 2 * precision * recall / (precision + recall + 1e-7)
        return ((1 - score) * present).sum() / present.sum().clamp(min=1)


def _pool(maps: Tensor, width: int) -> Tensor:
    return F.max_pool2d(maps[None], width, stride=1, padding=width // 2)[0]


def _draw_boundary(maps: Tensor, valid: Tensor, width: int) -> Tensor:
    """Return how much every pixel is at the inner boundary of its region; ignored pixels make and have none."""
    outside = (1 - maps) * valid
    return (_pool(outside, width) - outside) * valid

"""Region mutual information: how well the covariance of small regions of labels follows from that of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from segplus.errors import InputError
from segplus.losses.row_terms import RowChunk, RowTerm

# Step of the average pooling and side of a region, in pooled pixels.
POOL_PX = 3
SIDE = 3
# Labels smaller than this have fewer than SIDE pooled pixels one way.
LEAST_PX = POOL_PX * (SIDE - 1) + 1
# Added to the diagonals of sums over regions, as in the authors' code.
EPSILON = 5e-4


@dataclass(frozen=True)
class RegionMutualInformation(RowTerm):
    """Half the log-determinant of the labels' covariance that probabilities leave unexplained, over 3 x 3 regions.

    Labels and sigmoid probabilities are averaged over 3 x 3 pixels, with a border of one 0 around the image; every
    3 x 3 neighbourhood of the result is a point in nine dimensions. Summed over classes, averaged over images and the
    nine dimensions. The value may be negative.

    The authors' code offers maximum, average and interpolation for the pooling and has the maximum as its default; this
    is the average. Unlike theirs, a class that an image does not contain adds nothing (there a constant), nothing is
    added to the probabilities (there 1e-6), and the mean is over images with a valid pixel.

    Reference:
        Zhao et al., Region Mutual Information Loss for Semantic Segmentation, 2019, equations 11 to 14.
        https://arxiv.org/abs/1910.12037
    """

    row_step_px: ClassVar[int] = POOL_PX

    @property
    def halo_px(self) -> int:
        """Rows that a chunk must see beyond its own: regions reach over two more pooled rows."""
        return POOL_PX * (SIDE - 1)

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse labels that hold no region.

        Raises:
            InputError: If they are lower or narrower than LEAST_PX.
        """
        if min(size) < LEAST_PX:
            found = f"{size[0]} x {size[1]} pixels"
            raise InputError("losses.rmi: labels without a region", found=found, allowed=f"{LEAST_PX} or more each way")

    def activate(self, logits: Tensor) -> Tensor:
        """Return sigmoid probabilities."""
        return logits.sigmoid()

    def measure(self, chunk: RowChunk) -> Tensor:
        """Return number, sum and products of the regions that begin in the chunk's own rows, shape (C, 20, 18)."""
        both = torch.stack([chunk.truth, chunk.probabilities * chunk.valid]).double()  # (2, C, R, W)
        start = chunk.own.start or 0
        # A pooled row reaches one row up and down: into the halo, or into the border of zeros around the image.
        if start:
            both = both[:, :, start - 1 :]
        pooled = F.avg_pool2d(F.pad(both, (1, 1, 0 if start else 1, 1)), POOL_PX)
        if chunk.own.stop is not None:
            pooled = pooled[:, :, : (chunk.own.stop - start) // POOL_PX + SIDE - 1]
        classes = both.shape[1]
        if pooled.shape[2] < SIDE or pooled.shape[3] < SIDE:
            return both.new_zeros(classes, 2 + 2 * SIDE * SIDE, 2 * SIDE * SIDE) + pooled.sum() * 0
        regions = F.unfold(pooled.flatten(0, 1)[:, None], SIDE)  # (2 C, 9, L)
        points = regions.view(2, classes, SIDE * SIDE, -1).movedim(0, 1).flatten(1, 2)  # (C, 18, L)
        first_moment = points.sum(2)[:, None]
        number = torch.full_like(first_moment, points.shape[2])
        return torch.cat([number, first_moment, points @ points.transpose(1, 2)], 1)

    def finish(self, sums: Tensor) -> Tensor:
        """Return the loss of one image; classes that it does not contain add nothing."""
        half = SIDE * SIDE
        mean = sums[:, 1:2] / sums[:, :1, :1].clamp(min=1)
        covariance = sums[:, 2:] - mean.transpose(1, 2) * sums[:, 1:2]
        labels, cross = covariance[:, :half, :half], covariance[:, :half, half:]
        diagonal = EPSILON * torch.eye(half, dtype=sums.dtype, device=sums.device)
        explained = cross @ torch.linalg.solve_ex(covariance[:, half:, half:] + diagonal, cross.transpose(1, 2))[0]
        factor = torch.linalg.cholesky_ex(labels - explained + diagonal)[0].diagonal(dim1=1, dim2=2)
        logs = factor.clamp(min=1e-8).log().sum(1)  # half the log-determinant
        present = sums[:, 1, :half].sum(1) > 0
        return torch.where(present, logs, 0).sum() / half

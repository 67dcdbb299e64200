"""A point head: the cells where the classes come close are classified again, with the encoder's finest map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from segplus.models.heads.blocks import Stage

_CANDIDATES, _UNCERTAIN_SHARE = 3, 0.75


class PointRefinement(nn.Module):
    """A small network on single cells of a head's logits, added to them where they are uncertain.

    In training the cells are drawn, three quarters of them the most uncertain among three times as many, and the main
    loss, whatever it is, sees the logits with the cells in their place. In evaluation the most uncertain cells of each
    image are taken, after each doubling of the grid where it is refined.

    The paper's head replaces the logits and has a loss of its own on the points; here it adds to them, so that it
    begins as the head alone, and needs no other loss.

    Args:
        fine: The encoder's finest map.
        num_labels: Number of classes.
        channels: Channels of the hidden layers.
        layers: Hidden layers; each sees the head's logits again.
        points_share: Share of the cells that are classified again.
        scale: How many times finer than the head's the logits become: 1 keeps the head's stride, 2, 4 and 8 divide it.

    Raises:
        ValueError: If the scale is no power of two up to 8.
    Reference:
        Kirillov, Wu, He, Girshick, PointRend: Image Segmentation as Rendering, 2020, section 3.
        https://arxiv.org/abs/1912.08193
    """

    def __init__(
        self,
        fine: Stage,
        num_labels: int,
        *,
        channels: int = 256,
        layers: int = 3,
        points_share: float = 0.0625,
        scale: int = 1,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4, 8):
            raise ValueError(f"refinement_config.scale: found {scale}, allowed: 1, 2, 4, 8")
        self.points_share, self.scale = points_share, scale
        widths = [fine.channels] + [channels] * layers
        self.hidden = nn.ModuleList(nn.Conv2d(width + num_labels, channels, 1) for width in widths[:-1])
        self.classifier = nn.Conv2d(widths[-1] + num_labels, num_labels, 1)

    def forward(self, logits: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """Return the logits with uncertain cells classified again.

        Args:
            logits: The head's, shape (N, C, h, w).
            fine: The encoder's finest map, shape (N, D, h', w').
        Returns:
            Shape (N, C, scale * h, scale * w).
        """
        grid = logits
        factors = [self.scale] if self.training or self.scale == 1 else [2] * (self.scale.bit_length() - 1)
        for factor in factors:
            if factor > 1:
                grid = F.interpolate(grid, scale_factor=factor, mode="bilinear", align_corners=False)
            grid = self._refine(grid, logits, fine)
        return grid

    def _refine(self, grid: torch.Tensor, logits: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        height, width = grid.shape[2:]
        cells = self._choose_cells(grid.detach())  # (N, P)
        rows, columns = cells // width, cells % width
        # The centre of each cell, -1 to 1 over the image: (N, P, 1, 2).
        points = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)[:, :, None]
        coarse, features = (_sample(values, points) for values in (logits, fine))
        for layer in self.hidden:
            features = F.relu(layer(torch.cat([features, coarse], dim=1)))
        change = self.classifier(torch.cat([features, coarse], dim=1))[..., 0]  # (N, C, P)
        flat = grid.flatten(2)
        index = cells[:, None].expand(-1, grid.shape[1], -1)
        return flat.scatter_add(2, index, change.to(flat.dtype)).unflatten(2, (height, width))

    def _choose_cells(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the indices (N, P) of the cells that are classified again, each once."""
        uncertainty = _measure_uncertainty(grid.float()).flatten(1)  # (N, h * w)
        total = uncertainty.shape[1]
        count = max(round(self.points_share * total), 1)
        if not self.training:
            return uncertainty.topk(count, dim=1).indices
        uncertain = max(round(_UNCERTAIN_SHARE * count), 1)
        candidates = min(_CANDIDATES * count, total - (count - uncertain))
        drawn = torch.rand_like(uncertainty).topk(candidates + count - uncertain, dim=1).indices
        chosen = uncertainty.gather(1, drawn[:, :candidates]).topk(uncertain, dim=1).indices
        return torch.cat([drawn[:, :candidates].gather(1, chosen), drawn[:, candidates:]], dim=1)


def _measure_uncertainty(logits: torch.Tensor) -> torch.Tensor:
    """Return (N, h, w): the larger, the closer the two best classes."""
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def _sample(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return a map's values at points (N, P, 1, 2) as (N, C, P, 1), in the map's own type."""
    sampled = F.grid_sample(values.float(), points.float(), mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.to(values.dtype)

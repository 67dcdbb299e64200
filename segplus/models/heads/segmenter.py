"""The two decoders of Segmenter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from segplus.models.heads.blocks import SegmentationHead, Stage


class SegmenterLinearHead(SegmentationHead):
    """A linear classifier of every patch.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.

    Reference:
        Strudel, Garcia, Laptev, Schmid, Segmenter: Transformer for Semantic Segmentation, 2021, section 3.2.
        https://arxiv.org/abs/2105.05633
    """

    def __init__(self, stages: Sequence[Stage], num_labels: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(stages[-1].channels, num_labels, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        return self.classifier(maps[-1])  # type: ignore[no-any-return]


class MaskTransformerLayer(nn.Module):
    """A transformer layer that normalises before attention and before the two-layer perceptron."""

    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.perceptron_norm = nn.LayerNorm(channels)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, channels),
            nn.Dropout(dropout),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (N, T, D)."""
        batch, length, channels = tokens.shape
        mixed = self.query_key_value(self.attention_norm(tokens))
        mixed = mixed.view(batch, length, 3, self.num_heads, channels // self.num_heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # each N, heads, T, D / heads
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.dropout(self.projection(attended))
        return tokens + self.perceptron(self.perceptron_norm(tokens))  # type: ignore[no-any-return]


class SegmenterMaskHead(SegmentationHead):
    """Patches and one learned token a class go through a transformer; a logit is the cosine of patch and class.

    Args:
        stages: The encoder's maps.
        num_labels: Number of classes.
        channels: Channels of the tokens; None is the map's own.
        num_layers: Layers of the transformer.
        num_heads: Heads of attention; None is one for each 64 channels.
        dropout: Share of values dropped in the layers.

    Raises:
        ValueError: If the heads do not divide the channels.

    Reference:
        Strudel, Garcia, Laptev, Schmid, Segmenter: Transformer for Semantic Segmentation, 2021, section 3.2.
        https://arxiv.org/abs/2105.05633
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        num_labels: int,
        *,
        channels: int | None = None,
        num_layers: int = 2,
        num_heads: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        channels = channels or stages[-1].channels
        num_heads = num_heads or max(channels // 64, 1)
        if channels % num_heads:
            raise ValueError(f"head segmenter_mask: {num_heads} heads do not divide {channels} channels")
        self.projection = nn.Linear(stages[-1].channels, channels)
        self.class_tokens = nn.Parameter(torch.zeros(1, num_labels, channels))
        self.layers = nn.ModuleList(MaskTransformerLayer(channels, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels)
        self.patch_projection = nn.Linear(channels, channels, bias=False)
        self.class_projection = nn.Linear(channels, channels, bias=False)
        self.mask_norm = nn.LayerNorm(num_labels)

    def initialize_weights(self) -> None:
        """Draw the class tokens."""
        init.trunc_normal_(self.class_tokens, std=0.02)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits at the last map's stride."""
        height, width = maps[-1].shape[2:]
        tokens = self.projection(maps[-1].flatten(2).transpose(1, 2))  # N, h w, D
        classes = self.class_tokens.shape[1]
        tokens = torch.cat([tokens, self.class_tokens.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        patches = F.normalize(self.patch_projection(tokens[:, :-classes]), dim=-1)
        queries = F.normalize(self.class_projection(tokens[:, -classes:]), dim=-1)
        masks: torch.Tensor = self.mask_norm(patches @ queries.transpose(1, 2))  # N, h w, C
        return masks.transpose(1, 2).reshape(len(masks), classes, height, width)

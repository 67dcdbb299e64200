"""Ten thousand weights and eight images in memory: what shows transformers' own behaviour in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainingArguments

NAMES = ["road", "car", "tree", "sky"]


class Squares(Dataset[dict[str, torch.Tensor]]):
    """Images whose channels show the class, in four quarters; nothing but pixel values and labels."""

    def __init__(self, count: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        quarters = torch.randint(0, 4, (count, 2, 2), generator=generator)
        self.labels = quarters.repeat_interleave(16, 1).repeat_interleave(16, 2)
        self.labels[:, 0] = 255
        shown = torch.nn.functional.one_hot(self.labels.clamp(max=3), 4)[..., :3].permute(0, 3, 1, 2)
        self.pixel_values = shown + 0.1 * torch.randn(count, 3, 32, 32, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index]}


def build_model(**values: Any) -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], decoder_hidden_size=8, num_attention_heads=[1, 1, 1, 1],
        mlp_ratios=[1, 1, 1, 1], id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)},
        **values,
    )  # fmt: skip
    return SegformerForSemanticSegmentation(config)


def build_arguments(folder: Path, **values: Any) -> TrainingArguments:
    """Return transformers' defaults but for the size of the run."""
    return TrainingArguments(str(folder), **{"max_steps": 4, "disable_tqdm": True, **values})


class CrossEntropy(torch.nn.Module):
    """Somebody's own loss: a mean over pixels at full resolution."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)

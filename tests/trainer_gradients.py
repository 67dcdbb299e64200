"""The gradient of an optimizer step through the real trainer; as a script, under accelerate launch, on two processes.

Arguments: folder of the results, then names of `LOSSES_BY_NAME`, or of architectures in `architectures.py`. Every
process writes `NAME, process R.pt`: the gradient by parameter name, the number of processes, and the images that it
read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from architectures import ARCHITECTURES, Architecture
from torch import Tensor
from torch.utils.data import Dataset
from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainerCallback, TrainingArguments

from segplus.classes import ClassMap
from segplus.losses import LOSSES, build_criterion
from segplus.training import SegmentationTrainer

NAMES = ["road", "car", "tree", "sky"]
LOSSES_BY_NAME: dict[str, dict[str, Any]] = {name: {name: 1.0} for name in LOSSES} | {
    "ohem threshold": {"ohem_cross_entropy": {"threshold": 0.3, "min_kept": 50}},
    "dice squared": {"dice": {"squared": True, "present_only": False}},
    "dice per image": {"dice": {"per_image": True}},
    "lovasz per image": {"lovasz_softmax": {"per_image": True}},
    "all sums": {"cross_entropy": {"label_smoothing": 0.1}, "dice": 0.5, "tversky": 0.5, "lovasz_softmax": 0.5},
    "cross_entropy accumulated": {"cross_entropy": 1.0},
    "soft_boundary_f1 accumulated": {"soft_boundary_f1": 1.0},
}


class UnequalImages(Dataset[dict[str, Tensor]]):
    """Eight images of which between 2 % and 100 % of the pixels are valid."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixel_values = torch.randn(8, 3, 64, 64, generator=generator)
        self.labels = torch.randint(0, 4, (8, 64, 64), generator=generator)
        for number in range(8):
            self.labels[number, (number * 9) + 1 :] = 255
        self.read: list[int] = []

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.read.append(index)
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index], "index": torch.tensor(index)}

    @property
    def split(self) -> UnequalImages:
        return self

    def name(self, index: int) -> str:
        return str(index)


class KeepGradient(TrainerCallback):
    """Keeps the gradient that the optimizer is about to take."""

    def __init__(self) -> None:
        self.gradient: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        inner = model.module if hasattr(model, "module") else model
        self.gradient = {name: p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None}


def compute_gradients(
    losses: dict[str, Any],
    folder: Path,
    batch_size: int,
    accumulation: int,
    class_weights: list[float] | None = None,
    *,
    plain: bool = False,
    steps: int = 1,
    images: UnequalImages | None = None,
    architecture: Architecture | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of the last step, by parameter name, in float64, without dropout; no step moves a weight."""
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        num_labels=4,
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )
    # BatchNorm sees other statistics in smaller batches, so it is frozen for this comparison.
    model = SegformerForSemanticSegmentation(config) if architecture is None else architecture.build(num_labels=4)
    model = model.double()
    keeper, images = KeepGradient(), images or UnequalImages()
    images.pixel_values = images.pixel_values.double()
    trainer = SegmentationTrainer(
        model,
        losses=build_criterion(losses, 4, class_weights=class_weights, plain=plain),
        classes=ClassMap.build(NAMES),
        freeze_batch_norm=True,
        args=TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            report_to="none",
            max_steps=steps,
            learning_rate=0.0,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_grad_norm=0.0,
            remove_unused_columns=False,
            save_strategy="no",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=images,
        callbacks=[keeper],
    )
    trainer.train()
    return keeper.gradient


def save_gradients(folder: Path, term: str) -> None:
    """Write what this process found; see above."""
    images = UnequalImages()
    batch_size, accumulation = (2, 2) if term.endswith("accumulated") else (4, 1)
    architecture = next((one for one in ARCHITECTURES if one.model_type == term), None)
    losses = LOSSES_BY_NAME["cross_entropy" if architecture else term]
    found = compute_gradients(
        losses, folder / "run", batch_size, accumulation, images=images, architecture=architecture
    )
    rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
    result = {"gradient": found, "processes": processes, "read": images.read}
    torch.save(result, folder / f"{term}, process {rank}.pt")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        save_gradients(Path(sys.argv[1]), name)

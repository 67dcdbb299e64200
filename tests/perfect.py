"""A data set whose images show their labels, and a model that reads them: what a perfect prediction is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

STEP = 20  # grey levels between two classes


class PerfectConfig(PreTrainedConfig):
    """Reads class c from grey level STEP * c."""

    model_type = "perfect"


class PerfectModel(PreTrainedModel):
    """Logits of a class fall with the distance of its grey level; its one weight is what a trainer may train."""

    config_class = PerfectConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PerfectConfig) -> None:
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """There is nothing to draw."""

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SemanticSegmenterOutput:
        """Return logits (N, C, H, W) for pixel values (N, 3, H, W) in [0, 1]."""
        level = pixel_values[:, :1] * 255 / STEP
        classes = torch.arange(self.config.num_labels, device=level.device).view(1, -1, 1, 1)
        return SemanticSegmenterOutput(logits=-((level - classes) ** 2) * self.scale)


def register() -> None:
    """Make the model known to the Auto classes; once is enough."""
    AutoConfig.register("perfect", PerfectConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(PerfectConfig, PerfectModel, exist_ok=True)


def write_images(folder: Path, sizes: list[tuple[int, int]], num_classes: int, *, kind: str) -> None:
    """Write pairs whose image shows the class id of every pixel.

    Args:
        folder: Gets images/ and masks/.
        sizes: Height and width of each pair.
        num_classes: C.
        kind: What the masks store: "ids"; "reduced", raw value = id + 1 with 0 as void; "void", ids with C as void.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        ids = rng.integers(0, num_classes, (height, width))
        void = rng.random((height, width)) < 0.2
        raw = {"ids": ids, "reduced": np.where(void, 0, ids + 1), "void": np.where(void, num_classes, ids)}[kind]
        shown = np.repeat((ids * STEP).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(shown).save(folder / "images" / f"{number}.png")
        Image.fromarray(raw.astype(np.uint8)).save(folder / "masks" / f"{number}.png")

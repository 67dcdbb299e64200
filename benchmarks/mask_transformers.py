"""Queries to label maps at the original size: segplus' Predictor beside transformers' own way, in one run.

100 queries of 150 classes for an image of 1024 x 2048, from the image to its label map; the network's answer is drawn
once and costs nothing. Medians of alternating repeats, and the peak memory of each in a process of its own (Linux).
Writes mask_transformers.md beside this file.

    python benchmarks/mask_transformers.py [--repeats 5] [--smoke]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import describe_machine, read_memory_mib, run_alone, start_peak
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, BaseImageProcessor, PreTrainedModel
from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil
from transformers.models.eomt.modeling_eomt import EomtForUniversalSegmentationOutput
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.oneformer.image_processing_pil_oneformer import OneFormerImageProcessorPil

from segplus.inference import Predictor

CLASSES, QUERIES = 150, 100
FAMILIES = ("mask2former", "oneformer", "eomt")
PROCESSORS: dict[str, Any] = {
    "mask2former": Mask2FormerImageProcessorPil,
    "oneformer": OneFormerImageProcessorPil,
    "eomt": EomtImageProcessorPil,
}
MOST_MIB, LEAST_TIMES = 1.2 * 1024, 2.0


class DrawnQueries(PreTrainedModel):
    """Answers every image with the same queries, whose masks are smooth, at stride 4."""

    def __init__(self, config: Any, size: tuple[int, int], patches: int) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        generator = torch.Generator().manual_seed(0)
        height, width = size[0] // 4, size[1] // 4
        coarse = torch.randn(patches, QUERIES, max(2, height // 16), max(2, width // 16), generator=generator)
        self.masks = F.interpolate(coarse * 5 - 5, size=(height, width), mode="bicubic")
        self.classes = torch.randn(patches, QUERIES, CLASSES + 1, generator=generator) * 5

    def forward(self, pixel_values: Tensor, patch_offsets: Any = None, **_: Any) -> EomtForUniversalSegmentationOutput:
        """Return the drawn queries."""
        return EomtForUniversalSegmentationOutput(
            class_queries_logits=self.classes, masks_queries_logits=self.masks, patch_offsets=patch_offsets
        )


def prepare(family: str, side: int) -> tuple[DrawnQueries, BaseImageProcessor, Image.Image]:
    """Return a model, its image processor, and an image of side x 2 side."""
    extra = {"image_size": side} if family == "eomt" else {}
    config = AutoConfig.for_model(family, num_labels=CLASSES, **extra)
    splits = family == "eomt"
    model = DrawnQueries(config, (side, side) if splits else (side, 2 * side), 2 if splits else 1)
    values: dict[str, Any] = {"size": {"shortest_edge": side}, "do_split_image": True} if splits else {}
    processor = PROCESSORS[family](do_resize=False, **values)
    pixels = np.random.default_rng(0).integers(0, 255, (side, 2 * side, 3)).astype(np.uint8)
    return model.eval(), processor, Image.fromarray(pixels)


def predict_by_library(model: DrawnQueries, processor: Any, image: Image.Image) -> Tensor:
    """Return the label map as transformers' pipeline forms it."""
    inputs = processor(images=[image], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
        found: Tensor = processor.post_process_semantic_segmentation(
            outputs, target_sizes=[(image.height, image.width)]
        )[0]
    return found


def predict_by_segplus(model: DrawnQueries, processor: Any, image: Image.Image) -> Tensor:
    """Return the label map as `segplus evaluate` forms it."""
    return Predictor(model, processor).predict(image)


WAYS = {"library": predict_by_library, "segplus": predict_by_segplus}


def print_peak(way: str, family: str, side: int) -> None:
    """Print by how many MiB a prediction raises this process's memory."""
    prepared = prepare(family, side)
    small = prepare(family, 64)
    WAYS[way](*small)  # what is loaded once
    before = start_peak()
    WAYS[way](*prepared)
    print(read_memory_mib("VmHWM") - before)


def measure_family(family: str, side: int, repeats: int) -> list[str]:
    """Return the cells of a row."""
    prepared = prepare(family, side)
    labels = {name: way(*prepared) for name, way in WAYS.items()}
    differing = int((labels["library"].long() != labels["segplus"].long()).sum())
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(*prepared)
            seconds[name].append(time.perf_counter() - start)
    peaks = {
        name: float(run_alone("mask_transformers", f"print_peak({name!r}, {family!r}, {side})")[0]) for name in WAYS
    }
    theirs, ours = (statistics.median(seconds[name]) for name in WAYS)
    times = theirs / ours
    return [
        family,
        f"{theirs:.2f}",
        f"{ours:.2f}",
        f"{times:.1f}",
        "yes" if times >= LEAST_TIMES else "no",
        f"{peaks['library']:.0f}",
        f"{peaks['segplus']:.0f}",
        "yes" if peaks["segplus"] < MOST_MIB else "no",
        str(differing),
        str(len(labels["segplus"].unique())),
    ]


def main() -> None:
    """Measure every family and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="256 x 512, one repeat, nothing written")
    options = parser.parse_args()
    side, repeats = (256, 1) if options.smoke else (1024, options.repeats)
    titles = ["family", "transformers, s", "segplus, s", "times faster", "at least 2", "transformers' peak, MiB"]
    titles += ["segplus' peak, MiB", "below 1.2 GiB", "differing pixels", "classes in the map"]
    rows = [titles, ["---"] * len(titles)]
    for family in FAMILIES:
        rows.append(measure_family(family, side, repeats))
        print(rows[-1], flush=True)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    text = (
        f"# Queries to label maps\n\n{QUERIES} queries of {CLASSES} classes, an image of {side} x {2 * side}, from the "
        f"image to its label map without the network; medians of {repeats} alternating repeats. EoMT cuts the image "
        f"into two squares. Peaks are beyond the model and its answer.\n\n{table}\n\n"
    )
    text += "\n".join(describe_machine("torch", "transformers", "numpy")) + "\n"
    if options.smoke:
        print(text)
    else:
        Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()

"""The evaluator beside evaluate's mean_iou and torchmetrics, and its memory as images and images grow, in one run.

1. 200 masks of 512x512 with 12 and 150 classes: seconds, and the largest difference of any score. evaluate's metric is
   written out here, since evaluate.load downloads it: masks go to Arrow as PNG, areas come from np.histogram.
2. Peak memory over 25 to 400 images at 150 classes.
3. Peak memory of sliding-window predictions of a 10,000 x 10,000 image with 19 classes, above the model: windows
   blended on the model's grid, and by pixels where the model's scores are no whole number of steps.

Medians of alternating repeats; memory needs Linux. Writes evaluation.md beside this file.

    python benchmarks/evaluation.py [--repeats 5] [--smoke]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import numpy.typing as npt
import torch
from machine import describe_machine, read_memory_mib, run_alone, start_peak
from PIL import Image
from torchmetrics.classification import MulticlassConfusionMatrix
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.inference import Predictor
from segplus.metrics import ConfusionMatrix, Evaluator, MeanIoU, compute_scores, label_map
from segplus.recipe.evaluation_section import ProtocolRecipe

Masks = npt.NDArray[np.uint8]
GOAL_TIMES, GOAL_DIFFERENCE, GOAL_MIB = 30, 1e-12, 2048
COMPARED = ("mean_iou", "mean_accuracy", "overall_accuracy", "per_category_iou", "per_category_accuracy")


class MeanIou(evaluate.Metric):
    """evaluate's mean_iou in our own words."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions: Any, references: Any, num_labels: int, ignore_index: int) -> dict[str, Any]:
        areas = np.zeros((3, num_labels))
        for prediction, reference in zip(predictions, references, strict=True):
            guess, truth = np.array(prediction), np.array(reference)
            valid = truth != ignore_index
            guess, truth = guess[valid], truth[valid]
            for row, values in zip(areas, (guess[guess == truth], guess, truth), strict=True):
                row += np.histogram(values, bins=num_labels, range=(0, num_labels - 1))[0]
        both, guessed, true = areas
        with np.errstate(invalid="ignore"):
            iou, accuracy = both / (guessed + true - both), both / true
        return {
            "mean_iou": np.nanmean(iou),
            "mean_accuracy": np.nanmean(accuracy),
            "overall_accuracy": both.sum() / true.sum(),
            "per_category_iou": iou,
            "per_category_accuracy": accuracy,
        }


def draw_masks(images: int, side: int, classes: int, seed: int = 0) -> tuple[Masks, Masks]:
    """Return predictions and labels: regions with curved borders, 10 % of the pixels wrong and 2 % ignored."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    labels = np.empty((images, side, side), dtype=np.uint8)
    for one in labels:
        logits = torch.randn(1, classes, max(2, side // 32), max(2, side // 32), generator=generator)
        one[:] = label_map(logits, (side, side))[0].numpy()
    blocks = (rng.random((images, side // 16, side // 16)) < 0.1).repeat(16, 1).repeat(16, 2)
    predictions = np.where(blocks, (labels + 1) % classes, labels)
    labels[rng.random((images, side // 16, side // 16)).repeat(16, 1).repeat(16, 2) < 0.02] = 255
    return predictions, labels


def score_by_segplus(predictions: Masks, labels: Masks, classes: int) -> dict[str, Any]:
    """Return the scores of an evaluator fed image by image."""
    matrix = ConfusionMatrix(classes)
    for prediction, label in zip(predictions, labels, strict=True):
        matrix.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return matrix.compute()


def score_by_evaluate(predictions: Masks, labels: Masks, classes: int) -> dict[str, Any]:
    """Return the scores of evaluate's metric."""
    with tempfile.TemporaryDirectory() as folder:
        metric = MeanIou(cache_dir=folder)
        found = metric.compute(
            predictions=list(predictions), references=list(labels), num_labels=classes, ignore_index=255
        )
    return dict(found or {})


def score_by_torchmetrics(predictions: Masks, labels: Masks, classes: int) -> dict[str, Any]:
    """Return the scores of torchmetrics' confusion matrix, fed image by image."""
    metric = MulticlassConfusionMatrix(classes, ignore_index=255)
    for prediction, label in zip(predictions, labels, strict=True):
        metric.update(torch.from_numpy(prediction).long(), torch.from_numpy(label).long())
    return compute_scores(metric.compute())


def score_by_drop_in(predictions: Masks, labels: Masks, classes: int) -> dict[str, Any]:
    """Return the scores of segplus.metrics.MeanIoU, called as evaluate's metric is."""
    found = MeanIoU().compute(
        predictions=list(predictions), references=list(labels), num_labels=classes, ignore_index=255
    )
    return dict(found)


WAYS: dict[str, Callable[[Masks, Masks, int], dict[str, Any]]] = {
    "evaluate": score_by_evaluate,
    "torchmetrics": score_by_torchmetrics,
    "segplus": score_by_segplus,
    "MeanIoU": score_by_drop_in,
}


def compare_speed(images: int, side: int, repeats: int) -> list[str]:
    """Return the rows of the first table."""
    rows = []
    for classes in (12, 150):
        masks = draw_masks(images, side, classes)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        scores = {}
        for repeat in range(repeats + 1):
            for name, way in WAYS.items():
                started = time.perf_counter()
                scores[name] = way(*masks, classes)
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        difference = max(
            float(np.nanmax(np.abs(np.subtract(scores[name][key], scores["evaluate"][key]))))
            for name in ("segplus", "MeanIoU")
            for key in COMPARED
        )
        numbers = " | ".join(f"{medians[name]:.3f}" for name in WAYS)
        times = {name: medians["evaluate"] / medians[name] for name in ("segplus", "MeanIoU")}
        ratios = " | ".join(f"{times[name]:.1f}" for name in times)
        ratios += f" | {medians['torchmetrics'] / medians['segplus']:.1f}"
        reached = min(times.values()) >= GOAL_TIMES and difference <= GOAL_DIFFERENCE
        goals = f"{GOAL_TIMES} | {difference:.1e} | {GOAL_DIFFERENCE:.0e} | {'yes' if reached else 'no'}"
        rows.append(f"| {classes} | {numbers} | {ratios} | {goals} |")
        print(rows[-1], flush=True)
    return rows


def print_growth(images: int, side: int) -> None:
    """Print by how many MiB an evaluation of so many images raises the peak above the first image's."""
    evaluator = Evaluator(150)
    for index in range(images):
        prediction, label = draw_masks(1, side, 150, seed=index)
        evaluator.update(torch.from_numpy(prediction[0]), torch.from_numpy(label[0]), index, f"{index}")
        if index == 0:
            before = start_peak()
    evaluator.compute(resamples=100)
    print(f"{read_memory_mib('VmHWM') - before:.0f}")


class OddModel(torch.nn.Module):
    """A model whose scores of a window are no whole number of steps, so that windows are blended by pixels."""

    def __init__(self, model: SegformerForSemanticSegmentation) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Return scores of one row and one column more than the model's."""
        outputs = self.model(pixel_values=pixel_values)
        outputs.logits = torch.nn.functional.pad(outputs.logits, (0, 1, 0, 1), mode="replicate")
        return outputs


def print_sliding(side: int, way: str) -> None:
    """Print by how many MiB a sliding-window prediction raises the peak above the model, and its seconds."""
    Image.MAX_IMAGE_PIXELS = None
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=32, num_labels=19
    )
    processor = SegformerImageProcessorPil(size={"height": 512, "width": 512})
    protocol = ProtocolRecipe(name="sliding", window_px=[512, 512], overlap=0.25)
    model = SegformerForSemanticSegmentation(config)
    predictor = Predictor(model if way == "grid" else OddModel(model), processor, protocol)
    tile = np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8)
    before = start_peak()
    image = Image.new("RGB", (side, side))
    for top in range(0, side, 500):
        for left in range(0, side, 500):
            image.paste(Image.fromarray(tile), (left, top))
    started = time.perf_counter()
    labels = predictor.predict(image)
    print(f"{read_memory_mib('VmHWM') - before:.0f} {time.perf_counter() - started:.0f} {tuple(labels.shape)}")


def format_sliding(sliding: dict[str, list[str]]) -> str:
    """Return the rows of the last table."""
    names = {"grid": "on the model's grid", "pixels": "by pixels, on the CPU"}
    return "\n".join(f"| {names[way]} | {mib} | {GOAL_MIB} | {seconds} |" for way, (mib, seconds) in sliding.items())


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    images, side, large = (4, 64, 1000) if options.smoke else (200, 512, 10_000)
    speed = compare_speed(images, side, options.repeats)
    growth = {count: run_alone("evaluation", f"print_growth({count}, {side})")[0] for count in (25, 100, 400)}
    print("growth in MiB:", growth, flush=True)
    sliding = {way: run_alone("evaluation", f"print_sliding({large}, {way!r})")[:2] for way in ("grid", "pixels")}
    print("sliding, MiB and seconds:", sliding, flush=True)
    text = "\n".join(
        [
            "# The evaluator",
            "",
            f"Scores of {images} masks of {side}x{side}, seconds, medians of {options.repeats} alternating repeats.",
            "",
            "| classes | evaluate | torchmetrics | segplus | segplus.metrics.MeanIoU | evaluate / segplus "
            "| evaluate / MeanIoU | torchmetrics / segplus | goal, evaluate / both | difference | goal | reached |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *speed,
            "",
            "Growth of the peak memory above the first image's, 150 classes, intervals included: "
            + ", ".join(f"{mib} MiB at {count} images" for count, mib in growth.items())
            + ".",
            "",
            f"A {large} x {large} image, 19 classes, windows of 512 px at overlap 0.25, tiny SegFormer; MiB above the"
            " model, the image's own included:",
            "",
            f"| windows are blended | MiB | goal, below | seconds |\n|---|---|---|---|\n{format_sliding(sliding)}",
            "",
            *describe_machine("torch", "transformers", "evaluate", "torchmetrics", "datasets"),
            "",
        ]
    )
    if not options.smoke:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

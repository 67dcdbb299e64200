"""Train one small network on CamVid with several losses, same seed and steps, and draw the IoU of every class.

MobileNetV2-DeepLabV3 from the VOC checkpoint, BatchNorm statistics frozen, a plain loop in anybody's style: the losses
need neither a recipe nor the trainer. Writes camvid_losses.md beside this file and docs/images/camvid_losses.svg.
Run: SEGPLUS_DATA=... python benchmarks/camvid_losses.py [--steps 150]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForSemanticSegmentation
from transformers.utils import logging

from segplus.data.statistics import count_labels, sum_class_pixels
from segplus.losses import build_criterion
from segplus.losses.class_weights import compute_class_weights

VOID, IGNORE = 11, 255
CROP_PX, BATCH = (240, 320), 4

# Row of the drawn table -> losses, and the class weights' formula.
RUNS: dict[str, tuple[dict[str, object], str | None]] = {
    "cross_entropy": ({"cross_entropy": 1.0}, None),
    "cross_entropy, median frequency": ({"cross_entropy": 1.0}, "median_frequency"),
    "focal": ({"focal": {"gamma": 2.0}}, None),
    "ohem_cross_entropy": ({"ohem_cross_entropy": {"share": 0.25}}, None),
    "dice": ({"dice": 1.0}, None),
    "cross_entropy + dice": ({"cross_entropy": 1.0, "dice": 1.0}, None),
    "cross_entropy + lovasz_softmax": ({"cross_entropy": 1.0, "lovasz_softmax": 1.0}, None),
    "cross_entropy + soft_boundary_f1": ({"cross_entropy": 1.0, "soft_boundary_f1": 0.5}, None),
}


def read_pair(file: Path) -> tuple[Tensor, Tensor]:
    """Return an image in [-1, 1], shape (3, H, W), and its class ids, uint8, shape (H, W)."""
    pixels = np.array(Image.open(file).convert("RGB"), dtype=np.float32) / 127.5 - 1
    label = np.array(Image.open(file.parents[1] / "masks" / f"{file.stem}.png"))
    return torch.from_numpy(pixels).movedim(-1, 0), torch.from_numpy(np.where(label == VOID, IGNORE, label))


def draw_batches(files: list[Path], steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random crops, half of them mirrored, the same ones for every loss."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        images, labels = [], []
        for file in random.choice(np.array(files, dtype=object), BATCH, replace=False):
            image, label = read_pair(file)
            top = int(random.integers(0, label.shape[0] - CROP_PX[0] + 1))
            left = int(random.integers(0, label.shape[1] - CROP_PX[1] + 1))
            rows, columns = slice(top, top + CROP_PX[0]), slice(left, left + CROP_PX[1])
            image, label = image[:, rows, columns], label[rows, columns]
            if random.random() < 0.5:
                image, label = image.flip(-1), label.flip(-1)
            images.append(image)
            labels.append(label)
        yield torch.stack(images), torch.stack(labels)


def load_network(folder: Path, classes: int, seed: int) -> nn.Module:
    """Return the pretrained network with a new classifier, its BatchNorm statistics frozen.

    Channels last: contiguous, torch takes up to twenty times as long for a step of these depthwise convolutions.
    """
    torch.manual_seed(seed)
    network = AutoModelForSemanticSegmentation.from_pretrained(
        folder / "models" / "deeplabv3-mobilenet-v2-voc-hf", num_labels=classes, ignore_mismatched_sizes=True
    )
    network = network.to(memory_format=torch.channels_last).train()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout, nn.Dropout2d)):
            module.eval()
    return network


def train(network: nn.Module, losses: tuple[dict[str, object], Tensor | None], batches: Iterator, steps: int) -> None:
    """Train by AdamW with a polynomial decay; the classifier learns ten times faster than the rest."""
    config, weights = losses
    criterion = build_criterion(config, network.config.num_labels, IGNORE, class_weights=weights)
    head = [p for name, p in network.named_parameters() if "classifier" in name]
    rest = [p for name, p in network.named_parameters() if "classifier" not in name]
    optimizer = torch.optim.AdamW([{"params": rest, "lr": 2e-4}, {"params": head, "lr": 2e-3}], weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / steps) ** 0.9)
    for step, (images, labels) in enumerate(batches):
        criterion.set_progress(step / steps)
        loss = criterion(network(pixel_values=images).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def measure_iou(network: nn.Module, files: list[Path], classes: int) -> list[float]:
    """Return the IoU of every class over all pixels of the files at their own size, NaN for absent classes."""
    network.eval()
    matrix = torch.zeros(classes * classes, dtype=torch.int64)
    for file in files:
        image, label = read_pair(file)
        logits = network(pixel_values=image[None]).logits
        guess = F.interpolate(logits, size=label.shape, mode="bilinear", align_corners=False).argmax(1)[0]
        valid = label != IGNORE
        matrix += torch.bincount(label[valid].long() * classes + guess[valid], minlength=classes * classes)
    table = matrix.view(classes, classes).double()
    hits = table.diagonal()
    return (hits / (table.sum(0) + table.sum(1) - hits)).tolist()


def draw_svg(rows: dict[str, list[float]], names: list[str]) -> str:
    """Return a table as an image: one row a loss, one column a class, darker is better, a number in every cell."""
    width, height, left, top = 62, 26, 245, 70
    columns = ["mean", *names]
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width * len(columns) + 10}" '
        f'height="{top + height * len(rows) + 10}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="8" y="20" font-size="14">IoU by class, CamVid test split, same seed and steps</text>',
    ]
    for column, name in enumerate(columns):
        middle = left + width * column + width / 2
        elements.append(f'<text x="{middle}" y="{top - 8}" text-anchor="middle" font-size="10">{name}</text>')
    for row, (title, values) in enumerate(rows.items()):
        y = top + height * row
        elements.append(f'<text x="8" y="{y + 17}">{title}</text>')
        for column, value in enumerate([float(np.nanmean(values)), *values]):
            shade = 0.0 if np.isnan(value) else value
            red, green, blue = (round(255 + (end - 255) * shade) for end in (0, 90, 160))
            x = left + width * column
            ink = "white" if shade > 0.55 else "black"
            elements += [
                f'<rect x="{x}" y="{y}" width="{width - 2}" height="{height - 2}" fill="rgb({red},{green},{blue})"/>',
                f'<text x="{x + width / 2 - 1}" y="{y + 17}" text-anchor="middle" fill="{ink}">{value:.3f}</text>',
            ]
    return "\n".join([*elements, "</svg>"]) + "\n"


def write_report(rows: dict[str, list[float]], names: list[str], steps: int, images: int) -> None:
    """Write the image and the table."""
    root = Path(__file__).parents[1]
    image = root / "docs" / "images" / "camvid_losses.svg"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_text(draw_svg(rows, names))
    lines = [
        "# Losses on CamVid",
        "",
        f"MobileNetV2-DeepLabV3 (VOC checkpoint), {steps} steps of {BATCH} crops of {CROP_PX[1]}x{CROP_PX[0]},",
        f"one seed, {images} test images at their own size. One short run a loss: a point or two is noise.",
        "Made by `python benchmarks/camvid_losses.py`.",
        "",
        f"| loss | mean IoU | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for title, values in rows.items():
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {title} | {np.nanmean(values):.3f} | {cells} |")
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--images", type=int, default=117, help="test images to measure on, evenly spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    logging.set_verbosity_error()
    folder = Path(os.environ["SEGPLUS_DATA"])
    named = json.loads((folder / "camvid" / "id2label.json").read_text())
    names = [named[str(index)] for index in range(VOID)]
    training = sorted((folder / "camvid" / "train" / "images").glob("*.jpg"))
    testing = sorted((folder / "camvid" / "test" / "images").glob("*.jpg"))
    testing = testing[:: max(1, len(testing) // options.images)][: options.images]
    counts = sum_class_pixels(np.stack([count_labels(read_pair(file)[1], VOID)[:-1] for file in training]))
    rows = {}
    for title, (config, formula) in RUNS.items():
        start = time.perf_counter()
        network = load_network(folder, VOID, options.seed)
        weights = None if formula is None else compute_class_weights(counts, formula)
        train(network, (config, weights), draw_batches(training, options.steps, options.seed), options.steps)
        seconds = time.perf_counter() - start
        rows[title] = measure_iou(network, testing, VOID)
        print(f"{title}: mean IoU {np.nanmean(rows[title]):.3f} after {seconds:.0f} s", flush=True)
    if not options.dry_run:
        write_report(rows, names, options.steps, len(testing))


if __name__ == "__main__":
    main()

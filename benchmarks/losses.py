"""Measure the losses beside the naive way (upsample, then the textbook formula by autograd); write losses.md.

Times are medians of alternating repeats in one process; memory is measured in fresh processes, see `measure_memory`.
Run: python benchmarks/losses.py [--repeats 5] [--only cross_entropy]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe_machine, read_memory_mib, start_peak
from torch import Tensor

from segplus.losses import build_criterion

IGNORE = 255
# Steps whose common peak is measured; fewer of the naive way, whose steps are slow: more could only add to its peak.
MEMORY_STEPS = {"naive": 4, "streamed": 20}
Loss = Callable[[Tensor, Tensor], Tensor]


def sum_overlaps(full: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hits, areas and counts of every class, as a textbook has them."""
    valid = (labels != IGNORE)[:, None]
    probabilities = full.softmax(1) * valid
    safe = labels.masked_fill(labels == IGNORE, 0)[:, None]
    truth = torch.zeros_like(probabilities).scatter_(1, safe, 1.0) * valid
    return (probabilities * truth).sum((0, 2, 3)), probabilities.sum((0, 2, 3)), truth.sum((0, 2, 3))


def naive_cross_entropy(full: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(full, labels, ignore_index=IGNORE)


def naive_smoothing(full: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(full, labels, ignore_index=IGNORE, label_smoothing=0.1)


def naive_focal(full: Tensor, labels: Tensor) -> Tensor:
    losses = F.cross_entropy(full, labels, ignore_index=IGNORE, reduction="none")
    return ((1 - (-losses).exp()) ** 2 * losses).sum() / (labels != IGNORE).sum()


def naive_dice(full: Tensor, labels: Tensor) -> Tensor:
    hits, areas, counts = sum_overlaps(full, labels)
    return (1 - (2 * hits + 1) / (areas + counts + 1))[counts > 0].mean()


def naive_tversky(full: Tensor, labels: Tensor) -> Tensor:
    hits, areas, counts = sum_overlaps(full, labels)
    return (1 - (hits + 1) / (hits + 0.3 * (areas - hits) + 0.7 * (counts - hits) + 1))[counts > 0].mean()


def naive_both(full: Tensor, labels: Tensor) -> Tensor:
    return naive_cross_entropy(full, labels) + naive_dice(full, labels)


def naive_lovasz(full: Tensor, labels: Tensor) -> Tensor:
    """Return Berman's loss: every class' errors sorted, classes present."""
    valid = labels != IGNORE
    probabilities, kept, losses = full.softmax(1).movedim(1, -1)[valid], labels[valid], []
    for index in range(probabilities.shape[1]):
        truth = (kept == index).float()
        if truth.sum() == 0:
            continue
        errors, order = (truth - probabilities[:, index]).abs().sort(descending=True)
        truth = truth[order]
        jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
        jaccard[1:] = jaccard[1:] - jaccard[:-1].clone()
        losses.append(torch.dot(errors, jaccard))
    return torch.stack(losses).mean()


@dataclass(frozen=True)
class Case:
    """One line of the table: a loss, a size, and what is promised (times faster, share of the memory)."""

    title: str
    config: dict[str, object]
    naive: Loss
    images: int
    classes: int
    low: tuple[int, int]
    high: tuple[int, int]
    faster: float
    memory: float

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return logits and blocky labels with a tenth of the pixels ignored, the same every time."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.images, self.classes, *self.low)
        logits = (torch.randn(shape, generator=generator) * 3).requires_grad_()
        blocks = torch.randint(0, self.classes, (self.images, 1, 16, 16), generator=generator).float()
        labels = F.interpolate(blocks, size=self.high)[:, 0].long()
        return logits, labels.masked_fill(torch.rand(labels.shape, generator=generator) < 0.1, IGNORE)

    def choose(self, way: str) -> Loss:
        """Return the loss of logits and labels, "naive" or "streamed"."""
        if way == "streamed":
            return build_criterion(self.config, self.classes, IGNORE)

        def upsample_and_compute(logits: Tensor, labels: Tensor) -> Tensor:
            full = F.interpolate(logits, size=self.high, mode="bilinear", align_corners=False)
            return self.naive(full, labels)

        return upsample_and_compute


def list_cases(size: int) -> list[Case]:
    """Return the lines of the table; `size` is the side of the labels in pixels, 512 but for a smoke run."""
    low, high, odd = (size // 4, size // 4), (size, size), (size - 12, size - 12)
    smoothed = {"cross_entropy": {"label_smoothing": 0.1}}
    return [
        Case("cross_entropy", {"cross_entropy": 1.0}, naive_cross_entropy, 8, 150, low, high, 5, 1 / 16),
        Case("cross_entropy", {"cross_entropy": 1.0}, naive_cross_entropy, 8, 19, low, high, 3, 1 / 6),
        Case("focal", {"focal": 1.0}, naive_focal, 8, 150, low, high, 3, 1 / 12),
        Case("dice", {"dice": 1.0}, naive_dice, 8, 150, low, high, 3, 1 / 12),
        Case("tversky", {"tversky": 1.0}, naive_tversky, 8, 150, low, high, 3, 1 / 12),
        Case("label smoothing", smoothed, naive_smoothing, 8, 150, low, high, 3, 1 / 12),
        Case("cross_entropy + dice", {"cross_entropy": 1.0, "dice": 1.0}, naive_both, 8, 150, low, high, 3, 1 / 12),
        Case("lovasz_softmax", {"lovasz_softmax": 1.0}, naive_lovasz, 8, 19, low, high, 1, 1 / 3),
        Case("cross_entropy, scale 3.9", {"cross_entropy": 1.0}, naive_cross_entropy, 8, 150, low, odd, 1, 1 / 12),
    ]


def step(loss: Loss, logits: Tensor, labels: Tensor) -> float:
    """Return the value after one forward and backward pass."""
    logits.grad = None
    value = loss(logits, labels)
    value.backward()
    return float(value.detach())


def measure_seconds(case: Case, repeats: int) -> dict[str, float]:
    """Return the median seconds of both ways, which take turns, and how far their gradients are apart."""
    logits, labels = case.draw()
    seconds: dict[str, list[float]] = {"naive": [], "streamed": []}
    ways = {way: case.choose(way) for way in seconds}
    gradients = {}
    for repeat in range(repeats + 1):  # the first turn warms up
        for way, loss in ways.items():
            start = time.perf_counter()
            step(loss, logits, labels)
            if repeat:
                seconds[way].append(time.perf_counter() - start)
            elif logits.grad is not None:
                gradients[way] = logits.grad.clone()
    found = {way: statistics.median(times) for way, times in seconds.items()}
    gap = (gradients["streamed"] - gradients["naive"]).norm() / gradients["naive"].norm()
    return {**found, "gradient_gap": float(gap)}


def measure_memory(case: Case, way: str) -> float:
    """Return the MiB that repeated steps take at their peak beyond what the process holds with logits and labels.

    Called in a fresh process. A step on a tiny input comes first, so that libraries and thread pools are loaded; then
    the kernel's high-water mark is reset. Several steps count what the allocator keeps of one for the next, as in a
    training. The gradient by the logits counts for both ways.
    """
    loss = case.choose(way)
    tiny_logits, tiny_labels = torch.randn(1, case.classes, 4, 4, requires_grad=True), torch.zeros(1, 16, 16).long()
    if way == "streamed":
        step(loss, tiny_logits, tiny_labels)
    else:
        step(case.naive, tiny_logits, torch.zeros(1, 4, 4).long())
    logits, labels = case.draw()
    before = start_peak()
    for _ in range(MEMORY_STEPS[way]):
        step(loss, logits, labels)
    return read_memory_mib("VmHWM") - before


def write_table(rows: list[dict[str, object]], target: Path, repeats: int) -> None:
    """Write the table as markdown."""
    lines = [
        "# Losses beside the naive way",
        "",
        f"Forward and backward, float32, medians of {repeats} alternating repeats.",
        "Naive: `F.interpolate`, then torch's loss or the textbook formula, by autograd. Extra memory: peak of "
        f"{MEMORY_STEPS['streamed']} steps",
        f"(of the naive way: {MEMORY_STEPS['naive']}) in a fresh process beyond what it holds with logits and labels",
        "(the gradient by the logits included).",
        "Gradients apart: of the two ways in float32, as a share. Lovasz's naive steps are differences of quotients",
        "near 1, which float32 rounds; in float64 the two agree to 1e-10 (`tests/test_losses_scales.py`).",
        "Made by `python benchmarks/losses.py`.",
        "",
        "| loss | N, C | low -> high | naive s | streamed s | faster | promised | naive MiB | streamed MiB | memory | "
        "promised | gradients apart |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        "| {title} | {size} | {grid} | {naive:.2f} | {streamed:.2f} | {faster:.1f}x | {least:g}x | {naive_mib:.0f} | "
        "{streamed_mib:.0f} | 1/{share:.1f} | 1/{share_least:.0f} | {gap:.0e} |".format(**row)
        for row in rows
    ]
    lines += ["", *describe_machine("torch")]
    target.write_text("\n".join(lines) + "\n")


def run_case(index: int, case: Case, options: argparse.Namespace) -> dict[str, object]:
    """Return one row of the table."""
    times = measure_seconds(case, options.repeats)
    memory = {}
    for way in ("naive", "streamed"):
        command = [sys.executable, __file__, "--memory", f"{index}:{way}", "--size", str(options.size)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        memory[way] = max(float(json.loads(done.stdout.splitlines()[-1])), 0.1)
    return {
        "title": case.title,
        "size": f"{case.images}, {case.classes}",
        "grid": f"{case.low[0]}x{case.low[1]} -> {case.high[0]}x{case.high[1]}",
        "naive": times["naive"],
        "streamed": times["streamed"],
        "faster": times["naive"] / times["streamed"],
        "least": case.faster,
        "naive_mib": memory["naive"],
        "streamed_mib": memory["streamed"],
        "share": memory["naive"] / memory["streamed"],
        "share_least": 1 / case.memory,
        "gap": times["gradient_gap"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="side of the labels in pixels")
    parser.add_argument("--only", default="", help="lines whose title contains this")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--memory", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = min(2, os.cpu_count() or 1)
    torch.set_num_threads(threads)
    cases = list_cases(options.size)
    if options.memory:
        index, way = options.memory.split(":")
        print(json.dumps(measure_memory(cases[int(index)], way)))
        return
    rows = []
    for index, case in enumerate(cases):
        if options.only not in case.title:
            continue
        rows.append(run_case(index, case, options))
        row = rows[-1]
        print(
            f"{row['title']} ({row['size']}): {row['faster']:.1f}x faster, 1/{row['share']:.1f} of the memory",
            flush=True,
        )
    write_table(rows, options.output, options.repeats)


if __name__ == "__main__":
    main()

"""What the digests of a checkpoint cost beside the time between two saves: SegFormer-B0 at the default interval.

Usage: python benchmarks/checkpoints.py [--epoch-images 367] [--size 512]

The default saves once an epoch. An epoch is measured as a few steps of training, scaled to its images, without the
evaluation and the saving themselves, so the share that is printed is an upper bound. CPU time, not wall time, so that
other work on the machine does not count; hashing and training both keep a core busy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe_machine
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segplus.losses import build_criterion
from segplus.models.manifest import compute_digests, find_altered_file, write_manifest

BATCH, STEPS = 8, 2


def measure_step(model: SegformerForSemanticSegmentation, optimizer: torch.optim.Optimizer, size: int) -> float:
    """Return the CPU seconds of one training step, the fastest of a few."""
    criterion = build_criterion({"cross_entropy": 1.0}, 11, 255)
    pixels, labels = torch.randn(BATCH, 3, size, size), torch.randint(0, 11, (BATCH, size, size))
    seconds = []
    for _ in range(STEPS):
        started = time.process_time()
        criterion(model(pixel_values=pixels).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - started)
    return min(seconds)


def main() -> None:
    """Measure, print and write one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epoch-images", type=int, default=367, help="CamVid's training split")
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=11)).train()
    optimizer = torch.optim.AdamW(model.parameters())
    step = measure_step(model, optimizer, options.size)
    between = step * -(-options.epoch_images // BATCH)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")
        files = [path for path in folder.iterdir() if path.is_file()]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        digests = min(_time(lambda: compute_digests(files)) for _ in range(5))
        written = min(_time(lambda: write_manifest(folder)) for _ in range(5))
        verified = min(_time(lambda: find_altered_file(folder)) for _ in range(5))
    lines = [
        "# Digests of a checkpoint",
        "",
        "Written by `python benchmarks/checkpoints.py`: SegFormer-B0 with AdamW's state, saved once an epoch of "
        f"{options.epoch_images} images of {options.size} x {options.size} pixels. "
        "CPU time of all threads, fastest of five: the machine was shared.",
        "",
        "| Checkpoint | Digests | Manifest written | Verified | Between two saves | Manifest's share |",
        "|---:|---:|---:|---:|---:|---:|",
        f"| {megabytes:.1f} MB | {1e3 * digests:.0f} ms | {1e3 * written:.0f} ms | {1e3 * verified:.0f} ms "
        f"| {between:.0f} s | {100 * written / between:.3f} % |",
        "",
        *describe_machine("torch", "transformers"),
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _time(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


if __name__ == "__main__":
    main()

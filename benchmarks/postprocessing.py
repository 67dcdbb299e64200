"""Time each step on a label map, the random field and the measurements, one image of 2048 x 1024 with 500 objects.

Writes postprocessing.md beside this file.
Run: python benchmarks/postprocessing.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

from segplus.inference.object_measurements import measure_classes, measure_objects
from segplus.inference.postprocessing.components import fill_holes, keep_largest, remove_by_area
from segplus.inference.postprocessing.dense_crf import refine_probabilities
from segplus.inference.postprocessing.outlines import close_class, open_class, take_majority
from segplus.inference.postprocessing.touching import split_touching
from segplus.recipe.postprocess_section import CrfRecipe

NAMES = [f"class {class_id}" for class_id in range(5)]


def draw_labels(size: tuple[int, int], objects: int) -> np.ndarray:
    """Return a label map with discs of four classes on class 0, each with a hole, on a grid so that none touch."""
    rng = np.random.default_rng(0)
    labels = np.zeros(size, dtype=np.uint8)
    columns = int(np.ceil(np.sqrt(objects * size[1] / size[0])))
    step = size[1] // columns
    for number in range(objects):
        y, x = (number // columns) * step + step // 2, (number % columns) * step + step // 2
        radius = int(rng.integers(step // 5, step // 2 - 2))
        top, left = max(0, y - radius), max(0, x - radius)
        box = labels[top : y + radius + 1, left : x + radius + 1]
        rows, cells = np.mgrid[top : top + box.shape[0], left : left + box.shape[1]]
        squared = (rows - y) ** 2 + (cells - x) ** 2
        box[(squared <= radius**2) & (squared > 9)] = 1 + number % 4
    return labels


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the shortest time of some repeats, and the least time of the processors, in seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return min(wall for wall, _ in times), min(busy for _, busy in times)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    labels = draw_labels((1024, 2048), 500)
    confidence = np.random.default_rng(0).random(labels.shape, dtype=np.float32)
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(5, 512, 1024, generator=generator).softmax(0)
    image = torch.rand(3, 512, 1024, generator=generator) * 255

    def each(step: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[], object]:
        return lambda: [step(labels, class_id) for class_id in range(5)]

    rows = {
        "majority, radius 2": lambda: take_majority(labels, 2, 5),
        "fill holes, 5 classes": each(lambda label, class_id: fill_holes(label, class_id, 50)),
        "remove below 600 pixels, 5 classes": each(lambda label, one: remove_by_area(label, one, 5, 600)),
        "keep the 10 largest, 5 classes": each(lambda label, one: keep_largest(label, one, 5, 10)),
        "open, radius 2, 5 classes": each(lambda label, one: open_class(label, one, 2, 5)),
        "close, radius 2, 5 classes": each(lambda label, one: close_class(label, one, 2)),
        "split touching, 1 class": lambda: split_touching(labels, 1, 5, 5),
        "areas of classes": lambda: measure_classes(labels, NAMES),
        "objects: box, centroid, perimeter, axes, confidence": lambda: measure_objects(labels, NAMES, confidence),
    }
    lines = [
        "# Post-processing and measurements",
        "",
        *describe_machine("numpy", "opencv-python-headless", "scikit-image", "torch"),
        "",
    ]
    lines += [f"A label map of 2048 x 1024 pixels with 500 objects of 4 classes; shortest of {repeats}.", ""]
    lines += ["| step | ms | ms of the processors |", "|---|---:|---:|"]
    for name, work in rows.items():
        wall, busy = measure(work, repeats)
        lines.append(f"| {name} | {1000 * wall:.0f} | {1000 * busy:.0f} |")
    wall, busy = measure(
        lambda: refine_probabilities(probabilities, image, CrfRecipe(iterations=5)), max(1, repeats // 3)
    )
    told = f"{wall:.1f} s, {busy:.1f} s of the processors"
    lines += ["", f"Random field, 5 classes at 1024 x 512, 5 iterations, window 11 x 11: {told}.", ""]
    lines += ["`python benchmarks/postprocessing.py` writes this page."]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Time `segplus predict` beside transformers' pipeline, from images on disk to masks on disk: SegFormer-B0.

Weights are random: the time does not depend on them. The share outside the network is what is left of segplus' time
after that of the network alone, on pixel values that are ready. Writes predict.md beside this file.
Run: python benchmarks/predict.py [--images 4] [--size 1024 2048] [--classes 19 150]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, SegformerConfig, pipeline
from transformers import SegformerForSemanticSegmentation as Segformer
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.commands.predict import predict


def write_model(folder: Path, num_labels: int) -> None:
    """Write SegFormer-B0 with an image processor that serves 512 x 512, as the published ones do."""
    torch.manual_seed(0)
    Segformer(SegformerConfig(num_labels=num_labels)).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 512, "width": 512}).save_pretrained(folder)


def write_images(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Write photographs of smooth noise as JPEG."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8))
        small.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)
    return sorted(folder.iterdir())


def run_pipeline(model: Path, images: list[Path], output: Path) -> None:
    """Segment with the pipeline, and write a mask of class ids as segplus does."""
    output.mkdir()
    loaded = AutoModelForSemanticSegmentation.from_pretrained(model)
    segment = pipeline("image-segmentation", loaded, image_processor=AutoImageProcessor.from_pretrained(model))
    for path in images:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        labels = np.zeros((image.height, image.width), dtype=np.uint8)
        for one in segment(image):
            labels[np.asarray(one["mask"]) > 0] = loaded.config.label2id[one["label"]]
        Image.fromarray(labels).save(output / f"{path.stem}.png")


def run_network(model: Path, count: int, dtype: torch.dtype) -> None:
    """Run the network alone."""
    loaded = AutoModelForSemanticSegmentation.from_pretrained(model).to(dtype).eval()
    pixel_values = torch.zeros(1, 3, 512, 512, dtype=dtype)
    with torch.no_grad():
        for _ in range(count):
            loaded(pixel_values=pixel_values)


def measure(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048])
    parser.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options = parser.parse_args()
    size = options.size[0], options.size[1]
    lines = ["# `segplus predict` beside the pipeline", "", *describe_machine("torch", "transformers"), ""]
    lines += [f"{options.images} images of {size[1]} x {size[0]}, from disk to disk, model loading included.", ""]
    lines += [
        "| classes | precision | pipeline, s | segplus, s | times | network alone, s |",
        "|---:|---|" + "---:|" * 4,
    ]
    for count in options.classes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = folder / "model"
            write_model(model, count)
            images = write_images(folder / "images", options.images, size)
            theirs = measure(lambda m=model, i=images, f=folder: run_pipeline(m, i, f / "pipeline"))
            for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
                output = folder / precision
                ours = measure(
                    lambda m=model, i=images, o=output, p=precision: predict(str(m), i, o, precision=p, progress=False)
                )
                alone = measure(lambda m=model, d=dtype: run_network(m, options.images, d))
                lines.append(
                    f"| {count} | {precision} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} | {alone:.1f} |"
                )
            same = [
                np.array(Image.open(folder / "pipeline" / f"{path.stem}.png"))
                == np.array(Image.open(folder / "float32" / f"{path.stem}.png"))
                for path in images
            ]
            share = float(np.mean(same))
            lines.append(f"| {count} | float32 | | | equal pixels: {100 * share:.4f} % | |")
    lines += ["", "`python benchmarks/predict.py` writes this page."]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

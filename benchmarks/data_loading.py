"""Training samples per second: the way of transformers' example beside segplus, decoded and from the cache, in one run.

The example's way, in our own words: a PIL image and a PIL mask become arrays, albumentations pads to the crop, crops,
flips and normalises, and the result becomes tensors. segplus does the same steps. Medians of alternating repeats.

    python benchmarks/data_loading.py --images 60 --repeats 5 --output benchmarks/results/data_loading.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.collator import TrainingCollator
from segplus.data import load_segmentation_dataset
from segplus.data.cache import measure_cache, open_cache
from segplus.data.synthetic import CLASS_NAMES, SyntheticScenes
from segplus.recipe.transforms import TransformsRecipe
from segplus.transforms import TrainingSet, TrainingTransform
from segplus.transforms.steps import load_albumentations

SIZES_PX = ((360, 480), (1024, 2048))
CROP_PX = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_files(folder: Path, size_px: tuple[int, int], count: int) -> None:
    """Write drawn scenes as JPEG (quality 95) and PNG ids, as a camera data set lies on disk."""
    scenes = SyntheticScenes(count, size_px)
    for name in ("images", "masks"):
        (folder / "train" / name).mkdir(parents=True)
    for index in range(count):
        image, ids = scenes.draw(index)
        Image.fromarray(image).save(folder / "train" / "images" / f"{index:04d}.jpg", quality=95, subsampling=0)
        Image.fromarray(ids).save(folder / "train" / "masks" / f"{index:04d}.png")


class ExampleSet(Dataset[dict[str, torch.Tensor]]):
    """The way of transformers' example script: decode with PIL, then albumentations."""

    def __init__(self, folder: Path) -> None:
        albumentations = load_albumentations()
        self.images = sorted((folder / "train" / "images").iterdir())
        self.masks = sorted((folder / "train" / "masks").iterdir())
        self.transforms = albumentations.Compose(
            [
                albumentations.PadIfNeeded(CROP_PX, CROP_PX, border_mode=0, fill=255, fill_mask=255),
                albumentations.RandomCrop(CROP_PX, CROP_PX),
                albumentations.HorizontalFlip(p=0.5),
                albumentations.Normalize(mean=MEAN, std=STD, max_pixel_value=255.0),
                albumentations.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = np.array(Image.open(self.images[index]).convert("RGB"))
        mask = np.array(Image.open(self.masks[index]))
        changed = self.transforms(image=image, mask=mask)
        return {"pixel_values": changed["image"], "labels": changed["mask"].long()}


def build_ways(folder: Path) -> dict[str, Dataset[Any]]:
    """Return the three data sets that are compared: the same crop, flip and normalisation."""
    section = {"dataset": str(folder), "classes": list(CLASS_NAMES), "void": [255], "validation_share": 0.0}
    split = load_segmentation_dataset(section).splits["train"]
    recipe = TransformsRecipe(preset="none", crop_size_px=[CROP_PX, CROP_PX], steps={"HorizontalFlip": {"p": 0.5}})
    transform = TrainingTransform(SegformerImageProcessorPil(do_resize=False), recipe)
    print(f"cache: {measure_cache(split) / 2**20:.0f} MiB")
    cached = open_cache(split, folder / "cache")
    return {
        "example": ExampleSet(folder),
        "segplus": TrainingSet(split, transform),
        "segplus cached": TrainingSet(cached, transform),
    }


def measure_one_core(dataset: Dataset[Any]) -> float:
    """Return milliseconds a sample in this process."""
    count = len(dataset)  # type: ignore[arg-type]
    start = time.perf_counter()
    for index in range(count):
        dataset[index]
    return (time.perf_counter() - start) / count * 1000


def measure_loader(dataset: Dataset[Any], workers: int) -> float:
    """Return samples per second from a data loader; the workers' start is not counted."""
    collate: Callable[[Any], Any] = TrainingCollator()
    order = torch.arange(len(dataset)).repeat(4).tolist()  # type: ignore[arg-type]
    options = {"prefetch_factor": 2, "persistent_workers": True} if workers else {}
    loader = DataLoader(dataset, 4, sampler=order, num_workers=workers, collate_fn=collate, **options)
    batches = iter(loader)
    first = 4 * max(workers, 1)  # what was made while the workers started
    for _ in range(max(workers, 1) * 2):
        next(batches)
    start = time.perf_counter()
    rest = sum(len(batch["labels"]) for batch in batches)
    seconds = time.perf_counter() - start
    return (rest - first if workers else rest) / seconds


def measure_size(size_px: tuple[int, int], images: int, repeats: int) -> dict[str, Any]:
    """Return medians over alternating repeats for one image size."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_files(folder, size_px, images)
        ways = build_ways(folder)
        for dataset in ways.values():
            measure_one_core(dataset)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        speeds: dict[str, list[float]] = {f"{name}, {w} workers": [] for name in ways for w in (1, 2)}
        for _ in range(repeats):
            for name, dataset in ways.items():
                samples[name].append(measure_one_core(dataset))
                for workers in (1, 2):
                    speeds[f"{name}, {workers} workers"].append(measure_loader(dataset, workers))
    milliseconds = {name: statistics.median(values) for name, values in samples.items()}
    throughput = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "size_px": size_px,
        "milliseconds_per_sample": milliseconds,
        "samples_per_second": throughput,
        "speedup_decoded": milliseconds["example"] / milliseconds["segplus"],
        "speedup_cached": milliseconds["example"] / milliseconds["segplus cached"],
        "two_workers_over_one": throughput["segplus, 2 workers"] / throughput["segplus, 1 workers"],
        "two_workers_over_one_cached": throughput["segplus cached, 2 workers"]
        / throughput["segplus cached, 1 workers"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error", UserWarning)
    packages = ("torch", "albumentations", "opencv-python-headless", "pillow", "numpy")
    result = {
        "images": arguments.images,
        "repeats": arguments.repeats,
        "crop_px": CROP_PX,
        "sizes": [measure_size(size, arguments.images, arguments.repeats) for size in SIZES_PX],
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

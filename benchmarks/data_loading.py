"""Training samples per second: the way of transformers' example beside segplus, decoded and from the cache, in one run.

The example's way, in our own words: a PIL image and a PIL mask become arrays, albumentations pads to the crop, crops,
flips and normalises, and the result becomes tensors. segplus does the same steps, but normalises on the device, a batch
at a time; what that takes on this CPU is measured beside. Repeats alternate; figures are medians.

    python benchmarks/data_loading.py             # about 6 minutes on two cores that do nothing else
    python benchmarks/data_loading.py --quick     # does it run? Its figures mean nothing and are only printed
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from segplus.data import load_segmentation_dataset
from segplus.data.cache import measure_cache, open_cache
from segplus.data.decoding.image_reader import ImageReader
from segplus.data.decoding.regions import open_image
from segplus.data.synthetic.scenes import CLASS_NAMES, SyntheticScenes
from segplus.recipe.transforms_section import TransformsRecipe
from segplus.training.sets import TrainingSet
from segplus.transforms import Normalization, TrainingTransform
from segplus.transforms.collator import TrainingCollator
from segplus.transforms.steps import load_albumentations

SIZES_PX = ((360, 480), (1024, 2048))
CROP_PX = 512
BATCH = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WAYS = ("example", "segplus", "segplus, cache")
GOALS = {(360, 480): {"segplus": 1.3, "segplus, cache": 6.0}, (1024, 2048): {"segplus": 1.0, "segplus, cache": 10.0}}
WORKERS_GOAL = 1.7
LARGE_TIMES = (4, 2)  # a large image is a scene of the second size, repeated
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "JPEG, progressive": {"quality": 90, "progressive": True},
    "PNG": {},
    "TIFF, uncompressed": {"compression": "raw"},
    "TIFF, LZW, strips of 16 rows": {"compression": "tiff_lzw", "tiffinfo": {278: 16}},
    "npy": {},
    "BMP": {},
}
DEFAULT_OUTPUT = Path(__file__).with_suffix(".md")


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
    """Return the data sets that are compared: the same crop and flip; segplus' samples are 8-bit, as in training."""
    section = {"dataset": str(folder), "classes": list(CLASS_NAMES), "void": [255], "validation_share": 0.0}
    split = load_segmentation_dataset(section).splits["train"]
    recipe = TransformsRecipe(preset="none", crop_size_px=[CROP_PX, CROP_PX], steps={"HorizontalFlip": {"p": 0.5}})
    transform = TrainingTransform(SegformerImageProcessorPil(do_resize=False), recipe, normalize=False)
    print(f"cache: {measure_cache(split) / 2**20:.0f} MiB", flush=True)
    cached = open_cache(split, folder / "cache")
    return dict(
        zip(WAYS, (ExampleSet(folder), TrainingSet(split, transform), TrainingSet(cached, transform)), strict=True)
    )


def measure_one_core(dataset: Dataset[Any]) -> float:
    """Return milliseconds of processor time a sample in this process."""
    count = len(dataset)  # type: ignore[arg-type]
    start = time.process_time()
    for index in range(count):
        dataset[index]
    return (time.process_time() - start) / count * 1000


def measure_loader(dataset: Dataset[Any], workers: int) -> float:
    """Return samples per second from a data loader; the workers' start is not counted."""
    collate: Callable[[Any], Any] = TrainingCollator()
    order = torch.arange(len(dataset)).repeat(4).tolist()  # type: ignore[arg-type]
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=order,
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=2,
        persistent_workers=True,
    )
    batches = iter(loader)
    for _ in range(workers * 2):  # what was made while the workers started
        next(batches)
    start = time.perf_counter()
    rest = sum(len(batch["labels"]) for batch in batches)
    return (rest - BATCH * workers) / (time.perf_counter() - start)


def measure_size(
    size_px: tuple[int, int], images: int, repeats: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return, for one image size, way -> milliseconds a sample, and way -> samples a second with 1 and 2 workers."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), size_px, images)
        ways = build_ways(Path(folder))
        for dataset in ways.values():
            measure_one_core(dataset)
        alone: dict[str, list[float]] = {name: [] for name in ways}
        loaded: dict[str, list[list[float]]] = {name: [] for name in ways}
        for repeat in range(repeats):
            for name, dataset in ways.items():
                alone[name].append(measure_one_core(dataset))
                loaded[name].append([measure_loader(dataset, workers) for workers in (1, 2)])
            print(f"{size_px}, repeat {repeat}: { ({name: round(v[-1], 3) for name, v in alone.items()}) }", flush=True)
    medians = {name: [statistics.median(column) for column in zip(*v, strict=True)] for name, v in loaded.items()}
    return {name: statistics.median(values) for name, values in alone.items()}, medians


def measure_normalization(repeats: int) -> float:
    """Return milliseconds a sample of normalising a batch of crops on this CPU."""
    normalization = Normalization(SegformerImageProcessorPil(do_resize=False))
    batch = torch.randint(0, 256, (8, 3, CROP_PX, CROP_PX), dtype=torch.uint8)
    found = []
    for _ in range(repeats * 5):
        start = time.process_time()
        normalization.apply_to_batch(batch)
        found.append((time.process_time() - start) / len(batch) * 1000)
    return statistics.median(found)


def measure_formats(repeats: int, crops: int = 8) -> dict[str, tuple[float, float]]:
    """Return format -> milliseconds a crop from the whole image, and of its rectangle alone."""
    scene = SyntheticScenes(1, SIZES_PX[1]).draw(0)[0]
    image, rng = np.tile(scene, (*LARGE_TIMES, 1)), np.random.default_rng(0)
    corners = rng.integers(0, (image.shape[0] - CROP_PX, image.shape[1] - CROP_PX), (crops, 2)).tolist()
    reader, found = ImageReader(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in FORMATS.items():
            path = Path(folder) / f"image.{name.split(',')[0].lower().replace('jpeg', 'jpg')}"
            np.save(path, image) if name == "npy" else Image.fromarray(image).save(path, **options)
            found[name] = _time_format(reader, str(path), corners, repeats)
            print(f"{name}: {found[name][0]:.1f} ms whole, {found[name][1]:.1f} ms the rectangle", flush=True)
    return found


def _time_format(reader: ImageReader, path: str, corners: list[list[int]], repeats: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for top, left in corners:
            start = time.process_time()
            box = (left, top, left + CROP_PX, top + CROP_PX)
            wanted = np.array(reader.read(path, path).crop(box))  # type: ignore[union-attr]
            middle = time.process_time()
            found = np.array(open_image(reader, path, path).read((top, left, CROP_PX, CROP_PX)))
            times[0].append(middle - start)
            times[1].append(time.process_time() - middle)
            if not np.array_equal(wanted, found):
                raise SystemExit(f"{path}: the rectangle has other pixels than the whole")
    return statistics.mean(times[0]) * 1000, statistics.mean(times[1]) * 1000


def write_page(plan: argparse.Namespace, sizes: dict[Any, Any], normalizing: float, formats: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Training samples from disk",
        "",
        f"Written by `{' '.join(['python benchmarks/data_loading.py', *sys.argv[1:]])}`: {plan.images} drawn scenes of"
        f" each size, JPEG images and PNG masks, {CROP_PX}x{CROP_PX} crops and a flip. Medians of {plan.repeats}"
        " alternating repeats. The example's samples are normalised floats; segplus' are 8-bit and normalised on the"
        f" device, which takes {normalizing:.2f} ms a sample where that is this CPU (counted in the last column).",
        "",
        "| Image | Way | CPU ms a sample | Times the example | Goal | Reached | Samples per second, 1 worker"
        " | 2 workers | 2 over 1 | Times the example, normalising counted |",
        "|---|---|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for (height, width), (alone, loaded) in sizes.items():
        for way in WAYS:
            times, goal = alone["example"] / alone[way], GOALS[height, width].get(way)
            wanted = "| " if goal is None else f"at least {goal} | {'yes' if times >= goal else 'no'}"
            one, two = loaded[way]
            counted = alone["example"] / (alone[way] + normalizing) if goal else 1.0
            lines.append(
                f"| {width}x{height} | {way} | {alone[way]:.2f} | {times:.2f} | {wanted} | {one:.0f} | {two:.0f}"
                f" | {two / one:.2f} | {counted:.2f} |"
            )
    lines += ["", f"Two workers over one, decoding: the goal is at least {WORKERS_GOAL}."]
    for (height, width), (_, loaded) in sizes.items():
        ratio = loaded["segplus"][1] / loaded["segplus"][0]
        lines.append(f"At {width}x{height} it is {ratio:.2f}: {'reached' if ratio >= WORKERS_GOAL else 'not reached'}.")
    side = f"{SIZES_PX[1][1] * LARGE_TIMES[1]}x{SIZES_PX[1][0] * LARGE_TIMES[0]}"
    lines += [
        "",
        "## A crop of a large image",
        "",
        f"{CROP_PX}x{CROP_PX} pixels of an image of {side}, CPU milliseconds, the mean of 8 positions and"
        f" {plan.repeats} repeats. The pixels are the same.",
        "",
        "| Format | The whole, then the crop | The rectangle | Times faster |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {whole:.1f} | {alone:.1f} | {whole / alone:.1f} |" for name, (whole, alone) in formats.items()
    ]
    machine = describe_machine("torch", "albumentations", "opencv-python-headless", "pillow", "numpy")
    return "\n".join([*lines, "", "## Machine", "", *machine, "- torch and OpenCV on one thread"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, once; prints the page only")
    parser.add_argument("--images", type=int, help="pairs of each size; 60, or 12 with --quick")
    parser.add_argument("--repeats", type=int, help="alternating repeats; 5, or 1 with --quick")
    parser.add_argument("--output", type=Path, help="page to write; data_loading.md beside this file, unless --quick")
    plan = parser.parse_args()
    plan.images, plan.repeats = plan.images or (12 if plan.quick else 60), plan.repeats or (1 if plan.quick else 5)
    output = plan.output or (None if plan.quick else DEFAULT_OUTPUT)
    torch.set_num_threads(1)
    warnings.simplefilter("error", UserWarning)
    sizes = {size: measure_size(size, plan.images, plan.repeats) for size in SIZES_PX}
    page = write_page(plan, sizes, measure_normalization(plan.repeats), measure_formats(plan.repeats))
    print(page)
    if output:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

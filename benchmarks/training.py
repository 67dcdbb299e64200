"""Training and evaluation: the way of transformers' own example beside segplus, in one run, written to a page.

Same model (SegFormer-B0, random weights), files, batch and crops. Repeats alternate, each in a fresh process, which
reports its own peak memory; figures are medians. Evaluation is in float32 on both sides, and must find the same scores.

    python benchmarks/training.py             # about 9 minutes on two cores that do nothing else
    python benchmarks/training.py --quick     # does it run? Its figures mean nothing and are only printed
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

NUM_CLASSES = 150
WARM_UP_STEPS = 3
GIB_LIMIT = 12.0
TRAINING_WAYS = ("example, float32", "segplus, float32", "segplus, CPU defaults")
EVALUATION_WAYS = ("example, float32", "segplus, float32")
GOALS = {"float32": 1.0, "defaults": 1.6, "evaluation": 8.0, "growth_mib": 30.0}
DEFAULT_OUTPUT = Path(__file__).with_suffix(".md")
Result = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured: sizes in pixels, counts of images."""

    crop_px: int = 512
    batch: int = 4
    steps: int = 8
    repeats: int = 3
    timed_images: int = 50
    example_images: tuple[int, ...] = (25, 50, 100)
    segplus_images: tuple[int, ...] = (25, 50, 100, 200, 400)

    @property
    def train_images(self) -> int:
        """More than the steps need: the loader's workers must be busy until the last measured step."""
        return self.batch * (WARM_UP_STEPS + self.steps + 8)


QUICK = Plan(128, 4, 3, 1, 10, (5, 10), (5, 10, 20))


# Files


def write_files(folder: Path, plan: Plan) -> None:
    """Write training photographs 4:3 as wide as they are cropped, square evaluation images, and the model."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, set_seed

    set_seed(0)
    SegformerForSemanticSegmentation(SegformerConfig(num_labels=NUM_CLASSES)).save_pretrained(folder / "model")
    for split in ("train", "validation"):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
    names = json.dumps({str(i): f"class {i}" for i in range(NUM_CLASSES)})
    (folder / "id2label.json").write_text(names, encoding="utf-8")
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(_write_scene, [(folder, plan, scene) for scene in range(_SCENES)])


_SCENES = 24  # drawing takes longer than writing, so scenes are used again with other classes


def _write_scene(folder: Path, plan: Plan, scene: int) -> None:
    import numpy as np
    from PIL import Image

    from segplus.data.synthetic import SyntheticScenes

    height, width = plan.crop_px, plan.crop_px * 4 // 3
    image, ids = SyntheticScenes(_SCENES, (height, width)).draw(scene)
    tiles = (np.arange(height)[:, None] * 4 // height) * 4 + np.arange(width) * 4 // width
    for split, count, right in (("train", plan.train_images, width), ("validation", max(plan.segplus_images), height)):
        for index in range(scene, count, _SCENES):
            # Nine classes of the scene times sixteen tiles, from another start in each image: all 150, and 0 for void.
            mask = np.where(ids == 255, 0, 1 + (ids + 9 * tiles + 7 * index) % NUM_CLASSES).astype(np.uint8)
            for kind, pixels, suffix in (("images", image, "jpg"), ("masks", mask, "png")):
                place = folder / split / kind / f"{index:04d}.{suffix}"
                Image.fromarray(np.ascontiguousarray(pixels[:, :right])).save(place, quality=95)


# One measurement, in a process of its own


def measure_training(way: str, folder: Path, plan: Plan) -> Result:
    """Return images per second after the first steps."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Notes when each step ended."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    trainer, clock = build_trainer(way, folder, plan, plan.timed_images), Clock()
    trainer.add_callback(clock)
    trainer.train()
    return {
        "images_per_second": plan.batch * plan.steps / (clock.ends[-1] - clock.ends[WARM_UP_STEPS - 1]),
        "dtype": "bfloat16" if trainer.args.bf16 else "float32",
        "peak_mib": read_peak_mib(),
    }


def measure_evaluation(way: str, folder: Path, plan: Plan, images: int) -> Result:
    """Return the seconds of one evaluation and the scores."""
    trainer = build_trainer(way, folder, plan, images)
    before = read_peak_mib()
    start = time.perf_counter()
    scores = trainer.evaluate()
    seconds = time.perf_counter() - start
    kept = {key: scores[f"eval_{key}"] for key in ("mean_iou", "mean_accuracy", "overall_accuracy")}
    return {"seconds": seconds, "peak_mib": read_peak_mib(), "before_mib": before, "scores": kept}


def build_trainer(way: str, folder: Path, plan: Plan, images: int) -> Any:
    """Return the trainer of one way over the first `images` evaluation images."""
    training = {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": plan.batch,
        "per_device_eval_batch_size": plan.batch,
        "max_steps": WARM_UP_STEPS + plan.steps,
        "learning_rate": 6e-5,
        "dataloader_num_workers": 2,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 10,
        "report_to": "none",
        "seed": 0,
    }
    if way.startswith("example"):
        from example_way import build_example_trainer

        training |= {"use_cpu": True, "dataloader_pin_memory": False, "disable_tqdm": True}
        return build_example_trainer(folder, images, plan.crop_px, NUM_CLASSES, **training)
    if way.endswith("float32"):
        training["bf16"] = False
    return _build_segplus_trainer(folder, plan, images, training)


def _build_segplus_trainer(folder: Path, plan: Plan, images: int, training: dict[str, Any]) -> Any:
    """Do what run_segmentation.py does before the first step."""
    import yaml
    from transformers import set_seed

    from segplus.data import check_split, load_segmentation_dataset
    from segplus.models import load_image_processor, load_model
    from segplus.recipe import load_recipe
    from segplus.training import build_trainer, build_training_arguments

    recipe_file = folder / "recipe.yaml"
    text = yaml.safe_dump(
        {
            "data": {
                "dataset": str(folder),
                "layout": "folders",
                "classes": str(folder / "id2label.json"),
                "reduce_labels": True,
                "max_images": {"validation": images},
            },
            "model": {"checkpoint": str(folder / "model"), "image_processor": {"do_resize": False}},
            "transforms": {
                "preset": "none",
                "crop_size_px": [plan.crop_px, plan.crop_px],
                "steps": {"HorizontalFlip": {"p": 0.5}},
            },
            "training": training,
        }
    )
    recipe_file.write_text(text, encoding="utf-8")
    recipe = load_recipe(recipe_file)
    arguments = build_training_arguments(recipe)
    data = load_segmentation_dataset(recipe.data)
    for split in data.splits.values():
        check_split(split, progress=False)
    set_seed(arguments.seed)
    loaded = load_model(recipe.model, data.classes)
    image_processor = load_image_processor(recipe.model, loaded.model.config)
    return build_trainer(recipe, arguments, data, loaded, image_processor)


def read_peak_mib() -> float:
    """Return the largest resident memory of this process so far, without what its parent had."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


# All measurements


def run_measurement(task: str, way: str, folder: Path, plan: Plan, images: int = 0) -> Result:
    """Run one measurement in a fresh process and return what it found."""
    order = json.dumps({"task": task, "way": way, "folder": str(folder), "plan": asdict(plan), "images": images})
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        "HF_HUB_OFFLINE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "SEGPLUS_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "cache"),
    }
    command = [sys.executable, __file__, "--measure", order]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{task}, {way}, {images} images: exit code {done.returncode}\n{done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    shown = {key: round(value, 2) for key, value in result.items() if isinstance(value, float)}
    print(f"{task}, {way}" + (f", {images} images" if images else "") + f": {shown}", flush=True)
    return result


def answer_order(order: dict[str, Any]) -> Result:
    """Do one measurement in this process."""
    plan, folder = Plan(**order["plan"]), Path(order["folder"])
    if order["task"] == "training":
        return measure_training(order["way"], folder, plan)
    return measure_evaluation(order["way"], folder, plan, order["images"])


def compare_training(folder: Path, plan: Plan) -> dict[str, Result]:
    """Return medians for each way of training."""
    found: dict[str, list[Result]] = {way: [] for way in TRAINING_WAYS}
    for _ in range(plan.repeats):
        for way, results in found.items():
            results.append(run_measurement("training", way, folder, plan))
    return {way: _take_medians(results) for way, results in found.items()}


def compare_evaluation(folder: Path, plan: Plan) -> dict[str, dict[int, Result]]:
    """Return, for each way, number of images -> medians; the example's larger sets only where memory allows."""
    found: dict[str, dict[int, list[Result]]] = {way: {} for way in EVALUATION_WAYS}
    for way, sizes in zip(EVALUATION_WAYS, (plan.example_images, plan.segplus_images), strict=True):
        for images in sizes:
            if images == plan.timed_images:
                continue
            if way.startswith("example") and images > plan.timed_images:
                continue
            found[way][images] = [run_measurement("evaluation", way, folder, plan, images)]
    for _ in range(plan.repeats):
        for way in EVALUATION_WAYS:
            result = run_measurement("evaluation", way, folder, plan, plan.timed_images)
            found[way].setdefault(plan.timed_images, []).append(result)
    example, segplus = (found[way] for way in EVALUATION_WAYS)
    for images in (size for size in plan.example_images if size > plan.timed_images):
        expected = expect_peak_gib(example, images)
        if expected < min(GIB_LIMIT, 0.8 * read_available_gib()):
            example[images] = [run_measurement("evaluation", EVALUATION_WAYS[0], folder, plan, images)]
        else:
            print(f"evaluation, example, {images} images: left out, would take {expected:.1f} GiB", flush=True)
    _compare_scores(example, segplus)
    return {way: {n: _take_medians(results) for n, results in sorted(sizes.items())} for way, sizes in found.items()}


def expect_peak_gib(found: dict[int, list[Result]], images: int) -> float:
    """Return the peak that the two largest sets so far lead to expect."""
    low, high = sorted(found)[-2:]
    peaks = [statistics.median(result["peak_mib"] for result in found[size]) for size in (low, high)]
    return float(peaks[1] + (images - high) * (peaks[1] - peaks[0]) / (high - low)) / 1024


def read_available_gib() -> float:
    """Return the memory that is free now."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return GIB_LIMIT
    return int(next(x for x in meminfo.read_text().splitlines() if x.startswith("MemAvailable")).split()[1]) / 2**20


def _compare_scores(example: dict[int, list[Result]], segplus: dict[int, list[Result]]) -> None:
    for images in example.keys() & segplus.keys():
        for key, value in example[images][0]["scores"].items():
            other = segplus[images][0]["scores"][key]
            if abs(value - other) > 1e-4:
                raise SystemExit(f"{key} over {images} images: the example finds {value}, segplus {other}")


def _take_medians(results: list[Result]) -> Result:
    numbers = [key for key, value in results[0].items() if isinstance(value, float)]
    return results[0] | {key: statistics.median(result[key] for result in results) for key in numbers}


# The page


def write_page(
    plan: Plan, training: dict[str, Result], evaluation: dict[str, dict[int, Result]], seconds: float
) -> str:
    """Return the results as Markdown."""
    example, segplus = (evaluation[way] for way in EVALUATION_WAYS)
    base = training[TRAINING_WAYS[0]]["images_per_second"]
    speed_ups = [training[way]["images_per_second"] / base for way in TRAINING_WAYS]
    lines = [
        "# Training and evaluation beside transformers' example",
        "",
        f"Written by `{describe_command()}`: SegFormer-B0 with random weights, {NUM_CLASSES} classes, JPEG images and"
        f" PNG masks from disk, two loader workers, batches of {plan.batch}. Medians of {plan.repeats} alternating"
        " repeats, each in a fresh process. The example's way is re-created in `example_way.py`, which says"
        " what it leaves out.",
        "",
        "## Training",
        "",
        f"{plan.crop_px}x{plan.crop_px} crops, {plan.steps} steps after {WARM_UP_STEPS} that do not count.",
        "",
        "| Way | Precision | Images per second | Times the example | Peak memory, MiB |",
        "|---|---|---:|---:|---:|",
    ]
    for way, speed_up in zip(TRAINING_WAYS, speed_ups, strict=True):
        row = training[way]
        figures = f"{row['images_per_second']:.2f} | {speed_up:.2f} | {row['peak_mib']:,.0f}"
        lines.append(f"| {way} | {row['dtype']} | {figures} |")
    lines += [
        "",
        "## Evaluation",
        "",
        f"Images and masks of {plan.crop_px}x{plan.crop_px} pixels, float32. Peak memory is the resident memory of the"
        " whole process, its start included.",
        "",
        "| Images | Example, s | segplus, s | Times faster | Example, MiB | segplus, MiB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_write_row(images, example, segplus) for images in segplus]
    lines += ["", *_write_goals(plan, speed_ups, example, segplus), "", "## Machine", "", *describe_machine()]
    lines += [f"- the whole took {seconds / 60:.1f} minutes"]
    return "\n".join(lines) + "\n"


def _write_row(images: int, example: dict[int, Result], segplus: dict[int, Result]) -> str:
    own = segplus[images]
    if images in example:
        other = example[images]
        ratio = other["seconds"] / own["seconds"]
        seconds, peak = f"{other['seconds']:.1f}", f"{other['peak_mib']:,.0f}"
        return f"| {images} | {seconds} | {own['seconds']:.1f} | {ratio:.1f} | {peak} | {own['peak_mib']:,.0f} |"
    expected = expect_peak_gib({size: [result] for size, result in example.items()}, images) * 1024
    return f"| {images} | | {own['seconds']:.1f} | | not run: {expected:,.0f} expected | {own['peak_mib']:,.0f} |"


def _write_goals(
    plan: Plan, speed_ups: list[float], example: dict[int, Result], segplus: dict[int, Result]
) -> list[str]:
    timed, sizes = plan.timed_images, sorted(segplus)
    faster = example[timed]["seconds"] / segplus[timed]["seconds"]
    growth = segplus[sizes[-1]]["peak_mib"] - segplus[sizes[0]]["peak_mib"]
    rows = [
        ("training in float32, times the example", f"at least {GOALS['float32']}", speed_ups[1], GOALS["float32"]),
        (
            "training with CPU defaults, times the example",
            f"at least {GOALS['defaults']}",
            speed_ups[2],
            GOALS["defaults"],
        ),
        (f"evaluation of {timed} images, times faster", f"at least {GOALS['evaluation']}", faster, GOALS["evaluation"]),
    ]
    lines = ["## Goals", "", "| What | Goal | Measured | Reached |", "|---|---|---:|---|"]
    lines += [
        f"| {what} | {goal} | {value:.2f} | {'yes' if value >= least else 'no'} |" for what, goal, value, least in rows
    ]
    reached = "yes" if growth < GOALS["growth_mib"] else "no"
    what = f"growth of segplus' peak memory, {sizes[0]} to {sizes[-1]} images, MiB"
    return [*lines, f"| {what} | under {GOALS['growth_mib']:.0f} | {growth:.1f} | {reached} |"]


def describe_command() -> str:
    """Return the command line, without where things lie."""
    return " ".join(["python benchmarks/training.py", *sys.argv[1:]])


def describe_machine() -> list[str]:
    """Return processor, cores, memory, load and versions as list items."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    models = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("torch", "transformers", "accelerate", "datasets", "albumentations", "numpy", "pillow")
    return [
        f"- processor: {models[0] if models else platform.machine()}"
        f"{', AVX512-BF16' if 'avx512_bf16' in text else ''}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"- {platform.system()} {platform.release()}, Python {platform.python_version()}",
        "- " + ", ".join(f"{name} {version(name)}" for name in packages),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, few of them; prints the page only")
    parser.add_argument("--output", type=Path, help="page to write; training.md beside this file, unless --quick")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print("\n" + json.dumps(answer_order(json.loads(arguments.measure))))
        return
    plan, start = QUICK if arguments.quick else Plan(), time.perf_counter()
    output = arguments.output or (None if arguments.quick else DEFAULT_OUTPUT)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_files(folder, plan)
        print(f"files written after {time.perf_counter() - start:.0f} s", flush=True)
        training, evaluation = compare_training(folder, plan), compare_evaluation(folder, plan)
    page = write_page(plan, training, evaluation, time.perf_counter() - start)
    print(page)
    if output:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

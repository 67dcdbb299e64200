"""Training and evaluation: the way of transformers' own example beside segplus, in one run, written to a page.

Same model (SegFormer-B0, random weights), files, batch and crops. Repeats alternate, each in a fresh process, which
reports its own peak memory; figures are medians. In float32 both ways must find the same scores.

    python benchmarks/training.py             # about 9 minutes on two cores that do nothing else
    python benchmarks/training.py --quick     # does it run? Its figures mean nothing and are only printed
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from machine import describe_machine
from training_measures import NUM_CLASSES, QUICK, WARM_UP_STEPS, Plan, Result, write_files

GIB_LIMIT = 12.0
TRAINING_WAYS = ("example, float32", "segplus, float32", "segplus, CPU defaults")
EVALUATION_WAYS = TRAINING_WAYS
GOALS = {"float32": 1.0, "defaults": 1.6, "evaluation": 8.0, "growth_mib": 30.0}
DEFAULT_OUTPUT = Path(__file__).with_suffix(".md")


def run_measurement(task: str, way: str, folder: Path, plan: Plan, images: int = 0) -> Result:
    """Run one measurement in a fresh process and return what it found."""
    order = json.dumps({"task": task, "way": way, "folder": str(folder), "plan": asdict(plan), "images": images})
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "SEGPLUS_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "cache"),
    }
    command = [sys.executable, str(Path(__file__).with_name("training_measures.py")), order]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{task}, {way}, {images} images: exit code {done.returncode}\n{done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    shown = {key: round(value, 2) for key, value in result.items() if isinstance(value, float)}
    print(f"{task}, {way}" + (f", {images} images" if images else "") + f": {shown}", flush=True)
    return result


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
    example, segplus = (found[way] for way in EVALUATION_WAYS[:2])

    def measure(way: str, images: int) -> None:
        result = run_measurement("evaluation", way, folder, plan, images)
        found[way].setdefault(images, []).append(result)

    for images in plan.segplus_images:
        if images != plan.timed_images:
            measure(EVALUATION_WAYS[2], images)
    measure(EVALUATION_WAYS[0], plan.example_images[0])
    for _ in range(plan.repeats):
        for way in EVALUATION_WAYS:
            measure(way, plan.timed_images)
    for images in (size for size in plan.example_images if size > plan.timed_images):
        expected = expect_peak_gib(example, images)
        if expected < min(GIB_LIMIT, 0.8 * read_available_gib()):
            measure(EVALUATION_WAYS[0], images)
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


def write_page(
    plan: Plan, training: dict[str, Result], evaluation: dict[str, dict[int, Result]], seconds: float
) -> str:
    """Return the results as Markdown."""
    example, _, defaults = (evaluation[way] for way in EVALUATION_WAYS)
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
        f"Images and masks of {plan.crop_px}x{plan.crop_px} pixels. Peak memory is the resident memory of the"
        " whole process, its start included; it differs by tens of MiB between processes that do the same.",
        "",
        *_write_timed(plan, evaluation),
        "",
        "| Images | Example in float32, s | segplus with CPU defaults, s | Example, MiB | segplus, MiB |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [_write_row(images, example, defaults) for images in defaults]
    machine = describe_machine("torch", "transformers", "accelerate", "datasets", "albumentations", "numpy", "pillow")
    lines += ["", *_write_goals(plan, speed_ups, evaluation), "", "## Machine", "", *machine]
    lines += [f"- the whole took {seconds / 60:.1f} minutes"]
    return "\n".join(lines) + "\n"


def _write_timed(plan: Plan, evaluation: dict[str, dict[int, Result]]) -> list[str]:
    """Return the table of the timed evaluation, whole and without the network, whose time is nobody's merit."""
    rows = {way: sizes[plan.timed_images] for way, sizes in evaluation.items()}
    base = rows[EVALUATION_WAYS[0]]
    lines = [
        f"| {plan.timed_images} images | Precision | Whole, s | Times faster | Outside the network, s | Times faster |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for way, row in rows.items():
        cells = [f"{row[key]:.2f} | {base[key] / row[key]:.2f}" for key in ("seconds", "scoring_seconds")]
        lines.append(f"| {way} | {row['dtype']} | {' | '.join(cells)} |")
    return lines


def _write_row(images: int, example: dict[int, Result], segplus: dict[int, Result]) -> str:
    own = segplus[images]
    if images in example:
        other = example[images]
        seconds, peak = f"{other['seconds']:.1f}", f"{other['peak_mib']:,.0f}"
    else:
        expected = expect_peak_gib({size: [result] for size, result in example.items()}, images) * 1024
        seconds, peak = "", f"not run: {expected:,.0f} expected"
    return f"| {images} | {seconds} | {own['seconds']:.1f} | {peak} | {own['peak_mib']:,.0f} |"


def _write_goals(plan: Plan, speed_ups: list[float], evaluation: dict[str, dict[int, Result]]) -> list[str]:
    example, segplus, defaults = (evaluation[way] for way in EVALUATION_WAYS)
    timed, sizes = plan.timed_images, sorted(defaults)
    seconds = example[timed]["seconds"]
    faster = [seconds / found[timed]["seconds"] for found in (segplus, defaults)]
    scoring = example[timed]["scoring_seconds"] / segplus[timed]["scoring_seconds"]
    last, first = defaults[sizes[-1]], defaults[sizes[0]]
    growths = {
        "in one process": last["growth_mib"],
        "a process each": last["peak_mib"] - first["peak_mib"],
    }
    rows = [
        ("training in float32, times the example", speed_ups[1], GOALS["float32"]),
        ("training with CPU defaults, times the example", speed_ups[2], GOALS["defaults"]),
        (f"evaluation of {timed} images in float32, times faster", faster[0], GOALS["evaluation"]),
        (f"evaluation of {timed} images with CPU defaults, times faster", faster[1], GOALS["evaluation"]),
        (f"evaluation of {timed} images outside the network, times faster", scoring, GOALS["evaluation"]),
    ]
    lines = ["## Goals", "", "| What | Goal | Measured | Reached |", "|---|---|---:|---|"]
    lines += [
        f"| {what} | at least {least} | {value:.2f} | {'yes' if value >= least else 'no'} |"
        for what, value, least in rows
    ]
    limit, what = GOALS["growth_mib"], f"growth of segplus' peak memory, {sizes[0]} to {sizes[-1]} images"
    lines += [
        f"| {what}, {how}, MiB | under {limit:.0f} | {growth:.1f} | {'yes' if growth < limit else 'no'} |"
        for how, growth in growths.items()
    ]
    return lines


def describe_command() -> str:
    """Return the command line, without where things lie."""
    return " ".join(["python benchmarks/training.py", *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images, few of them; prints the page only")
    parser.add_argument("--repeats", type=int, help="alternating repeats behind a median; 3, or 1 with --quick")
    parser.add_argument("--output", type=Path, help="page to write; training.md beside this file, unless --quick")
    arguments = parser.parse_args()
    plan, start = QUICK if arguments.quick else Plan(), time.perf_counter()
    plan = replace(plan, repeats=arguments.repeats or plan.repeats)
    output = arguments.output or (None if arguments.quick else DEFAULT_OUTPUT)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(folder, plan)
        print(f"files written after {time.perf_counter() - start:.0f} s", flush=True)
        training, evaluation = compare_training(folder, plan), compare_evaluation(folder, plan)
    page = write_page(plan, training, evaluation, time.perf_counter() - start)
    print(page)
    if output:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()

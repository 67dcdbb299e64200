"""Training with 0, 1, 2, ... data-loader workers: images per second, and the share of a step spent waiting for data.

Each number of workers trains the same recipe in a process of its own, one after the other, several times in turn.
Reported are the run's own figures (`images_per_second`, `data_wait_share`), the first log line left out, medians over
lines and repeats. The number that segplus chooses for this machine is marked.

    python benchmarks/workers.py configs/camvid/segformer_b0.yaml configs/quickstart.yaml --steps 40 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from machine import describe_machine

from segplus.data.parallel import count_cores
from segplus.training.arguments import choose_workers

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.03
LINE_STEPS = 10


def measure(recipe: Path, workers: int, steps: int, folder: Path) -> tuple[float, float]:
    """Return (images per second, share of the time spent waiting) of one training."""
    values = {
        "output_dir": folder,
        "max_steps": steps,
        "logging_steps": LINE_STEPS,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": steps,
        "report_to": "none",
        "dataloader_num_workers": workers,
    }
    arguments = [word for key, value in values.items() for word in (f"--training.{key}", str(value))]
    arguments += ["--data.max_images", "{validation: 1, test: 1}", "--evaluation.bootstrap_resamples", "0"]
    command = [sys.executable, str(ROOT / "run_segmentation.py"), str(recipe), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    state = json.loads((folder / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    lines = [entry for entry in state["log_history"] if "data_wait_share" in entry][1:]
    return (
        statistics.median(line["images_per_second"] for line in lines),
        statistics.median(line["data_wait_share"] for line in lines),
    )


def measure_all(recipes: list[Path], counts: list[int], steps: int, repeats: int) -> dict[tuple[str, int], list[float]]:
    """Return (recipe, workers) -> median images per second and median share of waiting."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for repeat in range(repeats):
        for recipe in recipes:
            for workers in counts:
                with tempfile.TemporaryDirectory() as folder:
                    figures = measure(recipe, workers, steps, Path(folder))
                found.setdefault((str(recipe), workers), []).append(figures)
                print(f"{recipe} workers {workers} repeat {repeat}: {figures[0]:.2f} images/s, wait {figures[1]:.2%}")
    return {key: [statistics.median(column) for column in zip(*rows, strict=True)] for key, rows in found.items()}


def render(found: dict[tuple[str, int], list[float]], steps: int, repeats: int, chosen: int) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Data-loader workers",
        "",
        f"Written by `python benchmarks/workers.py`: {steps} steps a run, medians of {repeats} runs, each in a"
        " process of its own.",
        "",
        "| Recipe | Workers | Images per second | Share of a step spent waiting | Under 3 % |",
        "|---|---:|---:|---:|---|",
    ]
    for (recipe, workers), (rate, wait) in found.items():
        mark = f"**{workers}** (chosen)" if workers == chosen else str(workers)
        lines.append(f"| `{recipe}` | {mark} | {rate:.2f} | {100 * wait:.2f} % | {'yes' if wait < GOAL else 'no'} |")
    lines += ["", *describe_machine("torch", "transformers", "accelerate", "datasets", "pillow")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "workers.md")
    options = parser.parse_args()
    if options.steps < 2 * LINE_STEPS:
        parser.error(f"--steps: at least {2 * LINE_STEPS}, the first {LINE_STEPS} do not count")
    chosen = choose_workers({}, count_cores(), 1, torch.accelerator.is_available())["dataloader_num_workers"]
    found = measure_all(options.recipes, options.workers, options.steps, options.repeats)
    options.output.write_text(render(found, options.steps, options.repeats, chosen), encoding="utf-8")
    print(options.output.read_text())


if __name__ == "__main__":
    main()

"""Size, speed and memory of every architecture, row by row, written to a page; a run that was stopped goes on.

Each row is measured in a fresh process and written down before the next begins (models.json, models.md).

    python benchmarks/models.py                     # on cores that do nothing else
    python benchmarks/models.py --only enet fpn     # rows whose name holds one of the words, measured anew
    python benchmarks/models.py --minutes 20        # beside: 20 minutes of CamVid for each recipe with real weights

The rows beside segmentation_models_pytorch need that package; without it they say so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from machine import describe_machine
from model_rows import BATCH, NUM_CLASSES, PEER_CLASSES, PEER_WAYS, PEERS, SIZE_PX, list_rows

Result = dict[str, Any]
ROOT = Path(__file__).parents[1]
OUTPUT = Path(__file__).with_suffix(".json")
GOAL_SERVING, GOAL_TRAINING = 1.2, 1.3
TIMED_GOALS = ("segplus-enet", "segplus-espnetv2", "segplus-bisenetv2", "segplus-ddrnet")
_EXPLANATION = f"""\
Random weights, {NUM_CLASSES} classes, {SIZE_PX}x{SIZE_PX}. *Served* is one image as `predict --fold` runs it:
BatchNorm folded, channels last; *plain* the same module contiguous and unfolded, float32 both. *Training* is a step
with segplus' precision, layout and losses on this machine, {BATCH} images; memory is the growth of the process' peak
in it, gradients and the optimizer's state included, divided by the images. Goal of serving for
{", ".join(TIMED_GOALS)}: {GOAL_SERVING} times."""
_PEER_EXPLANATION = f"""\
ResNet-18, 480x360 padded to 480x384, which is what the peer takes, {PEER_CLASSES} classes, {BATCH} images; the peer
with its Dice and torch's cross-entropy. Goal: segplus' defaults {GOAL_TRAINING} times the peer in float32."""
# Recipes whose encoder has real weights beside the tests.
TRAINED = ("deeplabv3plus", "unet", "pspnet", "fpn", "lraspp", "upernet")


def run_alone(*words: str) -> Result:
    """Return what one measurement in a fresh process found.

    Raises:
        SystemExit: If it failed.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
    command = [sys.executable, str(Path(__file__).with_name("model_rows.py")), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def train_recipe(name: str, minutes: float) -> Result:
    """Return the test mIoU of a recipe of CamVid after some minutes of training."""
    folder = ROOT / "runs" / "benchmark" / name
    words = [str(ROOT / "configs" / "camvid" / f"{name}.yaml"), "--training.output_dir", str(folder)]
    words += ["--training.max_steps", "100000", "--training.eval_strategy", "no"]
    words += ["--callbacks", json.dumps([{"stop_after.StopAfter": {"minutes": minutes}}])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
    done = subprocess.run([sys.executable, str(ROOT / "run_segmentation.py"), *words], env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}")
    scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["evaluations"]["test"]
    return {"test_mean_iou": scores["mean_iou"], "minutes": minutes}


def list_measurements(minutes: float) -> dict[str, Any]:
    """Return every measurement by its key: what `run_alone` or `train_recipe` gets."""
    wanted: dict[str, Any] = {f"row: {name}": ("row", name) for name in list_rows()}
    if importlib.util.find_spec("segmentation_models_pytorch"):
        wanted |= {f"peer: {head}, {way}": ("peer", head, way) for head in PEERS for way in PEER_WAYS}
    if minutes:
        wanted |= {f"camvid: {name}": ("camvid", f"mobilenetv2_{name}") for name in TRAINED}
    return wanted


def render(found: dict[str, Result]) -> str:
    """Return the page."""
    columns = ["model", "parameters (M)", "multiply-adds (G)", "served, images/s", "plain, images/s", "times"]
    columns += ["training, images/s", "MiB a training image"]
    lines = [
        "# Size, speed and memory of the models",
        "",
        "Written by `python benchmarks/models.py`, row by row, each in a fresh process; the fastest of several passes.",
        "",
        *describe_machine("torch", "transformers"),
        "",
        _EXPLANATION,
        "",
        f"| {' | '.join(columns)} |",
        f"|---|{'---:|' * (len(columns) - 1)}",
    ]
    lines += [_render_row(key[5:], row) for key, row in found.items() if key.startswith("row: ")]
    lines += ["", "## A training step beside segmentation_models_pytorch", ""]
    lines += _render_peers(found)
    trained = {key[8:]: row for key, row in found.items() if key.startswith("camvid: ")}
    if trained:
        lines += [
            "",
            "## CamVid, 11 classes, test split",
            "",
            "| recipe | minutes of training | mIoU |",
            "|---|---:|---:|",
        ]
        lines += [f"| {n} | {row['minutes']:g} | {100 * row['test_mean_iou']:.1f} |" for n, row in trained.items()]
    return "\n".join(lines) + "\n"


def _render_row(name: str, row: Result) -> str:
    times = row["served_images_per_second"] / row["plain_images_per_second"]
    missed = " (goal missed)" if name in TIMED_GOALS and times < GOAL_SERVING else ""
    return (
        f"| {name} | {row['millions']:.2f} | {row['giga_multiply_adds']:.2f} | {row['served_images_per_second']:.2f} | "
        f"{row['plain_images_per_second']:.2f} | {times:.2f}{missed} | {row['training_images_per_second']:.2f} | "
        f"{row['training_mib_an_image']:,.0f} |"
    )


def _render_peers(found: dict[str, Result]) -> list[str]:
    peers = {key: row for key, row in found.items() if key.startswith("peer: ")}
    if not peers:
        return ["Not measured: segmentation_models_pytorch is not installed."]
    lines = [
        _PEER_EXPLANATION,
        "",
        "| head | way | seconds a step | times the peer in float32 | peak, MiB |",
        "|---|---|---:|---:|---:|",
    ]
    for key, row in peers.items():
        head, way = key[6:].split(", ", 1)
        base = peers.get(f"peer: {head}, {PEER_WAYS[0]}", row)["seconds"]
        lines.append(
            f"| {head} | {way} | {row['seconds']:.2f} | {base / row['seconds']:.2f} | {row['peak_mib']:,.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="measure rows whose name holds one of these words, anew")
    parser.add_argument("--minutes", type=float, default=0.0, help="train the recipes with real weights so long each")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON; the page lies beside it")
    options = parser.parse_args()
    found: dict[str, Result] = {}
    if options.output.is_file():
        found = json.loads(options.output.read_text(encoding="utf-8"))
    wanted = list_measurements(options.minutes)
    if options.only and not any(word in key for word in options.only for key in wanted):
        parser.error(f"--only: no row holds one of {options.only}; there are: {'; '.join(wanted)}")
    for key, words in wanted.items():
        chosen = any(word in key for word in options.only) if options.only else key not in found
        if not chosen:
            continue
        found[key] = train_recipe(words[1], options.minutes) if words[0] == "camvid" else run_alone(*words)
        print(key, {name: round(value, 2) for name, value in found[key].items()}, flush=True)
        ordered = {one: found[one] for one in [*wanted, *found] if one in found}
        options.output.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        options.output.with_suffix(".md").write_text(render(ordered), encoding="utf-8")


if __name__ == "__main__":
    main()

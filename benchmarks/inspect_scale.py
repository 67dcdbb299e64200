"""`segplus inspect` on CamVid, and its memory over a growing number of files.

CamVid's 701 pairs are inspected by the command itself, in a process of its own, as often as asked.

For the memory, folders of 25,000 and 100,000 pairs are made of hard links to a few small images: 80 % in train, the
rest in val. Everything is the real code (listing, pairing, reading, measuring, summing, comparing, the report), but for
one thing: pixels that follow from the pair's number are set in each image that is read, so that no two are equal and
what is kept of each pair differs. Peak resident memory is that of a fresh process; one that inspects 250 pairs tells
what the libraries take.

    python benchmarks/inspect_scale.py --camvid $SEGPLUS_DATA/camvid --output benchmarks/inspect_scale.md
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
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine, read_memory_mib
from PIL import Image

import segplus.data.loading as loading
from segplus.data import SegmentationSplit
from segplus.inspection import inspect_dataset

HERE = Path(__file__).resolve()
SIZE_PX = (40, 48)
ORIGINALS = 64  # images; a file system allows some ten thousand links to one
START = 250
GOAL_SECONDS = 20.0


class NumberedSplit(SegmentationSplit):
    """A split whose pairs differ although their files are links to the same ones."""

    def image(self, index: int) -> Any:
        """Return the image of the file, with 64 cells set by the pair's number."""
        pixels = np.array(super().image(index))
        bits = np.random.default_rng([len(self), index]).integers(0, 256, (8, 9), dtype=np.uint8)
        pixels[:, :, 0] = np.asarray(Image.fromarray(bits).resize((SIZE_PX[1], SIZE_PX[0])))
        return Image.fromarray(pixels)

    def raw_label(self, index: int) -> Any:
        """Return the values of the file, four of them set by the pair's number."""
        mask = super().raw_label(index).copy()
        mask[0, :4] = [index >> shift & 1 for shift in range(4)]
        return mask


def write_links(folder: Path, pairs: int) -> None:
    """Make a folder of so many pairs, train and val, all of them links."""
    rng = np.random.default_rng(0)
    for side in ("images", "masks"):
        (folder / "originals" / side).mkdir(parents=True)
        for number in range(ORIGINALS):
            channels = (3,) if side == "images" else ()
            pixels = np.kron(rng.integers(0, 3, (5, 6, *channels)), np.ones((8, 8, *(1 for _ in channels)), dtype=int))
            Image.fromarray((pixels * (80 if side == "images" else 1)).astype(np.uint8)).save(
                folder / "originals" / side / f"{number}.png"
            )
        for split, count in (("train", pairs * 4 // 5), ("val", pairs - pairs * 4 // 5)):
            target = folder / "data" / split / side
            target.mkdir(parents=True)
            for index in range(count):
                os.link(folder / "originals" / side / f"{index % ORIGINALS}.png", target / f"{split}_{index:06d}.png")


def inspect_links(pairs: int) -> dict[str, float]:
    """Inspect so many pairs in this process; return seconds and MiB."""
    loading.SegmentationSplit = NumberedSplit  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEGPLUS_CACHE"] = f"{folder}/cache"  # what is counted here is not what the files hold
        write_links(Path(folder), pairs)
        before, started = read_memory_mib("VmRSS"), time.perf_counter()
        audit = inspect_dataset({"dataset": f"{folder}/data", "classes": ["a", "b", "c"]}, progress=False)
        seconds = time.perf_counter() - started
    found = {finding["kind"] for finding in audit.report["findings"]}
    if sum(split["pairs"] for split in audit.report["splits"].values()) != pairs or "equal images" in found:
        raise RuntimeError(f"these are not {pairs} different pairs: {audit.report['findings']}")
    return {"pairs": pairs, "seconds": seconds, "before_mib": before, "peak_mib": read_memory_mib("VmHWM")}


def inspect_camvid(folder: Path) -> float:
    """Return the seconds of the command, start of Python included."""
    command = [sys.executable, "-m", "segplus", "inspect", str(folder), "--json", "--data.void", "[11]"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1) or sum(s["pairs"] for s in json.loads(done.stdout)["splits"].values()) != 701:
        raise RuntimeError(f"not CamVid's 701 pairs: {done.stdout[:500]} {done.stderr[-500:]}")
    return seconds


def render(seconds: list[float], figures: list[dict[str, float]]) -> str:
    """Return the results as Markdown."""
    start, *rest = figures
    lines = ["# `segplus inspect` at scale", "", "Written by `python benchmarks/inspect_scale.py`.", ""]
    if seconds:
        median = statistics.median(seconds)
        lines += [
            f"CamVid, 701 pairs of 480x360: {median:.1f} s, the median of {len(seconds)} runs ({min(seconds):.1f} to"
            f" {max(seconds):.1f}), start of Python included. Goal: under {GOAL_SECONDS:.0f} s:"
            f" {'reached' if median < GOAL_SECONDS else 'not reached'}.",
            "",
        ]
    lines += [
        "Folders of links to small images, each pair made different; peak resident memory of a fresh process.",
        "",
        "| Pairs | Seconds | Peak, MiB | More than with the first, MiB | Bytes a pair |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in figures:
        more = row["peak_mib"] - start["peak_mib"]
        pairs = row["pairs"] - start["pairs"]
        each = f"{more * 2**20 / pairs:.0f}" if pairs else ""
        lines.append(f"| {row['pairs']:,} | {row['seconds']:.1f} | {row['peak_mib']:.0f} | {more:.0f} | {each} |")
    if len(rest) > 1:
        first, last = rest[0], rest[-1]
        slope = (last["peak_mib"] - first["peak_mib"]) * 2**20 / (last["pairs"] - first["pairs"])
        lines += ["", f"From {first['pairs']:,} to {last['pairs']:,} pairs: {slope:.0f} bytes a pair."]
    lines += ["", *describe_machine("datasets", "numpy", "pillow", "opencv-python-headless", "pyarrow")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camvid", type=Path, help="folder of CamVid; left out where it is not given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pairs", nargs="+", type=int, default=[25_000, 100_000])
    parser.add_argument("--output", type=Path, default=HERE.parent / "inspect_scale.md")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # so many pairs, in this process
    options = parser.parse_args()
    if options.only:
        print("\n" + json.dumps(inspect_links(options.only)))
        return
    seconds = [inspect_camvid(options.camvid) for _ in range(options.repeats)] if options.camvid else []
    figures = []
    for pairs in (START, *options.pairs):
        command = [sys.executable, str(HERE), "--only", str(pairs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures.append(json.loads(done.stdout.splitlines()[-1]))
        print(figures[-1])
    options.output.write_text(render(seconds, figures), encoding="utf-8")
    print(options.output.read_text())


if __name__ == "__main__":
    main()

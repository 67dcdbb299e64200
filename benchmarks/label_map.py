"""Logits to label maps at the original size: segplus' label_map beside F.interpolate + argmax, in one run.

256x512 logits to 1024x2048, 19 and 150 classes, contiguous and channels_last, smooth logits with about 15 % mixed cells
and random noise; medians of alternating repeats, and the peak memory of each in a process of its own (Linux). Writes
label_map.md beside this file.

    python benchmarks/label_map.py [--repeats 7] [--smoke]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import describe_machine, read_memory_mib, run_alone, start_peak
from torch import Tensor

from segplus.metrics import label_map

SHARE = 0.15
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
GOALS = {("smooth", 19, "contiguous"): 8, ("smooth", 150, "contiguous"): 12, ("smooth", 150, "channels_last"): 20}


def interpolate_and_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label map as transformers' image processors form it."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)


WAYS: dict[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "interpolate + argmax": interpolate_and_argmax,
    "label_map": label_map,
}


def measure_mixed_share(logits: Tensor) -> float:
    """Return the share of cells whose four corners do not agree."""
    low = logits.argmax(1)
    corners = low[:, :-1, :-1], low[:, :-1, 1:], low[:, 1:, :-1], low[:, 1:, 1:]
    return float(torch.stack([corner != corners[0] for corner in corners[1:]]).any(0).float().mean())


def draw_logits(texture: str, classes: int, height: int, width: int) -> Tensor:
    """Return noise, or smooth logits whose coarseness gives a share of mixed cells next to 15 %."""
    if texture == "noise":
        return torch.randn(1, classes, height, width, generator=torch.Generator().manual_seed(0))

    def draw(coarseness: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(1, classes, height // coarseness + 1, width // coarseness + 1, generator=generator)
        return F.interpolate(coarse * 5, size=(height, width), mode="bicubic")

    return min(map(draw, (8, 12, 16, 20, 24, 28, 32)), key=lambda logits: abs(measure_mixed_share(logits) - SHARE))


def time_ways(logits: Tensor, size: tuple[int, int], repeats: int) -> dict[str, float]:
    """Return each way's median seconds over alternating repeats."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for repeat in range(repeats + 1):
        for name, way in WAYS.items():
            started = time.perf_counter()
            way(logits, size)
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_peak(way: str, texture: str, classes: int, layout: str, low: tuple[int, int], size: tuple[int, int]) -> None:
    """Print by how many MiB a way raises the peak; for a process of its own."""
    logits = draw_logits(texture, classes, *low).contiguous(memory_format=LAYOUTS[layout])
    before = start_peak()
    WAYS[way](logits, size)
    print(f"{read_memory_mib('VmHWM') - before:.0f}")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    options = parser.parse_args()
    low, size = ((32, 64), (128, 256)) if options.smoke else ((256, 512), (1024, 2048))
    rows = []
    for texture in ("smooth", "noise"):
        for classes in (19, 150):
            drawn = draw_logits(texture, classes, *low)
            for layout, memory_format in LAYOUTS.items():
                logits = drawn.contiguous(memory_format=memory_format)
                differing = int((label_map(logits, size) != interpolate_and_argmax(logits, size)).sum())
                peer, ours = time_ways(logits, size, options.repeats).values()
                cases = [(way, texture, classes, layout, low, size) for way in WAYS]
                peaks = [run_alone("label_map", f"print_peak{case!r}")[0] for case in cases]
                goal = GOALS.get((texture, classes, layout), 1 if texture == "noise" else None)
                share, times = f"{measure_mixed_share(drawn):.1%}", [f"{1e3 * seconds:.1f}" for seconds in (peer, ours)]
                cells = [texture, classes, layout, share, *times, f"{peer / ours:.1f}", goal or "", *peaks, differing]
                rows.append(f"| {' | '.join(map(str, cells))} |")
                print(rows[-1], flush=True)
    columns = (
        "logits", "classes", "layout", "mixed cells", "peer, ms", "label_map, ms", "times faster", "goal",
        "peer's peak, MiB", "label_map's peak, MiB", "differing pixels",
    )  # fmt: skip
    sizes = f"{low[0]}x{low[1]} logits to {size[0]}x{size[1]}"
    text = [
        "# Logits to label maps",
        "",
        f"{sizes}; the peer is F.interpolate and argmax; medians of {options.repeats} alternating repeats.",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *rows,
        "",
        *describe_machine("torch", "numpy"),
        "",
    ]
    if not options.smoke:
        Path(__file__).with_suffix(".md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()

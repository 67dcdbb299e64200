"""What a graph costs, measured in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segplus.export.runner import Network, make_pixel_values

_WARM_UP = 3


def measure_graph(
    folder: Path, graph: str | None, size_px: tuple[int, int], runs: int, checkpoint: str | None = None
) -> dict[str, float]:
    """Return the cost of one image, in a fresh process that loads nothing else.

    Args:
        folder: An exported folder.
        graph: Name of the graph; None for the checkpoint itself.
        size_px: (height, width) of the image.
        runs: How often it is timed.
        checkpoint: Folder or Hub id of the checkpoint, run by torch on the CPU on the same pixel values.
    Returns:
        median_ms and p95_ms of one image, images_per_second, and memory_mib: what loading and running add to the peak.
    """
    task = {"folder": str(folder), "graph": graph, "size_px": size_px, "runs": runs, "checkpoint": checkpoint}
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "segplus.export.latency", json.dumps(task)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def read_peak_mib() -> float:
    """Return this process's largest resident memory so far; NaN where the system does not tell it (Linux does)."""
    status = Path("/proc/self/status")  # resource.getrusage would count the process that started this one, too
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM")), float("nan"))


def time_calls(call: Callable[[], Any], runs: int) -> dict[str, float]:
    """Return median_ms, p95_ms and images_per_second of a call for one image."""
    for _ in range(_WARM_UP):
        call()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return {
        "median_ms": float(np.median(seconds)) * 1e3,
        "p95_ms": float(np.quantile(seconds, 0.95)) * 1e3,
        "images_per_second": runs / sum(seconds),
    }


def _open_model(checkpoint: str, folder: Path, image: npt.NDArray[Any]) -> Callable[[], Any]:
    import torch

    from segplus.data.parallel import count_cores
    from segplus.metrics import label_map
    from segplus.models import load_segmentation_checkpoint
    from segplus.models.mask_transformers import compute_scores

    torch.set_num_threads(count_cores())  # as ONNX Runtime and OpenVINO do
    model = load_segmentation_checkpoint(checkpoint).eval()
    settings = json.loads((folder / "segplus_export.json").read_text(encoding="utf-8"))["preprocessing"]
    pixel_values = torch.from_numpy(make_pixel_values(image, settings))

    def run() -> Any:
        with torch.no_grad():
            return label_map(compute_scores(model, pixel_values), image.shape[:2])

    return run


def main(task: dict[str, Any]) -> None:
    """Print what one graph costs as JSON; images are neither read nor resized in the time that is taken."""
    folder, graph = Path(task["folder"]), task["graph"]
    channels = json.loads((folder / "segplus_export.json").read_text(encoding="utf-8"))["preprocessing"]["channels"]
    image = np.random.default_rng(0).integers(0, 256, (*task["size_px"], channels), dtype=np.uint8)
    # What the libraries take by themselves is not the graph's.
    needs = {
        ".onnx": ["onnxruntime"],
        ".xml": ["openvino"],
        ".pt2": ["torch"],
        "": ["segplus.metrics", "segplus.models"],
    }
    for name in needs[Path(graph or "").suffix]:
        importlib.import_module(name)
    before = read_peak_mib()
    if graph is None:
        call = _open_model(task["checkpoint"], folder, image)
    else:
        network = Network(folder, graph)
        inputs = network.feed(image)

        def call() -> Any:
            return network.run(inputs)

    measured = time_calls(call, task["runs"])
    print(json.dumps({**measured, "memory_mib": read_peak_mib() - before}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

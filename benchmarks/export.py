"""Exported graphs beside torch: latency, memory, and labels that 8 bits change. Prints benchmarks/export.md.

MobileNetV2-DeepLabV3 with its PASCAL VOC weights at 544x720, as the CamVid recipe serves it; SEGPLUS_DATA names
the data.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
from machine import describe_machine
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from segplus.export.folder import write_facts
from segplus.export.graphs import ExportTask, write_onnx
from segplus.export.latency import measure_graph
from segplus.export.preprocessing import describe_preprocessing, set_size
from segplus.export.runner import Network, make_pixel_values
from segplus.export.tracing import capture_program

SIZE_PX = 544, 720
CALIBRATION, COMPARED = 20, 20
ROUNDS, RUNS = 3, 10  # each round times every graph once, so that a busy moment hits them all


def read_images(folder: Path, count: int) -> list[np.ndarray]:
    paths = sorted(folder.iterdir())
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths[:: len(paths) // count][:count]]


def time_operators(folder: Path, graph: str, image: np.ndarray) -> list[tuple[str, float]]:
    """Return the milliseconds that ONNX Runtime spends in each kind of operator a run, longest first."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(folder / graph, options, providers=["CPUExecutionProvider"])
    inputs = Network(folder, graph).feed(image)
    for _ in range(RUNS):
        session.run(None, inputs)
    counts: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            counts[event["args"]["op_name"]] += event["dur"]
    return [(name, time_us / 1e3 / RUNS) for name, time_us in counts.most_common(6)]


def main() -> None:
    data = Path(os.environ["SEGPLUS_DATA"])
    source = data / "models" / "deeplabv3-mobilenet-v2-voc-hf"
    model = AutoModelForSemanticSegmentation.from_pretrained(source).eval()
    known = describe_preprocessing(set_size(AutoImageProcessor.from_pretrained(source), SIZE_PX), 3)
    training, test = data / "camvid" / "train" / "images", data / "camvid" / "test" / "images"
    served = [make_pixel_values(image, known) for image in read_images(training, CALIBRATION)]
    images = read_images(test, COMPARED)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = capture_program(model, 3, SIZE_PX).program
        task = ExportTask(program, known, model.config.num_labels, None, ["beside"], "static", served)
        graphs = write_onnx(task, folder)
        write_facts(folder, {"preprocessing": known, "graphs": graphs})
        rows = measure_rounds(folder, str(source), list(graphs))
        labels = {name: [Network(folder, name).label(image) for image in images] for name in graphs}
        pairs = list(zip(labels["model.onnx"], labels["model_int8.onnx"], strict=True))
        agreement = float(np.mean([(one == other).mean() for one, other in pairs]))
        profiles = {name: time_operators(folder, name, images[0]) for name in graphs}
    print_page(rows, agreement, profiles, graphs)


def measure_rounds(folder: Path, source: str, graphs: list[str]) -> dict[str, dict[str, float]]:
    """Return the median over rounds of each graph's cost, and of torch's."""
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for name in [None, *graphs]:
            found.setdefault(name or "torch", []).append(measure_graph(folder, name, SIZE_PX, RUNS, source))
    return {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def print_page(rows: dict, agreement: float, profiles: dict, graphs: dict) -> None:
    torch_ms, float_ms, int8_ms = (rows[name]["median_ms"] for name in ("torch", "model.onnx", "model_int8.onnx"))
    flags = Path("/proc/cpuinfo").read_text()
    print("# Exported graphs\n\n`python benchmarks/export.py`: MobileNetV2-DeepLabV3 (VOC weights) at 544x720, label")
    print(f"maps of 544x720, one image at a time; median of {ROUNDS} rounds of {RUNS} runs, a process for each.\n")
    print("\n".join(describe_machine("torch", "onnx", "onnxruntime")))
    print(f"- 8-bit dot products (VNNI): {'yes' if 'vnni' in flags else 'no'}\n")
    print(
        "| graph | median, ms | 95th percentile, ms | images/s | memory, MiB | file, MiB |"
        "\n|---|---:|---:|---:|---:|---:|"
    )
    for name, row in rows.items():
        size = f"{graphs[name]['bytes'] / 2**20:.1f}" if name in graphs else "-"
        print(
            f"| {name} | {row['median_ms']:.0f} | {row['p95_ms']:.0f} | {row['images_per_second']:.2f} | "
            f"{row['memory_mib']:.0f} | {size} |"
        )
    print("\n| goal | measured | reached |\n|---|---:|---|")
    for goal, value, least in (
        ("ONNX float32 at least as fast as torch float32", torch_ms / float_ms, 1.0),
        ("INT8 at least 1.5 times ONNX float32", float_ms / int8_ms, 1.5),
    ):
        print(f"| {goal} | {value:.2f} | {'yes' if value >= least else 'no'} |")
    print(f"\nLabels that float32 and INT8 share on {COMPARED} CamVid test images: {agreement:.2%}.\n")
    print("Where ONNX Runtime spends a run, ms by kind of operator:\n")
    for name, operators in profiles.items():
        print(f"- {name}: " + ", ".join(f"{kind} {spent:.0f}" for kind, spent in operators))


if __name__ == "__main__":
    main()

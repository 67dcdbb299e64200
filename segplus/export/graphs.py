"""The graphs of each format, written into a folder, with what segplus_export.json says of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch.export import ExportedProgram

from segplus.errors import InputError
from segplus.export.tracing import quiet_exporter

Graphs = dict[str, dict[str, Any]]
_BESIDE = ["pixel_values", "size"]


@dataclass(frozen=True)
class ExportTask:
    """What is written in one format.

    Args:
        program: The network.
        preprocessing: From `describe_preprocessing`.
        num_classes: C.
        decision: From `describe_decision`.
        places: Where the preprocessing goes: `beside` the graph, `inside` it, or both.
        quantize: `static`, `dynamic` or None.
        served: Pixel values that a static quantisation is calibrated on, each (1, channels, h, w).
    """

    program: ExportedProgram
    preprocessing: dict[str, Any]
    num_classes: int
    decision: dict[str, Any] | None
    places: Sequence[str]
    quantize: str | None = None
    served: Sequence[npt.NDArray[Any]] = ()


def write_onnx(task: ExportTask, folder: Path) -> Graphs:
    """Write ONNX graphs: model.onnx with preprocessing beside it, image_model.onnx with it inside, *_int8.onnx.

    Raises:
        InputError: If the network cannot be quantised so.
    """
    from segplus.export import quantization
    from segplus.export.onnx_graph import add_label_map, add_preprocessing, convert_program, save_graph

    network = convert_program(task.program)
    networks: dict[str, tuple[Any, dict[str, Any]]] = {"": (network, {"precision": "float32"})}
    if task.quantize:
        if task.quantize == "static":
            smaller = quantization.quantize_calibrated(network, task.served)
        else:
            smaller = quantization.quantize_weights(network)
        facts = {"precision": f"int8, {task.quantize}", "float_operators": quantization.list_float_operators(smaller)}
        networks = {"_int8": (smaller, facts), **networks}
    graphs: Graphs = {}
    for place in task.places:
        for suffix, (one, facts) in networks.items():
            whole = add_label_map(one, task.num_classes, task.decision)
            name, inputs = f"model{suffix}.onnx", _BESIDE
            if place == "inside":
                whole = add_preprocessing(whole, task.preprocessing)
                name, inputs = f"image_model{suffix}.onnx", [value.name for value in whole.graph.input]
            save_graph(whole, folder / name)
            graphs[name] = {"inputs": inputs, "preprocessing": place, **facts, "bytes": _measure(folder, name)}
    return graphs


def write_openvino(task: ExportTask, folder: Path) -> Graphs:
    """Write model.xml and its weights, model.bin, converted from the ONNX graph; int8 by NNCF."""
    import openvino

    from segplus.export.onnx_graph import add_label_map, convert_program, find_classifier, save_graph

    network = convert_program(task.program)
    graphs: Graphs = {}
    with tempfile.TemporaryDirectory() as beside:
        path = Path(beside) / "model.onnx"
        save_graph(add_label_map(network, task.num_classes, task.decision), path)
        converted = openvino.convert_model(str(path))
        if task.quantize:
            import nncf

            shape = task.served[0].shape[-2:]
            items = [{"pixel_values": one, "size": torch.tensor(shape).numpy()} for one in task.served]
            smaller = nncf.quantize(
                converted,
                nncf.Dataset(items),
                subset_size=len(items),
                # The label map and the classifier's scores: rounded, they would be other labels.
                ignored_scope=nncf.IgnoredScope(
                    names=[node.output[0] for node in find_classifier(network)],
                    types=["Interpolate", "TopK"],
                    validate=False,
                ),
            )
            openvino.save_model(smaller, folder / "model_int8.xml", compress_to_fp16=False)
            graphs["model_int8.xml"] = {"precision": "int8, static (NNCF)"}
        openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)
        graphs["model.xml"] = {"precision": "float32"}
    for name, facts in graphs.items():
        facts |= {"inputs": _BESIDE, "preprocessing": "beside"}
        facts["bytes"] = _measure(folder, name) + _measure(folder, Path(name).stem + ".bin")
    return graphs


def write_program(task: ExportTask, folder: Path) -> Graphs:
    """Write model.pt2, which torch alone loads; the label map is made beside it."""
    with quiet_exporter():
        torch.export.save(task.program, folder / "model.pt2")
    facts = {"inputs": _BESIDE, "preprocessing": "beside", "precision": "float32"}
    return {"model.pt2": {**facts, "bytes": _measure(folder, "model.pt2")}}


# Format -> what writes it, the packages that it needs, the quantisations and places of the preprocessing it has.
FORMATS: dict[str, tuple[Callable[..., Graphs], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "onnx": (write_onnx, ("onnx", "onnxscript", "onnxruntime"), ("static", "dynamic"), ("beside", "inside")),
    "openvino": (write_openvino, ("onnx", "onnxscript", "openvino"), ("static",), ("beside",)),
    "torch_export": (write_program, (), (), ("beside",)),
}


def check_format(export_format: str, quantize: str | None, preprocessing: str) -> None:
    """Refuse what a format has not, and a format whose packages are not installed.

    Raises:
        InputError: If so.
    """
    if export_format not in FORMATS:
        raise InputError("export: --format", found=export_format, allowed=", ".join(FORMATS))
    _, packages, quantisations, places = FORMATS[export_format]
    if quantize == "static" and export_format == "openvino":
        packages = (*packages, "nncf")
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        extra = "openvino" if export_format == "openvino" else "export"
        raise InputError(
            f"export: --format {export_format} needs packages that are not installed",
            found=f"no {', '.join(missing)}",
            fix=f"pip install 'segplus[{extra}]' (Python 3.11 and newer), or use --format torch_export",
        )
    if quantize is not None and quantize not in quantisations:
        raise InputError(
            f"export: --quantize of --format {export_format}",
            found=quantize,
            allowed=", ".join(quantisations) or "none: its numbers stay float32",
        )
    if preprocessing not in ("both", *places):
        raise InputError(
            f"export: --preprocessing of --format {export_format}", found=preprocessing, allowed=", ".join(places)
        )


def choose_places(export_format: str, preprocessing: str, known: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return where the preprocessing goes, and what is told of it that a graph cannot hold.

    Raises:
        InputError: If it is asked for inside and cannot be there.
    """
    possible = FORMATS[export_format][3]
    wanted = list(possible) if preprocessing == "both" else [preprocessing]
    if "inside" not in wanted:
        told = (
            [] if preprocessing == "beside" else [f"preprocessing: {export_format} has it beside the graph, in run.py"]
        )
        return wanted, told
    from segplus.export.onnx_graph import can_hold

    reason = can_hold(known)
    if reason is None:
        return wanted, []
    if preprocessing == "inside":
        raise InputError(f"export: --preprocessing inside: {reason}", fix="use --preprocessing beside")
    return ["beside"], [f"preprocessing: {reason}; run.py does it beside the graph"]


def _measure(folder: Path, name: str) -> int:
    """Return the bytes of a graph's file and of weights beside it."""
    weights = folder / f"{Path(name).stem}.weights"
    return (folder / name).stat().st_size + (weights.stat().st_size if weights.is_file() else 0)

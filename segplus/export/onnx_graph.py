"""ONNX graphs: a network's own, with the nodes of its preprocessing in front of it and of its label map behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch.export import ExportedProgram

from segplus.export.label_decision import make_decision
from segplus.export.tracing import quiet_exporter

OPSET = 20
PRODUCTS = ("MatMul", "Gemm")
_IR_VERSION = 10
_MOST_BYTES = 2**31 - 2**20  # of one protobuf file; larger weights lie beside it
# Pillow's filters that ONNX has, with what makes them Pillow's. Nearest is none: the two round to other pixels.
_FILTERS: dict[int, dict[str, Any]] = {
    Image.Resampling.BILINEAR: {"mode": "linear"},
    Image.Resampling.BICUBIC: {"mode": "cubic", "cubic_coeff_a": -0.5},
}


def convert_program(program: ExportedProgram) -> onnx.ModelProto:
    """Return the network alone: pixel_values, float32, (N, channels, H, W) -> logits, float32, (N, C, h, w)."""
    with quiet_exporter(), torch.no_grad():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixel_values"],
            output_names=["logits"],
            verbose=False,
        )
    assert converted is not None
    model = converted.model_proto
    model.ir_version = _IR_VERSION
    del model.metadata_props[:]
    for node in model.graph.node:  # where in the model's source a node comes from: paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    return model


def add_label_map(
    network: onnx.ModelProto, num_classes: int, decision: Mapping[str, Any] | None = None
) -> onnx.ModelProto:
    """Return the network with its label map: bilinear resize of the logits, without aligned corners, and a decision.

    Args:
        network: From `convert_program`.
        num_classes: C.
        decision: From `describe_decision`; None gives the most probable class.
    Returns:
        pixel_values, size (int64, [height, width] of the label maps) -> labels (N, height, width), uint8 up to 256
        classes (255 where a pixel may be left open) and int32 above, and logits.
    """
    model = _copy(network)
    graph = model.graph
    label_type = TensorProto.UINT8 if num_classes <= (255 if decision else 256) else TensorProto.INT32
    chosen = [helper.make_node("ArgMax", ["labels_scores"], ["labels_ids"], axis=1, keepdims=0)]
    if decision is not None:
        chosen, constants = make_decision("labels_scores", "labels_ids", decision)
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input.append(helper.make_tensor_value_info("size", TensorProto.INT64, [2]))
    graph.node.extend(
        [
            helper.make_node("Shape", ["logits"], ["labels_classes"], end=2),
            helper.make_node("Concat", ["labels_classes", "size"], ["labels_shape"], axis=0),
            _make_resize("logits", "labels_shape", "labels_scores", mode="linear"),
            *chosen,
            helper.make_node("Cast", ["labels_ids"], ["labels"], to=label_type),
        ]
    )
    graph.output.insert(0, helper.make_tensor_value_info("labels", label_type, ["batch", "height_px", "width_px"]))
    return model


def can_hold(preprocessing: dict[str, Any]) -> str | None:
    """Return why a graph cannot hold this preprocessing, or None where it can."""
    stated = preprocessing["image_range"]
    if stated is not None and not stated["round"]:
        return "it takes 8-bit images, and the model was trained on deeper ones"
    if preprocessing["size"] is not None and preprocessing["resample"] not in _FILTERS:
        name = Image.Resampling(preprocessing["resample"]).name.lower()
        return f"ONNX has no resize by Pillow's filter {name}"
    return None


def add_preprocessing(model: onnx.ModelProto, preprocessing: dict[str, Any]) -> onnx.ModelProto:
    """Return the graph of one 8-bit image: image, uint8, (H, W, channels) -> labels (1, H, W) and logits.

    It has a second input `served_size` (int64, [height, width] that the network gets) where the image processor has no
    one size but resizes.

    Args:
        model: From `add_label_map`.
        preprocessing: From `describe_preprocessing`; `can_hold` has nothing against it.
    """
    inside = _copy(model)
    graph, size, channels = inside.graph, preprocessing["size"], preprocessing["channels"]
    given = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["height_px", "width_px", channels])]
    constants = {
        "image_batch_axis": np.array([0], np.int64),
        "image_factor": np.array(preprocessing["factor"], np.float32).reshape(1, -1, 1, 1),
        "image_offset": np.array(preprocessing["offset"], np.float32).reshape(1, -1, 1, 1),
        "image_order": np.array(preprocessing["channel_order"], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["size"], end=2),
        helper.make_node("Transpose", ["image"], ["image_planes"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["image_planes", "image_batch_axis"], ["image_batch"]),
    ]
    last = "image_batch"
    if size is not None:
        served = "served_size"
        if "height" in size:
            constants[served] = np.array([size["height"], size["width"]], np.int64)
        else:
            given.append(helper.make_tensor_value_info(served, TensorProto.INT64, [2]))
        constants["image_count"] = np.array([1, channels], np.int64)
        nodes.append(helper.make_node("Concat", ["image_count", served], ["image_shape"], axis=0))
        filter_ = _FILTERS[preprocessing["resample"]]
        nodes.append(_make_resize(last, "image_shape", "image_resized", **filter_, antialias=1, exclude_outside=1))
        last = "image_resized"
    nodes += [
        helper.make_node("Cast", [last], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["image_float", "image_factor"], ["image_scaled"]),
        helper.make_node("Add", ["image_scaled", "image_offset"], ["image_normalised"]),
        helper.make_node("Gather", ["image_normalised", "image_order"], ["pixel_values"], axis=1),
    ]
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *own])
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    del graph.input[:]
    graph.input.extend(given)
    return inside


def find_classifier(network: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes from the last convolution or product to the logits."""
    makers = {output: node for node in network.graph.node for output in node.output}
    waiting, found = [output.name for output in network.graph.output], []
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        found.append(node)
        if node.op_type not in ("Conv", "ConvTranspose", *PRODUCTS):
            waiting += [name for name in node.input if name]
    return found


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph as one file; weights beyond what such a file can hold go to `<name>.weights` beside it."""
    if model.ByteSize() <= _MOST_BYTES:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.stem}.weights")


def _make_resize(source: str, shape: str, target: str, **values: Any) -> onnx.NodeProto:
    return helper.make_node(
        "Resize", [source, "", "", shape], [target], coordinate_transformation_mode="half_pixel", **values
    )


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied

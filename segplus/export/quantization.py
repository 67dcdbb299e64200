"""ONNX graphs of 8-bit integers: calibrated on images (static), or with activations' ranges as they come (dynamic)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from segplus.errors import InputError
from segplus.export.onnx_graph import PRODUCTS, find_classifier

# What ONNX Runtime computes in integers, and what moves values between such. Softmax and normalisation lose most by it.
_INTEGER_OPERATORS = [
    *("Conv", "MatMul", "Gemm", "Add", "Mul", "Relu", "Clip", "Concat", "Pad", "Resize", "Transpose", "Reshape"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
]
_MOVES = {"Cast", "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Split"}
_MOVES |= {"Squeeze", "Transpose", "Unsqueeze", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_MOVES |= {"MatMulInteger", "ConvInteger"}  # integers by their name
_FEWEST_SHARED = 0.5  # of the multiplications' weights that must lie in products for dynamic INT8 to be of use


class PixelValues(CalibrationDataReader):  # type: ignore[misc]
    """The pixel values that ranges are taken from.

    Args:
        served: Arrays (1, channels, h, w).
    """

    def __init__(self, served: Iterable[npt.NDArray[Any]]) -> None:
        self.served: Iterator[npt.NDArray[Any]] = iter(served)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the next image's, or None after the last."""
        pixel_values = next(self.served, None)
        return None if pixel_values is None else {"pixel_values": pixel_values}


def quantize_calibrated(network: onnx.ModelProto, served: Iterable[npt.NDArray[Any]]) -> onnx.ModelProto:
    """Return a network whose convolutions, products and sums are 8-bit: QDQ, weights symmetric a channel, of 7 bits.

    The last convolution or product, which gives the logits, stays float32: its rounding would be the label map's.

    Args:
        network: From `convert_program`.
        served: Pixel values of the calibration images.
    """

    def quantize(prepared: Path, after: Path) -> None:
        quantize_static(
            str(prepared),
            str(after),
            PixelValues(served),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # 7 bits a weight: with 8, the sum of two products overflows 16 bits on processors without VNNI.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=_INTEGER_OPERATORS,
            nodes_to_exclude=[node.name for node in find_classifier(onnx.load(prepared))],
        )

    return _quantize_files(network, quantize)


def quantize_weights(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network whose matrix products have 8-bit weights and take the range of their input as it comes.

    Args:
        network: From `convert_program`.
    Raises:
        InputError: If most of its weights are those of convolutions, which ONNX Runtime runs slower so.
    """
    share = _measure_products(network)
    if share < _FEWEST_SHARED:
        raise InputError(
            "export: dynamic INT8 is for transformers, and this is a network of convolutions",
            found=f"{share:.0%} of the weights are in matrix products",
            allowed=f"{_FEWEST_SHARED:.0%} and more",
            fix="use --quantize static, with --data for the calibration",
        )

    def quantize(prepared: Path, after: Path) -> None:
        quantize_dynamic(
            str(prepared),
            str(after),
            op_types_to_quantize=list(PRODUCTS),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )

    return _quantize_files(network, quantize)


def _quantize_files(network: onnx.ModelProto, quantize: Callable[[Path, Path], None]) -> onnx.ModelProto:
    """Return what `quantize` makes of a network: it reads the file of its first path and writes that of its second."""
    with tempfile.TemporaryDirectory() as folder:
        before, prepared, after = (Path(folder) / name for name in ("float.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(network, before)
        quant_pre_process(str(before), str(prepared), skip_symbolic_shape=True)
        quantize(prepared, after)
        return onnx.load(after)


def list_float_operators(network: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator that computes in float occurs in a quantised network.

    An operator of a QDQ graph is an integer's where ONNX Runtime has such and all that it takes is dequantised;
    operators that only move values are left out.
    """
    dequantized = {name for node in network.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    counts: Counter[str] = Counter()
    for node in network.graph.node:
        data = [name for name in node.input[:2] if name]
        is_integer = node.op_type in _INTEGER_OPERATORS and all(name in dequantized for name in data)
        if not is_integer and node.op_type not in _MOVES:
            counts[node.op_type] += 1
    return dict(sorted(counts.items()))


def _measure_products(network: onnx.ModelProto) -> float:
    """Return the share of the weights of convolutions and products that lies in products."""
    sizes = {one.name: int(_multiply(one.dims)) for one in network.graph.initializer}
    counts: Counter[bool] = Counter()
    for node in network.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", *PRODUCTS):
            counts[node.op_type in PRODUCTS] += sum(sizes.get(name, 0) for name in node.input)
    return counts[True] / max(sum(counts.values()), 1)


def _multiply(sides: Iterable[int]) -> int:
    product = 1
    for side in sides:
        product *= side
    return product

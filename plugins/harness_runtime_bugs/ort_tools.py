"""Bugs of ONNX Runtime's quantization tools: what they write is run, and compared with the float model by numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import BugCase
from harness_runtime_bugs import runs
from harness_runtime_bugs.graphs import graph, op

Arrays = Mapping[str, np.ndarray]


class _Once:
    """Calibration data of one item, as ``CalibrationDataReader`` gives them."""

    def __init__(self, inputs: Arrays) -> None:
        self._left: Iterator[Arrays] = iter([inputs])

    def get_next(self) -> Arrays | None:
        """Return the next item."""
        return next(self._left, None)


def _static(path: Path, inputs: Arrays, **options: Any) -> Path:
    """Quantize a file statically on its own inputs; all is signed unless said otherwise."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    given: dict[str, Any] = {"activation_type": "QInt8", "weight_type": "QInt8", "per_channel": False} | options
    kinds = {key: getattr(QuantType, given.pop(key)) for key in ("activation_type", "weight_type")}
    reader = type("Reader", (_Once, CalibrationDataReader), {})(inputs)
    made = path.with_name("quantized.onnx")
    quantize_static(str(path), str(made), reader, quant_format=QuantFormat.QDQ, **kinds, **given)
    return made


def _statically(**options: Any) -> Callable[[Path, Arrays], Arrays]:
    return lambda path, inputs: runs.onnxruntime(_static(path, inputs, **options), inputs)


def transposed_channels() -> BugCase:
    """Quantize a transposed convolution by channel: its output channels lie along axis 1 of the weights."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((1, 3, 5, 5)).astype(np.float32)
    weight = (chance.standard_normal((3, 8, 3, 3)) * (1 + np.arange(8)).reshape(1, 8, 1, 1)).astype(np.float32)
    bias = np.arange(8, dtype=np.float32)
    full = np.zeros((1, 8, 7, 7))
    for row in range(5):
        for column in range(5):
            patch = np.einsum("c,cohw->ohw", x[0, :, row, column].astype(float), weight.astype(float))
            full[0, :, row : row + 3, column : column + 3] += patch
    right = {"y": (full[:, :, 1:-1, 1:-1] + bias.reshape(1, 8, 1, 1)).astype(np.float32)}
    build = graph(
        op("ConvTranspose", "x w b", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        inputs={"x": x}, right=right, constants={"w": weight, "b": bias},
    )  # fmt: skip
    return BugCase({"x": x}, right, build, _statically(per_channel=True), atol=float(np.abs(right["y"]).max()) / 30)


def small_weights_large_bias() -> BugCase:
    """Quantize a convolution whose weights are tiny beside its bias: a 32-bit bias in their scale overflows."""
    x = np.linspace(-60, 60, 4, dtype=np.float32).reshape(1, 1, 2, 2)
    weight = np.array([1e-7, -1e-7], np.float32).reshape(2, 1, 1, 1)
    bias = np.array([5.0, -4.5], np.float32)
    right = {"y": (x * weight.reshape(1, 2, 1, 1) + bias.reshape(1, 2, 1, 1)).astype(np.float32)}
    build = graph(op("Conv", "x w b", "y"), inputs={"x": x}, right=right, constants={"w": weight, "b": bias})
    return BugCase({"x": x}, right, build, _statically(), atol=0.1)


def _dynamically(path: Path, inputs: Arrays, *, per_channel: bool = False) -> Arrays:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = path.with_name("quantized.onnx")
    quantize_dynamic(str(path), str(made), weight_type=QuantType.QInt8, per_channel=per_channel)
    return runs.onnxruntime(made, inputs)


def shared_by_branches() -> BugCase:
    """Quantize two branches of an If that read one initializer of the outer graph."""
    chance = np.random.default_rng(0)
    inputs = {"c": np.array(True), "x": chance.standard_normal((1, 8)).astype(np.float32)}
    weight = chance.standard_normal((8, 8)).astype(np.float32)
    right = {"y": (inputs["x"] @ weight).astype(np.float32)}
    build = graph(
        op("If", "c", "y", then_branch=[op("MatMul", "x w", "t")],
           else_branch=[op("Neg", "x", "n"), op("MatMul", "n w", "e")]),
        inputs=inputs, right=right, constants={"w": weight},
    )  # fmt: skip
    return BugCase(inputs, right, build, _dynamically, atol=float(np.abs(right["y"]).max()) / 30)


def stacked_weights() -> BugCase:
    """Quantize a stack of matrices by channel, dynamically."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((2, 3, 16)).astype(np.float32)
    weight = chance.standard_normal((2, 16, 8)).astype(np.float32)
    right = {"y": np.matmul(x, weight)}
    build = graph(op("MatMul", "x w", "y"), inputs={"x": x}, right=right, constants={"w": weight})

    def answer(path: Path, inputs: Arrays) -> Arrays:
        return _dynamically(path, inputs, per_channel=True)

    return BugCase({"x": x}, right, build, answer, atol=float(np.abs(right["y"]).max()) / 30)


def _weight_bits(path: Path) -> Arrays:
    import onnx

    model = onnx.load(str(path))
    bits = {3: 8, 5: 16}  # int8, int16
    found = [bits[item.data_type] for item in model.graph.initializer if item.data_type in bits and len(item.dims) == 2]
    return {"bits": np.array(found, np.int64)}


def narrower_weights() -> BugCase:
    """Quantize a product with 16-bit activations and 8-bit weights: 8 bits are what the weights have to have."""
    x = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 4)
    build = graph(
        op("MatMul", "x w", "y"),
        inputs={"x": x}, right={"y": np.zeros((1, 3), np.float32)},
        constants={"w": np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)}, opset=21,
    )  # fmt: skip

    def answer(path: Path, inputs: Arrays) -> Arrays:
        return _weight_bits(_static(path, inputs, activation_type="QInt16"))

    return BugCase({"x": x}, {"bits": np.array([8])}, build, answer)


def bias_of_one_row() -> BugCase:
    """Quantize a Gemm whose bias is a matrix of one row."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((1, 16)).astype(np.float32)
    weight, bias = chance.standard_normal((16, 10)).astype(np.float32), np.arange(10, dtype=np.float32)[None]
    right = {"y": (x @ weight + bias).astype(np.float32)}
    build = graph(op("Gemm", "x w b", "y"), inputs={"x": x}, right=right, constants={"w": weight, "b": bias})
    return BugCase({"x": x}, right, build, _statically(per_channel=True), atol=float(np.abs(right["y"]).max()) / 30)

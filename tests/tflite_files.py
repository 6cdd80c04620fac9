"""Small .tflite files that tests write themselves, so that no converter is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    "float32": schema.TensorType.FLOAT32, "float16": schema.TensorType.FLOAT16, "int32": schema.TensorType.INT32,
}  # fmt: skip


class Writer:
    """Collects the tensors and operators of one graph."""

    def __init__(self) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
        tensor.type = schema.TensorType.FLOAT32 if data is None else _TYPES[data.dtype.name]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name: str, inputs: list[int], output: int, options: str = "", **values: Any) -> int:
        code = getattr(schema.BuiltinOperator, name)
        known = [kind.builtinCode for kind in self.model.operatorCodes]
        if code not in known:
            kind = schema.OperatorCodeT()
            kind.builtinCode = kind.deprecatedBuiltinCode = code
            kind.version = 1
            self.model.operatorCodes.append(kind)
            known.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), inputs, [output]
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for key, value in values.items():
                setattr(operator.builtinOptions, key, value)
        self.graph.operators.append(operator)
        return output

    def write(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        self.graph.inputs, self.graph.outputs, self.model.subgraphs = inputs, outputs, [self.graph]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path


_STRIDES = {"dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": 1}


def separable(path: Path, zeros: float, *, channels: int = 16, size: int = 8, blocks: int = 2) -> Path:
    """Write x [1, 2·size, 2·size, 3] -> mean [1, 1, 1, channels]: a 3x3 stem, then 1x1 and depthwise convolutions.

    Args:
        path: Where to.
        zeros: Share of the weights of the 1x1 convolutions.
        channels: Of every layer.
        size: Height and width behind the stem.
        blocks: Pairs of a 1x1 and a depthwise convolution.
    """
    chance, to = np.random.default_rng(0), Writer()
    outer = 2 * size
    image = to.tensor("x", (1, outer, outer, 3))
    pads = to.tensor("pads", (4, 2), np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    padded = to.op("PAD", [image, pads], to.tensor("padded", (1, outer + 2, outer + 2, 3)), "PadOptions")
    shape = (1, size, size, channels)
    bias = to.tensor("bias", (channels,), np.full(channels, 0.1, np.float32))

    def weights(name: str, shape: tuple[int, ...], scale: float, share: float = 0.0) -> int:
        values = (chance.standard_normal(shape) * scale).astype(np.float32)
        values[chance.random(shape) < share] = 0
        return to.tensor(name, shape, values)

    stem = weights("stem", (channels, 3, 3, 3), 0.2)
    here = to.op("CONV_2D", [padded, stem, bias], to.tensor("stem.y", shape), "Conv2DOptions",
                 padding=1, strideH=2, strideW=2, **_STRIDES)  # fmt: skip
    for block in range(blocks):
        point = weights(f"point{block}", (channels, 1, 1, channels), 0.3, zeros)
        here = to.op("CONV_2D", [here, point, bias], to.tensor(f"point{block}.y", shape), "Conv2DOptions",
                     padding=0, strideH=1, strideW=1, **_STRIDES)  # fmt: skip
        depth = weights(f"depth{block}", (1, 3, 3, channels), 0.3)
        here = to.op("DEPTHWISE_CONV_2D", [here, depth, bias], to.tensor(f"depth{block}.y", shape),
                     "DepthwiseConv2DOptions", padding=0, strideH=1, strideW=1, depthMultiplier=1,
                     **_STRIDES)  # fmt: skip
    axes = to.tensor("axes", (2,), np.array([1, 2], np.int32))
    out = to.op("MEAN", [here, axes], to.tensor("mean", (1, 1, 1, channels)), "ReducerOptions", keepDims=True)
    return to.write(path, [image], [out])

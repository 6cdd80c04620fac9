"""Bugs of LiteRT's kernels and of the converter from PyTorch to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import BugCase
from harness_runtime_bugs import runs

Arrays = Mapping[str, np.ndarray]


class _File:
    """Collects the tensors and operators of a .tflite file of one graph; needs LiteRT's schema alone."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        """Add a tensor, constant where it has data; return its index."""
        tensor = self.schema.TensorT()
        integer = data is not None and data.dtype == np.int32
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
        tensor.type = self.schema.TensorType.INT32 if integer else self.schema.TensorType.FLOAT32
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, name: str, options: str, takes: list[int], gives: int, **values: Any) -> int:
        """Add an operator; return the index of the tensor that it gives."""
        kind = self.schema.OperatorCodeT()
        kind.builtinCode = kind.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, name)
        kind.version = 1
        self.model.operatorCodes.append(kind)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes) - 1, takes, [gives]
        made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
        made.builtinOptions = getattr(self.schema, f"{options}T")()
        for key, value in values.items():
            setattr(made.builtinOptions, key, value)
        self.graph.operators.append(made)
        return gives

    def write(self, folder: Path, takes: int, gives: int) -> Path:
        """Write the file; return its path."""
        import flatbuffers  # type: ignore[import-untyped]  # it has no stubs

        self.graph.inputs, self.graph.outputs, self.model.subgraphs = [takes], [gives], [self.graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path = folder / "case.tflite"
        path.write_bytes(bytes(builder.Output()))
        return path


def wide_stride() -> BugCase:
    """Convolve 17 rows and 18 columns in steps of 10 with padding "same".

    "Same" pads (ceil(17 / 10) - 1) · 10 + 3 - 17 < 0 rows, which is none, so the windows start at 0 and 10.
    """
    chance = np.random.default_rng(0)
    x = chance.standard_normal((1, 17, 18, 7)).astype(np.float32)
    weight = chance.standard_normal((16, 3, 3, 7)).astype(np.float32)
    right = np.zeros((1, 2, 2, 16))
    for row in range(2):
        for column in range(2):
            patch = x[0, 10 * row : 10 * row + 3, 10 * column : 10 * column + 3].astype(float)
            right[0, row, column] = np.einsum("hwc,ohwc->o", patch, weight.astype(float))

    def build(folder: Path) -> Path:
        to = _File()
        image, y = to.tensor("x", x.shape), to.tensor("y", right.shape)
        takes = [image, to.tensor("w", weight.shape, weight), to.tensor("b", (16,), np.zeros(16, np.float32))]
        to.op("CONV_2D", "Conv2DOptions", takes, y, padding=0, strideH=10, strideW=10, dilationHFactor=1,
              dilationWFactor=1, fusedActivationFunction=0)  # fmt: skip
        return to.write(folder, image, y)

    return BugCase({"x": x}, {"y": right.astype(np.float32)}, build, runs.litert, atol=1e-4)


def transposed_product() -> BugCase:
    """Transpose an image to channels first, and multiply each channel's matrix by itself."""
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 3)).astype(np.float32)
    first = x.transpose(0, 3, 1, 2).astype(float)
    right = np.matmul(first, first).astype(np.float32)

    def build(folder: Path) -> Path:
        to = _File()
        image, order = to.tensor("x", x.shape), to.tensor("order", (4,), np.array([0, 3, 1, 2], np.int32))
        turned = to.op("TRANSPOSE", "TransposeOptions", [image, order], to.tensor("t", first.shape))
        y = to.op("BATCH_MATMUL", "BatchMatMulOptions", [turned, turned], to.tensor("y", right.shape))
        return to.write(folder, image, y)

    return BugCase({"x": x}, {"y": right}, build, runs.litert, atol=1e-5)


def _converted(make: Callable[[], Any]) -> Callable[[Path, Arrays], Arrays]:
    """Return what converts a torch module and runs it on LiteRT."""

    def answer(folder: Path, inputs: Arrays) -> Arrays:
        import litert_torch
        import torch

        sample = (torch.from_numpy(np.ascontiguousarray(inputs["x"])),)
        path = folder / "case.tflite"
        litert_torch.convert(make().eval(), sample).export(str(path))
        return {"y": next(iter(runs.litert(path, inputs).values()))}

    return answer


def strided_constant() -> BugCase:
    """Convert a product with a constant that is a transposed view: 0 to 11 by columns."""
    x = np.ones((3, 4), np.float32)
    right = {"y": np.arange(12, dtype=np.float32).reshape(4, 3).T.copy()}

    def make() -> Any:
        import torch

        class Times(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("factor", torch.arange(12.0).reshape(4, 3).T)

            def forward(self, x: Any) -> Any:
                return x * self.factor

        return Times()

    return BugCase({"x": x}, right, lambda folder: folder, _converted(make))


def norm_behind_transposed_convolution() -> BugCase:
    """Convert a transposed convolution without a bias and the batch norm behind it.

    A 1x1 kernel with stride 2 puts each product on every second pixel, and zeros between them: x · w there, 0
    elsewhere, then (· - mean) / sqrt(variance + 1e-5).
    """
    x = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 2, 2)
    weight, mean, variance = np.array([[0.5, -1.0], [2.0, 0.25]]), np.array([3.0, -1.0]), np.array([4.0, 0.25])
    products = np.zeros((1, 2, 3, 3))
    products[0, :, ::2, ::2] = np.einsum("chw,co->ohw", x[0].astype(float), weight)
    right = (products - mean.reshape(1, 2, 1, 1)) / np.sqrt(variance.reshape(1, 2, 1, 1) + 1e-5)

    def make() -> Any:
        import torch

        net = torch.nn.Sequential(
            torch.nn.ConvTranspose2d(2, 2, 1, stride=2, bias=False), torch.nn.BatchNorm2d(2, affine=False)
        )  # fmt: skip
        net[0].weight.data.copy_(torch.from_numpy(weight).reshape(2, 2, 1, 1))
        net[1].running_mean.copy_(torch.from_numpy(mean))
        net[1].running_var.copy_(torch.from_numpy(variance))
        return net

    return BugCase({"x": x}, {"y": right.astype(np.float32)}, lambda folder: folder, _converted(make), atol=1e-4)

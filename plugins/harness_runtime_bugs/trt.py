"""Bugs of TensorRT; they need an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.api import BugCase, Unsupported
from harness_runtime_bugs.graphs import graph, op

Arrays = Mapping[str, np.ndarray]


def _engine(path: Path) -> Any:
    """Build the engine of an ONNX file; what the parser or the builder refuses is raised."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise RuntimeError(parser.get_error(0).desc())
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise RuntimeError("the engine could not be built")
    return trt.Runtime(logger).deserialize_cuda_engine(plan)


def _tensorrt(path: Path, inputs: Arrays) -> Arrays:
    """Build an engine of an ONNX file and run it once; what it holds on the GPU goes with its process."""
    import tensorrt as trt
    from cuda.bindings import runtime as cuda

    if not cuda.cudaGetDeviceCount()[1]:
        raise Unsupported("there is no NVIDIA GPU here")
    engine = _engine(path)
    context, outputs = engine.create_execution_context(), {}
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        array = inputs.get(name)
        if array is None:
            array = np.zeros(tuple(context.get_tensor_shape(name)), trt.nptype(engine.get_tensor_dtype(name)))
        address = cuda.cudaMalloc(array.nbytes)[1]
        cuda.cudaMemcpy(address, array.ctypes.data, array.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        context.set_tensor_address(name, address)
        if name not in inputs:
            outputs[name] = (array, address)
    stream = cuda.cudaStreamCreate()[1]
    context.execute_async_v3(int(stream))
    cuda.cudaStreamSynchronize(stream)
    for array, address in outputs.values():
        cuda.cudaMemcpy(array.ctypes.data, address, array.nbytes, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
    return {name: array for name, (array, _address) in outputs.items()}


def scattered_slices() -> BugCase:
    """Put two slices into a block of four."""
    chance = np.random.default_rng(0)
    inputs = {
        "data": chance.standard_normal((4, 4, 4)).astype(np.float32),
        "updates": chance.standard_normal((2, 4, 4)).astype(np.float32),
    }
    right = inputs["data"].copy()
    right[[0, 2]] = inputs["updates"]
    build = graph(
        op("ScatterND", "data indices updates", "y"),
        inputs=inputs, right={"y": right}, constants={"indices": np.array([[0], [2]], np.int64)},
    )  # fmt: skip
    return BugCase(inputs, {"y": right}, build, _tensorrt)


def quantized_transposed_bias() -> BugCase:
    """Run a quantized transposed 1-D convolution with a bias: 8-bit values that all stay exact."""
    x = np.array([[[1, -2, 3, 4]]], np.float32)
    weight, bias = np.array([[[1, 2, -1]]], np.float32), np.array([5], np.float32)
    full = np.convolve(x[0, 0].astype(float), weight[0, 0].astype(float)) + 5
    right = {"y": full.astype(np.float32).reshape(1, 1, 6)}
    build = graph(
        op("QuantizeLinear", "x s z", "xq"),
        op("DequantizeLinear", "xq s z", "xf"),
        op("DequantizeLinear", "w s z", "wf"),
        op("ConvTranspose", "xf wf b", "y"),
        inputs={"x": x}, right=right,
        constants={
            "s": np.array(1, np.float32), "z": np.array(0, np.int8), "w": weight.astype(np.int8), "b": bias,
        },
    )  # fmt: skip
    return BugCase({"x": x}, right, build, _tensorrt)


def empty_slice() -> BugCase:
    """Join a slice of no rows with the whole: the whole."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    build = graph(
        op("Slice", "x zero zero axes", "none"),
        op("Concat", "none x", "y", axis=0),
        inputs={"x": x}, right={"y": x},
        constants={"zero": np.array([0], np.int64), "axes": np.array([0], np.int64)},
    )  # fmt: skip
    return BugCase({"x": x}, {"y": x}, build, _tensorrt)

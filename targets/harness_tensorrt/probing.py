"""Whether a library and a GPU for it are here, and what that GPU can do."""

from __future__ import annotations

import logging
import time
from typing import Any

from harness.api import Availability, Capabilities, HarnessError
from harness_tensorrt.cuda import Buffer, Cuda, CudaError
from harness_tensorrt.engine import make_logger, why
from harness_tensorrt.flavors import RTX, Flavor, Params, import_library
from harness_tensorrt.lowering import GAPS

_DRIVER_HINT = "an NVIDIA GPU and a driver for this CUDA release are needed; see nvidia-smi"


def probe(flavor: Flavor, params: Params) -> Availability:
    """Build and run a network of one addition; say precisely what is missing otherwise."""
    del params
    started = time.perf_counter()
    try:
        trt = import_library(flavor)
        cuda = Cuda()
        device, _capability = cuda.device()
        total = _add(trt, cuda)
    except CudaError as error:
        return Availability(available=False, reason=f"no usable GPU: {error.message}", hint=_DRIVER_HINT)
    except HarnessError as error:
        return Availability(available=False, reason=error.message, hint=error.hint or "")
    if total != [0.0, 2.0, 4.0, 6.0]:
        return Availability(available=False, reason=f"{device} added (0, 1, 2, 3) to itself and got {total}")
    seconds = time.perf_counter() - started
    return Availability(available=True, runtime=flavor.title, version=str(trt.__version__), seconds=seconds)


def _add(trt: Any, cuda: Cuda) -> list[float]:
    import numpy as np

    logger = make_logger(trt, logging.getLogger("harness"))
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what the bindings raise for a null pointer
        raise HarnessError(f"the builder cannot start: {why(logger)}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    value = network.add_input("value", trt.DataType.FLOAT, (4,))
    total = network.add_elementwise(value, value, trt.ElementWiseOperation.SUM).get_output(0)
    total.name = "total"
    network.mark_output(total)
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    engine = None if plan is None else trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        raise HarnessError(f"a network of one addition cannot be built or loaded: {why(logger)}")
    stream = cuda.call("cudaStreamCreateWithFlags", cuda.api.cudaStreamNonBlocking)
    buffers = {name: Buffer(cuda, np.dtype(np.float32), (4,)) for name in ("value", "total")}
    buffers["value"].host[...] = np.arange(4)
    for name, buffer in buffers.items():
        context.set_tensor_address(name, buffer.device)
    buffers["value"].upload(stream)
    ran = context.execute_async_v3(int(stream))
    buffers["total"].download(stream)
    cuda.call("cudaStreamSynchronize", stream)
    found = [float(item) for item in buffers["total"].host]
    for buffer in buffers.values():
        buffer.free()
    cuda.call("cudaStreamDestroy", stream)
    return found if ran else []


def capabilities(flavor: Flavor, params: Params) -> Capabilities:
    """Return what engines of ours can be on this host's GPU; without a GPU, what the library takes."""
    del params
    device, capability, source = _gpu()
    old = (
        ""
        if capability is None or capability >= (8, 9)
        else (f"compute capability {capability[0]}.{capability[1]} has no float8 kernels; 8.9 has them")
    )
    tensor_cores = "" if capability is None or capability >= (7, 5) else "; this GPU has no int8 tensor cores"
    return Capabilities(
        version="2026.11",
        precisions={
            "float32": "strongly typed float32, TF32 cleared unless asked for",
            "float16": "float16 ONNX, float32 at the border",
            "int8": f"explicit symmetric Q/DQ, per-channel weights, float32 elsewhere{tensor_cores}",
            "weight-only-int4": "blocks of 64 rows in matrix products, unpacked in the kernel; convolutions stay float",
            **(
                {}
                if old
                else {"float8": "explicit Q/DQ, E4M3, per-tensor scales; matrix products alone in the RTX flavour"}
            ),
        },
        gaps={**GAPS, **({"float8": old} if old else {})},
        op_gaps={
            "Conv": "int4 is for matrix products alone: convolutions stay float",
            "MatMul": "int4 takes whole blocks of 64 rows: others stay float",
            **(
                {"Conv (float8)": "TensorRT for RTX has float8 kernels for matrix products alone"}
                if flavor is RTX
                else {}
            ),
        },
        symmetric_only=True,
        channel_multiple=16,
        sparsity=("2:4",) if flavor.name == "tensorrt" and capability is not None and capability >= (8, 0) else (),
        devices=("cuda",),
        dynamic_batch=False,
        isa=() if capability is None else (f"sm_{capability[0]}{capability[1]}",),
        evidence={
            "device": device,
            "precisions": "documentation of TensorRT 10 and 11; parsed by TensorRT for RTX 1.7.1 on a CPU",
            "op_gaps": "NVIDIA's documentation of quantized types",
            "channel_multiple": "documentation: int8 tensor-core kernels take channels in steps of 16",
            "isa": source,
        },
    )


def _gpu() -> tuple[str, tuple[int, int] | None, str]:
    try:
        device, capability = Cuda().device()
    except HarnessError as error:
        return "not available", None, f"not available: {error.message}"
    return device, capability, "cudaGetDeviceProperties"

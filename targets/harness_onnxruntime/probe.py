"""Whether ONNX Runtime runs here, and what it can do."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Availability, Capabilities

if TYPE_CHECKING:
    from harness_onnxruntime.params import Params

HINT = "pip install 'compression-harness[onnxruntime]'"
_ISA = {"avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "avx512-vnni", "avx_vnni": "avx-vnni",
        "amx_int8": "amx-int8", "asimddp": "dotprod", "i8mm": "i8mm", "asimdhp": "fp16"}  # fmt: skip


def probe(params: Params) -> Availability:
    """Build a model of one Relu and run it."""
    del params
    start = time.perf_counter()
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        return Availability(False, f"onnxruntime cannot be imported: {error}", HINT, "onnxruntime")
    version = str(onnxruntime.__version__)
    try:
        _run_relu(onnxruntime)
    except Exception as error:  # noqa: BLE001  whatever it is, the target is not available, and this says why
        reason = f"a model of one Relu does not run: {type(error).__name__}: {error}"
        return Availability(False, reason, HINT, "onnxruntime", version)
    return Availability(True, runtime="onnxruntime", version=version, seconds=time.perf_counter() - start)


def _run_relu(onnxruntime: Any) -> None:
    import numpy as np
    from onnx import TensorProto, helper

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.array([-1, 2], np.float32)})
    if result.tolist() != [0.0, 2.0]:
        raise RuntimeError(f"Relu of [-1, 2] gave {result.tolist()}")


def isa() -> tuple[str, ...]:
    """Return the vector extensions that matter here, from /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    flags = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    return tuple(name for flag, name in _ISA.items() if flag in flags)


def capabilities(params: Params) -> Capabilities:
    """Return what the CPU provider realises on this host."""
    found = isa()
    fast = {"avx512-vnni": "VNNI", "avx-vnni": "VNNI", "dotprod": "dot product"}
    dot = next((fast[name] for name in found if name in fast), "no int8 dot product")
    scheme = f"QDQ, {params.activations} activations, int8 weights"
    half = "stored float16; kernels compute float32 between casts"
    if platform.machine() in {"aarch64", "arm64"} and "fp16" in found:
        half = "float16, where the provider has such kernels, else float32 between casts"
    return Capabilities(
        version="2026.11",
        precisions={
            "float32": "graph as it is",
            "int8": f"{scheme}, per channel ({dot})",
            "dynamic-int8": "ConvInteger and MatMulInteger; GRU stays float32",
            "float16": half,
            "weight-only-int8": "int8 weights, dequantized in the graph and multiplied in float32",
            "weight-only-int4": "int4 weights: MatMul by an n-bit product with int8 inputs, Conv in float32",
            "binary": "1-bit weights can be stored; executed as float32, there is no 1-bit kernel",
        },
        gaps={
            "bfloat16": "the CPU provider has no bfloat16 kernels",
        },
        channel_multiple=16 if "avx512" in found else 8,
        isa=found,
        evidence={
            "isa": "flags of /proc/cpuinfo",
            "precisions": "placements of a convolution net, tests/test_target_onnxruntime.py",
            "channel_multiple": "block of MLAS' NCHWc kernels: 16 floats with AVX-512, else 8",
        },
    )

"""Whether ExecuTorch runs here, and what it can do."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import Availability, Capabilities, MissingDependency, cpu_features, int8_dot_product
from harness_executorch import runtime

if TYPE_CHECKING:
    from harness_executorch.params import Params

PROGRAM = Path(__file__).with_name("relu.pte")  # one Relu of 2 floats by XNNPACK; tests make and compare it anew
BACKEND = "XnnpackBackend"
GAPS = {
    "bfloat16": "XNNPACK has no bfloat16 kernels here; portable ones are loops",
    "weight-only-int8": "XNNPACK's partitioner takes int8 weights with quantized activations only",
    "weight-only-int4": "XNNPACK's partitioner takes int4 weights with quantized activations only",
}
PORTABLE = "portable kernels have no int8 arithmetic: quantized operators need XNNPACK"


OP_GAPS = {
    "GRU": "unrolled step by step; XNNPACKQuantizer does not look inside, so the gates stay float32",
    "LSTM": "unrolled step by step; XNNPACKQuantizer does not look inside, so the gates stay float32",
    "LayerNorm": "XNNPACK takes none: a portable kernel, and a border between two partitions",
    "adaptive_avg_pool2d": "XNNPACK takes none: a portable kernel, float32 also in int8 models",
    "BatchMatMul": "XNNPACKQuantizer leaves products of two activations, as in attention, in float32",
    "DepthwiseConv": "dynamic int8 leaves depthwise convolutions in float32",
}


def probe(params: Params) -> Availability:
    """Run a stored program of one Relu by XNNPACK; say what is missing otherwise."""
    del params
    start = time.perf_counter()
    try:
        library = runtime.import_runtime()
    except MissingDependency as error:
        return Availability(False, error.message, runtime.HINT, "executorch")
    found = runtime.version()
    if not library._is_available(BACKEND):
        there = ", ".join(library._get_registered_backend_names()) or "none"
        reason = f"this build of executorch has no {BACKEND}; it has {there}"
        return Availability(False, reason, runtime.HINT, "executorch", found)
    try:
        result = _run_relu(library)
    except Exception as error:  # noqa: BLE001  whatever it is, the target is not available, and this says why
        reason = f"a program of one Relu does not run: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Availability(False, reason, runtime.HINT, "executorch", found)
    if result != [0.0, 2.0]:
        return Availability(False, f"Relu of [-1, 2] gave {result}", runtime.HINT, "executorch", found)
    return Availability(True, runtime="executorch", version=found, seconds=time.perf_counter() - start)


def _run_relu(library: object) -> list[float]:
    import torch

    program = library._load_program(str(PROGRAM))  # type: ignore[attr-defined]  # a compiled module
    (output,) = program.load_method(runtime.METHOD).call((torch.tensor([-1.0, 2.0]),))
    return [float(value) for value in output]


def capabilities(params: Params) -> Capabilities:
    """Return what ExecuTorch realises on this host's CPU."""
    isa = cpu_features()
    dot = int8_dot_product(isa)
    precisions = {
        "float32": "XNNPACK float32 kernels" if params.xnnpack else "portable kernels: loops without vectors",
        "float16": _half(params, isa),
    }
    gaps = dict(GAPS)
    why = PORTABLE if not params.xnnpack else _no_quantizer()
    if why:
        gaps |= {"int8": why, "dynamic-int8": why}
    else:
        precisions |= {
            "int8": f"PT2E, XNNPACKQuantizer, signed activations; XNNPACK qs8 kernels ({dot})",
            "dynamic-int8": f"PT2E, XNNPACKQuantizer, linear layers and convolutions; XNNPACK qd8 kernels ({dot})",
        }
    return Capabilities(
        version="2026.11",
        precisions=precisions,
        gaps=gaps,
        channel_multiple=16 if "avx512" in isa else 8,
        dynamic_batch=False,
        op_gaps=OP_GAPS if params.xnnpack else {},
        isa=isa,
        evidence={
            "isa": "CPU flags; XNNPACK picks its kernels by them",
            "precisions": "tests/test_target_executorch.py; the graphs that XNNPACK is given",
            "op_gaps": "placements of small networks, ExecuTorch 1.5.0; tests/test_target_executorch.py",
            "channel_multiple": "float32 lanes of the widest vector unit in the CPU flags",
        },
    )


def _half(params: Params, isa: tuple[str, ...]) -> str:
    if not params.xnnpack:
        return "portable kernels: loops"
    if {"fp16", "avx512-fp16"} & set(isa):
        return "XNNPACK float16 kernels"
    return "float16 weights and activations; this CPU has no float16 arithmetic, so XNNPACK converts around float32"


def _no_quantizer() -> str:
    if importlib.util.find_spec("torchao") is None:
        return f"PT2E lives in torchao, which is not installed: {runtime.HINT}"
    return ""

"""Whether LiteRT runs here, and what it can do."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from typing import TYPE_CHECKING

from harness.api import Availability, Capabilities, cpu_features, first_line
from harness_tflite import flatbuffer

if TYPE_CHECKING:
    from harness_tflite.params import Params

_ARM64 = frozenset({"aarch64", "arm64"})
_SPARSE_ARM64 = (
    "1x1 convolutions in float32, between a 3x3 stem and a mean: 80 % zeros took a fifth of the dense time under "
    "emulation; no time on hardware is known"
)
_SPARSE_X86 = "sparse tensors load, and XNNPACK computes with them dense: 90 % zeros ran as long as none (tried)"
_HINT = "pip install 'compression-harness[tflite]'"


def probe(params: Params) -> Availability:
    """Add two vectors in LiteRT; say what is missing otherwise."""
    del params
    started = time.perf_counter()
    try:
        total = _add()
    except ImportError as error:
        return Availability(available=False, reason=f"ai-edge-litert cannot be imported: {error}", hint=_HINT)
    except Exception as error:  # noqa: BLE001  a runtime that is there but broken: what it raises is the reason
        return Availability(
            available=False, reason=f"LiteRT failed on a one-operator model: {first_line(str(error))}", hint=_HINT
        )
    if total != [0.0, 2.0, 4.0, 6.0]:
        return Availability(available=False, reason=f"LiteRT added (0, 1, 2, 3) to itself and got {total}", hint=_HINT)
    seconds = time.perf_counter() - started
    return Availability(available=True, runtime="LiteRT", version=metadata.version("ai-edge-litert"), seconds=seconds)


def _add() -> list[float]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=flatbuffer.one_op_model(), num_threads=1)
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], np.arange(4, dtype=np.float32).reshape(1, 4))
    interpreter.invoke()
    output = interpreter.get_output_details()[0]["index"]
    return [float(value) for value in interpreter.get_tensor(output).reshape(-1)]


def capabilities(params: Params) -> Capabilities:
    """Return what LiteRT with XNNPACK can do on this host's CPU."""
    elsewhere = bool(params.arm64 or params.android)
    arm64 = elsewhere or platform.machine() in _ARM64
    isa = () if elsewhere else cpu_features()
    return Capabilities(
        version="2026.11",
        precisions={
            "float32": "XNNPACK float32 kernels",
            "float16": "float16 weights, dequantized at load and computed in float32: size only",
            "int8": "ai-edge-quantizer static w8a8, float32 at the border; XNNPACK qs8 kernels",
            "dynamic-int8": "ai-edge-quantizer dynamic for CONV_2D and FULLY_CONNECTED; XNNPACK qd8 kernels",
            "weight-only-int8": "int8 weights, dequantized and computed in float32: size only",
            "weight-only-int4": "int4 weights, dequantized at run time and computed in float32: smaller and slower",
            "binary": "1-bit weights can be stored; executed as float32, there is no 1-bit kernel",
        },
        gaps={
            "bfloat16": "XNNPACK has no bfloat16 arithmetic in LiteRT",
            "float8": "LiteRT has no float8 kernels",
            "dynamic-int4": "not offered: on convolutions it ran no faster than float32",
        },
        channel_multiple=_lanes(isa),
        sparsity=("unstructured",) if arm64 else (),
        dynamic_batch=False,
        op_gaps={"DEPTHWISE_CONV_2D": "no dynamic-int8 kernel in XNNPACK: stays in float32"},
        isa=isa,
        evidence={
            "isa": "flags of /proc/cpuinfo; XNNPACK picks its kernels by them",
            "channel_multiple": "float32 lanes of the widest vector unit in the CPU flags",
            "precisions": "read from ai-edge-quantizer's policy and tried on x86-64",
            "sparsity": _SPARSE_ARM64 if arm64 else _SPARSE_X86,
        },
    )


def _lanes(isa: tuple[str, ...]) -> int:
    if "avx512" in isa:
        return 16
    return 8 if "avx2" in isa else 4 if not isa or platform.machine() in _ARM64 else 8

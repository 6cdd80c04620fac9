"""Whether OpenVINO runs here, and what it can do."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Availability, Capabilities, MissingDependency

if TYPE_CHECKING:
    from harness_openvino.params import Params

HINT = "pip install 'compression-harness[openvino]'"
_ISA = {"avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "avx512-vnni", "avx_vnni": "avx-vnni",
        "amx_int8": "amx-int8", "asimddp": "dotprod", "i8mm": "i8mm", "asimdhp": "fp16"}  # fmt: skip


def import_openvino() -> Any:
    """Return the module, loaded without its telemetry.

    OpenVINO and NNCF report imports and conversions to the vendor from a forked process (``openvino_telemetry``).
    Nobody asked for that; it runs beside what is measured; and the fork stops OpenBLAS' threads, after which NumPy
    was seen to hang. Both packages do without where that module cannot be imported, which ``None`` says.

    Raises:
        MissingDependency: It is not installed, or does not load here.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # the import system's "not there"
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise MissingDependency(f"openvino cannot be imported: {error}", hint=HINT) from error
    return openvino


def probe(params: Params) -> Availability:
    """Build a model of one Relu, compile it for the CPU and run it."""
    del params
    start = time.perf_counter()
    try:
        openvino = import_openvino()
    except MissingDependency as error:
        return Availability(False, error.message, HINT, "openvino")
    version = str(openvino.__version__).partition("-")[0]
    try:
        _run_relu(openvino)
    except Exception as error:  # noqa: BLE001  whatever it is, the target is not available, and this says why
        reason = f"a model of one Relu does not run: {type(error).__name__}: {error}"
        return Availability(False, reason, HINT, "openvino", version)
    return Availability(True, runtime="openvino", version=version, seconds=time.perf_counter() - start)


def _run_relu(openvino: Any) -> None:
    import numpy as np
    from openvino import opset13 as ops

    value = ops.parameter([2], np.float32)
    model = openvino.Model([ops.relu(value)], [value], "probe")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    result = compiled([np.array([-1, 2], np.float32)])[0]
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


def optimized_for(openvino: Any) -> frozenset[str]:
    """Return what the CPU plugin says it has units for, such as FP32, INT8, FP16, BF16."""
    return frozenset(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def capabilities(params: Params) -> Capabilities:
    """Return what the CPU plugin realises on this host."""
    del params
    units = optimized_for(import_openvino())
    found = isa()
    half = "stored float16; this CPU has no float16 units, so it computes float32"
    dynamic = "scales computed in the graph, int8 Convolution and MatMul kernels; GRU and LSTM stay float32"
    return Capabilities(
        version="2026.11",
        precisions={
            "float32": "INFERENCE_PRECISION_HINT f32",
            "int8": f"nncf.quantize, mixed preset ({'VNNI' if any('vnni' in name for name in found) else 'no VNNI'})",
            "dynamic-int8": dynamic,
            "float16": "float16 arithmetic" if "FP16" in units else half,
            "weight-only-int8": "nncf.compress_weights; convolutions are unpacked to float32 at load: size only",
            "weight-only-int4": "nncf.compress_weights of matrix products; convolutions keep int8 or float32 weights",
            "binary": "BinaryConvolution, xnor-popcount, where input channels are a multiple of 8",
            **({"bfloat16": "INFERENCE_PRECISION_HINT bf16"} if "BF16" in units else {}),
        },
        gaps={} if "BF16" in units else {"bfloat16": "this CPU has no bfloat16 units"},
        channel_multiple=16 if "avx512" in found else 8,
        isa=found,
        evidence={
            "isa": "flags of /proc/cpuinfo",
            "precisions": f"OPTIMIZATION_CAPABILITIES {' '.join(sorted(units))}; tests/test_target_openvino.py",
            "channel_multiple": "lanes of a float32 vector",
        },
    )

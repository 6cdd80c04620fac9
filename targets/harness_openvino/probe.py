"""Whether OpenVINO runs here, and what it can do."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from harness.api import Availability, Capabilities, MissingDependency, cpu_features, first_line, int8_dot_product

if TYPE_CHECKING:
    from harness_openvino.params import Params

HINT = "pip install 'compression-harness[openvino]'"


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


def import_nncf() -> Any:
    """Return the module that quantizes.

    Raises:
        MissingDependency: It is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise MissingDependency(f"quantizing for openvino needs nncf: {error}", hint=HINT) from error
    return nncf


def probe(params: Params) -> Availability:
    """Build a model of one Relu, compile it for the device and run it."""
    start = time.perf_counter()
    try:
        openvino = import_openvino()
    except MissingDependency as error:
        return Availability(False, error.message, HINT, "openvino")
    version = str(openvino.__version__).partition("-")[0]
    here = list(openvino.Core().available_devices)
    if params.device != "AUTO" and not any(name.split(".")[0] == params.device for name in here):
        reason = f"OpenVINO sees no {params.device} here; it sees {', '.join(here) or 'no device'}"
        return Availability(False, reason, f"the driver of the {params.device}", "openvino", version)
    try:
        _run_relu(openvino, params.device)
    except Exception as error:  # noqa: BLE001  whatever it is, the target is not available, and this says why
        reason = f"a model of one Relu does not run: {type(error).__name__}: {first_line(str(error))}"
        return Availability(False, reason, HINT, "openvino", version)
    return Availability(True, runtime="openvino", version=version, seconds=time.perf_counter() - start)


def _run_relu(openvino: Any, device: str) -> None:
    import numpy as np
    from openvino import opset13 as ops

    value = ops.parameter([2], np.float32)
    model = openvino.Model([ops.relu(value)], [value], "probe")
    compiled = openvino.Core().compile_model(model, device)
    result = compiled([np.array([-1, 2], np.float32)])[0]
    if result.tolist() != [0.0, 2.0]:
        raise RuntimeError(f"Relu of [-1, 2] gave {result.tolist()}")


def optimized_for(openvino: Any, device: str = "CPU") -> frozenset[str]:
    """Return what a device's plugin says it has units for, such as FP32, INT8, FP16, BF16."""
    return frozenset(openvino.Core().get_property(device, "OPTIMIZATION_CAPABILITIES"))


def capabilities(params: Params) -> Capabilities:
    """Return what the CPU plugin realises on this host."""
    openvino = import_openvino()
    device = "CPU" if params.device == "AUTO" else params.device
    units = optimized_for(openvino, device)
    found = cpu_features()
    half = "stored float16; this CPU has no float16 units, so it computes float32"
    dynamic = "scales computed in the graph, int8 Convolution and MatMul kernels; GRU and LSTM stay float32"
    return Capabilities(
        version="2026.11",
        precisions={
            "float32": "INFERENCE_PRECISION_HINT f32",
            "int8": f"nncf.quantize, mixed preset ({int8_dot_product(found)})",
            "dynamic-int8": dynamic,
            "float16": "float16 arithmetic" if "FP16" in units else half,
            "weight-only-int8": "nncf.compress_weights; convolutions are unpacked to float32 at load: size only",
            "weight-only-int4": "nncf.compress_weights of matrix products; convolutions keep int8 or float32 weights",
            "binary": "BinaryConvolution, xnor-popcount, where input channels are a multiple of 8",
            **({"bfloat16": "INFERENCE_PRECISION_HINT bf16"} if "BF16" in units else {}),
        },
        gaps={} if "BF16" in units else {"bfloat16": "this CPU has no bfloat16 units"},
        op_gaps={
            "GRU": "no int8 kernel (RNNSeq): stays float32 in static, dynamic and weight-only int8",
            "LSTM": "no int8 kernel (RNNSeq): stays float32 in static, dynamic and weight-only int8",
            "Convolution": "weight-only: unpacked at load and computed in float32",
            "BinaryConvolution": "1-bit kernels take input channels that are a multiple of 8, and no free batch",
        },
        devices=tuple(name.lower() for name in openvino.Core().available_devices)
        if params.device == "AUTO"
        else (params.device.lower(),),
        channel_multiple=16 if "avx512" in found else 8,
        isa=found,
        evidence={
            "isa": "flags of /proc/cpuinfo",
            "precisions": f"OPTIMIZATION_CAPABILITIES {' '.join(sorted(units))}; tests/test_target_openvino.py",
            "op_gaps": "placements, tests/test_op_gaps.py",
            "channel_multiple": "lanes of a float32 vector",
        },
    )

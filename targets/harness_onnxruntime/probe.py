"""Whether ONNX Runtime runs here, and what it can do."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

from harness.api import Availability, Capabilities, cpu_features, first_line, int8_dot_product

if TYPE_CHECKING:
    from harness_onnxruntime.params import Params

HINT = "pip install 'compression-harness[onnxruntime]'"
_BUILDS = {
    "cuda": "pip install onnxruntime-gpu", "tensorrt": "pip install onnxruntime-gpu",
    "dml": "pip install onnxruntime-directml",
    "openvino": "pip install onnxruntime-openvino", "qnn": "pip install onnxruntime-qnn",
    "migraphx": "pip install onnxruntime-rocm",
}  # fmt: skip


def probe(params: Params) -> Availability:
    """Build a model of one Relu and run it on the provider that is asked for, with nothing handed back to the CPU."""
    start = time.perf_counter()
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        return Availability(False, f"onnxruntime cannot be imported: {error}", HINT, "onnxruntime")
    version = str(onnxruntime.__version__)
    wanted, here = provider_names(params.provider)[0], onnxruntime.get_available_providers()
    if wanted not in here:
        reason = f"this build of onnxruntime has no {wanted}; it has {', '.join(here)}"
        return Availability(False, reason, _BUILDS.get(params.provider, ""), "onnxruntime", version)
    try:
        _run_relu(onnxruntime, wanted)
    except Exception as error:  # noqa: BLE001  whatever it is, the target is not available, and this says why
        reason = f"a model of one Relu does not run: {type(error).__name__}: {first_line(str(error))}"
        return Availability(False, reason, HINT, "onnxruntime", version)
    return Availability(True, runtime="onnxruntime", version=version, seconds=time.perf_counter() - start)


def provider_names(provider: str) -> list[str]:
    """Return the providers of a session: the one that is asked for, and the CPU for what that one does not take."""
    names = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "Tensorrt", "migraphx": "MIGraphX", "coreml": "CoreML",
             "qnn": "QNN", "dml": "Dml", "openvino": "OpenVINO", "xnnpack": "Xnnpack"}  # fmt: skip
    return list(dict.fromkeys(f"{names[name]}ExecutionProvider" for name in (provider, "cpu")))


def providers(params: Params) -> list[Any]:
    """Return the providers of a session with their options; CUDA's own default is TF32, which is no float32."""
    names: list[Any] = list(provider_names(params.provider))
    if params.provider == "cuda":
        names[0] = (names[0], {"use_tf32": "1" if params.tf32 else "0"})
    return names


def _run_relu(onnxruntime: Any, provider: str) -> None:
    import numpy as np
    from onnx import TensorProto, helper

    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not provider.startswith("CPU"):
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} was left out: the session has {', '.join(session.get_providers())}")
    (result,) = session.run(None, {"x": np.array([-1, 2], np.float32)})
    if result.tolist() != [0.0, 2.0]:
        raise RuntimeError(f"Relu of [-1, 2] gave {result.tolist()}")


def capabilities(params: Params) -> Capabilities:
    """Return what the provider realises on this host."""
    if params.provider != "cpu":
        return _elsewhere(params)
    found = cpu_features()
    dot = int8_dot_product(found)
    scheme = f"QDQ, {params.activations} activations, int8 weights"
    inside = params.weight_only_activations
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
            "weight-only-int4": f"int4 weights: MatMul by an n-bit product with {inside} inputs, Conv in float32",
            "binary": "1-bit weights can be stored; executed as float32, there is no 1-bit kernel",
        },
        gaps={
            "bfloat16": "the CPU provider has no bfloat16 kernels",
        },
        op_gaps={
            "GRU": "no int8 kernel: stays float32 in static, dynamic and weight-only int8",
            "ConvTranspose": "no int8 kernel: stays float32 in static and dynamic int8",
            "LSTM": "no static int8 kernel: float32 there; dynamic int8 has DynamicQuantizeLSTM",
            "Conv": "weight-only: unpacked and computed in float32; dynamic int8 scales channels behind the kernel",
        },
        devices=(params.provider,),
        channel_multiple=16 if "avx512" in found else 8,
        isa=found,
        evidence={
            "isa": "flags of /proc/cpuinfo",
            "precisions": "placements of a convolution net, tests/test_target_onnxruntime.py",
            "op_gaps": "placements, tests/test_op_gaps.py",
            "channel_multiple": "block of MLAS' NCHWc kernels: 16 floats with AVX-512, else 8",
        },
    )


def _elsewhere(params: Params) -> Capabilities:
    """Return what is handed to another provider; which of it that takes is known from placements alone."""
    name = provider_names(params.provider)[0]
    handed = f"handed to {name}, and to the CPU what it does not take; placements tell which"
    why = f"its kernels are the CPU provider's: write onnxruntime without provider={params.provider}"
    return Capabilities(
        version="2026.11",
        precisions={
            "float32": f"{handed}{'; TF32 off unless tf32=true' if params.provider == 'cuda' else ''}",
            "float16": f"float16 graph, {handed}",
            "int8": f"Q/DQ graph, {params.activations} activations, {handed}",
        },
        gaps={
            "dynamic-int8": why,
            "weight-only-int8": why,
            "weight-only-int4": why,
            "bfloat16": "no such graph is written",
        },
        devices=(params.provider,),
        evidence={"precisions": "none on this provider: it was probed by one Relu, and its placements are read"},
    )

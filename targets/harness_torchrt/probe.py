"""Whether PyTorch runs here, on which device and in which mode, and what it can do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from harness.api import Availability, Capabilities, MissingDependency, cpu_features, int8_dot_product
from harness_torchrt import program
from harness_torchrt.program import HINT
from harness_torchrt.session import capture

if TYPE_CHECKING:
    from harness_torchrt.params import Params

EAGER = "in eager mode PT2E's operators compute in float between conversions; write torch:mode=compile"
LOOPS = (
    "oneDNN has no {} kernels on this CPU; native loops ran a fifteenth as fast as float32, torch:loops=true runs them"
)
_COMPILERS = ("g++", "clang++", "c++", "cl")


def compiler() -> str:
    """Return the C++ compiler that torch.compile would call, empty where there is none."""
    return next((path for path in map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS)) if path), "")


def probe(params: Params) -> Availability:
    """Run one Relu the way that the parameters ask for: on the device, compiled, captured."""
    start = time.perf_counter()
    try:
        torch = program.import_torch()
    except MissingDependency as error:
        return Availability(False, error.message, HINT, "torch")
    version = str(torch.__version__)
    reason, hint = _lacking(torch, params)
    if not reason:
        try:
            _run_relu(torch, params)
        except Exception as error:  # noqa: BLE001  whatever it is, the target is not available, and this says why
            text = " ".join(str(error).split())[:300]
            reason, hint = f"a model of one Relu does not run: {type(error).__name__}: {text}", HINT
    if reason:
        return Availability(False, reason, hint, "torch", version)
    return Availability(True, runtime="torch", version=version, seconds=time.perf_counter() - start)


def _lacking(torch: Any, params: Params) -> tuple[str, str]:
    """Return what is missing and what to do about it, empty where nothing is."""
    if params.device == "cuda" and not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA", "install a CUDA build of torch (pytorch.org)"
    if params.device == "cuda" and not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU, or its driver is too old", "nvidia-smi tells which"
    if params.device == "cpu" and params.cuda_graphs:
        return "CUDA graphs exist on device cuda only", "write torch:device=cuda:cuda_graphs=true"
    if params.mode == "compile" and params.device == "cpu" and not compiler():
        return "torch.compile needs a C++ compiler; none of g++, clang++ is on the PATH", "apt-get install g++"
    return "", ""


def _run_relu(torch: Any, params: Params) -> None:
    if params.mode == "compile" and params.device == "cpu":
        import torch._inductor.config as inductor

        inductor.compile_threads = 1
    module = torch.nn.ReLU().to(params.device)
    run = torch.compile(module) if params.mode == "compile" else module
    value = torch.tensor([-1.0, 2.0], device=params.device)
    with torch.inference_mode(), program.quiet():
        if params.cuda_graphs:
            run = capture(torch, run, (torch.zeros_like(value),))
        result = run(value).tolist()
    if result != [0.0, 2.0]:
        raise RuntimeError(f"Relu of [-1, 2] gave {result}")


def capabilities(params: Params) -> Capabilities:
    """Return what PyTorch realises on this host and device."""
    torch = program.import_torch()
    return _cuda(torch) if params.device == "cuda" else _cpu(torch, params)


def _cpu(torch: Any, params: Params) -> Capabilities:
    found = cpu_features()
    onednn = torch.ops.mkldnn
    has_bfloat16 = bool(torch.backends.mkldnn.is_available() and onednn._is_mkldnn_bf16_supported())
    has_float16 = bool(torch.backends.mkldnn.is_available() and onednn._is_mkldnn_fp16_supported())
    precisions = {
        "float32": "exported operators" if params.mode == "eager" else f"inductor, {compiler() or 'no compiler'}"
    }
    gaps = {"weight-only-int8": "torchao's weight-only int8 is for bfloat16 on CPU; this target offers none"}
    for name, kernels in (("bfloat16", has_bfloat16), ("float16", has_float16)):
        if kernels or params.loops:
            precisions[name] = "oneDNN kernels" if kernels else "native loops: oneDNN has no such kernels on this CPU"
        else:
            gaps[name] = LOOPS.format(name)
    why = _no_int8(torch, params)
    if why:
        gaps |= {"int8": why, "dynamic-int8": why}
    else:
        dot = int8_dot_product(found)
        precisions |= {
            "int8": f"PT2E, X86InductorQuantizer, fused into onednn.qconv and qlinear ({dot})",
            "dynamic-int8": "PT2E, linear layers alone; convolutions and GRU stay float32",
        }
    return Capabilities(
        version="2026.11",
        precisions=precisions,
        gaps=gaps,
        op_gaps={
            "GRU": "no int8 kernel: stays float32 in static and dynamic int8",
            "LSTM": "no int8 kernel: stays float32 in static and dynamic int8",
            "Conv": "dynamic int8 is for linear layers alone: convolutions stay float32",
        }
        if params.mode == "compile" and not why
        else {},
        granularity=("per-channel",),
        channel_multiple=16 if "avx512" in found else 8,
        isa=found,
        evidence={
            "isa": f"CPU flags; torch uses {torch.backends.cpu.get_cpu_capability()}",
            "precisions": "mkldnn._is_mkldnn_bf16_supported and _fp16_supported; tests/test_target_torch.py",
            "channel_multiple": "block of oneDNN's convolutions: 16 floats with AVX-512, else 8",
            "op_gaps": "placements, tests/test_op_gaps.py",
        },
    )


def _no_int8(torch: Any, params: Params) -> str:
    """Return why PT2E int8 cannot be had, empty where it can."""
    if params.mode == "eager":
        return EAGER
    if importlib.util.find_spec("torchao") is None:
        return f"PT2E lives in torchao, which is not installed: {HINT}"
    if "x86" not in torch.backends.quantized.supported_engines:
        return "PT2E's fused int8 operators are for x86; this build of torch has no x86 engine"
    return ""


def _cuda(torch: Any) -> Capabilities:
    major, minor = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    precisions = {"float32": "TF32 off unless tf32=true", "float16": f"tensor cores from 7.0; here {major}.{minor}"}
    gaps = {
        "int8": "PT2E int8 has kernels on x86 CPUs; on cuda its operators would stay float",
        "dynamic-int8": "PT2E int8 has kernels on x86 CPUs; on cuda its operators would stay float",
        "weight-only-int8": "this target offers none",
    }
    if torch.cuda.is_bf16_supported(including_emulation=False):
        precisions["bfloat16"] = "native"
    else:
        gaps["bfloat16"] = f"compute capability {major}.{minor} emulates it; 8.0 has it"
    return Capabilities(
        version="2026.11",
        precisions=precisions,
        gaps=gaps,
        channel_multiple=8,
        devices=("cuda",),
        isa=(f"sm_{major}{minor}",),
        evidence={
            "isa": name,
            "channel_multiple": "tensor cores take 16-byte rows: 8 halves (NVIDIA's performance guide)",
        },
    )

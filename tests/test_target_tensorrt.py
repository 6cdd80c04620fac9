"""The TensorRT targets without a GPU: what they say when something is missing, which API they use, what they parse."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorrt_surface import takes, used_calls, used_names

import harness_tensorrt
from harness.api import Calibration, HarnessError, MissingDependency, Model, Precision, TensorSpec, Unsupported
from harness_tensorrt import cuda, engine, flavors, lowering
from harness_tensorrt.flavors import RTX, TENSORRT, Params
from harness_tensorrt.placement import onnx_nodes, placements, precision

_SURFACE = json.loads((Path(__file__).parent / "data" / "tensorrt_names.json").read_text())
FROZEN, CALLS = _SURFACE["names"], _SURFACE["calls"]
_OTHERS = {"cuda", "nvml"}  # libraries of their own
# The layer that NVIDIA's developer guide prints for DETAILED verbosity (TensorRT 8.2 to 10, "Engine Inspector"), with
# a "Metadata" field as newer releases add it.
DOCUMENTED = {
    "Name": "node_of_gpu_0/res4_0_branch2a_1 + node_of_gpu_0/res4_0_branch2a_bn_1 + node_of_gpu_0/res4_0_branch2a_bn_2",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {
            "Name": "gpu_0/res3_3_branch2c_bn_3",
            "Dimensions": [16, 512, 28, 28],
            "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format.",
        }
    ],
    "Outputs": [
        {
            "Name": "gpu_0/res4_0_branch2a_bn_2",
            "Dimensions": [16, 256, 28, 28],
            "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format.",
        }
    ],
    "ParameterType": "Convolution",
    "Kernel": [1, 1],
    "Groups": 1,
    "Weights": {"Type": "Int8", "Count": 131072},
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32",
    "Metadata": "[ONNX Layer: res4_0_branch2a]\x1e[ONNX Layer: res4_0_branch2a_bn]\x1e[ONNX Layer: res4_0_branch2a]",
}


def _targets() -> dict:
    return {spec.name: spec for spec in harness_tensorrt.harness_targets()}


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


def _package(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, name, None)  # so that what the test imports is forgotten after it
    monkeypatch.delitem(sys.modules, name)


def test_two_targets_that_are_never_called_the_same() -> None:
    specs = _targets()
    assert set(specs) == {"tensorrt", "tensorrt-rtx"}
    assert TENSORRT.plan_format != RTX.plan_format
    assert TENSORRT.title != RTX.title
    assert all(spec.accepts == {"onnx"} and spec.lower_reads == {"batch"} for spec in specs.values())


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("flavor", [TENSORRT, RTX], ids=lambda flavor: flavor.name)
def test_missing_package_says_what_to_install(flavor: flavors.Flavor) -> None:
    found = _targets()[flavor.name].probe(Params())
    assert not found.available
    assert found.reason == f"the Python package {flavor.module!r} is not installed"
    assert found.hint.startswith("pip install ")


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "raise ImportError('libnvinfer.so.11: cannot open shared object file: No such file or directory')"
    _package(tmp_path, "tensorrt", text, monkeypatch)
    found = _targets()["tensorrt"].probe(Params())
    assert "installed but does not load: libnvinfer.so.11" in found.reason
    assert "NVIDIA's own index" in found.hint


def test_missing_cuda_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, "tensorrt", "__version__ = '11.4.0'", monkeypatch)
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    found = _targets()["tensorrt"].probe(Params())
    assert "CUDA runtime's Python package cannot be imported" in found.reason
    assert found.hint == "pip install 'cuda-python>=12.6'"


def test_without_a_gpu_cudas_own_words_are_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, "tensorrt", "__version__ = '11.4.0'", monkeypatch)
    runtime = (
        "def cudaGetDeviceCount(): return 35, None\n"
        "def cudaGetErrorString(status): return 0, b'CUDA driver version is insufficient for CUDA runtime version'\n"
    )
    _cuda_package(tmp_path, runtime, monkeypatch)
    found = _targets()["tensorrt"].probe(Params())
    assert found.reason == (
        "no usable GPU: cudaGetDeviceCount failed with error 35:"
        " CUDA driver version is insufficient for CUDA runtime version"
    )


def _cuda_package(folder: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "cuda" / "bindings"
    package.mkdir(parents=True)
    for init in (package.parent, package):
        (init / "__init__.py").write_text("")
    (package / "runtime.py").write_text(runtime)
    monkeypatch.syspath_prepend(folder)
    _forget_cuda(monkeypatch)


def _forget_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)  # so that what the test imports is forgotten after it
        monkeypatch.delitem(sys.modules, name)


def test_capabilities_without_a_gpu_claim_no_sparsity() -> None:
    found = _targets()["tensorrt"].capabilities(Params())
    assert found.symmetric_only
    assert "dynamic-int8" in found.gaps
    assert not set(found.gaps) & set(found.precisions)
    if found.evidence["device"] == "not available":
        assert (found.sparsity, found.isa) == ((), ())


INT8 = Precision("int8", "int8", "static")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Precision("int8", "int8", "dynamic"), "there is no dynamic int8"),
        (Precision("int8", "float32", "weight-only"), "nothing is saved"),
        (dataclasses.replace(INT8, activations_symmetric=False), "symmetric int8 only"),
        (dataclasses.replace(INT8, weights_symmetric=False), "symmetric int8 weights only"),
        (dataclasses.replace(INT8, realise="exact", encodings=Path("e.json")), "encodings"),
    ],
)
def test_what_cannot_be_is_said(wanted: Precision, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        lowering.check_supported(TENSORRT, wanted)


def test_every_name_that_we_use_is_in_the_frozen_list() -> None:
    unknown = {(owner, name) for owner, names in used_names().items() for name in names - set(FROZEN.get(owner, ()))}
    assert not unknown


def test_every_call_of_ours_is_in_the_frozen_list() -> None:
    assert used_calls() == CALLS


def test_the_signatures_of_bindings_are_read() -> None:
    def one() -> None:
        """one(self: a.B, name: str, dims: tuple[int, int] = (1, 2)) -> bool"""

    def several() -> None:
        """several(*args, **kwargs)
        Overloaded function.

        1. several(self: a.B) -> None

        2. several(self: a.B, x: int, y: int) -> None
        """

    several.__doc__ = inspect.cleandoc(several.__doc__ or "")
    assert [takes(one, count) for count in range(4)] == [False, True, True, False]
    assert [takes(several, count) for count in range(4)] == [True, False, True, False]
    assert not takes(len, 1)


_STUBS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry",
    "getPluginRegistry", "getNvOnnxParserVersion", "initLibNvInferPlugins",
)  # fmt: skip
_CHECK = """
import json, logging, sys
import tensorrt
from harness_tensorrt import engine
from tensorrt_surface import lacking
names, calls = json.loads(sys.argv[1])
try:
    engine.parse(tensorrt, engine.make_logger(tensorrt, logging.getLogger()), "none.onnx")
    error = ""
except Exception as caught:
    error = f"{type(caught).__name__}: {caught}"
print(json.dumps([tensorrt.__version__, lacking(tensorrt, names, calls), error]))
"""


def surface_of_tensorrt() -> list[dict]:
    return [{owner: found for owner, found in part.items() if owner not in _OTHERS} for part in (FROZEN, CALLS)]


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_the_real_bindings_have_every_name_and_signature(tmp_path: Path, version: str) -> None:
    """Load the real bindings over empty libraries; building without a GPU then fails as it does with real ones."""
    _download(tmp_path, f"tensorrt-cu13-bindings=={version}")
    (tmp_path / "tensorrt_bindings").rename(tmp_path / "tensorrt")
    (tmp_path / "stub.c").write_text("\n".join(f"void* {name}() {{ return 0; }}" for name in _STUBS))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        out = tmp_path / f"lib{library}.so.{version.split('.')[0]}"
        _run(["cc", "-shared", "-fPIC", "-o", str(out), str(tmp_path / "stub.c")])
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "LD_LIBRARY_PATH": str(tmp_path)}
    output = _run([sys.executable, "-c", _CHECK, json.dumps(surface_of_tensorrt())], env=environment)
    found, missing, error = json.loads(output.splitlines()[-1])
    assert (found, missing) == (version, [])
    assert error.startswith("HarnessError: the builder cannot start")


def _download(folder: Path, requirement: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode:
        pytest.skip(f"{requirement} cannot be downloaded here: {result.stderr.strip().splitlines()[-1]}")
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)


def test_cudas_bindings_have_every_name_and_take_our_calls() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    assert not [name for name in FROZEN["cuda"] if _lacks(runtime, name)]
    for name, counts in CALLS["cuda"].items():
        for count in counts:
            inspect.signature(getattr(runtime, name)).bind(*range(count))


def test_nvmls_module_has_every_name_and_takes_our_calls() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert not [name for name in FROZEN["nvml"] if _lacks(nvml, name)]
    for name, counts in CALLS["nvml"].items():
        for count in counts:
            inspect.signature(getattr(nvml, name)).bind(*range(count))


def _lacks(module: object, name: str) -> bool:
    for part in name.split("."):
        if not hasattr(module, part):
            return True
        module = getattr(module, part)
    return False


def _run(command: list[str], **options: object) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]  # env
    assert result.returncode == 0, result.stderr
    return str(result.stdout)


def test_documented_layer_becomes_a_placement() -> None:
    macs = {"res4_0_branch2a": 256 * 512 * 28 * 28, "elsewhere": 1}
    (found,) = placements(
        {"Layers": [DOCUMENTED]}, macs=macs, times={DOCUMENTED["Name"]: 2.0, "other": 6.0}, device="H200"
    )
    assert (found.op, found.precision, found.device) == ("Conv", "int8", "H200")
    assert found.kernel.startswith("sm80_xmma_fprop")
    assert found.macs == macs["res4_0_branch2a"]
    assert found.time_share == 0.25


def test_fused_nodes_count_once() -> None:
    assert onnx_nodes(DOCUMENTED) == ("res4_0_branch2a", "res4_0_branch2a_bn")
    assert onnx_nodes({"Name": "no metadata"}) == ()


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        ({"Format/Datatype": "Row major linear FP32"}, "float32"),
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "float16"),
        ({"Format/Datatype": "Half"}, "float16"),
        ({"Format/Datatype": "BFloat16"}, "bfloat16"),
        # TensorRT 11 splits the field (documentation: "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x").
        ({"DataType": "Float", "Format": "Row major linear FP32 format (kLINEAR)"}, "float32"),
        ({"DataType": "Int8", "Format": "(kCHW32)"}, "int8"),
        ({"DataType": "FP8"}, "float8"),
        ({}, "unknown"),
    ],
)
def test_precision_is_read_from_old_and_new_fields(tensor: dict, expected: str) -> None:
    assert precision({"Inputs": [tensor]}) == expected


def test_names_only_are_refused() -> None:
    with pytest.raises(HarnessError, match="without DETAILED verbosity"):
        placements({"Layers": ["conv + relu"]}, macs={}, times={}, device="gpu")


def test_cuda_before_12_6_is_found_under_its_old_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cuda").mkdir()
    (tmp_path / "cuda" / "__init__.py").write_text("")
    (tmp_path / "cuda" / "cudart.py").write_text("def cudaGetDeviceCount(): return 0, 0")
    monkeypatch.syspath_prepend(tmp_path)
    _forget_cuda(monkeypatch)
    with pytest.raises(cuda.CudaError, match="found no GPU"):
        cuda.Cuda().device()


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [Precision(), Precision("float16", "float16"), INT8], ids=lambda p: p.name)
def test_precision_is_in_the_types_of_the_file(tmp_path: Path, wanted: Precision) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("torch")
    from jobs import WORKLOADS, make_job

    import harness_onnx
    from harness.api import Options
    from harness_torch import new_model

    job = make_job(tmp_path)
    model = new_model(WORKLOADS["cnn"].build().eval(), job, job.workload.inputs, job.workload.outputs)
    exported = harness_onnx.export(model, Options(), make_job(tmp_path))
    calibrated = dataclasses.replace(wanted, calibration=Calibration(samples=16))
    path = tmp_path / "typed.onnx"
    how = lowering.write_typed(dataclasses.replace(exported, precision=calibrated), path, make_job(tmp_path))
    graph = onnx.load(str(path)).graph
    kinds = [node.op_type for node in graph.node]
    points = [onnx.numpy_helper.to_array(item) for item in graph.initializer if "zero_point" in item.name]
    half = any(item.data_type == onnx.TensorProto.FLOAT16 for item in graph.initializer)
    assert how
    assert half == (wanted.name == "float16")
    assert ("QuantizeLinear" in kinds) == (wanted.name == "int8")
    # What TensorRT refuses: zero points other than 0, unsigned activations, quantized biases.
    assert all(point.dtype == np.int8 and not point.any() for point in points)


@pytest.mark.parametrize("count", [3, 20])
def test_a_fixed_batch_is_calibrated_and_an_override_kept(tmp_path: Path, count: int) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    from onnx_files import dense_net, make_job

    from harness_onnx import weight_spans

    for batch in (1, 16):
        model = dense_net(tmp_path, batch=batch)
        model = dataclasses.replace(model, precision=dataclasses.replace(INT8, overrides={"w0": "float32"}))
        how = lowering.write_typed(model, tmp_path / "typed.onnx", make_job(tmp_path, model, count))
        assert f"over {count} items" in how
        assert [s.shape for s in weight_spans(tmp_path / "typed.onnx") if s.dtype == "float32"] == [(32, 48)]


def test_layers_beside_int4_weights_stay_float_and_get_no_int8(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from onnx import helper
    from onnx_files import make_job, write

    from harness_onnx import weight_spans

    weights = {name: np.ones((64, columns), np.float32) for name, columns in (("w0", 64), ("w1", 16))}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w1"], ["y"], name="second"),
    ]
    write(tmp_path / "wide.onnx", nodes, {"x": ["n", 64]}, {"y": ["n", 16]}, weights)
    model = Model("onnx", tmp_path / "wide.onnx", {"x": TensorSpec("float32", (None, 64))}, ("y",))
    kept, wider = (
        dataclasses.replace(model, precision=Precision("int4", "float32", "weight-only", overrides={"w1": dtype}))
        for dtype in ("float32", "int8")
    )
    lowering.write_typed(kept, tmp_path / "typed.onnx", make_job(tmp_path, kept, 1))
    stored = {span.shape: span.dtype for span in weight_spans(tmp_path / "typed.onnx")}
    assert (stored[64, 64], stored[64, 16]) == ("int4", "float32")
    with pytest.raises(Unsupported, match="not have int8 weights"):
        lowering.write_typed(wider, tmp_path / "typed.onnx", make_job(tmp_path, wider, 1))


def test_a_missing_library_stops_lowering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependency, match=re.escape("'tensorrt_rtx'")):
        flavors.import_library(RTX)


def test_the_last_error_of_the_log_is_the_reason() -> None:
    assert engine.why(SimpleNamespace(errors=["first", "second\n  line"])) == "second line"
    assert engine.why(SimpleNamespace(errors=[])) == "no reason was logged"

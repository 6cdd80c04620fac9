"""Every kind of file that the TensorRT targets write, parsed and built by TensorRT for RTX, which needs no GPU for it.

They need the extra ``tensorrt-rtx``, which CI installs after the README's own test command has run without it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper
from onnx_files import conv_net, make_job, write
from tensorrt_surface import lacking, used_calls, used_names

import harness_tensorrt
from harness.api import Calibration, Model, Options, Precision, TensorSpec, Unsupported
from harness_tensorrt import engine, lowering
from harness_tensorrt.flavors import RTX, Params

if TYPE_CHECKING:
    from collections.abc import Callable

rtx = pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")
STATIC = Calibration(samples=16)
INT8 = Precision("int8", "int8", "static", calibration=STATIC)
FLOAT8 = Precision("float8", "float8", "static", calibration=STATIC)
INT4 = Precision("int4", "float32", "weight-only")


def wide_net(tmp_path: Path) -> Model:
    """Write two Gemms, the second with 128 rows: enough for blocks of 64."""
    rng = np.random.default_rng(0)
    weights = {"w0": rng.standard_normal((128, 24)), "w1": rng.standard_normal((128, 16)) / 12}
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["a"], name="first", transB=1),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Gemm", ["b", "w1"], ["y"], name="second"),
    ]
    path = tmp_path / "wide.onnx"
    floats = {name: value.astype(np.float32) for name, value in weights.items()}
    write(path, nodes, {"x": ["n", 24]}, {"y": ["n", 16]}, floats)
    return Model("onnx", path, {"x": TensorSpec("float32", (None, 24))}, ("y",))


def types(onnx: Path) -> Counter[str]:
    """Return the layers that the parser makes of a file, each with the type of its output."""
    _builder, network, _parser = engine.parse(rtx, engine.make_logger(rtx, logging.getLogger()), onnx)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return Counter(f"{layer.type.name} {layer.get_output(0).dtype.name}" for layer in layers)


@pytest.mark.parametrize(
    ("net", "wanted", "rest", "expected", "absent"),
    [
        (conv_net, Precision(), "float32", {"CONVOLUTION FLOAT"}, {"QUANTIZE INT8", "CONVOLUTION HALF"}),
        (conv_net, Precision("float16", "float16"), "float32", {"CONVOLUTION HALF"}, {"CONVOLUTION FLOAT"}),
        (conv_net, INT8, "float32", {"QUANTIZE INT8", "CONSTANT INT8", "CONVOLUTION FLOAT"}, {"CONVOLUTION HALF"}),
        (conv_net, INT8, "float16", {"QUANTIZE INT8", "CONVOLUTION HALF"}, {"CONVOLUTION FLOAT"}),
        (conv_net, FLOAT8, "float32", {"QUANTIZE FP8", "CONSTANT FP8"}, {"QUANTIZE INT8"}),
        (wide_net, FLOAT8, "float16", {"QUANTIZE FP8", "MATRIX_MULTIPLY HALF"}, {"MATRIX_MULTIPLY FLOAT"}),
        (wide_net, INT4, "float32", {"CONSTANT INT4", "MATRIX_MULTIPLY FLOAT"}, {"QUANTIZE INT8"}),
        (wide_net, INT4, "float16", {"CONSTANT INT4", "MATRIX_MULTIPLY HALF"}, {"MATRIX_MULTIPLY FLOAT"}),
    ],
    ids=["float32", "float16", "int8", "int8+float16", "float8", "float8+float16", "int4", "int4+float16"],
)
def test_each_kind_is_lowered_and_its_types_are_those_of_the_network(
    net: Callable[..., Any], wanted: Precision, rest: Any, expected: set[str], absent: set[str], tmp_path: Path
) -> None:
    model = dataclasses.replace(net(tmp_path), precision=wanted)
    params = Params(rest=rest)
    artifact = lowering.lower(RTX, model, params, Options(batch=3), make_job(tmp_path / "job", model, 16))
    assert artifact.format == "tensorrt-rtx-plan"
    assert artifact.artifact_bytes == artifact.path.stat().st_size > 1000
    assert f"TensorRT for RTX {rtx.__version__}, TF32 off" in artifact.how
    found = types(artifact.path.with_name("typed.onnx"))
    assert expected <= set(found)
    assert not absent & set(found)


def test_weights_pruned_2_to_4_are_built_with_the_flag_and_the_note_says_what_came_of_it(tmp_path: Path) -> None:
    asked = dataclasses.replace(INT8, pattern="2:4", storage="sparse")
    model = dataclasses.replace(conv_net(tmp_path), precision=asked)
    for params in (Params(), Params(sparse_weights=True)):
        artifact = lowering.lower(RTX, model, params, Options(), make_job(tmp_path / "job", model, 16))
        assert "2:4 kernels" in artifact.how
    dense = dataclasses.replace(model, precision=INT8)
    assert "2:4" not in lowering.lower(RTX, dense, Params(), Options(), make_job(tmp_path / "job", model, 16)).how


def test_the_builders_counts_of_sparse_layers_are_kept() -> None:
    logger = engine.make_logger(rtx, logging.getLogger())
    for text in (
        "(Sparsity) Found 5 layer(s) eligible to use sparse tactics",
        "(Sparsity) Chose 2 layer(s) using sparse tactics",
    ):
        logger.log(rtx.ILogger.Severity.INFO, text)
    assert lowering._sparsity(logger.sparse) == "; 2:4 kernels: 5 layers eligible, 2 chosen"


def test_several_engines_lie_beside_each_other(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    artifact = lowering.lower(RTX, model, Params(builds=3), Options(), make_job(tmp_path / "job", model, 16))
    plans = [lowering.plan_path(artifact.path, number) for number in range(3)]
    assert all(plan.stat().st_size > 1000 for plan in plans)
    assert artifact.how.endswith("; 3 engines")


def test_a_file_without_whole_blocks_has_no_int4(tmp_path: Path) -> None:
    model = dataclasses.replace(conv_net(tmp_path), precision=INT4)
    with pytest.raises(Unsupported, match="no matrix product with a multiple of 64 rows"):
        lowering.lower(RTX, model, Params(), Options(), make_job(tmp_path / "job", model, 16))


def test_what_the_parser_refuses_is_named(tmp_path: Path) -> None:
    from harness_onnx import qdq

    model = conv_net(tmp_path)
    feeds = [{"image": np.ones((2, 3, 16, 16), np.float32)}]
    qdq(model.path, tmp_path / "u8.onnx", feeds)  # unsigned activations and int32 biases, as x86 likes them
    with pytest.raises(Unsupported, match=r"the ONNX parser refuses u8\.onnx"):
        types(tmp_path / "u8.onnx")


def test_rtx_has_every_name_and_signature_that_we_use() -> None:
    names = {owner: sorted(found) for owner, found in used_names().items() if owner not in {"cuda", "nvml"}}
    calls = {owner: found for owner, found in used_calls().items() if owner not in {"cuda", "nvml"}}
    assert not lacking(rtx, names, calls)


def test_without_a_gpu_the_reason_is_cudas() -> None:
    (spec,) = [item for item in harness_tensorrt.harness_targets() if item.name == "tensorrt-rtx"]
    found = spec.probe(Params())
    if found.available:
        pytest.skip("there is a GPU")
    assert found.reason.startswith("no usable GPU: cuda")
    assert "nvidia-smi" in found.hint
    assert "TensorRT for RTX" in json.dumps(dataclasses.asdict(found)) or not found.runtime

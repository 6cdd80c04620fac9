"""ONNX Runtime: each precision is realised, and what ran is what was asked for or is said."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_files import (
    CONV_MACS,
    DENSE_MACS,
    DYNAMIC,
    HALF,
    STATIC,
    binary_weights,
    conv_net,
    dense_net,
    items,
    make_job,
    outputs,
    placed,
    sign_net,
    sqnr_db,
    two_inputs,
    write,
)

from harness.api import Artifact, Calibration, Model, Options, Precision, TensorSpec, Unsupported
from harness_onnx import weight_spans
from harness_onnxruntime import harness_targets
from harness_onnxruntime.params import Params
from harness_onnxruntime.placement import read_profile

pytest.importorskip("onnxruntime")
(SPEC,) = harness_targets()
PRECISIONS = {"float32": Precision(), "int8": STATIC, "dynamic-int8": DYNAMIC, "float16": HALF}


def lowered(model: Model, tmp_path: Path, precision: Precision, params: Params | None = None) -> Artifact:
    model = dataclasses.replace(model, precision=precision)
    return SPEC.lower(model, params or Params(), Options(), make_job(tmp_path / "lowered", model))


def share(placements: tuple, precision: str) -> float:
    total = sum(item.macs or 0 for item in placements)
    return sum(item.macs or 0 for item in placements if item.precision == precision) / total


def test_probe_runs_a_model() -> None:
    found = SPEC.probe(Params())
    assert found.available
    assert found.runtime == "onnxruntime"
    assert found.version


def test_capabilities_list_what_lower_takes() -> None:
    found = SPEC.capabilities(Params())
    assert set(found.precisions) == {*PRECISIONS, "weight-only-int8", "weight-only-int4", "binary"}
    assert not set(found.gaps) & set(found.precisions)


@pytest.mark.parametrize("name", PRECISIONS)
def test_outputs_agree_with_the_reference(name: str, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    artifact = lowered(model, tmp_path, PRECISIONS[name])
    feed = items(model, 5, seed=9)
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    floor = {"float32": 100, "float16": 55, "int8": 30, "dynamic-int8": 30}[name]
    assert sqnr_db(wanted, outputs(SPEC, artifact, feed)["logits"]) > floor
    assert artifact.realised == name
    assert artifact.how


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("batch", [1, 4])
def test_all_macs_are_placed(name: str, batch: int, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    placements = placed(SPEC, lowered(model, tmp_path, PRECISIONS[name]), model, batch)
    found = sum(item.macs or 0 for item in placements)
    wanted = sum(CONV_MACS.values())
    assert wanted <= found <= 2.01 * wanted  # NCHWc kernels pad 8 channels to 16
    assert sum(item.time_share or 0 for item in placements) == pytest.approx(1)
    assert {item.device for item in placements} == {"CPUExecutionProvider"}


@pytest.mark.parametrize(("name", "executed"), [
    ("float32", "float32"), ("int8", "int8"), ("dynamic-int8", "int8"), ("float16", "float32"),
])  # fmt: skip
def test_placements_tell_the_arithmetic(name: str, executed: str, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    placements = placed(SPEC, lowered(model, tmp_path, PRECISIONS[name]), model)
    assert share(placements, executed) == 1
    ops = {item.op for item in placements if item.macs}
    assert name != "int8" or ops <= {"QLinearConv", "QGemm"}
    assert name != "dynamic-int8" or "ConvInteger" in ops


def test_integer_kernels_have_the_macs_of_their_node(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    placements = placed(SPEC, lowered(model, tmp_path, STATIC), model)
    assert sorted(item.macs for item in placements if item.macs) == sorted(CONV_MACS.values())


def test_binarized_weights_are_stored_packed_in_float_and_int8(tmp_path: Path) -> None:
    weights = {"conv1.weight": binary_weights(16, 8, 3, 3)}
    model = conv_net(tmp_path, weights=weights)
    for precision, bits in ((Precision(storage="packed"), 32), (dataclasses.replace(STATIC, storage="packed"), 8)):
        artifact = lowered(model, tmp_path, precision)
        saved = artifact.artifact_bytes - artifact.stored_bytes
        assert artifact.stored_as == "1-bit packed"
        assert saved == pytest.approx(16 * 72 * (bits - 1) / 8, rel=0.1, abs=150)


def test_pruned_weights_are_stored_sparse_in_every_precision(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((16, 8, 3, 3)).astype(np.float32)
    weight[np.random.default_rng(1).random(weight.shape) < 0.8] = 0
    model = conv_net(tmp_path, weights={"conv1.weight": weight})
    for precision in PRECISIONS.values():
        artifact = lowered(model, tmp_path, dataclasses.replace(precision, storage="sparse"))
        assert artifact.stored_as == "sparse bitmask"
        assert artifact.stored_bytes < artifact.artifact_bytes


def test_artifact_says_its_own_hash_and_size_and_is_deterministic(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    first, second = (lowered(model, tmp_path / name, STATIC) for name in ("one", "two"))
    raw = first.path.read_bytes()
    assert (first.sha256, first.artifact_bytes) == (hashlib.sha256(raw).hexdigest(), len(raw))
    assert first.sha256 == second.sha256
    assert (first.stored_bytes, first.stored_as) == (len(raw), "")
    assert sorted(path.name for path in first.path.parent.iterdir()) == ["model.onnx"]


def test_settings_are_read_back(tmp_path: Path) -> None:
    artifact = lowered(conv_net(tmp_path), tmp_path, Precision())
    params = Params(graph_optimization="basic", arena=False, spinning=True)
    found = SPEC.open(artifact, params, Options(threads=2), "latency").effective()
    assert found["threads"] == "2"
    assert found["inter_op_threads"] == "1"
    assert found["graph_optimization"] == "ORT_ENABLE_BASIC"
    assert (found["arena"], found["spinning"]) == ("false", "1")
    assert found["providers"] == "CPUExecutionProvider"


def test_latency_sessions_are_static_and_accuracy_sessions_are_not(tmp_path: Path) -> None:
    artifact = lowered(conv_net(tmp_path), tmp_path, Precision())
    shapes = {
        purpose: SPEC.open(artifact, Params(), Options(batch=4), purpose).inputs["image"].shape
        for purpose in ("latency", "memory", "accuracy", "placement")
    }
    assert shapes.pop("accuracy") == (None, 3, 16, 16)
    assert set(shapes.values()) == {(4, 3, 16, 16)}


def test_two_inputs_run_and_bind(tmp_path: Path) -> None:
    model = two_inputs(tmp_path)
    session = SPEC.open(lowered(model, tmp_path, Precision()), Params(), Options(batch=3), "latency")
    call = session.bind(items(model, 3))
    assert call() is None
    assert list(session.inputs) == ["left", "right"]
    assert session.run(items(model, 3))["difference"].shape == (3, 32)
    session.close()


def test_int8_choices_change_the_file(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    plain = lowered(model, tmp_path / "a", STATIC)
    signed = lowered(model, tmp_path / "b", STATIC, Params(activations="int8"))
    symmetric = lowered(model, tmp_path / "c", dataclasses.replace(STATIC, activations_symmetric=True))
    narrow = lowered(model, tmp_path / "d", STATIC, Params(reduce_range=True))
    tensor = lowered(model, tmp_path / "e", dataclasses.replace(STATIC, granularity="per-tensor"))
    assert len({item.sha256 for item in (plain, signed, symmetric, narrow, tensor)}) == 5
    assert "symmetric int8 activations" in symmetric.how
    assert "per-tensor" in tensor.how


def test_an_override_keeps_its_layer_float(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    for precision in (STATIC, DYNAMIC):
        kept = dataclasses.replace(precision, overrides={"conv0.weight": "float32"})
        placements = placed(SPEC, lowered(model, tmp_path, kept), model)
        floats = sum(item.macs or 0 for item in placements if item.precision == "float32")
        assert floats in {CONV_MACS["conv0"], 2 * CONV_MACS["conv0"]}  # padded to 16 channels by NCHWc kernels


@pytest.mark.parametrize("kept", DENSE_MACS)
@pytest.mark.parametrize("precision", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_an_override_holds_through_fusions(precision: Precision, kept: str, tmp_path: Path) -> None:
    model = dense_net(tmp_path)
    artifact = lowered(model, tmp_path, dataclasses.replace(precision, overrides={kept: "float32"}))
    floats = [item.macs for item in placed(SPEC, artifact, model) if item.precision == "float32" and item.macs]
    assert floats == [DENSE_MACS[kept]]


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("batch", [1, 16])
def test_calibration_of_a_fixed_batch_uses_every_item(batch: int, count: int, tmp_path: Path) -> None:
    model = dataclasses.replace(dense_net(tmp_path, batch=batch), precision=STATIC)
    job = make_job(tmp_path / "lowered", model, count)
    artifact = SPEC.lower(model, Params(), Options(), job)
    assert f"over {count} items" in artifact.how


@pytest.mark.parametrize("precision", [
    Precision(weights="bfloat16", activations="bfloat16"),
    dataclasses.replace(STATIC, weights_symmetric=False),
    dataclasses.replace(STATIC, realise="exact", encodings=Path("scales.json")),
    dataclasses.replace(STATIC, overrides={"nothing": "float32"}),
])  # fmt: skip
def test_what_cannot_be_is_unsupported(precision: Precision, tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        lowered(conv_net(tmp_path), tmp_path, precision)


def test_calibration_uses_as_many_items_as_asked(tmp_path: Path) -> None:
    precision = dataclasses.replace(STATIC, calibration=Calibration("percentile", 20))
    assert "percentile over 20 items" in lowered(conv_net(tmp_path), tmp_path, precision).how


def test_profile_of_recurrent_and_padded_nodes_is_read_by_shape() -> None:
    event = (
        '[{"cat": "Node", "name": "gru_kernel_time", "dur": 30, "args": {"op_name": "GRU", "node_index": "0",'
        ' "provider": "CPUExecutionProvider", "input_type_shape": [{"float": [8, 2, 5]}],'
        ' "output_type_shape": [{"float": [8, 1, 2, 6]}]}}]'
    )
    (item,) = read_profile(event.encode(), batch=2, macs={})
    assert item.macs == 8 * 3 * 6 * (5 + 6)
    assert (item.op, item.precision, item.time_share) == ("GRU", "float32", 1)


@pytest.mark.parametrize("bits", [8, 4])
def test_weight_only_dequantizes_as_the_specification_says(bits: int, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    artifact = lowered(model, tmp_path, Precision(weights=f"int{bits}", scheme="weight-only"))
    feed = items(model, 5, seed=9)
    wanted = ReferenceEvaluator(str(artifact.path)).run(None, feed)[0]  # ONNX's own reading of the file
    # the n-bit product rounds the rows of its input to int8 inside, so it is close and not equal
    assert sqnr_db(wanted, outputs(SPEC, artifact, feed)["logits"]) > 40
    exact = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    assert sqnr_db(exact, wanted) > {8: 35, 4: 15}[bits]
    assert artifact.artifact_bytes < model.path.stat().st_size / (2 if bits == 8 else 3)
    assert "MatMulNBits" in {item.op for item in placed(SPEC, artifact, model)}


@pytest.mark.parametrize("wider", DENSE_MACS)
def test_layers_of_a_weight_only_file_have_their_own_bits(wider: str, tmp_path: Path) -> None:
    model = dense_net(tmp_path)
    kept = next(name for name in DENSE_MACS if name != wider)
    narrow = Precision(weights="int4", scheme="weight-only")
    mixed = dataclasses.replace(narrow, overrides={wider: "int8", kept: "float32"})
    artifact = lowered(model, tmp_path, mixed)
    stored = {np.prod(span.shape): span.dtype for span in weight_spans(artifact.path) if min(span.shape) > 2}
    asked = {wider: "int8", kept: "float32"}
    assert stored == {macs: asked.get(name, "int4") for name, macs in DENSE_MACS.items()}
    assert "1 layers with int8 weights, 1 left float32" in artifact.how
    feed = items(model, 5, seed=9)
    exact = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    four = outputs(SPEC, lowered(model, tmp_path / "four", narrow), feed)["y"]
    assert sqnr_db(exact, outputs(SPEC, artifact, feed)["y"]) > sqnr_db(exact, four)


def test_binary_is_stored_small_and_said_to_run_in_float(tmp_path: Path) -> None:
    model = sign_net(tmp_path)
    wanted = Precision(weights="binary", activations="binary", scheme="static", storage="packed")
    artifact = lowered(model, tmp_path, wanted)
    assert (artifact.realised, artifact.stored_as) == ("float32", "1-bit packed")
    assert "no 1-bit kernel" in artifact.how
    assert artifact.stored_bytes < artifact.artifact_bytes / 3


def test_compute_only_runs_of_a_gpu_provider_read_and_write_its_memory_and_wait(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from harness_onnxruntime.session import OnnxRuntimeSession

    seen: list[Any] = []
    binding = SimpleNamespace(
        bind_ortvalue_input=lambda name, value: seen.append((name, value)),
        bind_output=lambda name, place: seen.append((name, place)),
        synchronize_outputs=lambda: seen.append("wait"),
    )
    session = SimpleNamespace(
        get_outputs=lambda: [SimpleNamespace(name="y")], io_binding=lambda: binding,
        run_with_iobinding=lambda _binding: seen.append("run"),
    )  # fmt: skip
    runtime = SimpleNamespace(
        OrtValue=SimpleNamespace(ortvalue_from_numpy=lambda array, place, number: (place, number))
    )
    for memory, expected in (("cuda", ["run", "wait"]), ("cpu", ["run"])):
        made = OnnxRuntimeSession(session, runtime, tmp_path, Options(), None, memory, lambda: pytest.fail("not asked"))
        call = made.bind({"x": np.zeros(1)})
        assert seen == [("x", (memory, 0)), ("y", memory)]
        seen.clear()
        call()
        assert seen == expected
        seen.clear()


def test_the_real_runtime_takes_what_the_gpu_path_hands_over() -> None:
    import onnxruntime

    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(2, np.float32), "cpu", 0)
    assert value.device_name() == "cpu"
    binding = onnxruntime.SessionIOBinding
    assert all(hasattr(binding, name) for name in ("bind_ortvalue_input", "bind_output", "synchronize_outputs"))


def test_another_provider_is_asked_for_float32_proper_and_claims_no_kernels_of_the_cpu() -> None:
    from harness_onnxruntime.probe import providers

    assert providers(Params(provider="cuda")) == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    assert providers(Params()) == ["CPUExecutionProvider"]
    (spec,) = harness_targets()
    can = spec.capabilities(Params(provider="cuda"))
    assert can.devices == ("cuda",)
    assert "TF32 off" in can.precisions["float32"]
    assert {"dynamic-int8", "weight-only-int4"} <= set(can.gaps)


def test_float16_runs_behind_a_transpose_and_passes_constants_on(tmp_path: Path) -> None:
    """The runtime's own optimization of a float16 product behind a transpose ends the process; a constant is given."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((8, 5)).astype(np.float32), "k": np.float32([1, 2])}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[1, 0, 2]),
        helper.make_node("MatMul", ["t", "w"], ["m"], name="mm"),
        helper.make_node("Transpose", ["m"], ["y"], name="back", perm=[1, 0, 2]),
        helper.make_node("Add", ["k", "k"], ["double"], name="add"),
    ]
    path = tmp_path / "m.onnx"
    write(path, nodes, {"x": ["n", 4, 8]}, {"y": ["n", 4, 5], "double": [2], "k": [2]}, weights)
    model = Model("onnx", path, {"x": TensorSpec("float32", (None, 4, 8))}, ("y", "double", "k"))
    artifact = lowered(model, tmp_path, HALF)
    x = items(model, 6)["x"]
    session = SPEC.open(artifact, Params(), Options(), "accuracy")
    got = session.run({"x": x})
    assert sqnr_db(x @ weights["w"], got["y"]) > 55
    assert (got["k"].tolist(), got["double"].tolist()) == ([1, 2], [2, 4])
    assert session.effective()["disabled_optimizers"] == "MatmulTransposeFusion"
    assert [item.name for item in session.layers({"x": x[:1]})]
    session.close()

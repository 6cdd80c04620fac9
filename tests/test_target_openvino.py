"""OpenVINO: each precision is realised, and what ran is what was asked for or is said."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

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

from harness.api import Artifact, Calibration, Model, Options, Precision, Unsupported
from harness_openvino import harness_targets
from harness_openvino.dynamic import quantize_dynamically
from harness_openvino.ir import weight_spans
from harness_openvino.params import Params
from harness_openvino.probe import import_openvino

if any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf")):
    pytest.skip("openvino or nncf is not installed", allow_module_level=True)
ov = import_openvino()  # as the target does it: without telemetry
(SPEC,) = harness_targets()
PRECISIONS = {"float32": Precision(), "int8": STATIC, "dynamic-int8": DYNAMIC, "float16": HALF}
BINARY = Precision(weights="binary", activations="binary", scheme="static", storage="packed")
WEIGHT_ONLY = {f"weight-only-int{bits}": Precision(weights=f"int{bits}", scheme="weight-only") for bits in (8, 4)}


def lowered(model: Model, tmp_path: Path, precision: Precision, params: Params | None = None) -> Artifact:
    model = dataclasses.replace(model, precision=precision)
    return SPEC.lower(model, params or Params(), Options(), make_job(tmp_path / "lowered", model))


def share(placements: tuple, precision: str) -> float:
    total = sum(item.macs or 0 for item in placements)
    return sum(item.macs or 0 for item in placements if item.precision == precision) / total


def half_runs_as() -> str:
    return "float16" if "FP16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def test_probe_runs_a_model() -> None:
    found = SPEC.probe(Params())
    assert found.available
    assert found.runtime == "openvino"
    assert found.version


def test_capabilities_list_what_lower_takes() -> None:
    found = SPEC.capabilities(Params())
    assert set(found.precisions) - {"bfloat16"} == {*PRECISIONS, *WEIGHT_ONLY, "binary"}
    assert ("bfloat16" in found.precisions) != ("bfloat16" in found.gaps)
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


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", PRECISIONS)
def test_placements_tell_the_arithmetic_of_all_macs(name: str, batch: int, tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    placements = placed(SPEC, lowered(model, tmp_path, PRECISIONS[name]), model, batch)
    assert sorted(item.macs for item in placements if item.macs) == sorted(CONV_MACS.values())
    executed = {"float32": "float32", "float16": half_runs_as()}.get(name, "int8")
    assert share(placements, executed) == 1
    assert sum(item.time_share or 0 for item in placements) == pytest.approx(1)
    assert {item.device for item in placements} == {"CPU"}


def test_dynamic_int8_scales_each_item_by_itself(tmp_path: Path) -> None:
    """With one scale for a whole batch, an item beside one that is a thousand times larger would vanish."""
    model = conv_net(tmp_path)
    artifact = lowered(model, tmp_path, DYNAMIC)
    feed = items(model, 2)["image"]
    alone = outputs(SPEC, artifact, {"image": feed[:1]})["logits"]
    feed[1] *= 1000
    beside = outputs(SPEC, artifact, {"image": feed})["logits"][:1]
    assert np.allclose(alone, beside, rtol=1e-4, atol=1e-5)


def test_dynamic_int8_follows_inputs_that_calibration_never_saw(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    feed = {"image": items(model, 4)["image"] * 100}
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    dynamic = outputs(SPEC, lowered(model, tmp_path / "d", DYNAMIC), feed)["logits"]
    static = outputs(SPEC, lowered(model, tmp_path / "s", STATIC), feed)["logits"]
    assert sqnr_db(wanted, dynamic) > 30 > sqnr_db(wanted, static)


def test_dynamic_int8_of_an_all_zero_input_is_finite(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    feed = {"image": np.zeros((1, 3, 16, 16), np.float32)}
    got = outputs(SPEC, lowered(model, tmp_path, DYNAMIC), feed)["logits"]
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    assert sqnr_db(wanted, got) > 30


@pytest.mark.parametrize("transpose", [True, False])
def test_dynamic_pass_matches_int8_arithmetic_done_by_hand(transpose: bool) -> None:
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    value, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 6, 32), (16, 32)))
    source = ops.parameter([4, 6, 32], np.float32)
    stored = weight if transpose else np.ascontiguousarray(weight.T)
    graph = ov.Model([ops.matmul(source, ops.constant(stored), False, transpose)], [source], "matmul")
    assert quantize_dynamically(graph, per_channel=True) == 1
    got = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([value])[0]
    scale = np.abs(value).max(-1, keepdims=True) / 127
    weight_scale = np.abs(weight).max(1) / 127
    product = np.rint(value / scale) @ np.rint(weight / weight_scale[:, None]).T
    assert np.allclose(got, product * scale * weight_scale, rtol=1e-3, atol=np.abs(got).max() * 0.004)


def test_a_layer_that_is_left_out_stays_float(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    for precision in (STATIC, DYNAMIC):
        kept = dataclasses.replace(precision, overrides={"conv0.weight": "float32"})
        placements = placed(SPEC, lowered(model, tmp_path, kept), model)
        floats = [item.macs for item in placements if item.precision == "float32" and item.macs]
        assert floats == [CONV_MACS["conv0"]]


def test_spans_of_the_bin_are_its_weights(tmp_path: Path) -> None:
    weights = {"conv1.weight": binary_weights(16, 8, 3, 3)}
    artifact = lowered(conv_net(tmp_path, weights=weights), tmp_path, Precision())
    raw = artifact.path.with_suffix(".bin").read_bytes()
    spans = {span.shape: span for span in weight_spans(artifact.path)}
    span = spans[(16, 8, 3, 3)]
    assert raw[span.offset : span.offset + span.length] == weights["conv1.weight"].tobytes()
    assert (span.dtype, span.axis) == ("float32", 0)
    assert spans[(10, 16)].axis == 0


def test_binarized_weights_are_stored_packed(tmp_path: Path) -> None:
    model = conv_net(tmp_path, weights={"conv1.weight": binary_weights(16, 8, 3, 3)})
    for precision, bits in ((Precision(), 32), (DYNAMIC, 8), (STATIC, 8)):
        artifact = lowered(model, tmp_path / precision.name, dataclasses.replace(precision, storage="packed"))
        assert artifact.stored_as == "1-bit packed"
        saved = artifact.artifact_bytes - artifact.stored_bytes
        assert saved == pytest.approx(16 * 72 * (bits - 1) / 8, rel=0.1, abs=150)


def test_artifact_counts_and_hashes_both_files_and_is_deterministic(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    for name, precision in PRECISIONS.items():
        first, second = (lowered(model, tmp_path / name / run, precision) for run in ("one", "two"))
        raw = first.path.read_bytes() + first.path.with_suffix(".bin").read_bytes()
        assert first.artifact_bytes == first.stored_bytes == len(raw)
        assert first.sha256 == hashlib.sha256(raw).hexdigest()
        assert first.sha256 == second.sha256, name
        assert str(tmp_path) not in first.path.read_text()


def test_settings_are_read_back(tmp_path: Path) -> None:
    artifact = lowered(conv_net(tmp_path), tmp_path, Precision())
    found = SPEC.open(artifact, Params(), Options(threads=2), "latency").effective()
    assert (found["threads"], found["streams"]) == ("2", "1")
    assert found["performance_hint"] == "LATENCY"
    assert found["precision_hint"] == "f32"
    assert found["pinning"].lower() in {"false", "0"}
    assert found["devices"] == "CPU"


def test_latency_sessions_are_static_and_accuracy_sessions_are_not(tmp_path: Path) -> None:
    artifact = lowered(conv_net(tmp_path), tmp_path, Precision())
    shapes = {
        purpose: SPEC.open(artifact, Params(), Options(batch=4), purpose).inputs["image"].shape
        for purpose in ("latency", "memory", "accuracy", "placement")
    }
    assert shapes.pop("accuracy") == (None, 3, 16, 16)
    assert set(shapes.values()) == {(4, 3, 16, 16)}


def test_two_inputs_keep_their_names_and_order(tmp_path: Path) -> None:
    model = two_inputs(tmp_path)
    session = SPEC.open(lowered(model, tmp_path, Precision()), Params(), Options(batch=3), "latency")
    feed = items(model, 3)
    assert list(session.inputs) == ["left", "right"]
    assert list(session.outputs) == ["difference"]
    assert session.bind(feed)() is None
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    assert np.allclose(session.run(dict(reversed(feed.items())))["difference"], wanted, atol=1e-4)
    session.close()


def test_an_output_outlives_the_next_run(tmp_path: Path) -> None:
    model = conv_net(tmp_path)
    session = SPEC.open(lowered(model, tmp_path, Precision()), Params(), Options(), "latency")
    first = session.run(items(model, 1, seed=1))["logits"]
    kept = first.copy()
    session.run(items(model, 1, seed=2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("kept", DENSE_MACS)
@pytest.mark.parametrize("precision", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_an_override_holds_for_products(precision: Precision, kept: str, tmp_path: Path) -> None:
    model = dense_net(tmp_path)
    artifact = lowered(model, tmp_path, dataclasses.replace(precision, overrides={kept: "float32"}))
    stored = {np.prod(span.shape): span.dtype for span in weight_spans(artifact.path) if min(span.shape) > 1}
    assert stored == {macs: "float32" if name == kept else "int8" for name, macs in DENSE_MACS.items()}


@pytest.mark.parametrize("precision", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_an_override_whose_layer_lost_its_name_is_refused(precision: Precision, tmp_path: Path) -> None:
    """OpenVINO folds a batch norm into the convolution, which is then called by a running number."""
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)} | {name: np.full(4, 2, np.float32) for name in "somv"}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], name="conv"),
        helper.make_node("BatchNormalization", ["a", "s", "o", "m", "v"], ["logits"], name="norm"),
    ]
    model = conv_net(tmp_path)
    write(model.path, nodes, {"image": [None, 3, 16, 16]}, {"logits": [None, 4, 14, 14]}, weights)
    with pytest.raises(Unsupported, match="'w'"):
        lowered(model, tmp_path, dataclasses.replace(precision, overrides={"w": "float32"}))


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("batch", [1, 16])
def test_calibration_of_a_fixed_batch_uses_every_item(batch: int, count: int, tmp_path: Path) -> None:
    model = dataclasses.replace(dense_net(tmp_path, batch=batch), precision=STATIC)
    job = make_job(tmp_path / "lowered", model, count)
    artifact = SPEC.lower(model, Params(), Options(), job)
    assert f"over {count} items" in artifact.how


@pytest.mark.parametrize("precision", [
    Precision(weights="float8", activations="float8"),
    BINARY,
    dataclasses.replace(STATIC, weights_symmetric=False),
    dataclasses.replace(STATIC, realise="exact", encodings=Path("scales.json")),
    dataclasses.replace(STATIC, overrides={"nothing": "float32"}),
])  # fmt: skip
def test_what_cannot_be_is_unsupported(precision: Precision, tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        lowered(conv_net(tmp_path), tmp_path, precision)


def test_nothing_is_forked_to_report_to_the_vendor(tmp_path: Path) -> None:
    """Telemetry forks the process, after which OpenBLAS may hang; and nobody asked for it."""
    script = (
        "import sys, threading; from pathlib import Path\n"
        "forks = []\n"
        "sys.addaudithook(lambda event, args: forks.append(args) if event == 'os.fork' else None)\n"
        "import test_target_openvino as t\n"
        "t.lowered(t.conv_net(Path(sys.argv[1])), Path(sys.argv[1]), t.STATIC)\n"
        "assert 'nncf' in sys.modules\n"
        "assert not forks, forks\n"
        # the thread of a progress bar that was just stopped may still be ending
        "own = [t for t in threading.enumerate() if not type(t).__module__.startswith('rich.')]\n"
        "assert own == [threading.main_thread()], own\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NNCF", "PYTEST"))}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=True, cwd=Path(__file__).parent, env=environment, timeout=200,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_every_calibration_works(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = conv_net(tmp_path)
    artifact = lowered(model, tmp_path, dataclasses.replace(STATIC, calibration=Calibration(method, 20)))
    assert f"{method} over 20 items" in artifact.how
    assert share(placed(SPEC, artifact, model), "int8") == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_binary_layers_run_as_one_bit_and_compute_what_the_reference_does(
    channels: int, batch: int, tmp_path: Path
) -> None:
    model = sign_net(tmp_path, channels=channels)
    artifact = lowered(model, tmp_path, BINARY)
    feed = items(model, batch, seed=9)
    wanted = ReferenceEvaluator(str(model.path)).run(None, feed)[0]
    assert np.allclose(next(iter(outputs(SPEC, artifact, feed).values())), wanted, atol=1e-4)
    placements = placed(SPEC, artifact, model, batch)
    layers = [item for item in placements if item.op == "BinaryConvolution"]
    assert [(item.precision, item.macs) for item in layers] == [("binary", 36 * 9 * channels**2)] * 2
    assert share(placements, "binary") == 1
    bits = 2 * 9 * channels**2 // 8
    assert artifact.path.with_suffix(".bin").stat().st_size < bits + 8 * channels * 4 + 100
    assert "2 layers: BinaryConvolution" in artifact.how


def test_binary_layers_of_other_channel_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="multiple of 8"):
        lowered(sign_net(tmp_path, channels=12), tmp_path, BINARY)


@pytest.mark.parametrize("name", WEIGHT_ONLY)
def test_weight_only_is_smaller_and_close(name: str, tmp_path: Path) -> None:
    model = dense_net(tmp_path)
    artifact, plain = lowered(model, tmp_path, WEIGHT_ONLY[name]), lowered(model, tmp_path / "float", Precision())
    feed = items(model, 5, seed=9)
    agreement = sqnr_db(outputs(SPEC, plain, feed)["y"], outputs(SPEC, artifact, feed)["y"])
    assert agreement > {"weight-only-int8": 35, "weight-only-int4": 12}[name]
    sizes = [item.path.with_suffix(".bin").stat().st_size for item in (artifact, plain)]
    assert sizes[0] < sizes[1] / (3 if "8" in name else 5)
    assert {item.precision for item in placed(SPEC, artifact, model) if item.macs} == {"float32"}


@pytest.mark.parametrize("wider", DENSE_MACS)
def test_layers_of_a_weight_only_file_have_their_own_bits(wider: str, tmp_path: Path) -> None:
    model = dense_net(tmp_path)
    kept = next(name for name in DENSE_MACS if name != wider)
    asked = {wider: "int8", kept: "float32"}
    artifact = lowered(model, tmp_path, dataclasses.replace(WEIGHT_ONLY["weight-only-int4"], overrides=asked))
    stored = {np.prod(span.shape): span.dtype for span in weight_spans(artifact.path) if min(span.shape) > 1}
    assert stored == {macs: asked.get(name, "int4") for name, macs in DENSE_MACS.items()}
    assert "1 weights in i4, 1 weights in i8" in artifact.how
    feed = items(model, 5, seed=9)
    plain, four = (
        outputs(SPEC, lowered(model, tmp_path / precision.name, precision), feed)["y"]
        for precision in (Precision(), WEIGHT_ONLY["weight-only-int4"])
    )
    assert sqnr_db(plain, outputs(SPEC, artifact, feed)["y"]) > sqnr_db(plain, four)


def test_bfloat16_runs_where_the_cpu_has_it(tmp_path: Path) -> None:
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16 units")
    model = conv_net(tmp_path)
    artifact = lowered(model, tmp_path, Precision(weights="bfloat16", activations="bfloat16"))
    assert share(placed(SPEC, artifact, model), "bfloat16") == 1


def test_what_multiplies_tells_its_output_channels(tmp_path):
    rng = np.random.default_rng(1)
    odd = {"conv1.weight": rng.normal(0, 0.1, (13, 8, 3, 3)).astype(np.float32), "conv1.bias": np.zeros(13, np.float32)}
    odd["head.weight"] = rng.normal(0, 0.1, (10, 13)).astype(np.float32)
    model = conv_net(tmp_path, weights=odd)
    found = placed(SPEC, lowered(model, tmp_path, Precision()), model)
    assert sorted(item.channels for item in found if item.macs) == [8, 10, 13]
    assert all(item.channels is None for item in found if not item.macs)


def test_a_fused_chain_whose_inner_layer_is_quantized_again_is_int8(tmp_path: Path) -> None:
    """The middle layer's dequantization goes into the next quantization: its name is gone, its integer weights tell."""
    from onnx_files import DENSE_MACS, dense_net
    from onnx_files import items as onnx_items

    model = dense_net(tmp_path)
    for wanted, expected in ((Precision("int8", "int8", "static"), "int8"), (Precision(), "float32")):
        asked = dataclasses.replace(model, precision=wanted)
        (spec,) = harness_targets()
        artifact = spec.lower(asked, Params(), Options(), make_job(tmp_path / expected, model, 8))
        session = spec.open(artifact, Params(), Options(), "placement")
        session.run(onnx_items(model, 1))
        rows = [row for row in session.placements() if row.macs]
        assert {row.precision for row in rows} == {expected}
        assert sum(row.macs or 0 for row in rows) == sum(DENSE_MACS.values())

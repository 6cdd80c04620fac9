"""The LiteRT target on a small file that the test writes itself, so that no converter is needed."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.api import (
    BadModel,
    Calibration,
    HarnessError,
    Job,
    Model,
    Options,
    Placement,
    PlanError,
    Precision,
    Split,
    SupportsBind,
    SupportsEffective,
    SupportsPlacements,
    TensorSpec,
    Unsupported,
)

if importlib.util.find_spec("ai_edge_litert") is None:
    pytest.skip("ai-edge-litert is not installed", allow_module_level=True)

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

import harness_tflite
from harness_tflite import flatbuffer, profiling, quantize
from harness_tflite.params import Params
from harness_tflite.placement import delegated, graph_of, list_nodes, multiply_accumulates, placements

BATCH, WIDE, MIDDLE, OUT = 2, 48, 32, 8
RANDOM = np.random.default_rng(0)
FIRST = RANDOM.standard_normal((MIDDLE, WIDE)).astype(np.float32)
SECOND = RANDOM.standard_normal((OUT, MIDDLE)).astype(np.float32)
ITEMS = RANDOM.standard_normal((40, WIDE)).astype(np.float32)


def _tensor(name: str, shape: tuple[int, ...], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), schema.TensorType.FLOAT32, buffer
    return tensor


def _fully_connected(inputs: list[int], output: int) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.inputs, operator.outputs, operator.opcodeIndex = inputs, [output], 0
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    return operator


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _write(path: Path, first: np.ndarray = FIRST) -> Path:
    """Write output_0 = (args_0 @ first.T) @ SECOND.T."""
    model, graph, code, signature = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.SignatureDefT()
    buffers = [schema.BufferT() for _ in range(3)]
    buffers[1].data, buffers[2].data = (np.frombuffer(w.tobytes(), np.uint8) for w in (first, SECOND))
    graph.tensors = [
        _tensor("args_0", (BATCH, WIDE), 0),
        _tensor("net/first;1", (MIDDLE, WIDE), 1),
        _tensor("net/first;2", (BATCH, MIDDLE), 0),
        _tensor("net/second;1", (OUT, MIDDLE), 2),
        _tensor("result", (BATCH, OUT), 0),
    ]
    graph.operators = [_fully_connected([0, 1, -1], 2), _fully_connected([2, 3, -1], 4)]
    graph.inputs, graph.outputs = [0], [4]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_entry("args_0", 0)], [_entry("output_0", 4)]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


class Data:
    def split(self, name: str) -> Split:
        assert name == "calibration"
        return Split({"row": ITEMS})


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = _write(tmp_path / "source.tflite")
    flatbuffer.rename_signature(path, {"args_0": "row", "output_0": "logits"})
    names = {"first.weight": "net/first;1", "second.weight": "net/second;1"}
    return Model("tflite", path, {"row": TensorSpec("float32", (None, WIDE))}, ("logits",), names=names)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    out = tmp_path / "out"
    out.mkdir()
    return Job(out, 0, 1, Data(), None, lambda share, text: None, logging.getLogger("harness"))  # type: ignore[arg-type]  # a target looks at no workload


INT8 = Precision("int8", "int8", "static", calibration=Calibration(samples=20))


def _lower(model: Model, job: Job, precision: Precision):
    return harness_tflite.lower(dataclasses.replace(model, precision=precision), Params(), Options(batch=BATCH), job)


def _open(artifact, *, threads: int = 1, batch: int = BATCH, xnnpack: bool = True):
    return harness_tflite.open_session(
        artifact, Params(xnnpack=xnnpack), Options(threads=threads, batch=batch), "latency"
    )


def _expected(rows: np.ndarray) -> np.ndarray:
    return (rows.astype(np.float64) @ FIRST.T.astype(np.float64)) @ SECOND.T


def test_probe_runs_a_model_and_names_the_runtime() -> None:
    found = harness_tflite.probe(Params())
    assert found.available, found.reason
    assert (found.runtime, bool(found.version)) == ("LiteRT", True)
    assert found.seconds > 0


def test_probe_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    found = harness_tflite.probe(Params())
    assert not found.available
    assert "ai-edge-litert cannot be imported" in found.reason
    assert "compression-harness[tflite]" in found.hint


def test_capabilities_say_what_cannot_be() -> None:
    found = harness_tflite.capabilities(Params())
    assert {"float32", "int8", "dynamic-int8", "float16"} <= set(found.precisions)
    assert not found.dynamic_batch
    assert found.channel_multiple in {4, 8, 16}
    assert not set(found.gaps) & set(found.precisions)


def test_baseline_is_the_file_and_computes_the_closed_form(model: Model, job: Job) -> None:
    artifact = _lower(model, job, Precision())
    session = _open(artifact)
    assert artifact.path.read_bytes() == model.path.read_bytes()
    assert (artifact.realised, artifact.stored_bytes) == ("float32", artifact.artifact_bytes)
    assert session.inputs == {"row": TensorSpec("float32", (BATCH, WIDE))}
    assert session.outputs == {"logits": TensorSpec("float32", (BATCH, OUT))}
    np.testing.assert_allclose(session.run({"row": ITEMS[:BATCH]})["logits"], _expected(ITEMS[:BATCH]), rtol=1e-4)


def test_outputs_are_copies(model: Model, job: Job) -> None:
    session = _open(_lower(model, job, Precision()))
    first = session.run({"row": ITEMS[:2]})["logits"]
    kept = first.copy()
    session.run({"row": ITEMS[2:4]})
    np.testing.assert_array_equal(first, kept)


def test_bind_runs_what_was_bound(model: Model, job: Job) -> None:
    session = _open(_lower(model, job, Precision()))
    assert isinstance(session, SupportsBind)
    session.bind({"row": ITEMS[:2]})()
    entry = session._outputs["logits"]
    np.testing.assert_allclose(session._interpreter.get_tensor(entry["index"]), _expected(ITEMS[:2]), rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 5])
def test_another_batch_is_resized(model: Model, job: Job, batch: int) -> None:
    session = _open(_lower(model, job, INT8), batch=batch)
    assert session.run({"row": ITEMS[:batch]})["logits"].shape == (batch, OUT)


@pytest.mark.parametrize(
    ("precision", "tolerance", "bits"),
    [
        (Precision("float16", "float16"), 2e-3, 16),
        (INT8, 0.05, 8),
        (dataclasses.replace(INT8, granularity="per-tensor", activations_symmetric=True), 0.05, 8),
        (dataclasses.replace(INT8, calibration=Calibration("moving-average", 20)), 0.25, 8),
        (Precision("int8", "int8", "dynamic"), 0.05, 8),
        (Precision("int8", "float32", "weight-only"), 0.05, 8),
        (Precision("int4", "float32", "weight-only"), 0.3, 4),
    ],
    ids=["fp16", "int8", "int8-per-tensor", "int8-moving-average", "dynamic", "weight-only-int8", "weight-only-int4"],
)
def test_lowered_precision_is_close_and_small(
    model: Model, job: Job, precision: Precision, tolerance: float, bits: int
) -> None:
    artifact = _lower(model, job, precision)
    found = _open(artifact).run({"row": ITEMS[:BATCH]})["logits"]
    expected = _expected(ITEMS[:BATCH])
    error = np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean())
    saved = (FIRST.size + SECOND.size) * (32 - bits) // 8
    assert 0 < error < tolerance
    # The quantizer adds scales, names and operators of about 2 kB to a file of 7.7 kB.
    assert artifact.artifact_bytes < model.path.stat().st_size - saved + 2200
    assert artifact.how


def test_true_ranges_cover_more_than_moving_averages(model: Model, job: Job, tmp_path: Path) -> None:
    ranges = {}
    for method in ("minmax", "moving-average"):
        wanted = dataclasses.replace(model, precision=dataclasses.replace(INT8, calibration=Calibration(method, 40)))
        recipe = quantize._recipe(wanted.precision, ())
        found, _unbound = quantize._calibrate(wanted, recipe, lambda: Split({"row": ITEMS}), 1)
        ranges[method] = found["net/first;2"]
    middle = ITEMS @ FIRST.T
    assert ranges["minmax"]["max"].item() == pytest.approx(middle.max(), rel=1e-5)
    assert ranges["minmax"]["min"].item() == pytest.approx(middle.min(), rel=1e-5)
    assert ranges["moving-average"]["max"].item() < middle.max()


def test_batches_fill_the_last_one_from_the_start(model: Model) -> None:
    found = list(quantize.batches(model.path, model, Split({"row": ITEMS[:5]}), 5))
    assert [batch["row"].shape for batch in found] == [(BATCH, WIDE)] * 3
    np.testing.assert_array_equal(found[-1]["row"], ITEMS[[4, 0]])


def test_override_keeps_one_layer_in_float(model: Model, job: Job) -> None:
    precision = dataclasses.replace(INT8, overrides={"second.weight": "float32"})
    artifact = _lower(model, job, precision)
    layers = [place for place in _open(artifact).placements() if place.op == "MatMul"]
    assert [place.precision for place in layers] == ["int8", "float32"]
    assert "1 overrides in float32" in artifact.how


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"overrides": {"third.weight": "float32"}}, PlanError, "matches no parameter"),
        ({"overrides": {"first.weight": "float16"}}, Unsupported, "float32 only"),
        ({"weights_symmetric": False}, Unsupported, "symmetric"),
        ({"realise": "exact", "encodings": Path("e.json")}, Unsupported, "e.json"),
        ({"activations": "int16"}, Unsupported, "int16"),
        ({"weights": "float8", "scheme": "float"}, Unsupported, "float8"),
        ({"weights": "bfloat16", "scheme": "float"}, Unsupported, "bfloat16"),
    ],
)
def test_what_cannot_be_is_said(model: Model, job: Job, change: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _lower(model, job, dataclasses.replace(INT8, **change))


def test_an_operator_that_fails_is_named(model: Model, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = quantize._attempt

    def attempt(path: Path, manager, ranges, out: Path) -> str | None:
        left_out = {
            entry["operation"] for entry in manager.get_quantization_recipe() if entry["algorithm_key"] == "no_quantize"
        }
        return real(path, manager, ranges, out) if "FULLY_CONNECTED" in left_out else "Ranks of scales (5)"

    monkeypatch.setattr(quantize, "_attempt", attempt)
    with pytest.raises(Unsupported, match=r"nothing to quantize.*FULLY_CONNECTED left in float: Ranks of scales \(5\)"):
        _lower(model, job, INT8)  # the model has no other operator


def test_placements_name_kernel_precision_and_macs(model: Model, job: Job) -> None:
    session = _open(_lower(model, job, INT8))
    assert isinstance(session, SupportsPlacements)
    layers = [place for place in session.placements() if place.op == "MatMul"]
    assert [place.macs for place in layers] == [WIDE * MIDDLE, MIDDLE * OUT]
    assert {(place.precision, place.kernel) for place in layers} == {
        ("int8", "XNNPACK Fully Connected (NC, QS8, QC8W) GEMM")
    }


def test_dynamic_int8_computes_in_int8(model: Model, job: Job) -> None:
    placed = _open(_lower(model, job, Precision("int8", "int8", "dynamic"))).placements()
    assert {place.precision for place in placed if place.macs} == {"int8"}


def test_weight_only_computes_in_float32_and_dequantizes_at_load(model: Model, job: Job) -> None:
    placed = _open(_lower(model, job, Precision("int8", "float32", "weight-only"))).placements()
    assert [(place.op, place.precision) for place in placed if place.macs] == [("MatMul", "float32")] * 2
    assert "Dequantize" not in {place.op for place in placed}


@pytest.mark.parametrize("wider", ["first", "second"])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_layers_of_a_weight_only_file_have_their_own_bits(model: Model, job: Job, wider: str, dtype: str) -> None:
    narrow = Precision("int4", "float32", "weight-only", overrides={f"{wider}.weight": dtype})
    artifact = _lower(model, job, narrow)
    weights = {"first": FIRST.size, "second": SECOND.size}
    other = next(size for name, size in weights.items() if name != wider)
    assert artifact.weight_bytes == {dtype: weights[wider] * {"int8": 1, "float32": 4}[dtype], "int4": other // 2}
    assert f"1 overrides in {dtype}" in artifact.how


@pytest.mark.parametrize(
    "precision",
    [
        Precision(),
        INT8,
        Precision("int8", "int8", "dynamic"),
        Precision("int4", "float32", "weight-only"),
        Precision("float16", "float16"),
    ],
    ids=lambda precision: precision.name,
)
def test_the_profiler_agrees_with_what_the_file_tells(model: Model, job: Job, precision: Precision) -> None:
    session = _open(_lower(model, job, precision))
    ran, listed = session.placements(), placements(graph_of(session._interpreter), batch=BATCH)
    told = [
        [(place.op, place.name, place.precision, place.macs) for place in places if place.macs]
        for places in (ran, listed)
    ]
    assert told[0] == told[1]


def test_a_profile_that_does_not_fit_the_file_is_no_proof() -> None:
    listed = [Placement("Conv", "c", "XNNPACK CONV_2D", "cpu", "int8", 10)]
    told = [{"kernel": "Convolution (NHWC, QS8, QC8W) IGEMM", "delegated": True, "us": 3}]
    assert profiling.profiled(listed, told)[0].precision == "int8"
    assert profiling.profiled(listed, told)[0].time_share is None  # 3 us in all runs is nothing
    assert profiling.profiled(listed, [{**told[0], "us": 3000}])[0].time_share == 1
    with pytest.raises(HarnessError, match="fits no operator"):
        profiling.profiled(listed, [*told, *told])
    with pytest.raises(HarnessError, match="Conv c is not in the profile"):
        profiling.profiled(listed, [])
    wrong = [dataclasses.replace(listed[0], op="MatMul")]
    with pytest.raises(HarnessError, match="DWConv fits no operator"):
        profiling.profiled(wrong, [{**told[0], "kernel": "Convolution (NHWC, QS8, QC8W) DWConv"}])


def test_without_a_profile_the_file_still_tells(
    model: Model, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(profiling, "CHILD", broken)
    placed = _open(_lower(model, job, INT8)).placements()
    assert [place.precision for place in placed if place.macs] == ["int8", "int8"]
    assert {place.time_share for place in placed} == {None}


def test_xnnpack_off_runs_the_builtin_kernels(model: Model, job: Job) -> None:
    artifact = _lower(model, job, Precision())
    session = _open(artifact, xnnpack=False)
    assert {place.kernel for place in session.placements()} == {"LiteRT builtin FULLY_CONNECTED"}
    assert session.effective()["xnnpack"] == "off"
    np.testing.assert_allclose(session.run({"row": ITEMS[:2]})["logits"], _expected(ITEMS[:2]), rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_counted(model: Model, job: Job, threads: int) -> None:
    session = _open(_lower(model, job, Precision()), threads=threads)
    assert isinstance(session, SupportsEffective)
    assert session.effective()["threads"].startswith(f"{threads} ")


def test_binarized_weights_are_stored_packed(tmp_path: Path, job: Job) -> None:
    scales = np.linspace(0.5, 1.5, MIDDLE, dtype=np.float32)[:, None]
    path = _write(tmp_path / "binary.tflite", np.where(FIRST > 0, scales, -scales).astype(np.float32))
    source = Model("tflite", path, {"args_0": TensorSpec("float32", (None, WIDE))}, ("output_0",))
    artifact = _lower(source, job, Precision(storage="packed"))
    saved = 4 * FIRST.size - FIRST.size // 8 - 4 * MIDDLE
    assert artifact.artifact_bytes - artifact.stored_bytes == pytest.approx(saved, abs=100)
    assert artifact.stored_as == "1-bit packed"
    assert artifact.realised == "float32"


def test_spans_point_at_the_weights(model: Model) -> None:
    raw = model.path.read_bytes()
    found = {
        span.shape: np.frombuffer(raw, np.float32, int(np.prod(span.shape)), span.offset)
        for span in flatbuffer.weight_spans(model.path)
    }
    np.testing.assert_array_equal(found[(MIDDLE, WIDE)].reshape(MIDDLE, WIDE), FIRST)
    np.testing.assert_array_equal(found[(OUT, MIDDLE)].reshape(OUT, MIDDLE), SECOND)


def test_spans_of_large_files_lie_behind_the_flatbuffer(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "WIDE", 640)
    monkeypatch.setitem(globals(), "MIDDLE", 512)
    monkeypatch.setitem(globals(), "SECOND", np.zeros((OUT, 512), np.float32))
    weights = RANDOM.standard_normal((512, 640)).astype(np.float32)
    path = _write(tmp_path / "large.tflite", weights)
    model = Model("tflite", path, {"args_0": TensorSpec("float32", (None, 640))}, ("output_0",))
    artifact = _lower(model, job, Precision("int8", "int8", "dynamic", storage="packed"))
    (span,) = (span for span in flatbuffer.weight_spans(artifact.path) if span.shape == (512, 640))
    found = np.frombuffer(artifact.path.read_bytes(), np.int8, weights.size, span.offset).reshape(weights.shape)
    scales = np.abs(weights).max(1, keepdims=True) / 127
    assert (span.dtype, span.axis) == ("int8", 0)
    np.testing.assert_allclose(found * scales, weights, atol=float(scales.max()))


def test_a_release_that_lists_no_operators_says_so() -> None:
    with pytest.raises(Unsupported, match="does not list operators"):
        list_nodes(object())


def test_renaming_touches_only_names(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.tflite")
    before = path.read_bytes()
    flatbuffer.rename_signature(path, {"args_0": "a much longer name than before", "output_0": "ü"})
    assert flatbuffer.signature_names(path) == (("a much longer name than before",), ("ü",))
    changed = sum(old != new for old, new in zip(before, path.read_bytes(), strict=False))
    assert changed <= 8  # two offsets of four bytes


def test_renaming_unknown_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="args_0, output_0"):
        flatbuffer.rename_signature(_write(tmp_path / "m.tflite"), {"x": "y"})


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"no flatbuffer at all")
    with pytest.raises(BadModel, match="not a TFLite file"):
        flatbuffer.open_model(path)


def _node(index: int, op: str, inputs: list[int], outputs: list[int]) -> dict:
    return {"index": index, "op_name": op, "inputs": inputs, "outputs": outputs}


def test_partition_members_are_found_between_its_borders() -> None:
    # 0 -> [a] -> 1 -> [b: stays outside] -> 2 -> [c] -> 3, and [c] also reads 1
    operators = [_node(0, "A", [0], [1]), _node(1, "B", [1], [2]), _node(2, "C", [2, 1], [3])]
    partitions = [_node(3, "DELEGATE", [0], [1]), _node(4, "DELEGATE", [1, 2], [3])]
    assert delegated(operators, partitions) == {0, 2}
    assert delegated(operators, partitions[:1]) == {0}
    assert delegated(operators, []) == frozenset()


def _shapes(*shapes: tuple[int, ...]) -> list[dict]:
    return [{"shape": shape} for shape in shapes]


@pytest.mark.parametrize(
    ("op", "inputs", "output", "macs"),
    [
        ("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3)], (1, 6, 6, 16), 6 * 6 * 16 * 27),
        ("CONV_2D", [(1, 8, 8, 4), (16, 3, 3, 2)], (1, 6, 6, 16), 6 * 6 * 16 * 18),
        ("DEPTHWISE_CONV_2D", [(1, 8, 8, 4), (1, 3, 3, 4)], (1, 8, 8, 4), 8 * 8 * 4 * 9),
        ("TRANSPOSE_CONV", [(4,), (5, 2, 2, 3), (1, 4, 4, 3)], (1, 8, 8, 5), 4 * 4 * 3 * 5 * 4),
        ("FULLY_CONNECTED", [(7, 10), (20, 10)], (7, 20), 7 * 200),
        ("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
        ("BATCH_MATMUL", [(2, 3, 4), (2, 5, 4)], (2, 3, 5), 2 * 3 * 4 * 5),
        ("ADD", [(2, 3), (2, 3)], (2, 3), 0),
    ],
)
def test_multiply_accumulates_follow_shapes(op: str, inputs: list, output: tuple, macs: int) -> None:
    assert multiply_accumulates(op, _shapes(*inputs), _shapes(output)) == macs


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_calibrations_that_the_quantizer_lacks(method: str, model: Model, job: Job) -> None:
    artifact = _lower(model, job, dataclasses.replace(INT8, calibration=Calibration(method, 16)))
    assert f"{method} by our own ranges" in artifact.how


def test_given_ranges_bind(model: Model, job: Job, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    (tmp_path / "e.json").write_text('{"schema": 1, "layers": {"second.weight": {"input": [-1.28, 1.27]}}}')
    artifact = _lower(model, job, dataclasses.replace(INT8, realise="exact", encodings=tmp_path / "e.json"))
    found = {entry["quantization"] for entry in Interpreter(str(artifact.path)).get_tensor_details()}
    assert any(zero == 0 and scale == pytest.approx(0.01) for scale, zero in found)


def test_binary_runs_as_float_and_says_so(model: Model, job: Job) -> None:
    artifact = _lower(model, job, Precision("binary", "binary", "static", storage="packed"))
    assert artifact.realised == "float32"
    assert "float32" in artifact.how


@pytest.mark.parametrize(
    "precision", [Precision(), INT8, Precision("int8", "int8", "dynamic"), Precision("int8", scheme="weight-only")]
)
def test_a_file_that_is_quantized_already_is_known_and_taken_as_it_is(
    precision: Precision, model: Model, job: Job, tmp_path: Path
) -> None:
    """As a user brings it: what it computes in is told from the file, and no method quantizes it again."""
    from harness_workloads.tflite import own_precision

    given = shutil.copyfile(_lower(model, job, precision).path, tmp_path / "given.tflite")
    own = own_precision(given)
    assert own.name == precision.name
    again = Model("tflite", given, model.inputs, model.outputs)
    artifact = _lower(again, job, own)
    assert artifact.path.read_bytes() == given.read_bytes()
    assert artifact.realised == precision.name
    if precision.name != "float32":
        assert artifact.how == "the file as given"
        with pytest.raises(Unsupported, match="quantized already"):
            _lower(again, job, INT8)

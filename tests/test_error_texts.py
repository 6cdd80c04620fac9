"""What runtimes really say of graphs that they cannot take, and what the user reads instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness import explain
from harness.errors import BadModel, Unsupported
from harness.explain import KnownError, Where

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  after the guard

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
value = helper.make_tensor_value_info


def graph(nodes, inputs, weights=(), *, opset=17, domains=(), gives=FLOAT):
    outputs = [value("y", gives, None)]
    made = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(w), n) for n, w in weights]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset), *domains])
    model.ir_version = 8
    return model


def node(op, inputs, name, **more):
    return helper.make_node(op, inputs, ["y"], name=name, **more)


X = value("x", FLOAT, ["n", 4])
ONES = np.ones((2, 4), np.float32)
GRAPHS = {
    "custom": (
        graph([node("MyOp", ["x"], "mine", domain="com.acme")], [X], domains=[helper.make_opsetid("com.acme", 1)]),
        {"x": ONES},
    ),
    "unknown": (graph([node("Frobnicate", ["x"], "frob")], [X]), {"x": ONES}),
    "future": (graph([node("Relu", ["x"], "r")], [X], opset=99), {"x": ONES}),
    "double": (
        graph(
            [node("Conv", ["x", "w"], "conv1")],
            [value("x", DOUBLE, ["n", 1, 8, 8])],
            [("w", np.ones((1, 1, 3, 3)))],
            gives=DOUBLE,
        ),
        {"x": np.ones((1, 1, 8, 8))},
    ),
    "declared": (
        graph([node("Relu", ["x"], "act")], [value("x", DOUBLE, ["n", 4])]),
        {"x": ONES.astype(np.float64)},
    ),
    "shapes": (
        graph([node("MatMul", ["x", "w"], "head")], [X], [("w", np.ones((5, 3), np.float32))]),
        {"x": ONES},
    ),
    "nowhere": (graph([node("Add", ["x", "nowhere"], "add1")], [X]), {"x": ONES}),
    "dtypes": (
        graph([node("Add", ["x", "z"], "add1")], [X, value("z", INT64, ["n", 4])]),
        {"x": ONES, "z": np.ones((2, 4), np.int64)},
    ),
    "reshape": (
        graph([node("Reshape", ["x", "s"], "fold")], [X], [("s", np.array([3, 7]))]),
        {"x": ONES},
    ),
    "rank": (
        graph([node("Reshape", ["x", "s"], "fold")], [X, value("s", INT64, ["k"])]),
        {"x": ONES, "s": np.array([8])},
    ),
    "lookup": (
        graph([node("Gather", ["w", "i"], "embedding")], [value("i", INT64, ["n"])], [("w", ONES)]),
        {"i": np.array([9])},
    ),
    "float-index": (
        graph([node("Gather", ["w", "i"], "embedding")], [value("i", INT64, ["n"])], [("w", ONES)]),
        {"i": np.array([1.0], np.float32)},
    ),
}


def raised_by_onnxruntime(path, feeds):
    ort = pytest.importorskip("onnxruntime")
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    with pytest.raises(Exception) as error:
        ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"]).run(None, feeds)
    return error.value


def raised_by_openvino(path, feeds):
    ov = pytest.importorskip("openvino")
    with pytest.raises(Exception) as error:
        ov.Core().compile_model(ov.Core().read_model(str(path)), "CPU")(feeds)
    return error.value


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("custom", "not-applicable", ["no kernel", "com.acme:MyOp"]),
        ("unknown", "not-applicable", ["no operator Frobnicate in opset 17"]),
        ("future", "not-applicable", ["opset 99", "up to"]),
        ("double", "not-applicable", ["no kernel", "'conv1' (Conv, version 11)"]),
        ("declared", "failed", ["'act' gives 'y'", "than the file declares (float)"]),
        ("shapes", "failed", ["'head' (MatMul)", "Incompatible dimensions"]),
        ("nowhere", "failed", ["nothing in it gives 'nowhere'"]),
        ("dtypes", "failed", ["'add1' (Add) is given float and int64"]),
        ("reshape", "failed", ["'fold' (Reshape)", "requested shape:{3,7}"]),
        ("lookup", "failed", ["'embedding' (Gather)", "idx=9"]),
        ("float-index", "failed", ["given as float, it takes int64"]),
    ],
)
def test_onnxruntime_is_told_in_the_words_of_the_model(tmp_path, name, status, words):
    from harness_onnxruntime.errors import KNOWN_ERRORS

    model, feeds = GRAPHS[name]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    found = told(raised_by_onnxruntime(path, feeds), KNOWN_ERRORS)
    assert found.status == status
    assert all(word in found.reason for word in words), found.reason
    assert_readable(found.reason, tmp_path)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("custom", "not-applicable", ["cannot read these operators: com.acme.MyOp"]),
        ("unknown", "not-applicable", ["Frobnicate"]),
        ("shapes", "failed", ["operator MatMul that gives 'y'", "First input dimension=4"]),
        ("nowhere", "failed", ["nothing in it gives 'nowhere'"]),
        ("dtypes", "failed", ["operator Add that gives 'y'", "arg0 element type: f32"]),
        ("rank", "not-applicable", ["'y' (Reshape)", "number of dimensions"]),
        ("reshape", "failed", ["'y' (Reshape)", "conflicts with the reshape pattern (3.7)"]),
    ],
)
def test_openvino_is_told_in_the_words_of_the_model(tmp_path, name, status, words):
    from harness_openvino.errors import KNOWN_ERRORS

    model, feeds = GRAPHS[name]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    found = told(raised_by_openvino(path, feeds), KNOWN_ERRORS)
    assert found.status == status
    assert all(word in found.reason for word in words), found.reason
    assert_readable(found.reason, tmp_path)


def test_litert_is_told_in_the_words_of_the_model(tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    from harness_tflite.errors import KNOWN_ERRORS

    path = tmp_path / "model.tflite"
    path.write_bytes(b"no flatbuffer" * 9)
    with pytest.raises(ValueError, match="Flatbuffer") as error:
        litert.Interpreter(str(path)).allocate_tensors()
    found = told(error.value, KNOWN_ERRORS)
    assert "not a whole .tflite model" in found.reason
    assert_readable(found.reason, tmp_path)


def told(error, known=()):
    return explain.failure(error, Where("lower", "a plugin", "it could not build the model", known))


def assert_readable(reason, folder):
    for raw in ("Traceback", "\x1b", "\n", "ONNXRuntimeError", "Exception from", ".cpp", ".cc:", ".h:", str(folder)):
        assert raw not in reason, reason
    assert len(reason) < 700


class Odd(Exception):
    """A class that no table knows."""


def test_an_unknown_error_is_its_first_line_and_the_rest_is_kept():
    cache = Path.home() / ".cache" / "harness" / "0f" / "model.onnx"
    text = f"\n\x1b[31mException from src/core.cpp:117:\n\nno luck\x1b[0m with {cache}\nand more" + " and more" * 30_000
    found = told(Odd(text))
    assert found.status == "failed"
    assert found.reason == "it could not build the model and raised 'Odd: no luck with model.onnx'"
    assert "and more" in found.details
    assert len(found.details) <= explain.DETAILS + 10


def test_a_line_without_end_is_cut():
    found = told(Odd("x" * 200_000))
    assert len(found.reason) < explain.QUOTED + 80


def test_names_that_look_like_paths_stay():
    assert explain.plain("node /conv1/Conv of /layers.0/attn/MatMul") == "node /conv1/Conv of /layers.0/attn/MatMul"


def test_sentences_that_were_written_on_purpose_pass_unchanged():
    found = told(Unsupported("the model has no layer", hint="name another"))
    assert (found.status, found.reason, found.details) == (
        "not-applicable",
        "the model has no layer (name another)",
        "",
    )


def test_a_sentence_that_quotes_pages_in_colour_is_cut():
    found = told(BadModel("\x1b[91mthe model cannot be exported: " + "why " * 50_000))
    assert found.reason.startswith("the model cannot be exported: why")
    assert len(found.reason) <= explain.LONGEST + 2
    assert "why" in found.details


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), OSError("Cannot allocate memory")])
def test_memory_that_ran_out_is_told_as_such(error):
    found = told(error)
    assert found.status == "oom"
    assert found.reason.startswith("it could not build the model, memory ran out")


def test_a_process_that_died_tells_the_known_cause_or_its_last_line():
    known = (KnownError(r"illegal op (?P<op>\w+)", "the operator {op} is none", "drop it"),)
    where = Where("memory", "a plugin", "the model could not be opened", known)
    found = explain.died("died of SIGABRT", "\x1b[1mlog\nillegal op Foo\nbye", "crashed", where)
    assert (
        found.reason == "the model could not be opened, its process died of SIGABRT: the operator Foo is none (drop it)"
    )
    found = explain.died("died of SIGABRT", "log\n\x1b[1mbye\x1b[0m\n", "crashed", where)
    assert found.reason == "the model could not be opened, its process died of SIGABRT; it printed last 'bye'"
    assert found.details


def test_one_reason_is_told_once_whatever_file_it_names():
    from harness.leaderboard import table
    from harness.leaderboard.sections import sections
    from tests import records

    first, second = (f"it cannot read an operator Foo (all of it: logs/lower-{at}.log)" for at in "ab")
    made = [
        records.failed(method, "openvino", "failed", "lower", "openvino", reason)
        for method, reason in (("int8", first), ("fp16", second))
    ]
    (section,) = sections(table(records.run_of((records.record(), *made))))
    (lost,) = section.lost
    assert sorted(lost.methods) == ["fp16", "int8"]
    assert lost.reason in {first, second}


def test_a_kernel_that_refuses_what_was_quantized_is_named(tmp_path):
    """QLinearMatMul wants one zero point of the weights for a column, not for a row."""
    from harness_onnxruntime.errors import KNOWN_ERRORS

    one, zero = np.float32(0.1), np.uint8(128)
    weights = [
        ("s", one), ("z", zero), ("w", np.ones((4, 3, 2), np.int8)),
        ("ws", np.full(3, 0.1, np.float32)), ("wz", np.zeros(3, np.int8)),
    ]  # fmt: skip
    made = node("QLinearMatMul", ["x", "s", "z", "w", "ws", "wz", "s", "z"], "proj_quant")
    model = graph([made], [value("x", TensorProto.UINT8, [4, 2, 3])], weights, gives=TensorProto.UINT8)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    error = raised_by_onnxruntime(path, {"x": np.ones((4, 2, 3), np.uint8)})
    found = told(error, KNOWN_ERRORS)
    assert "QLinearMatMul does not take the operator 'proj'" in found.reason, str(error)
    assert_readable(found.reason, tmp_path)


def test_an_error_at_the_command_line_has_no_colours_and_no_pages(capsys):
    from harness.cli.main import _fail

    assert _fail(BadModel("\x1b[91mno\x1b[0m " + "why " * 50_000)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no why")
    assert len(err) < explain.LONGEST + 20

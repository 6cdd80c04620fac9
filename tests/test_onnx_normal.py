"""Foreign ONNX files in the normal form: the same outputs, and nothing in them that a quantizer does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from harness.api import BadModel
from harness_onnx import normal_form, refuse_invalid

pytest.importorskip("onnxscript")
F = TensorProto.FLOAT
RNG = np.random.default_rng(5)


def rand(*shape: int) -> Any:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def info(name: str, shape: list[Any], kind: int = F) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def write(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any], **more: Any
) -> Path:
    opsets = [helper.make_opsetid("", more.pop("opset", 17)), *more.pop("opsets", ())]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=more.pop("ir", 9), **more), str(path))
    return path


def constant(name: str, value: Any) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def in_constants(path: Path) -> Path:
    nodes = [
        constant("w", rand(8, 3, 3, 3)), constant("half", rand(6, 8).astype(np.float16)),
        helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]), helper.make_node("Cast", ["half"], ["wide"], to=F),
        helper.make_node("Identity", ["wide"], ["same"]), helper.make_node("Transpose", ["same"], ["turned"]),
        helper.make_node("MatMul", ["f", "turned"], ["y"]),
    ]  # fmt: skip
    return write(path, nodes, [info("x", ["n", 3, 8, 8])], [info("y", ["n", 6])], {})


def in_functions(path: Path) -> Path:
    body = [helper.make_node("Conv", ["X", "W"], ["t"], pads=[1] * 4), helper.make_node("Relu", ["t"], ["Y"])]
    block = helper.make_function("my", "Block", ["X", "W"], ["Y"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Block", ["x", "w"], ["a"], domain="my"),
        helper.make_node("Block", ["a", "v"], ["y"], domain="my"),
    ]
    weights = {"w": rand(4, 3, 3, 3), "v": rand(5, 4, 3, 3)}
    more = {"opsets": [helper.make_opsetid("my", 1)], "functions": [block]}
    return write(path, nodes, [info("x", ["n", 3, 8, 8])], [info("y", ["n", 5, 8, 8])], weights, **more)


def with_row_bias(path: Path) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["b", "a"], ["y"])]
    return write(path, nodes, [info("x", ["n", 16])], [info("y", ["n", 8])], {"w": rand(16, 8), "b": rand(1, 8)})


def batch_major(path: Path) -> Path:
    nodes = [helper.make_node("RNN", ["x", "W", "R"], ["all", "y"], hidden_size=8, layout=1)]
    weights = {"W": rand(1, 8, 4), "R": rand(1, 8, 8)}
    return write(path, nodes, [info("x", ["n", 5, 4])], [info("y", ["n", 1, 8])], weights)


def in_a_branch(path: Path) -> Path:
    def branch(name: str) -> Any:
        stored = [numpy_helper.from_array(rand(16, 4), f"w_{name}")]
        nodes = [helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"])]
        return helper.make_graph(nodes, name, [], [info(f"y_{name}", ["n", 4])], stored)

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0), helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("yes"), else_branch=branch("no")),
    ]  # fmt: skip
    return write(path, nodes, [info("x", ["n", 16])], [info("y", ["n", 4])], {"zero": np.float32(0)})


FILES: list[Callable[[Path], Path]] = [in_constants, in_functions, with_row_bias, batch_major, in_a_branch]


def read_in(source: Path, tmp_path: Path) -> tuple[onnx.ModelProto, dict[str, Any], tuple[str, ...]]:
    given = onnx.load(source)
    shape = [size.dim_value or 2 for size in given.graph.input[0].type.tensor_type.shape.dim]
    feed = {given.graph.input[0].name: rand(*shape)}
    flags, why = normal_form(source, tmp_path / "out.onnx", [feed])
    assert not why
    return onnx.load(tmp_path / "out.onnx"), feed, flags


@pytest.mark.parametrize("make", FILES)
def test_the_normal_form_gives_what_the_reference_gives_for_the_file(make: Any, tmp_path: Path) -> None:
    source = make(tmp_path / "in.onnx")
    model, feed, flags = read_in(source, tmp_path)
    assert flags == ()
    wanted = ReferenceEvaluator(str(source)).run(None, feed)
    for one, other in zip(wanted, ReferenceEvaluator(model).run(None, feed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not model.functions


def test_initial_states_of_zeros_leave_the_batch_free(tmp_path: Path) -> None:
    nodes = [helper.make_node("LSTM", ["x", "W", "R", "B", "", "h0", "c0", "P"], ["all", "y"], hidden_size=8)]
    weights = {
        "W": rand(1, 32, 4), "R": rand(1, 32, 8), "B": rand(1, 64), "P": rand(1, 24),
        "h0": np.zeros((1, 1, 8), np.float32), "c0": np.zeros((1, 1, 8), np.float32),
    }  # fmt: skip
    source = write(tmp_path / "in.onnx", nodes, [info("x", [6, "n", 4])], [info("y", [1, "n", 8])], weights)
    x = rand(6, 3, 4)
    assert normal_form(source, tmp_path / "out.onnx", [{"x": x}, {"x": x[:, :1]}]) == ((), "")
    wanted = [ReferenceEvaluator(str(source)).run(None, {"x": x[:, place : place + 1]})[0] for place in range(3)]
    runtime = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "out.onnx"))
    np.testing.assert_allclose(runtime.run(None, {"x": x})[0], np.concatenate(wanted, 1), rtol=1e-4, atol=1e-5)


def test_weights_in_constants_behind_casts_and_transposes_are_initializers(tmp_path: Path) -> None:
    model, _feed, _flags = read_in(in_constants(tmp_path / "in.onnx"), tmp_path)
    assert [node.op_type for node in model.graph.node] == ["Conv", "GlobalAveragePool", "Flatten", "MatMul"]
    shapes = {tuple(item.dims): item.data_type for item in model.graph.initializer}
    assert shapes == {(8, 3, 3, 3): F, (8, 6): F}


def test_a_row_bias_becomes_a_vector(tmp_path: Path) -> None:
    model, _feed, _flags = read_in(with_row_bias(tmp_path / "in.onnx"), tmp_path)
    assert {item.name: tuple(item.dims) for item in model.graph.initializer} == {"w": (16, 8), "b": (8,)}


def test_a_row_bias_that_makes_a_row_stays(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    source = write(
        tmp_path / "in.onnx", nodes, [info("x", [16])], [info("y", [1, 8])], {"w": rand(16, 8), "b": rand(1, 8)}
    )
    model, _feed, flags = read_in(source, tmp_path)
    assert flags == ()
    assert {item.name: tuple(item.dims) for item in model.graph.initializer}["b"] == (1, 8)


def test_dimensions_of_zero_or_less_are_free(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    source = write(
        tmp_path / "in.onnx", nodes, [info("x", [-1, 3, 0, 8])], [info("y", [-1, 4, 0, 6])], {"w": rand(4, 3, 3, 3)}
    )
    assert normal_form(source, tmp_path / "out.onnx", [{"x": rand(2, 3, 8, 8)}]) == ((), "")
    sizes = [
        size.dim_value or None for size in onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    ]
    assert sizes == [None, 3, None, 8]


@pytest.mark.parametrize("places", [[0, 5, 11], [[0, 0], [1, 1], [2, 3]]])
def test_sparse_weights_become_dense(places: Any, tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places), ""), [4, 4])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    outline = helper.make_graph(nodes, "g", [info("x", ["n", 4])], [info("y", ["n", 4])], sparse_initializer=[sparse])
    source = tmp_path / "in.onnx"
    onnx.save(helper.make_model(outline, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(source))
    x = rand(2, 4)
    assert normal_form(source, tmp_path / "out.onnx", [{"x": x}]) == ((), "")
    full = np.zeros((4, 4), np.float32)
    full[0, 0], full[1, 1], full[2, 3] = 1, 2, 3
    np.testing.assert_allclose(
        ReferenceEvaluator(str(tmp_path / "out.onnx")).run(None, {"x": x})[0], x @ full, rtol=1e-6
    )


def test_weights_of_branches_are_reached(tmp_path: Path) -> None:
    model, _feed, _flags = read_in(in_a_branch(tmp_path / "in.onnx"), tmp_path)
    assert {"w_yes", "w_no"} <= {item.name for item in model.graph.initializer}


def test_a_shared_embedding_lies_in_the_file_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]), helper.make_node("Transpose", ["table"], ["head"]),
        helper.make_node("MatMul", ["e", "head"], ["y"]),
    ]  # fmt: skip
    inputs, outputs = [info("x", ["n"], TensorProto.INT64)], [info("y", ["n", 5000])]
    source = write(tmp_path / "in.onnx", nodes, inputs, outputs, {"table": rand(5000, 16)})
    flags, why = normal_form(source, tmp_path / "out.onnx", [{"x": np.array([1, 4999])}])
    assert (flags, why) == ((), "")
    assert (tmp_path / "out.onnx").stat().st_size < 1.1 * source.stat().st_size


def test_quantized_weights_stay_quantized(tmp_path: Path) -> None:
    weights = {"q": np.arange(-8, 8, dtype=np.int8).reshape(4, 4), "s": np.float32(0.5), "z": np.int8(0)}
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    source = write(tmp_path / "in.onnx", nodes, [info("x", ["n", 4])], [info("y", ["n", 4])], weights)
    model, _feed, _flags = read_in(source, tmp_path)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "MatMul"]


def test_an_operator_set_of_tomorrow_is_lowered_where_nothing_changed(tmp_path: Path) -> None:
    latest = onnx.defs.onnx_opset_version()
    if latest <= 26:
        pytest.skip("this onnx knows no newer operator set")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    source = write(
        tmp_path / "in.onnx",
        nodes,
        [info("x", ["n", 4])],
        [info("y", ["n", 4])],
        {"w": rand(4, 4)},
        opset=latest,
        ir=14,
    )
    flags, why = normal_form(source, tmp_path / "out.onnx", [{"x": rand(2, 4)}])
    model = onnx.load(tmp_path / "out.onnx")
    assert (flags, why) == ((), "")
    assert (model.opset_import[0].version, model.ir_version) == (26, 13)


def test_a_file_that_no_pass_can_read_is_used_as_it_came_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    source = with_row_bias(tmp_path / "in.onnx")
    monkeypatch.setattr("harness_onnx.normal.normalised", lambda model: 1 / 0)
    flags, why = normal_form(source, tmp_path / "out.onnx", [{"x": rand(2, 16)}])
    assert flags == ("as_given",)
    assert "ZeroDivisionError" in why
    assert ReferenceEvaluator(str(tmp_path / "out.onnx")).run(None, {"x": rand(2, 16)})[0].shape == (2, 8)


def test_a_normal_form_with_other_outputs_is_not_used(tmp_path: Path, monkeypatch: Any) -> None:
    def wrong(model: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.initializer[0].CopyFrom(numpy_helper.from_array(rand(16, 8), "w"))
        return copy

    monkeypatch.setattr("harness_onnx.normal.normalised", wrong)
    source = with_row_bias(tmp_path / "in.onnx")
    flags, why = normal_form(source, tmp_path / "out.onnx", [{"x": rand(2, 16)}])
    assert flags == ("as_given",)
    assert why == "output 'y' differs"
    kept = {item.name: numpy_helper.to_array(item) for item in onnx.load(tmp_path / "out.onnx").graph.initializer}
    given = {item.name: numpy_helper.to_array(item) for item in onnx.load(source).graph.initializer}
    np.testing.assert_array_equal(kept["w"], given["w"])


def test_a_file_that_is_not_valid_is_refused_in_one_sentence(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="second")]
    source = write(
        tmp_path / "in.onnx", nodes, [info("x", ["n", 3, 8, 8])], [info("y", ["n", 4, "H", "W"])], {"w": rand(4, 8)}
    )
    with pytest.raises(BadModel, match=r"not valid ONNX: node second \(Conv\)") as caught:
        refuse_invalid(source)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_a_custom_operator_is_refused_with_its_node_and_domain(tmp_path: Path) -> None:
    nodes = [helper.make_node("MyOp", ["x"], ["y"], name="mine", domain="com.acme")]
    source = write(
        tmp_path / "in.onnx",
        nodes,
        [info("x", ["n", 4])],
        [info("y", ["n", 4])],
        {},
        opsets=[helper.make_opsetid("com.acme", 1)],
    )
    with pytest.raises(BadModel, match=r"node mine is MyOp of the domain 'com\.acme'"):
        refuse_invalid(source)


def test_what_onnxruntime_runs_is_not_refused_for_a_wrong_declaration(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    source = write(tmp_path / "in.onnx", nodes, [info("x", ["n", 4])], [info("y", ["n", 9])], {"w": rand(4, 8)})
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(str(source), full_check=True)
    refuse_invalid(source)

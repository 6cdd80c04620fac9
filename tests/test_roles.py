"""Roles of a user's model file: found from its dimensions and arrays, read, bound into the file, run and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from workload_jobs import job, workload

from harness.api import Artifact, BadModel, Model, Options, TensorSpec
from harness.feeds import with_roles
from harness.measure.outputs import write_outputs
from harness.shards import load_shard
from harness_workloads.archives import read
from harness_workloads.formats import declared
from harness_workloads.labels import checked_labels
from harness_workloads.roles import Port, resolve, said
from harness_workloads.scoring import correct

ITEM, CONSTANT, STATE = "item", "constant", "state"


def found(
    inputs: dict[str, Any], outputs: dict[str, Any], shapes: dict[str, Any] | None = None, **told: str
) -> tuple[dict[str, tuple[str, int | None, tuple[int | None, ...]]], dict[str, int | None]]:
    ports = [{name: Port("float32", dims) for name, dims in side.items()} for side in (inputs, outputs)]
    known = resolve("m.onnx", *ports, shapes, said(told.get("axes", ""), told.get("states", "")), "d.npz")
    return {name: (spec.role, spec.axis, spec.shape) for name, spec in known.inputs.items()}, dict(known.axes)


@pytest.mark.parametrize(("inputs", "outputs", "shapes", "wanted", "axes"), [
    ({"x": ("b", 4)}, {"o": ("b", 2)}, {"x": (9, 4)}, {"x": (ITEM, 0, (None, 4))}, {"o": 0}),
    ({"x": (6, "b", 4)}, {"o": ("b", 8)}, {"x": (6, 30, 4)}, {"x": (ITEM, 1, (6, None, 4))}, {"o": 0}),
    ({"x": ("b", 4)}, {"o": (7, "b", 2)}, None, {"x": (ITEM, 0, (None, 4))}, {"o": 1}),
    ({"x": ("T", "batch", 4)}, {"o": ("T", "batch")}, {"x": (5, 30, 4)}, {"x": (ITEM, 1, (5, None, 4))}, {"o": 1}),
    ({"x": (16,)}, {"o": (4,)}, {"x": (30, 16)}, {"x": (ITEM, None, (16,))}, {"o": None}),
    ({"x": (4, 16)}, {"o": (4, 8)}, {"x": (30, 16)}, {"x": (ITEM, 0, (4, 16))}, {"o": 0}),
    ({"x": (1, 16)}, {"o": ("num", 3)}, {"x": (30, 16)}, {"x": (ITEM, 0, (1, 16))}, {"o": None}),
    ({"x": ("b", 16), "t": ()}, {"o": ("b", 4)}, {"x": (30, 16), "t": ()},
     {"x": (ITEM, 0, (None, 16)), "t": (CONSTANT, None, ())}, {"o": 0}),
    ({"x": ("b", 16), "t": ()}, {"o": ("b", 4)}, {"x": (30, 16), "t": (30,)},
     {"x": (ITEM, 0, (1, 16)), "t": (ITEM, None, ())}, {"o": None}),
    ({"x": ("b", 16), "size": (2,)}, {"o": ("b", 4)}, {"x": (30, 16), "size": (2,)},
     {"x": (ITEM, 0, (None, 16)), "size": (CONSTANT, None, (2,))}, {"o": 0}),
    ({"x": ("b", 3, "h", "w")}, {"o": ("b", 8)}, {"x": (30, 3, 32, 48)}, {"x": (ITEM, 0, (None, 3, 32, 48))}, {"o": 0}),
    ({"x": ("b", 3, "h", "w")}, {"o": ("b", 8)}, None, {"x": (ITEM, 0, (None, 3, 224, 224))}, {"o": 0}),
    ({"x": ("b", 576), "state": (2, "b", 128)}, {"o": ("b", 1), "stateN": (2, "b", 128)}, {"x": (30, 576)},
     {"x": (ITEM, 0, (None, 576)), "state": (STATE, 1, (2, None, 128))}, {"o": 0, "stateN": 1}),
    ({"x": ("b", 8), "h0": (1, "b", 4)}, {"o": ("b", 4), "hn": (1, "b", 4)}, {"x": (30, 8), "h0": (1, 1, 4)},
     {"x": (ITEM, 0, (None, 8)), "h0": (STATE, 1, (1, None, 4))}, {"o": 0, "hn": 1}),
    ({"x": ("b", 8), "h0": (1, "b", 4)}, {"o": ("b", 4), "hn": (1, "b", 4)}, {"x": (30, 8), "h0": (1, 30, 4)},
     {"x": (ITEM, 0, (None, 8)), "h0": (ITEM, 1, (1, None, 4))}, {"o": 0, "hn": 1}),
    ({"input": ("b", 8)}, {"output": ("b", 8)}, None, {"input": (ITEM, 0, (None, 8))}, {"output": 0}),
])  # fmt: skip
def test_roles_and_axes_are_found(inputs: Any, outputs: Any, shapes: Any, wanted: Any, axes: Any) -> None:
    assert found(inputs, outputs, shapes) == (wanted, axes)


def test_what_the_user_says_wins() -> None:
    inputs, outputs = {"x": (8, 8), "k": ("n", 3)}, {"o": (8,), "z": ("n", 3)}
    shapes = {"x": (8, 24), "k": (5, 3)}
    assert found(inputs, outputs, shapes, axes="x=1;k=none")[0] == {
        "x": (ITEM, 1, (8, 8)),
        "k": (CONSTANT, None, (5, 3)),
    }
    assert found(inputs, outputs, {"x": (16, 8)}, axes="x=0", states="k=z")[0]["k"][0] == STATE


@pytest.mark.parametrize(("told", "shapes", "words"), [
    ({"axes": "y=1"}, None, "no input 'y'"), ({"axes": "x=2"}, None, "has 2 dimensions"),
    ({"axes": "x=one"}, None, "an axis is a number"), ({"axes": "x"}, None, "takes NAME=VALUE"),
    ({"states": "x=p"}, None, "no output 'p'"), ({"axes": "x=0", "states": "x=o"}, None, "one or the other"),
    ({}, {"x": (9, 5)}, r"has shape \[9, 5\]; the model takes \[n, 4\]"), ({}, {"z": (9, 4)}, "has no array 'x'"),
    ({"axes": "x=1"}, {"x": (9, 1, 4)}, "3 dimensions where the input has 2"),
    ({"axes": "x=none"}, {"x": (1, 4)}, "no input of m.onnx differs from item to item"),
])  # fmt: skip
def test_what_does_not_fit_is_one_sentence(told: dict[str, str], shapes: Any, words: str) -> None:
    with pytest.raises(BadModel, match=words) as caught:
        found({"x": ("b", 4)}, {"o": ("b", 2)}, shapes, **told)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("name", "output", "state"), [
    ("h", "hn", True), ("state", "stateN", True), ("h_in", "h_out", True), ("past_0_key", "present_0_key", True),
    ("past_key_values.0.key", "present.0.key", True), ("c0", "cn", True), ("prev_state", "new_state", True),
    ("state", "new_state", True), ("hidden", "hidden_out", True), ("x", "logits", False), ("input", "output", False),
    ("mask", "masked", False),
])  # fmt: skip
def test_states_are_plain_by_name(name: str, output: str, state: bool) -> None:
    inputs = {"audio": ("b", 7), name: ("b", 3)}
    roles, _axes = found(inputs, {"p": ("b", 1), output: ("b", 3)})
    assert (roles[name][0] == STATE) is state


def test_arrays_are_read_items_first(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x, z = generator.normal(size=(4, 20, 3)).astype(np.float32), generator.normal(size=(20, 5)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, z=z, rate=np.array([16000]), y=z, labels=np.arange(20) % 2)
    inputs = {
        "x": TensorSpec("float32", (4, None, 3), axis=1), "z": TensorSpec("float32", (5,), axis=None),
        "rate": TensorSpec("int64", (), CONSTANT, None), "h": TensorSpec("float32", (2, None, 6), STATE, 1, "hn"),
        "y": TensorSpec("float32", (None, 5)),
    }  # fmt: skip
    arrays = read(tmp_path / "d.npz", inputs, stacked=frozenset({"z"}))
    assert list(arrays.inputs) == list(inputs)
    assert np.array_equal(arrays.inputs["x"], x.swapaxes(0, 1))
    assert np.array_equal(arrays.inputs["z"], z)
    assert arrays.inputs["rate"] == 16000
    assert arrays.inputs["h"].shape == (2, 1, 6)
    assert not arrays.inputs["h"].any()
    assert arrays.items == 20
    assert arrays.labels is not None  # an input has the name 'y', so that labels are 'labels'
    assert arrays.labels.tolist() == (np.arange(20) % 2).tolist()


def _saved(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **stored: Any) -> Path:
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in side.items()]
        for side in (inputs, outputs)
    ]
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", *sides, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _fitted(tmp_path: Path, path: Path, **params: Any) -> Model:
    work = workload("file", path=str(path), data=str(tmp_path / "d.npz"), **params)
    return work.spec.fit(work.params, job(work, tmp_path / "fit"))


def _outputs(tmp_path: Path, model: Model, target: str, arrays: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return what a target's session gives for arrays that lie as evaluation data do."""
    from harness.feeds import shard_name

    folder = tmp_path / f"data-{target}"
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / shard_name(name), array)
    session = _opened(tmp_path, model, target, "accuracy", **options)
    specs = with_roles(session.inputs, model.inputs)
    files, _batch = write_outputs(
        session.run, specs, model.axes, folder, tmp_path / f"out-{target}", batch=4, items=None
    )
    session.close()
    return {name: np.array(load_shard(file)) for name, file in files.items()}


def _opened(tmp_path: Path, model: Model, target: str, purpose: str, **options: Any) -> Any:
    if target == "onnxruntime":
        from harness_onnxruntime.params import Params
        from harness_onnxruntime.session import open_session

        artifact = Artifact(model.path, "onnx", "", "float32", "", 0, 0)
    else:
        pytest.importorskip("openvino")
        from harness_openvino.lower import _convert, _save
        from harness_openvino.params import Params  # type: ignore[assignment]
        from harness_openvino.session import open_session  # type: ignore[assignment]

        artifact = _save(_convert(model), "", (), model, tmp_path / "model.xml")
    return open_session(artifact, Params(), Options(**options), purpose)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_recurrent_file_is_run_with_its_state(tmp_path: Path, target: str) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "gain"], ["g"]), helper.make_node("Add", ["h", "g"], ["hn"]),
        helper.make_node("ReduceSum", ["hn", "axis"], ["o"], keepdims=0),
    ]  # fmt: skip
    path = _saved(
        tmp_path / "m.onnx", nodes, {"x": ["b", 3], "gain": [], "h": [1, "b", 3]}, {"o": ["b", 3], "hn": [1, "b", 3]},
        axis=np.array([0], np.int64),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, gain=np.float32(2))
    model = _fitted(tmp_path, path)
    assert [spec.role for spec in model.inputs.values()] == [ITEM, CONSTANT, STATE]
    assert model.axes == {"o": 0, "hn": 1}
    given = {"x": x, "gain": np.array(2, np.float32), "h": np.zeros((1, 1, 3), np.float32)}
    got = _outputs(tmp_path, model, target, given)
    assert got["o"] == pytest.approx(2 * np.cumsum(x, axis=0), abs=1e-4)
    session = _opened(tmp_path, model, target, "latency", batch=2)
    assert {name: spec.shape for name, spec in session.inputs.items()} == {"x": (2, 3), "gain": (), "h": (1, 2, 3)}
    session.close()


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_items_on_any_axis_give_what_the_reference_gives(tmp_path: Path, target: str) -> None:
    weights = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["o"]), helper.make_node("ReduceMax", ["o"], ["top"], keepdims=0),
        helper.make_node("Identity", ["k"], ["fixed"]),
    ]  # fmt: skip
    path = _saved(
        tmp_path / "m.onnx", nodes, {"x": [5, "b", 3]}, {"o": [5, "b", 2], "top": [], "fixed": [2]},
        w=weights, k=np.array([1, 2], np.float32),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(5, 20, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    model = _fitted(tmp_path, path)
    assert model.axes == {"o": 1, "top": None, "fixed": None}
    got = _outputs(tmp_path, model, target, {"x": x.swapaxes(0, 1)})
    reference = ReferenceEvaluator(str(path))
    for item in range(20):
        wanted = dict(zip(("o", "top", "fixed"), reference.run(None, {"x": x[:, item : item + 1]}), strict=True))
        assert got["o"][item] == pytest.approx(wanted["o"][:, 0], abs=1e-5)
        assert got["top"][item] == pytest.approx(float(wanted["top"]), abs=1e-5)
    assert np.array_equal(got["fixed"], [[1, 2]] * 20)


@pytest.mark.parametrize("dims", [["?", 3, "?", "?"], ["b", 3, "s", "s"], [-1, 3, "?", "?"]])
def test_free_dimensions_of_one_name_may_have_unlike_sizes(tmp_path: Path, dims: list[Any]) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["o"])]
    path = _saved(tmp_path / "m.onnx", nodes, {"x": dims}, {"o": [dims[0], 4, "?", "?"]}, w=weights)
    x = np.random.default_rng(0).normal(size=(20, 3, 6, 12)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    model = _fitted(tmp_path, path)
    assert model.inputs["x"].shape == (None, 3, 6, 12)
    got = _outputs(tmp_path, model, "onnxruntime", {"x": x})["o"]
    assert got == pytest.approx(ReferenceEvaluator(str(path)).run(None, {"x": x})[0], abs=1e-4)


def test_an_output_that_is_not_as_its_file_says_has_the_axis_of_the_batch(tmp_path: Path) -> None:
    """A recognizer declares [1, length] and gives [length, 1, classes], as one that is widely used does."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), helper.make_node("MatMul", ["t", "w"], ["o"]),
    ]  # fmt: skip
    weights = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    path = _saved(tmp_path / "m.onnx", nodes, {"x": [1, "length", 4]}, {"o": [1, "classes"]}, w=weights)
    x = np.random.default_rng(1).normal(size=(20, 7, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    model = _fitted(tmp_path, path)
    assert model.axes == {"o": 1}
    got = _outputs(tmp_path, model, "onnxruntime", {"x": x})["o"]
    assert got.reshape(20, 7, 5) == pytest.approx(x @ weights, abs=1e-4)


def test_an_output_that_is_an_input_has_a_name_of_its_own(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["o"])]
    path = _saved(tmp_path / "m.onnx", nodes, {"x": ["b", 3]}, {"o": ["b", 3], "x": ["b", 3]})
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    model = _fitted(tmp_path, path)
    assert model.outputs == ("o", "x_output")
    for target in ("onnxruntime", "openvino"):
        got = _outputs(tmp_path, model, target, {"x": x})
        assert np.array_equal(got["x_output"], x)
        assert np.array_equal(got["o"], -x)


def test_a_file_that_takes_one_item_alone_is_fixed_to_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["o"])]
    path = _saved(tmp_path / "m.onnx", nodes, {"x": ["b", 6]}, {"o": ["b", 3]}, shape=np.array([2, 3], np.int64))
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32))
    assert _fitted(tmp_path, path).inputs["x"].shape == (1, 6)


def test_an_output_of_a_call_of_one_that_has_no_batch_belongs_to_the_call(tmp_path: Path) -> None:
    """A state of one item fixes the batch, and the output that is declared per item holds four scores."""
    nodes = [
        helper.make_node("Add", ["x", "h"], ["sum"]), helper.make_node("MatMul", ["sum", "w"], ["scores"]),
        helper.make_node("Reshape", ["scores", "flat"], ["o"]),
    ]  # fmt: skip
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    path = _saved(tmp_path / "m.onnx", nodes, {"x": ["b", 3], "h": [1, 3]}, {"o": ["b"]}, w=weights, flat=np.array([4]))
    x = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, h=np.ones((1, 3), np.float32))
    model = _fitted(tmp_path, path)
    assert (model.inputs["x"].shape, model.axes) == ((1, 3), {"o": None})
    got = _outputs(tmp_path, model, "onnxruntime", {"x": x, "h": np.ones((1, 3), np.float32)})["o"]
    assert got.reshape(20, 4) == pytest.approx((x + 1) @ weights, abs=1e-4)


@pytest.mark.parametrize(("elem", "words"), [(TensorProto.STRING, "takes strings"), (TensorProto.BFLOAT16, "bfloat16")])
def test_inputs_that_cannot_be_fed_are_one_sentence(tmp_path: Path, elem: int, words: str) -> None:
    item = helper.make_tensor_value_info("s", elem, ["b", 4])
    out = helper.make_tensor_value_info("o", elem, ["b", 4])
    graph = helper.make_graph([helper.make_node("Identity", ["s"], ["o"])], "g", [item], [out])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(BadModel, match=words):
        declared(tmp_path / "m.onnx")


def test_labels_of_positions_are_scored_along_the_axis_of_the_classes() -> None:
    generator = np.random.default_rng(0)
    logits, masks = generator.normal(size=(6, 3, 4, 5)), generator.integers(0, 3, (6, 4, 5))
    wanted = (logits.argmax(1) == masks).mean((1, 2))
    assert correct({"o": logits}, masks)[:, 0] == pytest.approx(wanted)
    tokens = generator.integers(0, 9, (6, 7))
    steps = generator.normal(size=(6, 7, 9))
    assert correct({"o": steps}, tokens)[:, 0] == pytest.approx((steps.argmax(2) == tokens).mean(1))
    assert correct({"o": np.array([1, 0, 2])}, np.array([1, 1, 2])).tolist() == [[1], [0], [1]]
    assert correct({"o": np.array([[0.2], [0.7]])}, np.array([0, 0])).tolist() == [[1], [0]]
    assert correct({"o": np.array([[-3.0], [0.2]])}, np.array([0, 1])).tolist() == [[1], [1]]


def test_labels_are_checked_against_the_first_output() -> None:
    def check(labels: Any, *dims: int | str, axis: int | None = None) -> Any:
        return checked_labels(np.array(labels), "'y'", first=Port("float32", ("n", *dims)), axis=axis, task="")

    assert check(["b", "a", "b"], 2).tolist() == [1, 0, 1]
    assert check([0, 1, 1], 1).tolist() == [0, 1, 1]
    assert check([[[0, 1], [2, 0]]], 3, 2, 2).shape == (1, 2, 2)
    assert check([[[0, 1], [2, 0]]], 2, 2, 3, axis=-1).shape == (1, 2, 2)
    with pytest.raises(BadModel, match="without the axis of the classes"):
        check([[[0, 1], [2, 0]]], 5)
    with pytest.raises(BadModel, match="but the model has 3 outputs"):
        check([5, 6], 3)

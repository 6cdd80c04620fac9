"""``harness inspect``: what a model holds is counted by hand here; what targets say of it comes from the runtimes."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_files
import pytest
import tflite_files
import torch
from onnx import TensorProto, helper, numpy_helper, save

from harness.api import Inspected, Model, Precision, TensorSpec
from harness.build.inspecting import findings_of
from harness.cli.main import call
from harness.plugins import load_registry

INT8 = Precision("int8", "int8", "static")
Shape = list[Any]


class Tied(torch.nn.Module):
    """A convolution, and one matrix that is used three times: by two layers, and by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4, 4)
        self.tied = torch.nn.Linear(4, 4)
        self.tied.weight = self.head.weight

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(image)).mean((2, 3))
        return torch.matmul(self.tied(self.head(x)), self.head.weight)


def read(model: Model, **shapes: tuple[int, ...]) -> Inspected:
    return load_registry().inspectors[model.format].spec.inspect(model, shapes)


def nan_weights(model: Model) -> dict[str, int]:
    count = load_registry().inspectors[model.format].spec.nan_weights
    assert count is not None
    return dict(count(model))


FLOAT = Precision()


def ask(target: str, model: Model, precision: Precision = FLOAT) -> list[str]:
    spec = load_registry().targets[target].spec
    found = findings_of(spec, dataclasses.replace(model, precision=precision), spec.params())
    return [finding.text for finding in found if finding.stops]


def graph_file(path: Path, nodes: list[Any], *, inputs: dict[str, Shape], outputs: dict[str, Shape],
               weights: dict[str, np.ndarray], domains: tuple[str, ...] = ()) -> Model:  # fmt: skip
    """Write a graph that may hold operators of other domains and subgraphs."""

    def values(shapes: dict[str, Shape]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), stored)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="a test"), str(path))
    return Model("onnx", path, {name: TensorSpec("float32", (None, *shape[1:])) for name, shape in inputs.items()},
                 tuple(outputs))  # fmt: skip


def constant(name: str, value: np.ndarray) -> Any:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def branch(name: str, weight: np.ndarray) -> Any:
    """A branch of If: a matrix product of x, which it takes from outside, with a weight of its own."""
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    product = helper.make_node("MatMul", ["x", f"{name}.w"], [name])
    return helper.make_graph([constant(f"{name}.w", weight), product], name, [], [out])


@pytest.fixture
def forked(tmp_path: Path) -> Model:
    """Two branches with products of 16 x 8 each, and one of 16 x 4 with a stored weight."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["z"], then_branch=branch("a", np.ones((16, 8), np.float32)),
                         else_branch=branch("b", np.ones((16, 8), np.float32))),
    ]  # fmt: skip
    weights = {"w": np.ones((16, 4), np.float32), "zero": np.array(0, np.float32)}
    return graph_file(
        tmp_path / "forked.onnx", nodes, inputs={"x": ["n", 16]}, outputs={"z": ["n", 8]}, weights=weights
    )


def test_an_onnx_file_is_counted_with_its_subgraphs(forked: Model) -> None:
    found = read(forked, x=(1, 16))
    assert {item.op: (item.count, item.macs) for item in found.operators} == {
        "MatMul": (3, 16 * 4 + 2 * 16 * 8), "ReduceSum": (1, None), "Greater": (1, None), "If": (1, None),
    }  # fmt: skip
    assert [(item.where, item.dtype, item.tensors, item.bytes) for item in found.weights] == [
        ("Constant nodes of subgraphs", "float32", 2, 2 * 16 * 8 * 4), ("initializers", "float32", 2, 16 * 4 * 4 + 4),
    ]  # fmt: skip
    assert found.producer == "a test"
    assert found.versions == {"opset": "17", "IR": "9"}
    assert any("control flow (If) holds 4 of 8 operators" in remark for remark in found.remarks)


def test_macs_of_a_convolution_net_are_those_known_by_hand(tmp_path: Path) -> None:
    model = onnx_files.conv_net(tmp_path)
    name = next(iter(model.inputs))
    found = {item.op: item.macs for item in read(model, **{name: (1, 3, 16, 16)}).operators}
    assert found["Conv"] == onnx_files.CONV_MACS["conv0"] + onnx_files.CONV_MACS["conv1"]
    assert found["Gemm"] == onnx_files.CONV_MACS["head"]


def test_free_sizes_without_data_are_said(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 3, "h", "w"]}, outputs={"y": ["n", 2, "a", "b"]},
                       weights={"w": np.ones((2, 3, 3, 3), np.float32)})  # fmt: skip
    assert any("1 layer are not counted: sizes are free" in remark for remark in read(model).remarks)


def test_values_that_spoil_ranges_and_results_are_named(tmp_path: Path) -> None:
    weights = {"w": np.array([[np.nan, 1.0]], np.float32), "mask": np.array([[0, -np.inf]], np.float32)}
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"]), helper.make_node("Add", ["y", "mask"], ["z"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 2]}, outputs={"z": ["n", 2]}, weights=weights)
    told = " ".join(read(model).remarks)
    assert "1 weight with NaN ('w')" in told
    assert "1 constant infinite or huge" in told


def test_weights_that_hold_nan_are_counted_in_every_format_that_methods_give(tmp_path: Path) -> None:
    weights = {"w": np.array([[np.nan, 1.0], [np.nan, 0.0]], np.float32), "mask": np.array([[0, -np.inf]], np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Add", ["y", "mask"], ["z"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 2]}, outputs={"z": ["n", 2]}, weights=weights)
    assert nan_weights(model) == {"w": 2}
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).eval()
    torch.save(module, tmp_path / "model.pt")
    like = Model("torch", tmp_path / "model.pt", {"x": TensorSpec("float32", (None, 2))}, ("y",))
    assert nan_weights(like) == {}
    module[0].weight.data[1, :] = torch.nan
    module[1].running_var[0] = torch.nan
    torch.save(module.half(), tmp_path / "model.pt")
    assert nan_weights(like) == {"0.weight": 2, "1.running_var": 1}


def test_external_data_are_a_place_of_their_own(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 64]}, outputs={"y": ["n", 64]},
                       weights={"w": np.ones((64, 64), np.float32)})  # fmt: skip
    import onnx

    onnx.save_model(
        onnx.load(str(model.path)), str(tmp_path / "out.onnx"), save_as_external_data=True, size_threshold=0
    )
    outside = Model("onnx", tmp_path / "out.onnx", model.inputs, model.outputs)
    assert [(item.where, item.bytes) for item in read(outside, x=(1, 64)).weights] == [("external data", 64 * 64 * 4)]


def test_a_tflite_file_is_counted(tmp_path: Path) -> None:
    path = tflite_files.separable(tmp_path / "m.tflite", 0.0, channels=16, size=8, blocks=2)
    found = read(Model("tflite", path, {"x": TensorSpec("float32", (1, 16, 16, 3))}, ("mean",)))
    stem, point, depth = 64 * 16 * 27, 64 * 16 * 16, 64 * 16 * 9
    counted = {item.op: (item.count, item.macs) for item in found.operators}
    assert counted["Conv"] == (3, stem + 2 * point)
    assert counted["DepthwiseConv"] == (2, 2 * depth)
    floats = next(item for item in found.weights if item.dtype == "float32")
    assert floats.bytes == 4 * (16 * 27 + 16 + 2 * (16 * 16 + 9 * 16))


def test_a_module_is_counted_by_layer_and_by_function(tmp_path: Path) -> None:
    torch.save(Tied().eval(), tmp_path / "model.pt")
    found = read(Model("torch", tmp_path / "model.pt", {"image": TensorSpec("float32", (None, 3, 8, 8))}, ("y",)),
                 image=(1, 3, 8, 8))  # fmt: skip
    counted = {item.op: (item.count, item.macs) for item in found.operators}
    assert counted["Conv2d"] == (1, 64 * 4 * 27)
    assert counted["Linear"] == (2, 2 * 16)
    assert counted["matmul"] == (0, 16)
    assert counted["BatchNorm2d"] == (1, None)
    assert any("shared by several layers: 1" in remark for remark in found.remarks)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_target_names_the_operator_that_it_lacks(target: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Fold", ["x"], ["y"], name="fold", domain="com.acme")]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 4]}, outputs={"y": ["n", 4]}, weights={},
                       domains=("com.acme",))  # fmt: skip
    (told,) = ask(target, model)
    assert "Fold" in told
    assert "Traceback" not in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_precision_with_nothing_to_act_on_is_said(target: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"a": ["n", 4, 8], "b": ["n", 8, 4]},
                       outputs={"y": ["n", 4, 4]}, weights={})  # fmt: skip
    assert ask(target, model) == []
    (told,) = ask(target, model, INT8)
    assert "none of its 1 has stored weights" in told


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_net_that_runs_has_nothing_said_against_it(target: str, tmp_path: Path) -> None:
    model = onnx_files.conv_net(tmp_path)
    assert ask(target, model) == []
    assert ask(target, model, INT8) == []


def test_the_tflite_target_names_what_its_runtime_refuses(tmp_path: Path) -> None:
    path = tflite_files.separable(tmp_path / "m.tflite", 0.0)
    model = Model("tflite", path, {"x": TensorSpec("float32", (1, 16, 16, 3))}, ("mean",))
    for target in ("tflite", "openvino"):
        assert ask(target, model) == []
        assert ask(target, model, INT8) == []
    short = path.read_bytes()
    code = importlib.import_module("ai_edge_litert.schema_py_generated")
    held = code.ModelT.InitFromObj(code.Model.GetRootAs(short))
    held.operatorCodes[0].builtinCode = code.BuiltinOperator.CUSTOM
    held.operatorCodes[0].deprecatedBuiltinCode = code.BuiltinOperator.CUSTOM
    held.operatorCodes[0].customCode = "AcmeFold"
    path.write_bytes(importlib.import_module("harness_tflite.flatbuffer").pack(held))
    (told,) = ask("tflite", model)
    assert "no kernel for the custom operator AcmeFold" in told
    assert "harness inspect" not in told  # where the reader is already


def test_layers_that_a_quantizer_does_not_reach_are_counted(forked: Model) -> None:
    spec = load_registry().targets["onnxruntime"].spec
    (found,) = findings_of(spec, dataclasses.replace(forked, precision=INT8), spec.params())
    assert found.text == "2 of 3 layers lie in branches or loops, which the quantizer does not enter"
    assert not found.stops


def inspect_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert call(["inspect", "--json", *args]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_command_tells_interface_contents_and_targets(forked: Model, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(
        capsys, str(forked.path), "--targets", "onnxruntime", "--methods", "baseline,int8,distillation"
    )
    assert [(item["name"], item["dtype"], item["role"], item["axis"]) for item in found["inputs"]] == [
        ("x", "float32", "item", 0)
    ]
    assert [item["name"] for item in found["outputs"]] == ["z"]
    assert found["file"]["versions"]["opset"] == "17"
    verdicts = {item["method"]: item["stops"] for item in found["targets"]}
    assert verdicts["baseline"] == verdicts["int8"] == ""
    assert "labelled training data" in verdicts["distillation"]


def test_the_text_is_readable(forked: Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["inspect", str(forked.path), "--targets", "onnxruntime,torch", "--methods", "int8"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[1:])) <= 100  # the first holds the path
    assert "onnxruntime\n    baseline, int8: can be built" in out
    assert "torch: no: takes torch" in out


def test_data_that_do_not_fit_are_told_beside_the_interface(
    forked: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "d.npz", wrong=np.zeros((20, 16), np.float32))
    found = inspect_json(capsys, str(forked.path), "--data", str(tmp_path / "d.npz"), "--targets", "onnxruntime")
    assert "no array 'x'" in found["data_problem"]
    assert found["inputs"][0]["name"] == "x"


def test_an_invalid_file_is_shown_with_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="flat")]  # the kernel has no height and width
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 3, 8, 8]}, outputs={"y": ["n", 2, 8, 8]},
                       weights={"w": np.ones((2, 3), np.float32)})  # fmt: skip
    found = inspect_json(capsys, str(model.path), "--targets", "onnxruntime", "--methods", "int8")
    assert "flat" in found["problem"]
    assert found["file"]["operators"] == [{"op": "Conv", "count": 1, "macs": None}]
    assert all("flat" in item["stops"] for item in found["targets"] if item["method"] == "baseline")


def test_free_sizes_come_from_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 3, "h", "w"]}, outputs={"y": ["n", 2, "a", "b"]},
                       weights={"w": np.ones((2, 3, 3, 3), np.float32)})  # fmt: skip
    images = np.random.default_rng(0).normal(size=(20, 3, 10, 12)).astype(np.float32)  # equal ones share a split
    np.savez(tmp_path / "d.npz", x=images)
    args = (str(model.path), "--targets", "onnxruntime", "--methods", "int8")
    without = inspect_json(capsys, *args)
    assert without["problem"] is None
    assert without["file"]["operators"][0]["macs"] == 222 * 222 * 2 * 27  # images are taken for 224 x 224
    found = inspect_json(capsys, *args, "--data", str(tmp_path / "d.npz"))
    assert found["problem"] is None
    assert found["file"]["operators"][0]["macs"] == 8 * 10 * 2 * 27


def test_a_factory_is_inspected_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inspected_factory.py").write_text("""
from harness_workloads import UserWorkload

def make():
    import numpy as np, torch
    items = np.zeros((40, 6), np.float32)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    return UserWorkload(model=net, inputs={"x": items}, labels=np.zeros(40, np.int64), epochs=10**9)
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = inspect_json(capsys, "--workload", "inspected_factory:make", "--targets", "torch", "--methods", "int8")
    assert {item["op"]: item["macs"] for item in found["prepared"]["operators"]} == {"Linear": 40, "ReLU": None}
    assert found["targets"][0]["stops"] == ""


@pytest.mark.parametrize(("args", "told"), [
    ((), "one MODEL file, or --workload"),
    (("{model}", "--workload", "a:b"), "one MODEL file, or --workload"),
    (("{text}",), "--model takes a .onnx, .pt2 or .tflite file"),
])  # fmt: skip
def test_what_cannot_be_inspected_is_refused(
    args: tuple[str, ...], told: str, forked: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("no model")
    assert call(["inspect", *(arg.format(model=forked.path, text=tmp_path / "a.txt") for arg in args)]) == 2
    assert told in capsys.readouterr().err


def test_a_broken_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no protobuf at all")
    assert call(["inspect", str(tmp_path / "m.onnx"), "--targets", "onnxruntime"]) == 2
    assert "is no ONNX file" in capsys.readouterr().err


def test_a_refusal_points_to_it(forked: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "d.npz", wrong=np.zeros((20, 16), np.float32))
    args = ["bench", "--model", str(forked.path), "--data", str(tmp_path / "d.npz"), "--targets", "onnxruntime"]
    assert call([*args, "--out", str(tmp_path / "results")]) == 2
    assert f"see 'harness inspect {forked.path}'" in capsys.readouterr().err


def test_roles_are_shown_and_may_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Add", ["x", "h"], ["hn"]), helper.make_node("Mul", ["hn", "rate"], ["y"])]
    model = graph_file(tmp_path / "m.onnx", nodes, inputs={"x": ["n", 4], "h": ["n", 4], "rate": []},
                       outputs={"y": ["n", 4], "hn": ["n", 4]}, weights={})  # fmt: skip
    args = (str(model.path), "--targets", "onnxruntime", "--methods", "baseline")
    found = {item["name"]: (item["role"], item["source"]) for item in inspect_json(capsys, *args)["inputs"]}
    assert found == {"x": ("item", ""), "h": ("state", "hn"), "rate": ("constant", "")}
    said = inspect_json(capsys, *args, "--state", "x=hn")["inputs"][0]
    assert (said["role"], said["source"]) == ("state", "hn")


def test_a_program_of_torch_export_is_shown_with_what_it_multiplies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).eval()
    program = torch.export.export(net, (torch.zeros(2, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "m.pt2")
    found = inspect_json(capsys, str(tmp_path / "m.pt2"), "--targets", "torch", "--methods", "baseline")
    assert sum(item["macs"] or 0 for item in found["file"]["operators"]) == 6 * 5 + 5 * 2
    assert found["targets"][0]["stops"] == ""

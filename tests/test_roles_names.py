"""Names bind: the inputs of a model keep their call order and their names on every way to a session."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness import codec
from harness.build import keys
from harness.types import Model, TensorSpec

SPEC = TensorSpec("float32", (None, 1))


def _model(*names: str, path: Path = Path("m.onnx")) -> Model:
    return Model("onnx", path, dict.fromkeys(names, SPEC), ("o",))


def test_stored_models_keep_the_call_order() -> None:
    model = _model("zeta", "alpha", "mid")
    for again in (codec.from_data(Model, codec.to_data(model)), codec.loads(Model, codec.dumps(model))):
        assert list(again.inputs) == ["zeta", "alpha", "mid"]
    assert list(json.loads(codec.dumps({"b": 1, "a": 2}, indent=1))) == ["b", "a"]


def test_hashes_ignore_the_order_of_a_mapping_but_a_step_sees_that_of_its_inputs() -> None:
    assert codec.sha256({"b": 1, "a": 2}) == codec.sha256({"a": 2, "b": 1})
    one, other = (keys.file_inputs(_model(*names), "same") for names in (("z", "a"), ("a", "z")))
    assert keys.key_of(one) != keys.key_of(other)


def test_openvino_binds_ports_by_name_in_any_order_that_is_asked_for(tmp_path: Path) -> None:
    onnx, openvino = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    from onnx import helper

    from harness_openvino.lower import _convert

    free = {name: helper.make_tensor_value_info(name, 1, ["b", 1]) for name in ("zeta", "alpha", "o", "twice")}
    nodes = [
        helper.make_node("Sub", ["zeta", "alpha"], ["o"]),
        helper.make_node("Add", ["zeta", "zeta"], ["twice"]),
    ]
    graph = helper.make_graph(nodes, "g", [free["zeta"], free["alpha"]], [free["o"], free["twice"]])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    zeta, alpha = np.array([[5.0]], np.float32), np.array([[2.0]], np.float32)
    for inputs in (("zeta", "alpha"), ("alpha", "zeta")):
        for outputs in (("o", "twice"), ("twice", "o")):
            model = Model("onnx", path, dict.fromkeys(inputs, SPEC), outputs)
            compiled = openvino.Core().compile_model(_convert(model), "CPU")
            results = compiled({"zeta": zeta, "alpha": alpha})
            assert results["o"] == zeta - alpha
            assert results["twice"] == 2 * zeta


def test_openvino_refuses_names_that_the_file_has_not(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    from onnx import helper

    from harness.api import Unsupported
    from harness_openvino.lower import _convert

    value = [helper.make_tensor_value_info(name, 1, ["b", 1]) for name in ("x", "o")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "g", value[:1], value[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(Unsupported, match="no 'other'"):
        _convert(_model("other", path=path))

"""What a plugin author tests: the parts that compute, and the session against known values."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import harness_example
import numpy as np
import pytest
from harness_example import clipping, reference

from harness.api import Job, Model, NoParams, Options, Precision, TensorSpec, Unsupported


def test_offers() -> None:
    assert [spec.name for spec in harness_example.harness_methods()] == ["weight-clipping"]
    assert [spec.name for spec in harness_example.harness_targets()] == ["onnx-reference"]


def test_clipping_keeps_the_percentile_and_the_biases() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(10, 10)
    values = torch.arange(1.0, 101.0).reshape(10, 10)
    with torch.no_grad():
        layer.weight.copy_(-values)
        layer.bias.fill_(1000)
    clipping.clip(layer, 90)
    assert torch.equal(layer.weight, -values.clamp(max=90))
    assert torch.equal(layer.bias, torch.full((10,), 1000.0))


def test_probe_runs() -> None:
    found = reference.probe(NoParams())
    assert found.available, found.reason


@pytest.fixture
def model(tmp_path: Path) -> Model:
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "weight")
    row = onnx.helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, ["batch", 3])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, ["batch", 2])
    node = onnx.helper.make_node("MatMul", ["row", "weight"], ["out"], name="product")
    path = tmp_path / "source.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "net", [row], [out], [weight])), str(path))
    return Model("onnx", path, {"row": TensorSpec("float32", (None, 3))}, ("out",))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    out = tmp_path / "out"
    out.mkdir()
    nothing = None  # this target looks at neither data nor workload
    return Job(out, 0, 1, nothing, nothing, lambda *_: None, logging.getLogger("harness"))  # type: ignore[arg-type]


def test_session_computes_the_product(model: Model, job: Job) -> None:
    artifact = reference.lower(model, NoParams(), Options(), job)
    session = reference.open_session(artifact, NoParams(), Options(), "accuracy")
    rows = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(session.run({"row": rows})["out"], np.arange(6).reshape(3, 2))
    assert [(place.op, place.macs) for place in session.placements()] == [("MatMul", 6)]
    session.close()


def test_other_precisions_are_not_applicable(model: Model, job: Job) -> None:
    wanted = dataclasses.replace(model, precision=Precision("int8", "int8", "static"))
    with pytest.raises(Unsupported, match="float32 only"):
        reference.lower(wanted, NoParams(), Options(), job)

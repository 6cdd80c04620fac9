"""What a method leaves goes through PyTorch's exporter, and the file still has the property that is stored."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
from jobs import compress, make_job, trained

from harness.api import Model, Options
from harness_onnx import export
from harness_torch import call, load

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

METHODS = {
    spec.name: spec
    for plugin in ("pruning", "binarization", "decomposition", "distillation")
    for spec in importlib.import_module(f"harness_{plugin}").harness_methods()
}
pytestmark = pytest.mark.slow


def _weights(path: Path) -> list[np.ndarray]:
    values = [onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer]
    return [value for value in values if value.ndim == 4]


HOME = {"head-pruning": "transformer"}


def _exported(name: str, tmp_path: Path) -> tuple[Model, Model]:
    workload = HOME.get(name, "cnn")
    job = make_job(tmp_path, workload)
    asked = {"epochs": 1} if "epochs" in METHODS[name].params.__dataclass_fields__ else {}
    result = compress(METHODS[name], trained(tmp_path, workload, epochs=1), job, **asked)
    return result, export(result, Options(), dataclasses.replace(job, out=tmp_path))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_exported_file_computes_the_same(name: str, tmp_path: Path) -> None:
    model, exported = _exported(name, tmp_path)
    inputs = make_job(tmp_path).data.split("selection").inputs
    session = ort.InferenceSession(str(exported.path))
    expected = call(load(model), inputs)["output0"]
    assert np.allclose(session.run(None, dict(inputs))[0], expected, atol=1e-4)
    assert exported.precision == model.precision
    if name == "binarization":  # folded normalisation scales a channel, so it has two values still
        inner = [weight for weight in _weights(exported.path) if weight.shape[1] > 1]
        assert all(len(np.unique(channel)) == 2 for weight in inner for channel in weight)
    if name == "n-m-pruning":
        (inner,) = (weight for weight in _weights(exported.path) if weight.shape == (8, 8, 3, 3))
        assert ((np.moveaxis(inner, 1, -1).reshape(-1, 4) == 0).sum(1) == 2).all()
    if name == "magnitude-pruning":
        assert sum((weight == 0).sum() for weight in _weights(exported.path)) >= 0.5 * 8 * 8 * 9

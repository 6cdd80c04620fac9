"""What mixed precision says of a recurrent layer holds in the file, or is refused where it cannot be told apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
import torch
from jobs import make_job
from torch import nn

from harness.api import Model, Options, Precision, Unsupported
from harness.plugins import load_registry
from harness_onnx import layer_nodes
from harness_openvino.ir import weight_spans
from harness_torch import new_model

for library in ("onnxruntime", "onnxscript", "openvino", "nncf", "litert_torch", "ai_edge_quantizer"):
    pytest.importorskip(library)
pytestmark = pytest.mark.slow  # the first export of a process imports torch.onnx: 10 s and more

STATIC = Precision("int8", "int8", "static")
NARROW = Precision("int4", "float32", "weight-only")
REGISTRY = load_registry()


class Rows(nn.Module):
    """Recurrent layers over the rows of an image, of one size so that only their values tell them apart."""

    def __init__(self, kind: type[nn.RNNBase], *, apart: bool = False) -> None:
        super().__init__()
        layers, parts = (1, 2) if apart else (2, 1)
        self.parts = nn.ModuleList(kind(8, 8, layers, batch_first=True) for _ in range(parts))
        self.head = nn.Linear(8, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = image.squeeze(1)
        for part in self.parts:
            value = part(value)[0]
        return self.head(value[:, -1])


def exported(module: nn.Module, tmp_path: Path, kind: str) -> Model:
    job = make_job(tmp_path)
    torch.manual_seed(0)
    model = new_model(module.eval(), job, job.workload.inputs, job.workload.outputs)
    spec = next(item for item in REGISTRY.exporters.values() if item.spec.produces == kind).spec
    return spec.export(model, Options(), make_job(tmp_path))


def matrices(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters() if ".weight_" in name]


def lowered(model: Model, target: str, tmp_path: Path, precision: Precision, kept: dict[str, str]):
    spec = REGISTRY.targets[target].spec
    model = dataclasses.replace(model, precision=dataclasses.replace(precision, overrides=kept))
    return spec, spec.lower(model, spec.params(), Options(), make_job(tmp_path))


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_the_node_of_each_matrix_is_found(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    module = Rows(kind)
    model = exported(module, tmp_path, "onnx")
    nodes = [node for node in onnx.load(model.path).graph.node if node.op_type == kind.__name__]
    found = {name: layer_nodes(model.path, name, model.names) for name in matrices(module)}
    assert found == {
        f"parts.0.weight_{place}_l{level}": [node.name] for level, node in enumerate(nodes) for place in ("ih", "hh")
    }


@pytest.mark.parametrize(("kind", "level"), [(nn.GRU, 0), (nn.LSTM, 1)])
def test_litert_keeps_the_matrices_that_are_named(kind: type[nn.RNNBase], level: int, tmp_path: Path) -> None:
    """Eight steps multiply by the matrix on the inputs, seven by the one on the state, which begins as zero."""
    module = Rows(kind)
    kept = [name for name in matrices(module) if name.endswith(f"_l{level}")]
    model = exported(module, tmp_path, "tflite")
    spec, artifact = lowered(model, "tflite", tmp_path, STATIC, dict.fromkeys(kept, "float32"))
    session = spec.open(artifact, spec.params(), Options(), "latency")
    places = [place for place in session.placements() if place.macs]
    session.close()
    floats = sum(place.macs for place in places if place.precision == "float32")
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    assert floats == sum(sizes[name] * (8 if "weight_ih" in name else 7) for name in kept)
    assert sum(place.macs for place in places) > floats


def test_openvino_keeps_an_lstm_that_is_named(tmp_path: Path) -> None:
    """NNCF rounds the matrices of an LSTM, though the kernel computes in float32."""
    module = Rows(nn.LSTM)
    model = exported(module, tmp_path, "onnx")
    stored = []
    for kept in ({}, dict.fromkeys(matrices(module), "float32")):
        _spec, artifact = lowered(model, "openvino", tmp_path, STATIC, kept)
        stored.append(sorted(span.dtype for span in weight_spans(artifact.path) if span.shape[-2:] == (32, 8)))
    assert stored == [["int8"] * 4, ["float32"] * 4]


def test_openvino_refuses_to_keep_one_of_two_layers_of_one_size(tmp_path: Path) -> None:
    module = Rows(nn.LSTM, apart=True)
    model = exported(module, tmp_path, "onnx")
    some = dict.fromkeys(["parts.1.weight_ih_l0", "parts.1.weight_hh_l0"], "float32")
    with pytest.raises(Unsupported, match="several recurrent layers of its size"):
        lowered(model, "openvino", tmp_path, STATIC, some)
    lowered(model, "openvino", tmp_path, STATIC, dict.fromkeys(matrices(module), "float32"))


def test_onnxruntime_says_how_many_layers_stay_float(tmp_path: Path) -> None:
    module = Rows(nn.GRU)
    model = exported(module, tmp_path, "onnx")
    _spec, artifact = lowered(model, "onnxruntime", tmp_path, NARROW, dict.fromkeys(matrices(module), "int8"))
    assert "0 layers with int8 weights, 2 left float32" in artifact.how

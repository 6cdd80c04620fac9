"""Export of torch modules: one file with a free batch, or a reason."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_files import Items
from torch import nn

from harness.api import Job, Model, Options, Precision, TensorSpec, Unsupported
from harness_onnx import export, model_io
from harness_torch import call, load

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow  # the first export of a process imports torch.onnx: 10 s and more


class Pair(nn.Module):
    """Two inputs, two outputs, a folded norm and a weight that export transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.mix = nn.Linear(4, 6, bias=False)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = (self.norm(self.conv(value)).mean((2, 3)) for value in (a, b))
        return self.mix(left.unsqueeze(1)).squeeze(1), left - right


class Chooses(nn.Module):
    """A choice, its score and which scores are positive, by an einsum with a weight of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 8))

    def forward(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores = torch.einsum("bi,oi->bo", a, self.weight)
        return scores.argmax(1), scores.max(1).values, scores > 0


class Changing(nn.Module):
    """A module that gives something else at every call, so that no file can agree with it."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a + time.monotonic_ns() % 1_000_003


def make(
    module: nn.Module, tmp_path: Path, inputs: dict[str, tuple[int, ...]], outputs: tuple[str, ...]
) -> tuple[Model, Job]:
    torch.manual_seed(0)
    torch.save(module.eval(), tmp_path / "model.pt")
    specs = {name: TensorSpec("float32", (None, *shape)) for name, shape in inputs.items()}
    rng = np.random.default_rng(0)
    items = Items({name: rng.standard_normal((4, *shape)).astype(np.float32) for name, shape in inputs.items()})
    workload: Any = SimpleNamespace(inputs=specs, outputs=outputs)
    out = tmp_path / "out"
    out.mkdir()
    job = Job(out, 0, 1, items, workload, lambda share, words: None, logging.getLogger("harness"))
    return Model("torch", tmp_path / "model.pt", specs, outputs, Precision(weights="int8"), flags=("note",)), job


def test_export_keeps_names_and_facts_and_computes_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, job = make(Pair(), tmp_path, {"left": (1, 8, 8), "right": (1, 8, 8)}, ("mixed", "difference"))
    exported = export(model, Options(), job)
    assert capfd.readouterr().out == ""
    assert exported == dataclasses.replace(model, format="onnx", path=exported.path, names=exported.names)
    inputs, outputs = model_io(exported.path)
    assert inputs == dict(model.inputs)
    assert list(outputs) == ["mixed", "difference"]
    assert sorted(path.name for path in job.out.iterdir()) == ["model.onnx"]
    feed = {name: array[[0, 1, 2, 3, 0]] for name, array in job.data.split("calibration").inputs.items()}
    wanted = call(load(model), feed, outputs=model.outputs)
    got = ort.InferenceSession(str(exported.path)).run(None, feed)
    assert all(np.allclose(wanted[name], value, atol=1e-5) for name, value in zip(model.outputs, got, strict=True))


def test_renamed_parameters_are_found_in_the_file(tmp_path: Path) -> None:
    model, job = make(Pair(), tmp_path, {"left": (1, 8, 8), "right": (1, 8, 8)}, ("mixed", "difference"))
    exported = export(model, Options(), job)
    values = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(exported.path).graph.initializer}
    stored = values[exported.names.get("mix.weight", "mix.weight")]
    weight = load(model).mix.weight.detach().numpy()
    assert np.array_equal(stored, weight) or np.array_equal(stored, weight.T)
    assert "conv.weight" in values


def test_nothing_of_this_host_is_in_the_file(tmp_path: Path) -> None:
    model, job = make(Pair(), tmp_path, {"left": (1, 8, 8), "right": (1, 8, 8)}, ("mixed", "difference"))
    raw = export(model, Options(), job).path.read_bytes()
    assert str(Path(__file__).parent).encode() not in raw
    assert b"site-packages" not in raw


def test_a_file_that_computes_something_else_is_refused_with_both_reasons(tmp_path: Path) -> None:
    model, job = make(Changing(), tmp_path, {"a": (6,)}, ("out",))
    with pytest.raises(Unsupported, match=r"torch\.export: .*tracing: .*differs"):
        export(model, Options(), job)


def test_choices_and_booleans_are_compared_for_equality(tmp_path: Path) -> None:
    model, job = make(Chooses(), tmp_path, {"a": (8,)}, ("choice", "top", "positive"))
    exported = export(model, Options(), job)
    feed = dict(job.data.split("calibration").inputs)
    scores = feed["a"] @ load(model).weight.detach().numpy().T
    choice, top, positive = ort.InferenceSession(str(exported.path)).run(None, feed)
    assert choice.tolist() == scores.argmax(1).tolist()
    np.testing.assert_allclose(top, scores.max(1), rtol=1e-5)
    assert np.array_equal(positive, scores > 0)
    assert "Einsum" not in {node.op_type for node in onnx.load(str(exported.path)).graph.node}

"""From torch through litert-torch and every precision to outputs and placements."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.api import Calibration, HarnessError, MissingDependency, Model, Options, Precision, TensorSpec, Unsupported

if importlib.util.find_spec("ai_edge_litert") is None or importlib.util.find_spec("torch") is None:
    pytest.skip("ai-edge-litert or torch is not installed", allow_module_level=True)

import torch
from jobs import WORKLOADS, make_job
from torch import nn

import harness_tflite
from harness_tflite import convert
from harness_tflite.chatter import captured
from harness_tflite.params import Params
from harness_torch import call, macs, new_model

needs_converter = pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None, reason="litert-torch is missing")
INT8 = Precision("int8", "int8", "static", calibration=Calibration(samples=32))
DYNAMIC = Precision("int8", "int8", "dynamic")
HALF = Precision("float16", "float16")


def _save(module: nn.Module, tmp_path: Path, workload: str = "cnn") -> Model:
    job = make_job(tmp_path, workload)
    return new_model(module.eval(), job, job.workload.inputs, job.workload.outputs)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


def test_missing_converter_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _save(WORKLOADS["cnn"].build(), tmp_path)
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingDependency, match="litert-torch cannot be imported") as caught:
        harness_tflite.export(model, Options(), make_job(tmp_path))
    assert "compression-harness[tflite-convert]" in str(caught.value.hint)


@needs_converter
@pytest.mark.slow
@pytest.mark.parametrize("workload", ["cnn", "gru", "transformer"])
@pytest.mark.parametrize("batch", [1, 4])
def test_chain_from_torch_to_placements(tmp_path: Path, workload: str, batch: int) -> None:
    torch.manual_seed(0)
    module = WORKLOADS[workload].build()
    model = _save(module, tmp_path, workload)
    exported = harness_tflite.export(model, Options(batch=batch), make_job(tmp_path, workload))
    rows = make_job(tmp_path, workload).data.split("selection").inputs["image"][:batch]
    expected = call(module, {"image": rows}, outputs=("output",))["output"]
    coverage = {}
    for precision, tolerance in ((Precision(), 1e-5), (HALF, 5e-3), (INT8, 0.15), (DYNAMIC, 0.05)):
        job = make_job(tmp_path, workload)
        wanted = dataclasses.replace(exported, precision=precision)
        artifact = harness_tflite.lower(wanted, Params(), Options(batch=batch), job)
        session = harness_tflite.open_session(artifact, Params(), Options(batch=batch), "accuracy")
        assert session.inputs == {"image": TensorSpec("float32", rows.shape)}
        assert _error(session.run({"image": rows})["output"], expected) < tolerance
        placed = session.placements()
        total = sum(place.macs or 0 for place in placed)
        coverage[precision.name] = sum(place.macs or 0 for place in placed if place.precision == "int8") / total
        assert (
            0.5 < total / macs(module, (torch.from_numpy(rows[:1]),)) <= 1.01
        )  # folded first steps of a GRU count less
        session.close()
    assert coverage["float32"] == coverage["float16"] == 0
    assert coverage["int8"] == 1
    assert 0 < coverage["dynamic-int8"] <= 1


@needs_converter
@pytest.mark.slow
def test_overrides_by_torch_names_reach_the_file(tmp_path: Path) -> None:
    module = WORKLOADS["cnn"].build()
    exported = harness_tflite.export(_save(module, tmp_path), Options(), make_job(tmp_path))
    weights = {f"{layer}.weight" for layer in ("stem", "inner", "depthwise", "point", "hidden", "head")}
    assert weights <= set(exported.names)
    precision = dataclasses.replace(INT8, overrides={"inner.weight": "float32", "head.weight": "float32"})
    wanted = dataclasses.replace(exported, precision=precision)
    artifact = harness_tflite.lower(wanted, Params(), Options(), make_job(tmp_path))
    session = harness_tflite.open_session(artifact, Params(), Options(), "placement")
    layers = [place.precision for place in session.placements() if place.macs]
    assert layers == ["int8", "float32", "int8", "int8", "int8", "float32"]


@needs_converter
@pytest.mark.slow
def test_every_matrix_of_an_encoder_is_found_in_the_file(tmp_path: Path) -> None:
    """Also where it is in a list, where no call names its layer, and where the scale of a norm went into it."""
    module = WORKLOADS["transformer"].build()
    with torch.no_grad():
        for parameter in module.parameters():  # the layers of an encoder are copies, which one tensor would hold
            parameter.add_(torch.randn_like(parameter) * 0.01)
    exported = harness_tflite.export(
        _save(module, tmp_path, "transformer"), Options(), make_job(tmp_path, "transformer")
    )
    sizes = {name: value.numel() for name, value in module.named_parameters() if "layers." in name and value.dim() == 2}
    assert len(sizes) == 8
    for name, size in sizes.items():
        precision = Precision("int4", "float32", "weight-only", overrides={name: "int8"})
        wanted = dataclasses.replace(exported, precision=precision)
        artifact = harness_tflite.lower(wanted, Params(), Options(), make_job(tmp_path, "transformer"))
        assert artifact.weight_bytes["int8"] == size


class _Two(nn.Module):
    """Two inputs, one of them integers, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, index: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = self.table(index).mean(1) * weight
        return self.head(value), value


@needs_converter
@pytest.mark.slow
def test_names_and_integer_inputs_survive(tmp_path: Path) -> None:
    inputs = {"index": TensorSpec("int64", (None, 4)), "weight": TensorSpec("float32", (None, 8))}
    workload = dataclasses.replace(WORKLOADS["mlp"], inputs=inputs, outputs=("class", "features"), task="none")
    job = dataclasses.replace(make_job(tmp_path), workload=workload)
    module = _Two().eval()
    path = job.out / "model.pt"
    torch.save(module, path)
    model = Model("torch", path, inputs, ("class", "features"), precision=INT8, flags=("synthetic",))
    exported = harness_tflite.export(model, Options(), job)
    assert (exported.precision, exported.flags, exported.format) == (INT8, ("synthetic",), "tflite")
    wanted = dataclasses.replace(exported, precision=Precision())
    out = make_job(tmp_path)
    session = harness_tflite.open_session(
        harness_tflite.lower(wanted, Params(), Options(), out), Params(), Options(), "accuracy"
    )
    arrays = {"index": np.array([[0, 4, 2, 1]]), "weight": np.ones((1, 8), np.float32)}
    expected = call(module, arrays, outputs=("class", "features"))
    found = session.run(arrays)
    assert list(found) == ["class", "features"]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


class _ErrorFunction(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.erfinv(image).flatten(1)


@needs_converter
@pytest.mark.slow
def test_an_operator_without_lowering_is_named(tmp_path: Path) -> None:
    path = tmp_path / "erfinv.pt"
    torch.save(_ErrorFunction(), path)
    model = Model("torch", path, WORKLOADS["cnn"].inputs, ("output",))
    with pytest.raises(Unsupported, match=r"no lowering for aten\.erfinv"):
        harness_tflite.export(model, Options(), make_job(tmp_path))


class _Double(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1) * 2


@needs_converter
@pytest.mark.slow
def test_a_wrong_conversion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "double.pt"
    torch.save(_Double(), path)
    model = Model("torch", path, WORKLOADS["cnn"].inputs, ("output",))
    real = convert._check
    monkeypatch.setattr(convert, "_check", lambda module, *rest: real(nn.Flatten(), *rest))
    with pytest.raises(HarnessError, match="output 'output' of the converted model differs"):
        harness_tflite.export(model, Options(), make_job(tmp_path))


def test_chatter_goes_to_the_log(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG, "harness"), captured(logging.getLogger("harness")):
        os.write(1, b"from C++ to stdout\n")
        os.write(2, b"and to stderr\n")
    assert {"from C++ to stdout", "and to stderr"} <= set(caplog.messages)
    assert capfd.readouterr() == ("", "")

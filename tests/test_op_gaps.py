"""Each operator gap that a target lists is tried: the operator runs in float where the rest of the model does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx_files
import pytest

from harness.api import Calibration, Options, Precision
from harness.plugins import load_registry

STATIC = Precision("int8", "int8", "static", calibration=Calibration(samples=8))
DYNAMIC = Precision("int8", "int8", "dynamic")
WEIGHT_ONLY = Precision("int8", "float32", "weight-only")
TARGETS = {name: offer.spec for name, offer in load_registry().targets.items()}
# Target, operator as it lists it, network, precision, and the operator's name in placements.
TRIED = [
    *(("onnxruntime", "GRU", onnx_files.gru_net, wanted, "GRU") for wanted in (STATIC, DYNAMIC, WEIGHT_ONLY)),
    ("onnxruntime", "Conv", onnx_files.conv_net, WEIGHT_ONLY, "FusedConv"),
    *(("openvino", "GRU", onnx_files.gru_net, wanted, "RNNSeq") for wanted in (STATIC, DYNAMIC, WEIGHT_ONLY)),
    ("openvino", "Convolution", onnx_files.conv_net, WEIGHT_ONLY, "Convolution"),
]


def here(name: str) -> Any:
    spec = TARGETS[name]
    found = spec.probe(spec.params())
    if not found.available:
        pytest.skip(found.reason)
    return spec


@pytest.mark.parametrize(
    ("name", "op", "net", "wanted", "shown"),
    TRIED,
    ids=[f"{name}-{op}-{wanted.name}" for name, op, _net, wanted, _shown in TRIED],
)
def test_a_listed_gap_shows(name: str, op: str, net: Any, wanted: Precision, shown: str, tmp_path: Path) -> None:
    spec = here(name)
    assert op in spec.capabilities(spec.params()).op_gaps
    model = net(tmp_path)
    job = onnx_files.make_job(tmp_path / "job", model, 8)
    artifact = spec.lower(dataclasses.replace(model, precision=wanted), spec.params(), Options(batch=2), job)
    session = spec.open(artifact, spec.params(), Options(batch=2), "placement")
    session.run(onnx_files.items(model, 2))
    found = [row.precision for row in session.placements() if row.op == shown]
    session.close()
    assert found
    assert set(found) == {"float32"}


@pytest.mark.parametrize("name", [name for name, spec in TARGETS.items() if spec.ranked])
def test_every_target_lists_its_gaps_with_evidence(name: str) -> None:
    spec = here(name)
    params = spec.params(mode="compile") if name == "torch" else spec.params()
    can = spec.capabilities(params)
    assert can.op_gaps
    assert name == "tflite" or can.evidence["op_gaps"]


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [STATIC, DYNAMIC], ids=lambda wanted: wanted.name)
def test_pytorchs_gates_and_convolutions_stay_float(wanted: Precision, tmp_path: Path) -> None:
    import jobs

    spec = here("torch")
    params = spec.params(mode="compile")
    for net in ("gru",) if wanted is STATIC else ("gru", "cnn"):
        model = jobs.trained(tmp_path / net, net, epochs=1)
        job = jobs.make_job(tmp_path / f"{net}-job", net)
        artifact = spec.lower(dataclasses.replace(model, precision=wanted), params, Options(batch=2), job)
        session = spec.open(artifact, params, Options(batch=2), "placement")
        feed = {key: value[:2].copy() for key, value in job.data.split("calibration").inputs.items()}
        session.run(feed)
        rows = session.placements()
        session.close()
        gap = [row for row in rows if ("conv" in row.op.lower() if net == "cnn" else row.op in {"aten::mm", "GRU"})]
        assert any(row.precision == "int8" for row in rows)
        assert net == "gru" or {row.precision for row in gap} == {"float32"}

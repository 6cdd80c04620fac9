"""Placements against the vendor's own report, read here by other means than the targets read it.

ONNX Runtime's report is the profile that the session wrote; OpenVINO's is the runtime model as it is serialized to XML.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from onnx_files import (
    CONV_MACS,
    DYNAMIC,
    GRU_MACS,
    STATIC,
    TRANSFORMER_MACS,
    conv_net,
    gru_net,
    items,
    make_job,
    transformer_net,
)

import harness_onnxruntime
import harness_openvino
from harness.api import Model, Options, Placement, Precision

RUNS, BATCH = 5, 2
NETS: dict[str, tuple[Callable[[Path], Model], dict[str, int]]] = {
    "conv": (conv_net, CONV_MACS),
    "gru": (gru_net, GRU_MACS),
    "transformer": (transformer_net, TRANSFORMER_MACS),
}
PRECISIONS = {"float32": Precision(), "int8": STATIC, "dynamic-int8": DYNAMIC}
# What neither runtime has an int8 kernel for, and, where activations are scaled at run time, products of two of them.
FLOAT = {
    ("gru", "int8"): {"gru"}, ("gru", "dynamic-int8"): {"gru"}, ("transformer", "dynamic-int8"): {"scores", "values"},
}  # fmt: skip
# OpenVINO's kernel for both products of an attention is off in int8 graphs that it fuses wrongly: the second is float.
FLOAT_ON_OPENVINO = {**FLOAT, ("transformer", "int8"): {"values"}}
EIGHT = {"i8", "u8", "I8", "U8"}
Kernel = tuple[str, str, str, float]  # name, type, arithmetic ("" where the report gives none), share of time


def opened(target: ModuleType, net: str, precision: str, folder: Path) -> Any:
    """Return a session for placement that has run a few times."""
    (spec,) = target.harness_targets()
    model = dataclasses.replace(NETS[net][0](folder), precision=PRECISIONS[precision])
    artifact = spec.lower(model, spec.params(), Options(), make_job(folder / "lowered", model))
    session = spec.open(artifact, spec.params(), Options(batch=BATCH), "placement")
    for _ in range(RUNS):
        session.run(items(model, BATCH))
    return session


def check(rows: tuple[Placement, ...], wanted: list[Kernel], net: str, precision: str, floats=FLOAT) -> None:
    """Hold rows against the report, and their MACs against those that are known by hand."""
    rows, wanted = tuple(sorted(rows, key=lambda row: row.name)), sorted(wanted)  # two kernels may be in either order
    assert [(row.name, row.op) for row in rows] == [(name, kind) for name, kind, _, _ in wanted]
    assert [row.time_share for row in rows] == pytest.approx([share for *_, share in wanted], abs=1e-9)
    working = [(row.precision, kernel[2]) for row, kernel in zip(rows, wanted, strict=True) if row.macs]
    assert [got for got, _ in working] == [arithmetic for _, arithmetic in working]
    known = NETS[net][1]
    left = known.keys() if precision == "float32" else floats.get((net, precision), set())
    assert sum(row.macs or 0 for row in rows if row.precision == "int8") == sum(
        macs for name, macs in known.items() if name not in left
    )


def profile(folder: Path) -> list[Kernel]:
    """Read ONNX Runtime's trace: its rows are the runs' events in turn, so their durations are a table."""
    (path,) = folder.glob("harness-ort-*/profile*.json")
    found = [event for event in json.loads(path.read_text()) if event["name"].endswith("_kernel_time")]
    table = np.array([event["dur"] for event in found], float).reshape(RUNS, -1)
    first = found[: table.shape[1]]
    assert {event["args"]["provider"] for event in first} == {"CPUExecutionProvider"}
    shares = np.median(table, axis=0) / np.median(table, axis=0).sum()
    return [
        (event["name"][: -len("_kernel_time")], event["args"]["op_name"], _arithmetic(event["args"]), float(share))
        for event, share in zip(first, shares, strict=True)
    ]


def _arithmetic(args: dict[str, Any]) -> str:
    """A kernel that takes a weight or an input of 8 bits multiplies 8 bits; packed weights only show in its name."""
    dtypes = [dtype for tensor in args["input_type_shape"] for dtype in tensor]
    eight = {"int8", "uint8"} & set(dtypes)
    return "int8" if eight or args["op_name"].startswith("DynamicQuantize") else "float32"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("net", NETS)
def test_onnxruntime_agrees_with_its_profile(
    net: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session = opened(harness_onnxruntime, net, precision, tmp_path)
    rows = session.placements()
    wanted = profile(tmp_path)  # before the session takes its file away
    session.close()
    check(rows, wanted, net, precision)
    if (net, precision) != ("conv", "float32"):  # whose kernels pad 3 and 8 channels to 16
        assert sum(row.macs or 0 for row in rows) == sum(NETS[net][1].values())


def exec_graph(compiled: Any, folder: Path) -> list[Kernel]:
    """Read OpenVINO's runtime model as ``benchmark_app -exec_graph_path`` writes it."""
    import openvino

    openvino.serialize(compiled.get_runtime_model(), str(folder / "graph.xml"))
    layers = ET.parse(folder / "graph.xml").getroot().iter("layer")
    facts = {layer.get("name", ""): (layer.get("type", ""), layer.find("data").attrib) for layer in layers}  # type: ignore[union-attr]
    # a kernel that took less than a microsecond is said not to have been executed, as a view is, which has no kernel
    times = {
        name: int(item["execTimeMcs"].replace("not_executed", "0"))
        for name, (kind, item) in facts.items()
        if kind not in {"Input", "Output", "Const"}
        and (item["execTimeMcs"] != "not_executed" or not item["primitiveType"].startswith("unknown"))
    }
    total = sum(times.values())
    return [
        (name, facts[name][0], "int8" if facts[name][1]["runtimePrecision"] in EIGHT else "float32", time / total)
        for name, time in times.items()
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("net", NETS)
def test_openvino_agrees_with_its_runtime_model(net: str, precision: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    session = opened(harness_openvino, net, precision, tmp_path)
    wanted = exec_graph(session._compiled, tmp_path)
    rows = session.placements()
    session.close()
    check(rows, wanted, net, precision, FLOAT_ON_OPENVINO)
    assert sum(row.macs or 0 for row in rows) == sum(NETS[net][1].values())

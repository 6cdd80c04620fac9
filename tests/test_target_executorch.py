"""ExecuTorch: programs run as PyTorch does, in the precision that was asked for, and say what XNNPACK is given.

They need the extra ``executorch``, which CI installs after the README's own test command has run without it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest

import harness_executorch
from harness.api import Calibration, MissingDependency, Model, Options, Placement, Precision, Unsupported
from harness_executorch import lowering, probing, runtime
from harness_executorch.params import Params

INT8 = Precision("int8", "int8", "static", calibration=Calibration(samples=32))
DYNAMIC = Precision("int8", "int8", "dynamic")
HALF = Precision("float16", "float16")
here = pytest.mark.skipif(
    not harness_executorch.probe(Params()).available, reason="the extra executorch is not installed"
)


def ran(
    folder: Path, name: str, precision: Precision, params: Params | None = None, batch: int = 2
) -> tuple[np.ndarray, tuple[Placement, ...], Any]:
    """Lower a tiny trained model, run it on two items, and return outputs, placements and session."""
    import torch

    chosen = params or Params()
    model = jobs.trained(folder / "model", name, epochs=1)
    job = jobs.make_job(folder / "job", name)
    options = Options(batch=batch)
    artifact = harness_executorch.lower(dataclasses.replace(model, precision=precision), chosen, options, job)
    session = harness_executorch.open_session(artifact, chosen, options, "placement")
    feed = {key: np.array(value[:batch]) for key, value in job.data.split("calibration").inputs.items()}
    out = next(iter(session.run(feed).values()))
    from harness_torch import call, load

    wanted = next(iter(call(load(model), feed, outputs=model.outputs).values()))
    assert torch.get_num_threads() == 1
    error = np.abs(out - wanted).max() / np.abs(wanted).max()
    assert error < {"float32": 1e-4, "float16": 1e-2}.get(precision.name, 0.2)
    return out, session.placements(), session


@here
@pytest.mark.parametrize("name", list(jobs.WORKLOADS))
def test_a_program_gives_what_pytorch_gives(name: str, tmp_path: Path) -> None:
    _out, placements, session = ran(tmp_path, name, Precision())
    assert {row.precision for row in placements if row.macs} == {"float32"}
    assert any(row.kernel == "XNNPACK FullyConnected" for row in placements)
    assert session.effective()["threads"] == "1"
    assert all(spec.shape[0] == 2 for spec in (*session.inputs.values(), *session.outputs.values()))


@here
@pytest.mark.parametrize("precision", [HALF, INT8, DYNAMIC], ids=lambda item: item.name)
def test_what_runs_is_what_was_asked_for(precision: Precision, tmp_path: Path) -> None:
    _out, placements, _session = ran(tmp_path, "cnn", precision)
    macs = {name: sum(row.macs or 0 for row in placements if row.precision == name) for name in
            ("float32", "float16", "int8")}  # fmt: skip
    kind = precision.weights
    assert macs[kind] > (0 if precision is DYNAMIC else 0.9 * sum(macs.values()))


@here
def test_macs_are_those_that_pytorch_counts(tmp_path: Path) -> None:
    """The parameters of a linear layer are its MACs; a convolution has them at each place of its output."""
    _out, placements, _session = ran(tmp_path, "mlp", Precision())
    import torch

    module = jobs.WORKLOADS["mlp"].build()
    weights = [layer.weight.numel() for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    assert [row.macs for row in placements if row.op == "MatMul"] == weights
    assert [row.channels for row in placements if row.op == "MatMul"] == [
        layer.out_features for layer in module.modules() if isinstance(layer, torch.nn.Linear)
    ]


@here
def test_without_xnnpack_portable_kernels_run(tmp_path: Path) -> None:
    _out, placements, _session = ran(tmp_path, "mlp", Precision(), Params(xnnpack=False))
    assert {row.kernel.split()[0] for row in placements} == {"portable"}
    with pytest.raises(Unsupported, match="portable kernels have no int8"):
        ran(tmp_path, "mlp", INT8, Params(xnnpack=False))


@here
def test_bound_inputs_are_read_at_each_call(tmp_path: Path) -> None:
    out, _placements, session = ran(tmp_path, "mlp", Precision())
    feed = {name: np.zeros([size or 2 for size in spec.shape], spec.dtype) for name, spec in session.inputs.items()}
    call = session.bind(feed)
    call()
    call()
    assert not np.array_equal(out, next(iter(session.run(feed).values())))
    session.close()


@here
def test_an_override_stays_float32(tmp_path: Path) -> None:
    import torch

    module = jobs.WORKLOADS["mlp"].build()
    first = next(name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear))
    kept = dataclasses.replace(INT8, overrides={f"{first}.weight": "float32"})
    _out, placements, _session = ran(tmp_path, "mlp", kept)
    assert [row.precision for row in placements if row.op == "MatMul"][:2] == ["float32", "int8"]
    with pytest.raises(Unsupported, match="matches no parameter"):
        ran(tmp_path, "mlp", dataclasses.replace(INT8, overrides={"none.weight": "float32"}))


@here
def test_the_probes_program_is_what_this_release_makes() -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from harness_executorch.placement import read_program

    with runtime.quiet():
        exported = torch.export.export(torch.nn.ReLU().eval(), (torch.tensor([-1.0, 2.0]),))
        made = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
    assert read_program(bytes(made), batch=1) == read_program(probing.PROGRAM.read_bytes(), batch=1)


@pytest.mark.slow
@here
@pytest.mark.parametrize(
    ("name", "precision", "kernels"),
    [
        ("gru", INT8, {"XNNPACK FullyConnected float32", "XNNPACK FullyConnected int8", "XNNPACK Tanh float32"}),
        ("transformer", INT8, {"portable aten::native_layer_norm float32", "XNNPACK BatchMatrixMultiply float32"}),
        ("cnn", INT8, {"portable aten::_adaptive_avg_pool2d float32", "XNNPACK DepthwiseConv2d int8"}),
        ("cnn", DYNAMIC, {"XNNPACK DepthwiseConv2d float32", "XNNPACK FullyConnected int8"}),
    ],
    ids=["gates", "attention", "pooling", "depthwise"],
)
def test_the_listed_operator_gaps_still_show(
    name: str, precision: Precision, kernels: set[str], tmp_path: Path
) -> None:
    _out, placements, _session = ran(tmp_path, name, precision)
    assert kernels <= {f"{row.kernel} {row.precision}" for row in placements}


@here
def test_capabilities_are_of_what_can_be_made() -> None:
    found = harness_executorch.capabilities(Params())
    assert {"float32", "float16", "int8", "dynamic-int8"} <= set(found.precisions)
    assert found.op_gaps
    assert not set(found.gaps) & set(found.precisions)
    assert "int8" in harness_executorch.capabilities(Params(xnnpack=False)).gaps


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("executorch", "executorch.extension", "executorch.extension.pybindings"):
        monkeypatch.setitem(sys.modules, name, None)
    found = harness_executorch.probe(Params())
    assert not found.available
    assert found.reason.startswith("executorch cannot be imported")
    assert found.hint == "pip install 'compression-harness[executorch]'"
    with pytest.raises(MissingDependency):
        runtime.import_runtime()


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        (Precision("bfloat16", "bfloat16"), "no bfloat16"),
        (Precision("int8", "float32", "weight-only"), "quantized activations only"),
        (Precision("float8", "float8", "static"), "it realises float32"),
        (dataclasses.replace(INT8, weights_symmetric=False), "symmetric"),
        (dataclasses.replace(INT8, activations_symmetric=True), "zero point"),
        (dataclasses.replace(INT8, calibration=Calibration("entropy")), "no calibration 'entropy'"),
        (dataclasses.replace(INT8, realise="exact", encodings=Path("e.json")), "encodings"),
        (dataclasses.replace(HALF, overrides={"a": "float32"}), "int8 only"),
    ],
)
def test_what_cannot_be_is_said(precision: Precision, words: str) -> None:
    model = Model("torch", Path("none"), {}, (), precision)
    with pytest.raises(Unsupported, match=words):
        lowering.check_supported(model, Params())


def test_multiply_accumulates_are_counted_from_shapes() -> None:
    from harness_executorch.placement import multiply_accumulates as count

    tensors: Mapping[int, Mapping[str, Any]] = {
        0: {"dims": [1, 8, 8, 6]}, 1: {"dims": [1, 8, 8, 12]}, 2: {"dims": [4, 16]}, 3: {"dims": [5, 16]},
        4: {"dims": [4, 5]},
    }  # fmt: skip
    conv = {"kernel_height": 3, "kernel_width": 3, "group_input_channels": 6, "group_output_channels": 12,
            "input1_id": 0, "output_id": 1}  # fmt: skip
    assert count("XNNConv2d", conv, tensors) == 8 * 8 * 12 * 9 * 6
    depthwise = {**conv, "group_input_channels": 1, "group_output_channels": 1, "groups": 6, "output_id": 0}
    assert count("XNNDepthwiseConv2d", depthwise, tensors) == 8 * 8 * 6 * 9
    assert count("XNNFullyConnected", {"input1_id": 2, "filter_id": 3, "output_id": 4}, tensors) == 4 * 5 * 16
    assert count("XNNAdd", {}, tensors) == 0
    assert count("XNNConv2d", {**conv, "output_id": 9}, tensors) is None


@pytest.mark.slow
@here
def test_it_stands_in_a_board_from_an_interpreter_of_its_own(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "harness", "bench", "--workloads", "diabetes-mlp", "--methods", "baseline int8 fp16",
         "--targets", "executorch", "--python", f"executorch={sys.executable}", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/cells/*.json")]
    assert {record["status"] for record in records} == {"ok"}
    assert all(record["latency"]["p50_ns"]["point"] > 0 for record in records)


@here
def test_its_import_leaves_the_environment_as_it_was() -> None:
    script = (
        "import os; from harness_executorch.runtime import import_runtime; before = dict(os.environ)\n"
        "import_runtime(); assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200)

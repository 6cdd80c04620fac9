"""PyTorch as a target: each precision runs, its placements add up, and what is missing is said."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jobs import make_job, trained

import harness_torch
from harness.api import Artifact, Calibration, Model, Options, Precision, Unsupported
from harness_torchrt import harness_targets, program
from harness_torchrt.params import Params
from harness_torchrt.placement import read_trace
from harness_torchrt.probe import compiler

(SPEC,) = harness_targets()
STATIC = Precision("int8", "int8", "static", calibration=Calibration("minmax", 64))
DYNAMIC = Precision("int8", "int8", "dynamic")
PRECISIONS = {
    "float32": Precision(),
    "float16": Precision("float16", "float16"),
    "bfloat16": Precision("bfloat16", "bfloat16"),
    "int8": STATIC,
    "dynamic-int8": DYNAMIC,
}
FLOOR_DB = {"float32": 100, "float16": 50, "bfloat16": 30, "int8": 20, "dynamic-int8": 20}
needs_compiler = pytest.mark.skipif(not compiler(), reason="torch.compile needs a C++ compiler")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return {name: trained(tmp_path_factory.mktemp(name), name, epochs=1) for name in ("cnn", "gru", "transformer")}


def lowered(
    model: Model, tmp_path: Path, wanted: Precision, kind: str = "cnn", params: Params | None = None
) -> Artifact:
    given = dataclasses.replace(model, precision=wanted)
    return SPEC.lower(given, params or Params(loops=True), Options(), make_job(tmp_path / "lowered", kind))


def images(count: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(5).uniform(-1, 1, (count, 1, 8, 8)).astype(np.float32)}


def sqnr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    return 10 * np.log10((wanted**2).sum() / max(((wanted - got) ** 2).sum(), 1e-30))


def wanted_outputs(model: Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    return harness_torch.call(harness_torch.load(model), feed, outputs=model.outputs)[model.outputs[0]]


def macs_of(model: Model) -> int:
    return harness_torch.macs(harness_torch.load(model), harness_torch.example_inputs(model.inputs))


def run_at(artifact: Artifact, batch: int, params: Params | None = None) -> tuple[np.ndarray, tuple]:
    session = SPEC.open(artifact, params or Params(), Options(batch=batch), "placement")
    try:
        return session.run(images(batch))["output"], session.placements()
    finally:
        session.close()


@pytest.mark.parametrize(
    ("kind", "name", "batch"),
    [("cnn", "float32", 1), ("cnn", "bfloat16", 4), ("cnn", "float16", 1), ("gru", "float32", 4),
     ("transformer", "float32", 4)],
)  # fmt: skip
def test_eager_outputs_agree_and_all_macs_are_placed(
    kind: str, name: str, batch: int, models: dict[str, Model], tmp_path: Path
) -> None:
    model = models[kind]
    got, placements = run_at(lowered(model, tmp_path, PRECISIONS[name], kind), batch)
    assert sqnr_db(wanted_outputs(model, images(batch)), got) > FLOOR_DB[name]
    assert sum(row.macs or 0 for row in placements) == macs_of(model)
    assert sum(row.time_share or 0 for row in placements) == pytest.approx(1)
    assert {row.device for row in placements} == {"cpu"}
    assert {row.precision for row in placements if row.macs} == {name}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "executed"),
    [("cnn", "float32", {"float32"}), ("cnn", "bfloat16", {"bfloat16"}), ("cnn", "int8", {"int8"}),
     ("cnn", "dynamic-int8", {"float32", "int8"}), ("transformer", "dynamic-int8", {"float32", "int8"}),
     ("gru", "int8", {"float32", "int8"})],
)  # fmt: skip
def test_compiled_int8_runs_in_integer_kernels(
    kind: str, name: str, executed: set[str], models: dict[str, Model], tmp_path: Path
) -> None:
    if "int8" in name:
        pytest.importorskip("torchao")
    model, params = models[kind], Params(mode="compile")
    got, placements = run_at(lowered(model, tmp_path, PRECISIONS[name], kind, params), 4, params)
    assert sqnr_db(wanted_outputs(model, images(4)), got) > FLOOR_DB[name]
    assert {row.precision for row in placements if row.macs} == executed
    # the compiler may write a product of a few values into a generated kernel, which shows no shapes
    assert 0.95 * macs_of(model) <= sum(row.macs or 0 for row in placements) <= macs_of(model)


def test_the_batch_of_a_program_is_free(models: dict[str, Model], tmp_path: Path) -> None:
    artifact = lowered(models["cnn"], tmp_path, Precision())
    session = SPEC.open(artifact, Params(), Options(), "accuracy")
    whole = session.run(images(7))["output"]
    parts = [session.run({"image": images(7)["image"][item : item + 1]})["output"] for item in range(7)]
    assert np.allclose(whole, np.concatenate(parts), atol=1e-5)
    assert session.inputs["image"].shape[0] is None
    assert session.effective()["threads"] == "1"


def test_bound_inputs_give_no_array_and_the_same_work(models: dict[str, Model], tmp_path: Path) -> None:
    session = SPEC.open(lowered(models["cnn"], tmp_path, Precision()), Params(), Options(), "latency")
    assert session.bind(images(1))() is None


def test_a_half_file_holds_half_weights(models: dict[str, Model], tmp_path: Path) -> None:
    artifact = lowered(models["cnn"], tmp_path, PRECISIONS["bfloat16"])
    module, _facts = program.load(artifact.path)
    assert {item.dtype for item in module.parameters()} == {torch.bfloat16}
    assert artifact.realised == "bfloat16"


@pytest.mark.parametrize("name", ["int8", "dynamic-int8"])
def test_eager_refuses_int8_and_says_what_to_write(name: str, models: dict[str, Model], tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="torch:mode=compile"):
        lowered(models["cnn"], tmp_path, PRECISIONS[name])
    assert "torch:mode=compile" in SPEC.capabilities(Params()).gaps[name]


@pytest.mark.parametrize(
    ("change", "why"),
    [({"granularity": "per-tensor"}, "one scale per channel"), ({"activations_symmetric": True}, "unsigned"),
     ({"calibration": Calibration("entropy")}, "no calibration 'entropy'"),
     ({"overrides": {"nowhere.weight": "float32"}}, "matches no parameter")],
)  # fmt: skip
def test_what_the_quantizer_cannot_do_is_refused(
    change: dict, why: str, models: dict[str, Model], tmp_path: Path
) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(Unsupported, match=why):
        lowered(models["cnn"], tmp_path, dataclasses.replace(STATIC, **change), params=Params(mode="compile"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_unavailable_with_the_reason() -> None:
    found = SPEC.probe(Params(device="cuda"))
    assert not found.available
    assert "CUDA" in found.reason or "NVIDIA" in found.reason
    assert found.hint


def test_without_a_compiler_compile_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    found = SPEC.probe(Params(mode="compile"))
    assert not found.available
    assert "C++ compiler" in found.reason


def test_a_gpu_trace_is_timed_by_its_kernels() -> None:
    """Operators return before the GPU is done: their share of time is that of the kernels that they launched."""

    def op(name: str, ts: float, dur: float, number: int, **args: object) -> dict:
        return {"ph": "X", "cat": "cpu_op", "name": name, "ts": ts, "dur": dur, "tid": 1,
                "args": {"External id": number, **args}}  # fmt: skip

    def kernel(dur: float, number: int) -> dict:
        return {"ph": "X", "cat": "kernel", "name": "k", "ts": 0, "dur": dur, "tid": 7, "args": {"External id": number}}

    shapes = {"Input Dims": [[2, 8], [4, 8], [4]], "Input type": ["c10::Half"] * 3, "Concrete Inputs": ["", "", ""]}
    inner = {"Input Dims": [[4], [2, 8], [8, 4]], "Input type": ["c10::Half"] * 3, "Concrete Inputs": ["", "", ""]}
    events = [
        op("aten::linear", 0, 50, 1, **shapes), op("aten::addmm", 10, 30, 2, **inner), kernel(30, 2),
        op("aten::relu", 60, 200, 3, **{"Input type": ["c10::Half"], "Input Dims": [[2, 4]]}), kernel(10, 3),
    ]  # fmt: skip
    rows = read_trace(json.dumps({"traceEvents": events}).encode(), items=2)
    assert [(row.op, row.device, row.precision, row.macs, row.time_share) for row in rows] == [
        ("linear", "cuda", "float16", 32, 0.75), ("relu", "cuda", "float16", None, 0.25),
    ]  # fmt: skip


def test_half_floats_without_kernels_are_not_run_unless_asked_for(
    models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bf16", "fp16"):
        monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", lambda: False, raising=False)
    gaps = SPEC.capabilities(Params()).gaps
    assert "torch:loops=true runs them" in gaps["float16"]
    assert not {"float16", "bfloat16"} & set(SPEC.capabilities(Params(loops=True)).gaps)
    with pytest.raises(Unsupported, match="oneDNN has no bfloat16 kernels"):
        lowered(models["cnn"], tmp_path, PRECISIONS["bfloat16"], params=Params())


class GraphStandIn:
    """What torch.cuda offers around captures, noting the order; captured calls run again at a replay."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.body: Any = None

    def __getattr__(self, name: str) -> Any:
        @contextlib.contextmanager
        def around(*_arguments: object) -> Any:
            self.seen.append(f"{name} begins")
            yield
            self.seen.append(f"{name} ends")

        if name in {"stream", "graph"}:
            return around
        return lambda: SimpleNamespace(wait_stream=lambda _other: self.seen.append("wait"), replay=lambda: self.body())


def test_a_capture_is_warmed_on_a_side_stream_and_replays_on_new_inputs() -> None:
    from harness_torchrt.session import capture

    cuda = GraphStandIn()

    def double(item: torch.Tensor) -> torch.Tensor:
        cuda.seen.append("run")
        out = getattr(double, "out", None)
        double.out = torch.empty_like(item) if out is None else out  # type: ignore[attr-defined]  # a fixed buffer
        torch.mul(item, 2, out=double.out)  # type: ignore[attr-defined]  # likewise
        cuda.body = lambda: double(item)
        return double.out  # type: ignore[attr-defined]  # likewise

    replay = capture(SimpleNamespace(cuda=cuda), double, (torch.zeros(2),))
    assert cuda.seen == ["wait", "stream begins", "run", "run", "run", "stream ends", "wait",
                         "graph begins", "run", "graph ends"]  # fmt: skip
    for value in ([1.0, 2.0], [3.0, 4.0]):
        assert replay(torch.tensor(value)).tolist() == [2 * item for item in value]

"""The order of copies, launches and frees of a TensorRT session, on stand-ins for CUDA and the engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorrt_standin import CudaRuntime, Engine, bindings

import harness_tensorrt
from harness.api import (
    Artifact,
    HarnessError,
    Options,
    Session,
    SupportsBind,
    SupportsDeviceMemory,
    SupportsEffective,
    SupportsPlacements,
    TensorSpec,
)
from harness_tensorrt.flavors import TENSORRT, Params
from harness_tensorrt.lowering import MACS_FILE

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaRuntime:
    runtime = CudaRuntime()
    monkeypatch.setattr("harness_tensorrt.cuda.import_cuda", lambda: runtime)
    return runtime


def _open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine | None,
    params: Params | None = None,
    purpose="latency",
):
    monkeypatch.setitem(sys.modules, "tensorrt", bindings(engine))
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    (tmp_path / MACS_FILE).write_text(json.dumps({"product": 42}))
    artifact = Artifact(path, TENSORRT.plan_format, "", "float32", "", 4, 4)
    return harness_tensorrt.open_session(TENSORRT, artifact, params or Params(), Options(batch=2), purpose)


def test_run_copies_in_launches_copies_out_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    session = _open(tmp_path, monkeypatch, Engine())
    assert isinstance(session, Session)
    assert session.inputs == {"row": TensorSpec("float32", (2, 3))}
    assert session.outputs == {"out": TensorSpec("float32", (2, 3))}
    cuda.calls.clear()
    found = session.run({"row": ROWS})["out"]
    np.testing.assert_array_equal(found, 2 * ROWS)
    timed = [name for name in cuda.calls if name in {"cudaMemcpyAsync", "cudaStreamSynchronize"}]
    assert timed == ["cudaMemcpyAsync", "cudaMemcpyAsync", "cudaStreamSynchronize"]
    session.run({"row": ROWS + 1})
    np.testing.assert_array_equal(found, 2 * ROWS)


def test_bound_calls_copy_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    session = _open(tmp_path, monkeypatch, Engine())
    assert isinstance(session, SupportsBind)
    compute = session.bind({"row": ROWS})
    cuda.calls.clear()
    compute()
    assert cuda.calls == ["cudaStreamSynchronize"]


def test_a_graph_is_captured_once_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    engine = Engine()
    session = _open(tmp_path, monkeypatch, engine, Params(cuda_graph=True))
    cuda.launch = lambda: engine.context.execute_async_v3(7)
    for shift in range(3):
        np.testing.assert_array_equal(session.run({"row": ROWS + shift})["out"], 2 * (ROWS + shift))
    assert cuda.calls.count("cudaStreamBeginCapture") == 1
    assert cuda.calls.count("cudaGraphLaunch") == 2
    assert session.effective()["launch"] == "CUDA graph"


def test_placements_share_the_profiled_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    session = _open(tmp_path, monkeypatch, Engine(), purpose="placement")
    assert isinstance(session, SupportsPlacements)
    session.run({"row": ROWS})
    first, second = session.placements()
    assert (first.op, first.macs, first.precision, first.device) == ("MatMul", 42, "float32", "Stand-in")
    assert (first.time_share, second.time_share) == (0.25, 0.75)


def test_device_memory_is_weights_scratch_and_buffers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    session = _open(tmp_path, monkeypatch, Engine())
    assert isinstance(session, SupportsDeviceMemory)
    assert session.device_memory_bytes() == 200 + 1000 + 2 * ROWS.nbytes


def test_effective_names_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    session = _open(tmp_path, monkeypatch, Engine())
    assert isinstance(session, SupportsEffective)
    assert session.effective()["device"] == "Stand-in, compute capability 9.0"
    assert session.effective()["runtime"] == "TensorRT 11.4.0"


def test_close_frees_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    session = _open(tmp_path, monkeypatch, Engine())
    assert len(cuda.memory) == 4
    session.close()
    session.close()
    assert not cuda.memory
    assert cuda.calls.count("cudaStreamDestroy") == 1


def test_a_plan_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    with pytest.raises(HarnessError, match="does not load on Stand-in: the plan is of another version"):
        _open(tmp_path, monkeypatch, None)


def test_a_launch_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    engine = Engine()
    session = _open(tmp_path, monkeypatch, engine)
    engine.context.fails = True
    with pytest.raises(HarnessError, match="the engine failed"):
        session.run({"row": ROWS})

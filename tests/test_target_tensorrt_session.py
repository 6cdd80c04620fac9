"""The order of copies, launches and frees of a TensorRT session, on stand-ins for CUDA and the engine."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

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
from harness_tensorrt import timing
from harness_tensorrt.flavors import TENSORRT, Params
from harness_tensorrt.lowering import MACS_FILE, plan_path

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


def test_bound_calls_rotate_copies_of_the_input_and_a_run_afterwards_reads_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    engine = Engine()
    session = _open(tmp_path, monkeypatch, engine, Params(rotation=3))
    compute, seen = session.bind({"row": ROWS}), []
    for _call in range(6):
        compute()
        seen.append(engine.context.addresses["row"])
    assert len(set(seen)) == 3
    assert seen[:3] == seen[3:]
    for address in set(seen):
        block = (ctypes.c_uint8 * ROWS.nbytes).from_address(address)
        np.testing.assert_array_equal(np.frombuffer(memoryview(block), np.float32).reshape(2, 3), ROWS)
    np.testing.assert_array_equal(session.run({"row": ROWS + 1})["out"], 2 * (ROWS + 1))
    session.close()
    assert not cuda.memory


@pytest.mark.parametrize(("spin", "flags"), [(True, 1), (False, 4)])
def test_how_the_host_waits_is_set_first_and_told(
    spin: bool, flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    session = _open(tmp_path, monkeypatch, Engine(), Params(spin=spin))
    assert cuda.calls[0] == "cudaDeviceScheduleSpin" if spin else "cudaDeviceScheduleBlockingSync"
    assert cuda.flags == flags
    assert session.effective()["wait"] == ("the host spins" if spin else "the host blocks")


def test_each_process_takes_one_of_several_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    for number in range(3):
        plan_path(tmp_path / "model.plan", number).write_bytes(b"plan")
    told = {_open(tmp_path, monkeypatch, Engine(), Params(builds=3)).effective()["build"] for _ in range(60)}
    assert told == {"engine 1 of 3", "engine 2 of 3", "engine 3 of 3"}


class NvmlStandIn:
    """Counts 2 mJ for each call of its clock."""

    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.millijoules = 0
        self.down = False

    def __getattr__(self, name: str):
        return lambda *_arguments: None

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> str:
        assert bus == b"0000:00:1e.0"
        return "gpu"

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: str) -> int:
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: str):
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=77)]

    def nvmlDeviceGetClockInfo(self, gpu: str, kind: int) -> int:
        return 1980

    def nvmlDeviceGetTemperature(self, gpu: str, kind: int) -> int:
        return 41

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: str) -> int:
        return 4

    def nvmlShutdown(self) -> None:
        self.down = True


def test_energy_is_the_counters_growth_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, now = NvmlStandIn(), [0]
    monkeypatch.setattr(timing, "import_nvml", lambda: nvml)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: tick(seconds, 70))

    def tick(seconds: float, watts: float) -> None:
        now[0] += int(seconds * 1e9)
        nvml.millijoules += round(1e3 * watts * seconds)

    found = timing.Nvml(b"0000:00:1e.0").energy(lambda: tick(0.01, 300), clock=lambda: now[0])
    assert found.joules == pytest.approx(3.0)
    assert (found.watts, found.idle_watts, found.seconds) == pytest.approx((300, 70, 3.0))
    assert str(found).startswith("3000.000 mJ per inference")


def test_the_placement_session_tells_what_the_gpu_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime
) -> None:
    nvml = NvmlStandIn()
    monkeypatch.setattr(timing, "import_nvml", lambda: nvml)
    monkeypatch.setattr(timing.Nvml, "energy", lambda self, call: call() or "1 mJ")
    session = _open(tmp_path, monkeypatch, Engine(), purpose="placement")
    session.run({"row": ROWS})
    assert "device time" not in session.effective()
    session.placements()
    told = session.effective()
    assert told["device time"] == "p50 5.0 us, p10 5.0, p90 5.0, of 50 runs between CUDA events"
    assert told["device memory"].startswith("weights 200 B, activations 1000 B, buffers 48 B by the engine; 96 B more")
    assert (told["process memory"], told["energy"]) == ("77 B", "1 mJ")
    assert told["gpu state"] == "SM clock 1980 MHz, 41 C, throttle reasons 0x4"
    assert nvml.down


def test_without_nvml_the_energy_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: CudaRuntime) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    session = _open(tmp_path, monkeypatch, Engine(), purpose="placement")
    session.run({"row": ROWS})
    session.placements()
    assert session.effective()["energy"].startswith("not available: NVML's Python package cannot be imported")


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

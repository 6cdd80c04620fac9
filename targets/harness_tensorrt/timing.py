"""What the GPU itself says of a launch: time between CUDA events, energy and memory by NVML."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_tensorrt.flavors import import_nvml

if TYPE_CHECKING:
    from harness_tensorrt.cuda import Cuda

_RUNS = 50
_ENERGY_NS = 3_000_000_000  # NVML's counter is renewed every 20 to 100 ms: shorter loops would be mostly its steps
_IDLE_NS = 500_000_000

Call = Callable[[], object]


def event_times_us(cuda: Cuda, stream: Any, enqueue: Call, runs: int = _RUNS) -> list[float]:
    """Return microseconds on the GPU of each of some calls that enqueue work, one after the other.

    Args:
        cuda: The runtime.
        stream: That the calls enqueue on.
        enqueue: Enqueues and does not wait.
        runs: How many.
    """
    start, stop = cuda.call("cudaEventCreate"), cuda.call("cudaEventCreate")
    found = []
    try:
        for _run in range(runs):
            cuda.call("cudaEventRecord", start, stream)
            enqueue()
            cuda.call("cudaEventRecord", stop, stream)
            cuda.call("cudaEventSynchronize", stop)
            found.append(1e3 * float(cuda.call("cudaEventElapsedTime", start, stop)))
    finally:
        cuda.call("cudaEventDestroy", start)
        cuda.call("cudaEventDestroy", stop)
    return found


def stated(times_us: list[float]) -> str:
    """Return median and spread in one line."""
    low, middle, high = (statistics.quantiles(times_us, n=10)[place] for place in (0, 4, 8))
    return f"p50 {middle:.1f} us, p10 {low:.1f}, p90 {high:.1f}, of {len(times_us)} runs between CUDA events"


@dataclass(frozen=True)
class Energy:
    """Of the whole GPU while a call was repeated.

    Attributes:
        joules: Per call.
        watts: While it was repeated.
        idle_watts: Just before.
        seconds: How long it was repeated.
    """

    joules: float
    watts: float
    idle_watts: float
    seconds: float

    def __str__(self) -> str:
        """Return it in one line."""
        return (
            f"{1e3 * self.joules:.3f} mJ per inference of the whole GPU, NVML's counter over {self.seconds:.1f} s"
            f" at {self.watts:.0f} W; {self.idle_watts:.0f} W when idle"
        )


class Nvml:
    """One GPU through NVML.

    Args:
        bus: PCI bus id of the GPU, as CUDA says it.

    Raises:
        Exception: NVML's own, where it is not there; ``tell`` turns it into words.
    """

    def __init__(self, bus: bytes | str) -> None:
        self._nvml = import_nvml()
        self._nvml.nvmlInit()
        self._gpu = self._nvml.nvmlDeviceGetHandleByPciBusId(bus)

    def energy(self, step: Call, clock: Callable[[], int] = time.perf_counter_ns) -> Energy:
        """Repeat a synchronous step for three seconds, after half a second of rest, and return what it took."""
        idle_watts = self._rest(clock)
        calls, before, start = 0, self._millijoules(), clock()
        while clock() - start < _ENERGY_NS:
            step()
            calls += 1
        seconds, joules = (clock() - start) / 1e9, (self._millijoules() - before) / 1e3
        return Energy(joules / calls, joules / seconds, idle_watts, seconds)

    def process_bytes(self, pid: int) -> int | None:
        """Return what a process holds on the GPU; ``None`` where NVML does not say, as in most containers."""
        for entry in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._gpu):
            if entry.pid == pid and entry.usedGpuMemory is not None:
                return int(entry.usedGpuMemory)
        return None

    def state(self) -> str:
        """Return clock, temperature and why the clock is held down, in one line."""
        nvml, gpu = self._nvml, self._gpu
        clock = nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)
        celsius = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        held = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
        return f"SM clock {clock} MHz, {celsius} C, throttle reasons {held:#x}"

    def close(self) -> None:
        """Give NVML back."""
        self._nvml.nvmlShutdown()

    def _millijoules(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))

    def _rest(self, clock: Callable[[], int]) -> float:
        before, start = self._millijoules(), clock()
        while clock() - start < _IDLE_NS:
            time.sleep(0.05)
        return (self._millijoules() - before) / 1e3 / ((clock() - start) / 1e9)

"""Peak resident memory of a fresh process by phase, as the kernel counts it (MEASUREMENT 2).

The load phase goes up to the end of the first inference, the run phase is the inferences after it.
``VmHWM`` is kept by the kernel, belongs to one address space and can be reset; samplers miss peaks, ``ru_maxrss``
survives exec, and tracemalloc sees Python objects only.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from harness import codec
from harness.measure import cpus
from harness.measure.member import Member, Setup
from harness.measure.process import Worker, WorkerLost
from harness.profiles import Profile
from harness.types import Failure, Memory

INFERENCES = 20
DISTINCT_INPUTS = 4  # inputs are the harness's own memory; few are enough to run a model
SPREAD_BYTES, SPREAD_SHARE = 2**20, 0.02  # between launches; more is told in the reason
_RESET_HWM = "5"


@dataclass(frozen=True)
class Reading:
    """One launch, in bytes; the peaks are ``None`` where the kernel does not keep them."""

    floor: int
    load_peak: int
    run_peak: int
    steady: int
    device: int | None
    resettable: bool


def status_bytes(pid: int, field: str) -> int:
    """Return a memory field of ``/proc/<pid>/status`` in bytes.

    Raises:
        LookupError: The kernel does not report it; the text says so.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError as error:
        raise LookupError(f"/proc/{pid}/status: {error.strerror}") from None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(f"the kernel reports no {field}")


def reset_peak(pid: int) -> bool:
    """Set a process's VmHWM back to what it holds now; tell whether that was permitted."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_HWM)
    except OSError:
        return False
    return True


def steady_bytes(pid: int) -> int:
    """Return the proportional set size, which counts shared pages by share; the resident size where it is not told."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return status_bytes(pid, "VmRSS")


def measure_memory(
    member: Member, profile: Profile, *, timeout_s: float, memory_limit_bytes: int | None = None
) -> Memory | Failure:
    """Open and run a cell in fresh processes and read their peaks.

    The floor is what a worker holds before the runtime is imported: interpreter, numpy, harness and the plugin.

    Args:
        member: The cell.
        profile: Says how many launches; their medians are reported.
        timeout_s: For one launch.
        memory_limit_bytes: RLIMIT_DATA of the process.
    """
    readings: list[Reading] = []
    for _ in range(profile.memory_launches):
        try:
            readings.append(_launch(member, timeout_s, memory_limit_bytes))
        except WorkerLost as lost:
            return lost.failure
        except LookupError as error:
            return Failure("unavailable", "memory", "harness", f"peak memory cannot be read here: {error}")
    return _summary(readings)


def _launch(member: Member, timeout_s: float, limit: int | None) -> Reading:
    pinned = cpus.choose(member.options.threads)
    setup = Setup(member, "memory", "memory", 0, pinned, limit, DISTINCT_INPUTS)
    with Worker(
        "harness.measure.worker",
        python=member.python,
        threads=member.options.threads,
        blame=member.plugin,
        stage="memory",
        budget_s=timeout_s,
    ) as worker:
        worker.greet()
        worker.ask("configure", setup=codec.to_data(setup))
        floor = status_bytes(worker.pid, "VmRSS")
        resettable = reset_peak(worker.pid)
        worker.ask("open")
        load_peak = status_bytes(worker.pid, "VmHWM")
        resettable = reset_peak(worker.pid) and resettable
        reply = worker.ask("infer", count=INFERENCES)
        run_peak, steady = status_bytes(worker.pid, "VmHWM"), steady_bytes(worker.pid)
        return Reading(floor, load_peak, run_peak, steady, reply["device_bytes"], resettable)


def _summary(readings: list[Reading]) -> Memory:
    peaks = [max(reading.load_peak, reading.run_peak) for reading in readings]
    devices = [reading.device for reading in readings if reading.device is not None]

    def middle(values: list[int]) -> int:
        return int(statistics.median(values))

    return Memory(
        floor_bytes=middle([reading.floor for reading in readings]),
        load_peak_bytes=middle([reading.load_peak for reading in readings]),
        run_peak_bytes=middle([reading.run_peak for reading in readings]),
        peak_bytes=middle(peaks),
        steady_bytes=middle([reading.steady for reading in readings]),
        launches=len(readings),
        device_bytes=middle(devices) if devices else None,
        reason="; ".join(_remarks(readings, peaks)),
    )


def _remarks(readings: list[Reading], peaks: list[int]) -> list[str]:
    found = []
    spread = max(peaks) - min(peaks)
    if spread > max(SPREAD_BYTES, SPREAD_SHARE * min(peaks)):
        found.append(f"launches differ by {spread / 2**20:.1f} MiB, the highest peak is {max(peaks) / 2**20:.1f} MiB")
    if not all(reading.resettable for reading in readings):
        found.append("the peak could not be reset, so the run's peak includes loading")
    return found

"""Peak resident memory of a fresh process by phase, as the kernel counts it (MEASUREMENT 2).

The load phase goes up to the end of the first inference, the run phase is the inferences after it.
``VmHWM`` is kept by the kernel, belongs to one address space and can be reset; samplers miss peaks, ``ru_maxrss``
survives exec, and tracemalloc sees Python objects only.
"""

from __future__ import annotations

import functools
import statistics
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import codec
from harness.measure import cpus
from harness.measure.member import Member, Setup
from harness.measure.min_fit import min_fit
from harness.measure.process import Worker, WorkerLost, worker_of
from harness.profiles import Profile
from harness.types import Artifact, Failure, Memory

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
    split: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Floor:
    """Peak of a process that only runs the runtime's one-operator model; ``None`` with the reason."""

    peak: int | None
    reason: str = ""


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


def rollup(pid: int) -> dict[str, int]:
    """Return ``smaps_rollup`` of a process and its children, summed, in bytes by the kernel's names.

    Proportional shares (Pss) may be summed over processes; what they share counts twice in resident sizes (Rss). Empty
    where it cannot be read.
    """
    total: dict[str, int] = {}
    for each in (pid, *children(pid)):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        for name, _, value in (line.partition(":") for line in lines):
            if value.endswith("kB"):
                total[name] = total.get(name, 0) + int(value.split()[0]) * 1024
    return total


def mapped_bytes(split: Mapping[str, int]) -> int:
    """Return the resident pages of mapped files, from ``rollup``.

    Not their proportional share (Pss_File): of a library it halves as soon as a stranger on the host loads it too.
    """
    return split.get("Rss", 0) - split.get("Anonymous", 0) - split.get("Pss_Shmem", 0)


def children(pid: int) -> list[int]:
    """Return all processes that descend from one."""
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in (cpus.read_text(listing) or "").split()]
    return [*found, *(grandchild for child in found for grandchild in children(child))]


def steady_bytes(pid: int) -> int:
    """Return the proportional set size, which counts shared pages by share; the resident size where it is not told."""
    return rollup(pid).get("Pss") or status_bytes(pid, "VmRSS")


@functools.cache
def _gzip_bytes(path: Path, sha256: str) -> int:
    del sha256  # tells two contents of one path apart
    packer, size = zlib.compressobj(1), 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            size += len(packer.compress(block))
    return size + len(packer.flush())


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
    found = _summary(readings, _floor_of(member, timeout_s), member.artifact)
    fit: int | None = None
    reason = "searched in the profile publish only"
    if profile.name == "publish":
        fit, reason = min_fit(member, found.peak_bytes, timeout_s=timeout_s)
    missing = {} if fit else {"min_fit_bytes": reason}
    return replace(found, min_fit_bytes=fit, unavailable={**found.unavailable, **missing})


def _worker(member: Member, timeout_s: float) -> Worker:
    return worker_of(member, "memory", timeout_s)


def _setup(member: Member, limit: int | None) -> Setup:
    return Setup(member, "memory", "memory", 0, cpus.choose(member.options.threads), limit, DISTINCT_INPUTS)


def _launch(member: Member, timeout_s: float, limit: int | None) -> Reading:
    with _worker(member, timeout_s) as worker:
        worker.greet()
        worker.ask("configure", setup=codec.to_data(_setup(member, limit)))
        floor = status_bytes(worker.pid, "VmRSS")
        resettable = reset_peak(worker.pid)
        worker.ask("open")
        load_peak = status_bytes(worker.pid, "VmHWM")
        resettable = reset_peak(worker.pid) and resettable
        reply = worker.ask("infer", count=INFERENCES)
        run_peak, split = status_bytes(worker.pid, "VmHWM"), rollup(worker.pid)
        steady = split.get("Pss") or status_bytes(worker.pid, "VmRSS")
        return Reading(floor, load_peak, run_peak, steady, reply["device_bytes"], resettable, split)


_floors: dict[tuple[object, ...], Floor] = {}


def _floor_of(member: Member, timeout_s: float) -> Floor:
    """Return the runtime's floor, read once for each target, parameters, threads and interpreter of this process."""
    key = (member.target.name, tuple(sorted(member.params.items())), member.options.threads, member.python)
    if key not in _floors:
        _floors[key] = _read_floor(member, timeout_s)
    return _floors[key]


def _read_floor(member: Member, timeout_s: float) -> Floor:
    try:
        with _worker(member, timeout_s) as worker:
            worker.greet()
            worker.ask("configure", setup=codec.to_data(_setup(member, None)))
            reply = worker.ask("floor")
            peak = status_bytes(worker.pid, "VmHWM")
    except WorkerLost as lost:
        return Floor(None, f"the probe model did not run: {lost.failure.reason}")
    except LookupError as error:
        return Floor(None, str(error))
    return Floor(peak) if reply["available"] else Floor(None, f"the probe model did not run: {reply['reason']}")


def _summary(readings: list[Reading], floor: Floor, artifact: Artifact) -> Memory:
    peaks = [max(reading.load_peak, reading.run_peak) for reading in readings]
    devices = [reading.device for reading in readings if reading.device is not None]
    split_known = all(reading.split for reading in readings)

    def middle(values: list[int]) -> int:
        return int(statistics.median(values))

    def part(of: Callable[[Mapping[str, int]], int]) -> int | None:
        return middle([of(reading.split) for reading in readings]) if split_known else None

    unavailable = {} if split_known else {"steady_uss_bytes": "the kernel gives no smaps_rollup"}
    if floor.peak is None:
        unavailable["runtime_floor_bytes"] = floor.reason
    file = artifact.path if artifact.path.is_file() else None
    return Memory(
        floor_bytes=middle([reading.floor for reading in readings]),
        load_peak_bytes=middle([reading.load_peak for reading in readings]),
        run_peak_bytes=middle([reading.run_peak for reading in readings]),
        peak_bytes=middle(peaks),
        steady_bytes=middle([reading.steady for reading in readings]),
        launches=len(readings),
        device_bytes=middle(devices) if devices else None,
        reason="; ".join(_remarks(readings, peaks)),
        runtime_floor_bytes=floor.peak,
        delta_bytes=None if floor.peak is None else middle(peaks) - floor.peak,
        max_peak_bytes=max(peaks),
        steady_uss_bytes=part(lambda split: split.get("Private_Clean", 0) + split.get("Private_Dirty", 0)),
        anon_bytes=part(lambda split: split.get("Anonymous", 0)),
        file_mapped_bytes=part(mapped_bytes),
        shmem_bytes=part(lambda split: split.get("Pss_Shmem", 0)),
        file_bytes=artifact.artifact_bytes,
        gzip_bytes=_gzip_bytes(file, artifact.sha256) if file else None,
        unavailable=unavailable,
    )


def _remarks(readings: list[Reading], peaks: list[int]) -> list[str]:
    found = []
    spread = max(peaks) - min(peaks)
    if spread > max(SPREAD_BYTES, SPREAD_SHARE * min(peaks)):
        found.append(f"launches differ by {spread / 2**20:.1f} MiB, the highest peak is {max(peaks) / 2**20:.1f} MiB")
    if not all(reading.resettable for reading in readings):
        found.append("the peak could not be reset, so the run's peak includes loading")
    return found

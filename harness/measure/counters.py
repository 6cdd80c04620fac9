"""What the host says about disturbance, read before and after a stretch of time; no privileges needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.measure.cpus import cgroup_path, read_text


@dataclass(frozen=True)
class Counters:
    """Running totals; ``None`` where the host does not tell."""

    ns: int
    steal: tuple[int, int] | None
    psi_cpu_us: int | None
    throttled: int | None


@dataclass(frozen=True)
class Disturbance:
    """What happened between two readings; shares are 0..1 of the time between them."""

    steal: float | None
    psi_cpu: float | None
    throttled: int | None


def read(cpus: Sequence[int]) -> Counters:
    """Read the totals now, steal for these CPUs."""
    return Counters(time.monotonic_ns(), _steal(cpus), _psi(), _throttled())


def between(before: Counters, after: Counters) -> Disturbance:
    """Return the disturbance from one reading to the next."""
    steal = psi = throttled = None
    if before.steal and after.steal:
        ticks = after.steal[1] - before.steal[1]
        steal = (after.steal[0] - before.steal[0]) / ticks if ticks > 0 else 0.0
    if before.psi_cpu_us is not None and after.psi_cpu_us is not None:
        psi = (after.psi_cpu_us - before.psi_cpu_us) * 1e3 / max(1, after.ns - before.ns)
    if before.throttled is not None and after.throttled is not None:
        throttled = after.throttled - before.throttled
    return Disturbance(steal, psi, throttled)


def _steal(cpus: Sequence[int]) -> tuple[int, int] | None:
    """Return (stolen, all) clock ticks summed over these CPUs; /proc/stat lists user, nice, …, steal, guest, …."""
    wanted = {f"cpu{cpu}" for cpu in cpus} or {"cpu"}
    stolen = total = 0
    for line in (read_text(Path("/proc/stat")) or "").splitlines():
        name, *words = line.split()
        if name in wanted and len(words) >= 8:
            ticks = [int(word) for word in words[:8]]  # guest time is already in user time
            stolen += ticks[7]
            total += sum(ticks)
    return (stolen, total) if total else None


def _psi() -> int | None:
    for line in (read_text(Path("/proc/pressure/cpu")) or "").splitlines():
        if line.startswith("some"):
            return int(line.rpartition("total=")[2])
    return None


def _throttled() -> int | None:
    for folder in (cgroup_path(""), cgroup_path("cpu")):
        words = (read_text(folder / "cpu.stat") or "").split() if folder else []
        if "nr_throttled" in words:
            return int(words[words.index("nr_throttled") + 1])
    return None

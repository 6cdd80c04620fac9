"""What the host says about disturbance, read before and after a stretch of time; no privileges needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.measure.cpus import cgroup_folders, read_text


@dataclass(frozen=True)
class Counters:
    """Running totals; ``None`` where the host does not tell."""

    ns: int
    steal: tuple[int, int] | None
    psi_cpu_us: int | None
    throttled: int | None
    psi_memory_us: int | None = None
    psi_io_us: int | None = None
    thermal: int | None = None


@dataclass(frozen=True)
class Disturbance:
    """What happened between two readings; shares are 0..1 of the time between them."""

    steal: float | None
    psi_cpu: float | None
    throttled: int | None
    psi_memory: float | None = None
    psi_io: float | None = None
    thermal: int | None = None


def read(cpus: Sequence[int]) -> Counters:
    """Read the totals now, steal for these CPUs."""
    psi = [_psi(kind) for kind in ("cpu", "memory", "io")]
    return Counters(time.monotonic_ns(), _steal(cpus), psi[0], _throttled(), psi[1], psi[2], _thermal(cpus))


def between(before: Counters, after: Counters) -> Disturbance:
    """Return the disturbance from one reading to the next."""
    steal = None
    if before.steal and after.steal:
        ticks = after.steal[1] - before.steal[1]
        steal = (after.steal[0] - before.steal[0]) / ticks if ticks > 0 else 0.0
    wall_us = max(1, after.ns - before.ns) / 1e3

    def share(first: int | None, last: int | None) -> float | None:
        return None if first is None or last is None else (last - first) / wall_us

    def more(first: int | None, last: int | None) -> int | None:
        return None if first is None or last is None else last - first

    return Disturbance(
        steal,
        share(before.psi_cpu_us, after.psi_cpu_us),
        more(before.throttled, after.throttled),
        share(before.psi_memory_us, after.psi_memory_us),
        share(before.psi_io_us, after.psi_io_us),
        more(before.thermal, after.thermal),
    )


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


def _psi(kind: str) -> int | None:
    for line in (read_text(Path("/proc/pressure") / kind) or "").splitlines():
        if line.startswith("some"):
            return int(line.rpartition("total=")[2])
    return None


def _throttled() -> int | None:
    for folder in cgroup_folders("cpu"):
        words = (read_text(folder / "cpu.stat") or "").split()
        if "nr_throttled" in words:
            return int(words[words.index("nr_throttled") + 1])
    return None


def _thermal(cpus: Sequence[int]) -> int | None:
    """Return how often these CPUs were slowed for their heat; virtual machines seldom tell."""
    folders = [Path(f"/sys/devices/system/cpu/cpu{cpu}/thermal_throttle") for cpu in cpus]
    texts = [
        read_text(folder / name) for folder in folders for name in ("core_throttle_count", "package_throttle_count")
    ]
    counts = [int(text) for text in texts if text and text.isdigit()]
    return sum(counts) if counts else None

"""Which CPUs a cell runs on."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def allowed() -> tuple[int, ...]:
    """Return the CPUs that this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def read_text(path: Path) -> str | None:
    """Return a kernel file's text, stripped, or None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def siblings(cpu: int) -> frozenset[int]:
    """Return the CPUs that share a physical core with this one, itself included."""
    text = read_text(_CPU / f"cpu{cpu}/topology/thread_siblings_list")
    found = {cpu}
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def cgroup_path(controller: str) -> Path | None:
    """Return this process's cgroup folder, version 2 (``controller`` "") or one of version 1; None off Linux."""
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
        _number, names, path = line.split(":", 2)
        if (not controller and not names) or controller in names.split(","):
            return _CGROUP / (names and controller) / path.lstrip("/")
    return None


def cgroup_folders(controller: str) -> tuple[Path, ...]:
    """Return where a controller's files of this process may lie: version 2, version 1, and inside a container its root.

    A container sees its own cgroup as the root of the mount while ``/proc/self/cgroup`` names the host's path.
    """
    found = [path for path in (cgroup_path(""), cgroup_path(controller)) if path is not None]
    roots = (_CGROUP / controller, _CGROUP)
    return tuple(path for path in dict.fromkeys((*found, *roots)) if path.is_dir())


def last_level_cache_bytes() -> int | None:
    """Return the size of the largest cache of CPU 0, or None where the kernel does not tell."""
    sizes = [read_text(path) or "" for path in (_CPU / "cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20}
    known = [int(size[:-1]) * units[size[-1]] for size in sizes if size[:-1].isdigit() and size[-1] in units]
    return max(known, default=None)


def quota() -> float | None:
    """Return how many CPUs the cgroup's bandwidth limit allows, or None where there is no limit."""
    version2 = cgroup_path("")
    words = (read_text(version2 / "cpu.max") or "").split() if version2 else []
    if not words:
        version1 = cgroup_path("cpu")
        if version1 is None:
            return None
        pair = (read_text(version1 / "cpu.cfs_quota_us"), read_text(version1 / "cpu.cfs_period_us"))
        words = [word for word in pair if word]
    if len(words) != 2 or words[0] in {"max", "-1"}:
        return None
    return int(words[0]) / int(words[1])


def physical_cores() -> tuple[int, ...]:
    """Return one allowed CPU of every physical core."""
    chosen: list[int] = []
    taken: set[int] = set()
    for cpu in allowed():
        if cpu not in taken:
            chosen.append(cpu)
            taken |= siblings(cpu)
    return tuple(chosen)


def effective_cores() -> int:
    """Return how many threads can really run at once: physical cores, cut by the cgroup's quota."""
    limit = quota()
    cores = len(physical_cores())
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def choose(threads: int) -> tuple[int, ...]:
    """Return ``threads`` distinct CPUs, on distinct physical cores as far as they go.

    The highest numbers are taken first: CPU 0 serves most interrupts.
    """
    cores = sorted(physical_cores(), reverse=True)
    others = sorted(set(allowed()) - set(cores), reverse=True)
    return tuple(sorted((cores + others)[:threads]))

"""What a worker does to itself before it measures: pin, limit, and die with its parent."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_OOM_SCORE = "800"  # of -1000..1000: a worker goes before the run that started it


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends; a pipe's end does it elsewhere."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def offer_to_oom_killer() -> None:
    """Raise this process's out-of-memory score, so that the kernel does not take the parent instead."""
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    except OSError:
        return  # off Linux, or already higher: nothing is lost but a preference


def limit_memory(limit_bytes: int | None) -> None:
    """Limit the data segment and anonymous maps; address space (RLIMIT_AS) would break runtimes that reserve much."""
    if limit_bytes is None or sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


@contextlib.contextmanager
def more_memory(limit_bytes: int | None) -> Generator[None, None, None]:
    """Let this process take so much beside what it has, as ``limit_memory`` counts; afterwards as much as before.

    A limit that is narrower already stays.
    """
    held = _data_bytes()
    if limit_bytes is None or held is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    narrower = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held + limit_bytes, *narrower]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def available_bytes() -> int:
    """Return the memory that is free now, as far as the host tells."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return pages


def _data_bytes() -> int | None:
    """Return what RLIMIT_DATA counts of this process; ``None`` off Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:")), None)


def pin(cpus: Sequence[int]) -> None:
    """Run on these CPUs only; threads that start later inherit it."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def affinity() -> tuple[int, ...]:
    """Return the CPUs in force, read back; empty where the platform does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()

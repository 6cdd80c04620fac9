"""The smallest memory limit under which a cell still runs at speed: what a buyer has to provide (MEASUREMENT 2).

Resident sizes count clean, mapped weights that the kernel can drop and read again; only a limit shows what is needed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Generator
from pathlib import Path

from harness import codec
from harness.measure import cpus
from harness.measure.member import Member, Setup
from harness.measure.process import WorkerLost, worker_of

SLOWDOWN = 1.05
PRECISION = 0.02  # of the limit
INFERENCES = 20
REPEATS = 5  # the least counts: what else runs on the host only adds
CLOCK_NS = 100_000  # of difference that is no slowdown: what faulting pages back in costs is far more
REMOVE_S = 2.0  # that a cgroup may be busy after its process was killed
_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of cgroup version 2, and of version 1
log = logging.getLogger("harness")


@contextlib.contextmanager
def limited(limit_bytes: int) -> Generator[Path, None, None]:
    """Make a memory cgroup with a limit and no swap below this process's own; it is removed at the end.

    Raises:
        OSError: Cgroups are not writable here; the text says which.
    """
    folder = _parent() / f"harness-fit-{os.getpid()}-{limit_bytes}"  # one that a killed run left has another number
    folder.mkdir()
    try:
        name = next((name for name in _LIMITS if (folder / name).exists()), None)
        if name is None:
            raise OSError("the memory controller is not enabled for cgroups made here")
        (folder / name).write_text(str(limit_bytes))
        if (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0")
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a cgroup as soon as the kernel has let go of its last process; one that stays costs no measurement."""
    deadline = time.monotonic() + REMOVE_S
    while folder.exists() and time.monotonic() < deadline:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                break
            time.sleep(REMOVE_S / 100)
    if folder.exists():
        log.warning("the cgroup %s could not be removed", folder)


def _parent() -> Path:
    for folder in cpus.cgroup_folders("memory"):
        if any((folder / name).exists() for name in (*_LIMITS, "cgroup.subtree_control")):
            return folder
    raise OSError("no memory cgroup is mounted")


def min_fit(member: Member, peak_bytes: int, *, timeout_s: float) -> tuple[int | None, str]:
    """Search the smallest limit to 2 %, or say why none can be found.

    Args:
        member: The cell.
        peak_bytes: Its peak without a limit: the search starts there.
        timeout_s: For one launch.
    """
    try:
        return _search(member, peak_bytes, timeout_s)
    except OSError as error:
        return None, f"cgroups are not writable: {error}"


def _search(member: Member, peak_bytes: int, timeout_s: float) -> tuple[int | None, str]:
    free = _least_ns(member, 4 * peak_bytes, timeout_s)
    if free is None:
        return None, "it does not run in a cgroup of its own"
    low, high = peak_bytes // 16, 2 * peak_bytes
    while high - low > PRECISION * high:
        middle = (low + high) // 2
        taken = _least_ns(member, middle, timeout_s)
        low, high = (low, middle) if taken is not None and taken <= SLOWDOWN * free + CLOCK_NS else (middle, high)
    return high, ""


def _least_ns(member: Member, limit_bytes: int, timeout_s: float) -> float | None:
    """Return the least time of some inferences under a limit, ``None`` where it dies of it."""
    setup = Setup(member, "memory", "memory", 0, cpus.choose(member.options.threads), None, 4)
    with (
        limited(limit_bytes) as folder,
        worker_of(member, "memory", timeout_s) as worker,
    ):
        try:
            worker.greet()
            (folder / "cgroup.procs").write_text(str(worker.pid))
            worker.ask("configure", setup=codec.to_data(setup))
            worker.ask("open")
            return float(min(worker.ask("infer", count=INFERENCES)["ns"] for _ in range(REPEATS)))
        except WorkerLost:
            return None

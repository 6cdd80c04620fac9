"""One lock per host: builds hold it shared, measuring holds it alone, and a waiting measurer goes first.

The kernel frees the locks of a process that dies, so nothing has to be cleaned up. A second lock, the turnstile,
makes it fair: everyone passes through it to get at the slot, and a measurer keeps it while waiting, so that builds
that begin later queue behind the measurer instead of keeping it out for ever.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fcntl
else:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: there, runs are not kept apart
        fcntl = None

OnWait = Callable[[str], None]


def folder() -> Path:
    """Return the folder of the lock files: the user's run-time folder, or one of his own under the temporary one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "harness"
    uid = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"harness-{uid}"


@contextlib.contextmanager
def building(on_wait: OnWait | None = None) -> Generator[None, None, None]:
    """Hold the host's slot together with other builds; blocks while someone measures or waits to.

    Args:
        on_wait: Told once, before blocking, for whom this waits.
    """
    with contextlib.ExitStack() as held:
        with _lock("turnstile", shared=True, on_wait=on_wait):
            held.enter_context(_lock("slot", shared=True, on_wait=on_wait))
        yield


@contextlib.contextmanager
def measuring(on_wait: OnWait | None = None) -> Generator[None, None, None]:
    """Hold the host's slot alone; new builds wait from the moment this one does.

    Args:
        on_wait: Told once, before blocking, for whom this waits.
    """
    with contextlib.ExitStack() as held:
        with _lock("turnstile", shared=False, on_wait=on_wait):
            held.enter_context(_lock("slot", shared=False, on_wait=on_wait))
        yield


@contextlib.contextmanager
def _lock(name: str, *, shared: bool, on_wait: OnWait | None) -> Generator[None, None, None]:
    if fcntl is None:
        yield
        return
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / f"{name}.lock").open("a+") as stream:
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait(f"waiting for another run{_holders(stream.fileno())}")
            fcntl.flock(stream, kind)
        yield  # closing the file frees the lock


def _holders(descriptor: int) -> str:
    """Return " (pid N)" for those who hold a lock on this file, as the kernel lists them; empty where it does not."""
    inode = os.fstat(descriptor).st_ino
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    rows = [line.split() for line in lines if "->" not in line]
    pids = {row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode)}
    return f" (pid {', '.join(sorted(pids))})" if pids else ""

"""One process at a time writes into a run folder."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from harness.errors import HarnessError
from harness.store.layout import LOCK

log = logging.getLogger("harness")


class RunLock:
    """An advisory lock on a run folder; the kernel frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            HarnessError: Another process holds it; the message names the process.
        """
        self._fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(self._fd, folder)
        except BaseException:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Free the lock; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _take(fd: int, folder: Path) -> None:
    if sys.platform == "win32":
        log.warning("run folders are not locked: not available: no flock on this platform")
        return
    import fcntl  # POSIX only

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        raise HarnessError(
            f"run {folder.name} is being written by process {holder}",
            hint="wait for it, or measure into another folder with --out",
        ) from None

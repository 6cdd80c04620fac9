"""The host's lock around each step, waited for beside the loop that reads the builders.

A measurer that waits stops new steps: then entering the slot blocks until it has measured. It waits in turn for the
steps that run, so the loop that ends them must not be the one that blocks.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

Slot = Callable[[], AbstractContextManager[object]]


class Gate:
    """Ask for slots; they arrive through a descriptor that can be waited on.

    Args:
        slot: Gives a context manager that holds the host's lock, such as ``harness.measure.slots.building``.
    """

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._arrived: queue.SimpleQueue[AbstractContextManager[object] | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self.asked = 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader

    def ask(self) -> None:
        """Ask for one slot."""
        self.asked += 1
        threading.Thread(target=self._enter, daemon=True, name="harness-build-slot").start()

    def _enter(self) -> None:
        try:
            holder = self._slot()
            holder.__enter__()
        except BaseException as error:  # noqa: BLE001  it is raised again where the slot was asked for
            self._tell(error)
            return
        self._tell(holder)

    def _tell(self, item: AbstractContextManager[object] | BaseException) -> None:
        with self._lock:
            if not self._closed:
                self._arrived.put(item)
                os.write(self._writer, b".")
                return
        if not isinstance(item, BaseException):
            item.__exit__(None, None, None)

    def arrived(self) -> list[AbstractContextManager[object]]:
        """Return the slots that were entered since the last call.

        Raises:
            BaseException: Whatever entering one raised.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        holders = []
        while not self._arrived.empty():
            item = self._arrived.get()
            self.asked -= 1
            if isinstance(item, BaseException):
                raise item
            holders.append(item)
        return holders

    def close(self) -> None:
        """Give back what arrived and was not taken; what arrives later is given back at once."""
        with self._lock:
            self._closed = True
            while not self._arrived.empty():
                item = self._arrived.get()
                if not isinstance(item, BaseException):
                    item.__exit__(None, None, None)
            os.close(self._reader)
            os.close(self._writer)

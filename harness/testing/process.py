"""The parent's end of the kit's process: one at a time for an offer, started anew when it is lost."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, TypeVar

from harness import codec
from harness.measure.process import Worker, WorkerLost
from harness.types import Failure

T = TypeVar("T")
LIMIT_S = 120.0  # of one call, unless said otherwise


class Process:
    """A kit process for one plugin.

    Args:
        blame: The plugin.
        limit_s: Of each call.
        python: Interpreter; ``None`` for this one.
    """

    def __init__(self, blame: str, *, limit_s: float = LIMIT_S, python: str | None = None) -> None:
        self.blame, self.limit_s, self.python = blame, limit_s, python
        self._worker: Worker | None = None

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _start(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(
                "harness.testing.worker",
                python=self.python,
                threads=1,
                blame=self.blame,
                stage="plan",
                budget_s=self.limit_s,
            )
            self._worker.greet()
        return self._worker

    def see(self, kind: str, seen: type[T], **fields: Any) -> T | Failure:
        """Ask for an observation; a call that crashes or hangs gives a failure and costs this process."""
        answer = self.ask(kind, **fields)
        return answer if isinstance(answer, Failure) else codec.from_data(seen, answer["seen"], where=kind)

    def ask(self, kind: str, **fields: Any) -> dict[str, Any] | Failure:
        """Send one message and wait for its answer."""
        try:
            worker = self._start()
            worker.left_s = worker.budget_s = self.limit_s
            return worker.ask(kind, **{name: codec.to_data(value) for name, value in fields.items()})
        except WorkerLost as lost:
            if lost.failure.status != "failed":
                with contextlib.suppress(OSError):
                    self.stop()
            return lost.failure

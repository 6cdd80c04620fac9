"""The parent's end: start a worker, ask it, stop and continue it, and say what happened when it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codec, environment
from harness.explain import Where, died, is_memory
from harness.measure import channel
from harness.measure.worker_line import doing
from harness.types import Failure, Stage, Status

if TYPE_CHECKING:
    from harness.measure.member import Member

TAIL_BYTES = 4000
EXIT_WAIT_S = 5.0
MEASURING = "harness.measure.worker"  # the module of the process that measures


class WorkerLost(Exception):
    """A worker failed, crashed or hung; ``failure`` says how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Worker:
    """A fresh process and the conversation with it; a context manager that leaves no process behind.

    The kernel kills the worker when the *thread* that made this object ends, so make it from one that stays.

    Args:
        module: Module that is run with ``-m``.
        python: Interpreter; ``None`` for this one.
        blame: Plugin that failures name.
        budget_s: Time that all answers together may take; what is spent while others run does not count.
    """

    def __init__(
        self, module: str, *, python: str | None, threads: int, blame: str, stage: Stage, budget_s: float
    ) -> None:
        self.stage: Stage = stage
        self.blame, self.left_s = blame, budget_s
        self.budget_s = budget_s
        self._asked = ""
        self._oom_kills = _oom_kills()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill()
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.started_ns = time.perf_counter_ns()
        try:
            self.process = subprocess.Popen(
                [python or sys.executable, "-P", "-m", module, str(theirs_in), str(theirs_out)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs_in, theirs_out),
                env=environment.inherited(threads, python),
                start_new_session=True,
            )
        except OSError as error:
            for descriptor in (ours_in, ours_out):
                os.close(descriptor)
            self._log.close()
            raise WorkerLost(Failure("failed", stage, "harness", f"cannot start {python}: {error}")) from None
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.line = channel.Channel(ours_in, ours_out)
        self._open = True

    @property
    def pid(self) -> int:
        """Process number."""
        return self.process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    def greet(self) -> None:
        """Wait for the handshake and check it."""
        self._asked = "starting"
        wrong = channel.mismatch(self._receive())
        if wrong:
            raise WorkerLost(self.failed("failed", wrong, blame="harness"))

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message without waiting for its answer."""
        self._asked = kind
        with contextlib.suppress(channel.Closed):  # what became of it is told when the answer is asked for
            self.line.send({"kind": kind, "stage": self.stage, "blame": self.blame, **fields})

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last message.

        Raises:
            WorkerLost: The worker reported a failure, is gone, or its time is spent.
        """
        reply = self._receive()
        if reply.get("kind") == "failure":
            raise WorkerLost(codec.from_data(Failure, reply["failure"], where="a worker's failure"))
        return reply

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Send a message and wait for its answer."""
        self.tell(kind, **fields)
        return self.answer()

    def _receive(self) -> dict[str, Any]:
        start = time.monotonic()
        try:
            return self.line.receive(max(0.0, self.left_s))
        except channel.Late:
            reason = f"{doing(self._asked)}: no answer within {self.budget_s:g} s"
            raise WorkerLost(self.failed("timeout", reason)) from None
        except channel.Closed:
            raise WorkerLost(self._exit_failure()) from None
        finally:
            self.left_s -= time.monotonic() - start

    def pause(self) -> None:
        """Stop all its threads and wait until they are: some runtimes spin for work that will not come."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def proceed(self) -> None:
        """Let it run again."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def failed(self, status: str, reason: str, *, blame: str | None = None) -> Failure:
        """Return a failure at this worker's stage."""
        return codec.from_data(
            Failure, {"status": status, "stage": self.stage, "blame": blame or self.blame, "reason": reason}
        )

    def tail(self) -> str:
        """Return the end of what it printed."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - TAIL_BYTES))
        return self._log.read().decode(errors="replace")

    def _exit_failure(self) -> Failure:
        where = Where(self.stage, self.blame, doing(self._asked))
        try:
            code = self.process.wait(EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            return died("closed its pipe and stayed alive", "", "crashed", where)
        said = self.tail()
        status: Status = "oom" if is_memory(said) else "crashed"
        if code == -signal.SIGKILL and _oom_kills() > self._oom_kills:
            return died("was killed by the kernel for lack of memory", said, "oom", where)
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        return died(how, said, status, where)

    def kill(self) -> None:
        """Kill it and all that it started; safe to call again."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self.line.close()
        self._log.close()


def worker_of(member: Member, stage: Stage, budget_s: float) -> Worker:
    """Start the process that a member is measured in, with its interpreter and threads."""
    return Worker(
        MEASURING,
        python=member.python,
        threads=member.options.threads,
        blame=member.plugin,
        stage=stage,
        budget_s=budget_s,
    )


def _oom_kills() -> int:
    try:
        words = Path("/proc/vmstat").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0

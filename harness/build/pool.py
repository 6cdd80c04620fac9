"""Builder processes: started, spoken to, watched and ended; what goes wrong with one becomes a failure."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import harness
from harness import codec, environment
from harness.build.tasks import PROTOCOL, Hello, Reply, Request
from harness.errors import RecordError
from harness.explain import last_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.types import Status

_TAIL_BYTES = 2000
_END_S = 5.0


def builder_environment(threads: int, python: str | None = None) -> dict[str, str]:
    """Return the environment of a builder: that of every process of ours, and hashes that give the same order."""
    return {**environment.inherited(threads, python), "PYTHONHASHSEED": "0"}


@dataclass(frozen=True)
class Gone:
    """How a builder ended that should have answered.

    Attributes:
        status: How the step counts that it was at.
        reason: What became of it.
        printed: The end of what it printed.
    """

    status: Status
    reason: str
    printed: str = ""

    @property
    def told(self) -> str:
        """The reason, with the last line of what it printed."""
        line = last_line(self.printed)
        return f"{self.reason}; it printed last {line!r}" if line else self.reason


def oom_kills() -> int:
    """Return how often the kernel killed for memory, as far as this host tells."""
    total = 0
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = (line.split() for line in path.read_text().splitlines())
            total += sum(int(words[1]) for words in lines if words and words[0] == "oom_kill")
    return total


@dataclass
class Builder:
    """One process of one interpreter.

    Attributes:
        python: The interpreter as given; ``None`` for this one.
        used: Names of exporters and targets that ran here, so whose imports are paid for.
        owners: Distributions whose code ran here: what it did to the process reaches no step of others.
    """

    python: str | None
    log: Path
    process: subprocess.Popen[bytes]
    reader: int
    writer: int
    used: set[str] = field(default_factory=set)
    owners: frozenset[str] = frozenset()
    hello: Hello | None = None
    _buffer: bytes = b""
    _oom_before: int = 0

    @classmethod
    def start(cls, python: str | None, logs: Path, threads: int) -> Builder:
        """Start a process; it says hello when it is up.

        Raises:
            OSError: The interpreter cannot be run.
        """
        logs.mkdir(parents=True, exist_ok=True)
        request_read, request_write = os.pipe()
        reply_read, reply_write = os.pipe()
        name = logs / f"builder-{os.getpid()}-{time.monotonic_ns()}.log"
        command = [python or sys.executable, "-P", "-m", "harness.build.worker"]
        try:
            with name.open("wb") as output:
                process = _spawn([*command, str(request_read), str(reply_write), str(os.getpid())],
                                 (request_read, reply_write), output, builder_environment(threads, python))  # fmt: skip
        except OSError:
            for descriptor in (request_write, reply_read):
                os.close(descriptor)
            name.unlink(missing_ok=True)
            raise
        finally:
            for descriptor in (request_read, reply_write):
                os.close(descriptor)
        os.set_blocking(reply_read, False)
        return cls(python, name, process, reply_read, request_write)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self.reader

    def ask(self, request: Request) -> None:
        """Send a request; a builder that is gone is noticed when its answer is due."""
        self._oom_before = oom_kills()
        with contextlib.suppress(BrokenPipeError):
            raw = memoryview(codec.dumps(request) + b"\n")
            while raw:
                raw = raw[os.write(self.writer, raw) :]

    def replies(self) -> Iterator[Reply | Gone]:
        """Yield the lines that have come, and how it ended where it did; never waits."""
        ended = False
        while True:
            try:
                chunk = os.read(self.reader, 65_536)
            except BlockingIOError:
                break
            if not chunk:
                ended = True
                break
            self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            yield self._parse(line)
        if ended:
            yield self.gone()

    def _parse(self, line: bytes) -> Reply | Gone:
        try:
            reply = codec.loads(Reply, line, where="a builder's reply")
        except RecordError as error:
            return Gone("failed", error.message)
        if reply.hello is not None:
            self.hello = reply.hello
            return self._greeted(reply)
        return reply

    def _greeted(self, reply: Reply) -> Reply | Gone:
        hello = reply.hello
        if hello is None or (hello.harness == harness.__version__ and hello.protocol == PROTOCOL):
            return reply
        return Gone(
            "unavailable",
            f"{self.python or sys.executable} has harness {hello.harness} (protocol {hello.protocol}), "
            f"here is {harness.__version__} (protocol {PROTOCOL}); install the same version there",
        )

    def gone(self) -> Gone:
        """Reap the process and say how it ended."""
        try:
            code = self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return Gone("crashed", "closed its pipe and did not end")
        if code >= 0:
            if not self.hello:
                return Gone("unavailable", f"the builder exited with status {code} instead of answering", self.tail())
            return Gone("crashed", f"exited with status {code} instead of answering", self.tail())
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if code == -signal.SIGKILL and oom_kills() > self._oom_before:
            return Gone("oom", f"was killed by the kernel for lack of memory ({name})")
        return Gone("crashed", f"was ended by {name}", self.tail())

    def tail(self) -> str:
        """Return the end of what it printed."""
        with contextlib.suppress(OSError), self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return stream.read().decode(errors="replace")
        return ""

    def kill(self) -> None:
        """End it and its children now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def end(self) -> None:
        """End an idle builder: all it made is published, and frameworks can take seconds to leave on their own."""
        self.kill()
        self.log.unlink(missing_ok=True)

    def _close(self) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)
        self.reader = self.writer = -1


def _spawn(
    command: list[str], descriptors: tuple[int, ...], output: IO[bytes], env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=dict(env),
        pass_fds=descriptors, start_new_session=True,
    )  # fmt: skip


class Builders:
    """At most so many builders at once; the idle one that fits best is taken first.

    Args:
        workers: Builders at a time, over all interpreters.
        threads: CPU threads of each.
        logs: Where their output goes.

    Attributes:
        before_end: Called with an idle builder that has to make room: who listens to it must stop now, for the next
            builder's pipe may get the same descriptor.
    """

    def __init__(self, workers: int, threads: int, logs: Path) -> None:
        self.workers = max(1, workers)
        self.threads = threads
        self._logs = logs
        self.busy: list[Builder] = []
        self.idle: list[Builder] = []
        self.started = 0
        self.before_end: Callable[[Builder], object] = lambda _builder: None

    @property
    def free(self) -> int:
        """How many more steps could run now."""
        return self.workers - len(self.busy)

    def take(self, python: str | None, name: str, owners: frozenset[str]) -> Builder:
        """Give a builder of an interpreter, best one that has used ``name`` before.

        Args:
            python: The interpreter.
            name: Whose imports are needed.
            owners: Distributions whose code the step runs; a builder that ran another's is not given.

        Raises:
            OSError: The interpreter cannot be run.
        """
        alike = (item for item in self.idle if item.python == python and item.owners <= owners)
        fitting = sorted(alike, key=lambda item: len(item.used))
        builder = next((item for item in fitting if name in item.used), fitting[0] if fitting else None)
        if builder is not None:
            self.idle.remove(builder)
        else:
            if len(self.idle) + len(self.busy) >= self.workers and self.idle:
                self.leave(self.idle[0])  # of another interpreter, or of other owners
            builder = Builder.start(python, self._logs, self.threads)
            self.started += 1
        builder.used.add(name)
        builder.owners |= owners
        self.busy.append(builder)
        return builder

    def strangers(self, owners: frozenset[str]) -> list[Builder]:
        """Return the idle builders in which code of other distributions ran; it may have left something running."""
        return [item for item in self.idle if not item.owners <= owners]

    def leave(self, builder: Builder) -> None:
        """End an idle builder."""
        self.idle.remove(builder)
        self.before_end(builder)
        builder.end()

    def give(self, builder: Builder) -> None:
        """Take a builder back that has answered."""
        self.busy.remove(builder)
        self.idle.append(builder)

    def drop(self, builder: Builder) -> None:
        """Forget a builder that crashed, hung or was interrupted."""
        builder.kill()
        if builder in self.busy:
            self.busy.remove(builder)

    def close(self) -> None:
        """End every builder; those that still work are killed."""
        for builder in self.busy:
            builder.kill()
        for builder in self.idle:
            builder.end()
        self.busy, self.idle = [], []

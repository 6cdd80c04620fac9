"""The builder process: ``python -m harness.build.worker FD_IN FD_OUT PARENT_PID``.

It reads one request a line and answers on its own pipe; whatever plugins and runtimes print goes to its log.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import harness
from harness import codec, explain, imports
from harness.build import inspecting, provoking, versions
from harness.build.opened import Unopened
from harness.build.run import Plugins, run_task
from harness.build.tasks import (
    KIND,
    PROTOCOL,
    About,
    Hello,
    Probe,
    Probed,
    Progress,
    Reply,
    Request,
    Task,
    Use,
    Versions,
    doing,
    failure_stage,
)
from harness.errors import HarnessError, MissingDependency, RecordError
from harness.explain import KnownError
from harness.params import build as build_params
from harness.types import Availability, Failure

_EVERY_S = 0.1  # between two progress lines
_PR_SET_PDEATHSIG = 1


class Channel:
    """Write replies, whole lines, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last = 0.0

    def send(self, reply: Reply) -> None:
        """Send one line."""
        with self._lock:
            self._stream.write(codec.dumps(reply) + b"\n")
            self._stream.flush()

    def progress(self, fraction: float, text: str) -> None:
        """Send how far the step is, not more often than anyone could read."""
        now = time.monotonic()
        if now - self._last >= _EVERY_S:
            self._last = now
            self.send(Reply(progress=Progress(min(1.0, max(0.0, float(fraction))), str(text))))


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; elsewhere the closed pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):  # so that a full memory costs the builder, not the run
            Path("/proc/self/oom_score_adj").write_text("500")
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")


def _reason(error: HarnessError) -> str:
    return error.message if error.hint is None else f"{error.message} ({error.hint})"


def failure_of(error: BaseException, task: Task, blame: str, known: Sequence[KnownError] = ()) -> Failure:
    """Turn what a step raised into a failure; what its sentence leaves out goes to a log file too."""
    words = doing(task.stage, task.use.name)
    if isinstance(error, Unopened) and error.__cause__ is not None:
        error, words = error.__cause__, f"{task.use.name} built the model and could not run it"
    where = explain.Where(failure_stage(task.stage), blame, words, known)
    found = explain.limited(explain.failure(error, where), task.memory_limit_bytes)
    if found.details:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{task.stage}-{task.use.name}-{task.key[:8]}.log"
        path = Path(task.cache) / "logs" / name
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{task.label}\n{codec.dumps(task, indent=1).decode()}\n\n{found.details}")
    return found


class Worker:
    """Answer requests until the pipe closes."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.plugins = Plugins()

    def answer(self, request: Request) -> Reply:
        """Do what one request asks."""
        if request.task is not None:
            return self._task(request.task)
        if request.probe is not None:
            return Reply(probed=self._probe(request.probe))
        if request.about is not None:
            return Reply(versions=self._about(request.about))
        if request.inspect is not None:
            inspect = request.inspect
            return self._looked(lambda: Reply(seen=inspecting.inspect(inspect, self.plugins)), inspect.workload)
        if request.examine is not None:
            examine = request.examine
            return self._looked(lambda: Reply(findings=inspecting.examine(examine, self.plugins)), examine.use)
        if request.provoke is not None:
            use = request.provoke.use
            return self._looked(lambda: Reply(provoked=provoking.provoke(use, self.plugins)), use)
        raise RecordError("a request asks for nothing")

    def _looked(self, look: Callable[[], Reply], use: Use) -> Reply:
        try:
            return look()
        except BaseException as error:  # noqa: BLE001  as for a step
            traceback.print_exc()
            return Reply(
                failure=explain.failure(error, explain.Where("plan", use.plugin, "the model could not be read"))
            )

    def _task(self, task: Task) -> Reply:
        try:
            return Reply(built=run_task(task, self.plugins, self.channel.progress))
        except BaseException as error:  # noqa: BLE001  a plugin may raise anything, SystemExit included: it costs the step
            return Reply(failure=failure_of(error, task, self._blame(task), self._known(task)))
        finally:
            gc.collect()

    def _blame(self, task: Task) -> str:
        try:
            offer = self.plugins.offer(KIND[task.stage], task.use)
        except Exception:  # noqa: BLE001  then only its name is known
            return task.use.plugin
        return f"{offer.plugin} ({offer.distribution})"

    def _known(self, task: Task) -> Sequence[KnownError]:
        try:
            return getattr(self.plugins.offer(KIND[task.stage], task.use).spec, "known_errors", ())
        except Exception:  # noqa: BLE001  as above
            return ()

    def _probe(self, probe: Probe) -> Probed:
        try:
            spec = self.plugins.offer("target", probe.use).spec
            params = build_params(spec.params, probe.use.params, owner=f"target {spec.name!r}")
            started = time.perf_counter()
            found: Availability = spec.probe(params)
            if not found.seconds:
                found = replace(found, seconds=time.perf_counter() - started)
            return Probed(found, spec.capabilities(params) if found.available else None)
        except MissingDependency as error:
            return Probed(Availability(False, error.message, error.hint or ""))
        except HarnessError as error:
            return Probed(Availability(False, _reason(error)))
        except BaseException as error:  # noqa: BLE001  as for a step: it costs this target alone
            traceback.print_exc()
            said = f"{type(error).__name__}: {explain.first_line(str(error))}"
            return Probed(Availability(False, f"the probe raised {said}"))

    def _about(self, about: About) -> Versions:
        registry = self.plugins.registry(about.plugin)
        info = next((info for info in registry.plugins if info.name == about.plugin), None)
        if info is None or info.state != "loaded":
            return Versions(versions.versions(about.packages), "", "")
        return Versions(versions.versions(about.packages), info.version, versions.source_sha256(info.module))


def main(argv: list[str]) -> int:
    """Serve the parent."""
    descriptor_in, descriptor_out, parent = (int(text) for text in argv)
    die_with_parent(parent)
    imports.take()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    for descriptor in (descriptor_in, descriptor_out):
        os.set_inheritable(descriptor, False)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    with os.fdopen(descriptor_in, "rb") as requests, os.fdopen(descriptor_out, "wb") as replies:
        channel = Channel(replies)
        channel.send(Reply(hello=Hello(PROTOCOL, harness.__version__, platform.python_version())))
        worker = Worker(channel)
        for line in requests:
            channel.send(worker.answer(codec.loads(Request, line, where="a request")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Ask targets whether they run here, each in a short process of its own, all at once."""

from __future__ import annotations

import os
import selectors
import tempfile
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from harness.build.keys import Source
from harness.build.pool import Builder, Gone
from harness.build.tasks import About, Probe, Reply, Request, Use
from harness.errors import HarnessError, MissingDependency, PluginError
from harness.explain import REASON, line
from harness.plan import Resolved, TargetState
from harness.types import Availability

_THREADS = 1
K = TypeVar("K", bound=Hashable)


def probe_targets(
    targets: Mapping[str, Resolved], python: Mapping[str, str] | None = None, *, timeout_s: float = 120.0
) -> Mapping[str, TargetState]:
    """Build and run each target's one-op model.

    Args:
        targets: By text, as ``harness.plan.resolve_targets`` gives them.
        python: Target name -> interpreter.
        timeout_s: For each.

    Returns:
        A state for each text; a probe that crashes or hangs is an unavailable target with the reason.
    """
    interpreters = {text: (python or {}).get(resolved.name) for text, resolved in targets.items()}
    requests = {
        text: Request(probe=Probe(Use(resolved.plugin, resolved.name, dict(resolved.params))))
        for text, resolved in targets.items()
    }
    answers = ask_each(requests, interpreters, timeout_s=timeout_s)
    return {text: _state(answers[text]) for text in targets}


def _state(answer: Reply | Gone) -> TargetState:
    if isinstance(answer, Reply) and answer.probed is not None:
        found = answer.probed.availability
        told = replace(found, reason=line(found.reason, REASON), hint=line(found.hint, REASON))
        return TargetState(told, answer.probed.capabilities)
    reason = answer.told if isinstance(answer, Gone) else "the probe gave no answer"
    return TargetState(Availability(False, f"the probe failed: {reason}"))


def sources_elsewhere(
    wanted: Mapping[tuple[str, str], tuple[str, ...]], *, timeout_s: float = 60.0
) -> dict[tuple[str, str], Source | HarnessError]:
    """Ask other interpreters for the versions that keys need.

    Args:
        wanted: (interpreter, plugin) -> distributions.
        timeout_s: For each.

    Returns:
        The versions, or the error that a step there would meet.
    """
    requests = {key: Request(about=About(packages, key[1])) for key, packages in wanted.items()}
    answers = ask_each(requests, {key: key[0] for key in wanted}, timeout_s=timeout_s)
    return {key: _source(key, answer) for key, answer in answers.items()}


def _source(key: tuple[str, str], answer: Reply | Gone) -> Source | HarnessError:
    python, plugin = key
    if isinstance(answer, Gone):
        return MissingDependency(f"{python} cannot be used: {answer.told}")
    if answer.versions is None or not answer.versions.source_sha256:
        return PluginError(f"plugin {plugin!r} cannot be loaded in {python}")
    return Source(answer.versions.plugin_version, answer.versions.source_sha256, answer.versions.packages)


def ask_each(
    requests: Mapping[K, Request], interpreters: Mapping[K, str | None], *, timeout_s: float
) -> dict[K, Reply | Gone]:
    """Ask one question of each of several fresh builders, as many at a time as there are cores."""
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        asking = _Asking(dict(requests), interpreters, Path(folder), timeout_s)
        try:
            return asking.run()
        finally:
            asking.close()


@dataclass
class _Asking(Generic[K]):
    todo: dict[K, Request]
    interpreters: Mapping[K, str | None]
    folder: Path
    timeout_s: float
    running: dict[K, tuple[Builder, float]] = field(default_factory=dict)
    answers: dict[K, Reply | Gone] = field(default_factory=dict)

    def run(self) -> dict[K, Reply | Gone]:
        while self.todo or self.running:
            while self.todo and len(self.running) < (os.cpu_count() or 1):
                self._begin(next(iter(self.todo)))
            self._wait()
            for key, (builder, deadline) in list(self.running.items()):
                answer = self._hear(builder, deadline)
                if answer is not None:
                    self.answers[key] = answer
                    self.running.pop(key)[0].kill()
        return self.answers

    def _begin(self, key: K) -> None:
        request = self.todo.pop(key)
        try:
            builder = Builder.start(self.interpreters.get(key), self.folder, _THREADS)
        except OSError as error:
            self.answers[key] = Gone("unavailable", f"{self.interpreters.get(key)} cannot be run: {error}")
            return
        self.running[key] = (builder, time.monotonic() + self.timeout_s)
        builder.ask(request)

    def _wait(self) -> None:
        if not self.running:
            return
        first = min(deadline for _builder, deadline in self.running.values())
        with selectors.DefaultSelector() as selector:
            for builder, _deadline in self.running.values():
                selector.register(builder, selectors.EVENT_READ)
            selector.select(max(0.0, first - time.monotonic()))

    def _hear(self, builder: Builder, deadline: float) -> Reply | Gone | None:
        for reply in builder.replies():
            if isinstance(reply, Gone) or reply.hello is None:
                return reply
        if time.monotonic() > deadline:
            return Gone("timeout", f"no answer within {self.timeout_s:g} s")
        return None

    def close(self) -> None:
        for builder, _deadline in self.running.values():
            builder.kill()

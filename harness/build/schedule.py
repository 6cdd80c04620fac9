"""Run a graph of steps on builders: those with the longest chain behind them first, each under the host's lock."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import selectors
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.build import healing, tasks
from harness.build.events import BuildEvent, Clock, Kind
from harness.build.gate import Gate, Slot
from harness.build.pool import Builder, Builders, Gone
from harness.build.running import Running
from harness.build.tasks import Request, failure_stage
from harness.errors import HarnessError, Interrupted, MissingDependency, Unsupported
from harness.explain import Where, brief, died, is_memory, limited, line
from harness.types import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from harness.build.cache import Entry
    from harness.build.graph import Node
    from harness.build.resolve import Resolver
    from harness.explain import KnownError

_TICK_S = 1.0
log = logging.getLogger("harness")


@dataclass
class Scheduler:
    """The loop over one graph.

    Attributes:
        timeout_s: A step that reports no progress for so long is killed.
        held: Steps that could run, but for those that run now.
    """

    resolver: Resolver
    builders: Builders
    slot: Slot
    timeout_s: float
    on_event: Callable[[BuildEvent], None]
    ready: list[tuple[float, int, Node]] = field(default_factory=list)
    held: list[Node] = field(default_factory=list)
    running: dict[int, Running] = field(default_factory=dict)
    twins: dict[str, list[Node]] = field(default_factory=dict)
    waiting: list[Node] = field(default_factory=list)
    clock: Clock = field(default_factory=lambda: Clock([]))
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, nodes: Collection[Node]) -> None:
        """Bring every node to "done" or "failed".

        Raises:
            Interrupted: The user stopped it; builders are gone and the cache is whole.
        """
        self.waiting = [node for node in nodes if node.state == "waiting"]
        self.clock = Clock(list(self.waiting))
        self.gate = Gate(self.slot)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.gate, selectors.EVENT_READ, self.gate)
        self.builders.before_end = self._unhear
        try:
            self._loop()
            while self._mend(nodes):
                self._loop()
        except KeyboardInterrupt:
            what = "stopped while building; finished steps are kept"
            raise Interrupted(what, hint="run the same command again") from None
        finally:
            self._close()

    def _close(self) -> None:
        self.selector.close()
        self.builders.close()
        for run in self.running.values():
            run.holder.__exit__(None, None, None)
        self.gate.close()
        self.resolver.cache.sweep()  # killed builders leave their folders

    def _loop(self) -> None:
        self._advance()
        while self.waiting or self.ready or self.running:
            self._ask()
            for key, _mask in self.selector.select(_TICK_S):
                if key.data is self.gate:
                    self._start_all()
                elif isinstance(key.data, Builder):
                    self._hear(key.data)
            self._time()

    def _mend(self, nodes: Collection[Node]) -> bool:
        """Have what finished cells are read from made again where a step damaged it since; tell whether any is."""
        for builder in self.builders.idle:
            self._unhear(builder)
        self.builders.close()  # nothing of theirs goes on writing
        again: list[Node] = []
        for end in (node for node in nodes if node.stage in {"lower", "reference"} and node.state == "done"):
            for node in healing.lost(self.resolver.cache, end):
                if node.state != "done":
                    continue  # it waits already
                mended = healing.back(self.resolver.cache, node)
                again += mended
                if not mended:
                    self._fail(end, "failed", f"the files of {node.label!r} were damaged again and again", "harness")
        self.waiting += again
        return bool(again)

    # -- before a step runs

    def _advance(self) -> None:
        """Resolve what can be resolved, again and again while that ends steps without running them."""
        moved = True
        while moved:
            moved = self._refuse()
            for node in list(self.waiting):
                if any(need.state == "failed" for need in node.needs):
                    self._inherit(node)
                elif all(need.state == "done" for need in node.needs):
                    self._resolve(node)
                else:
                    continue
                moved = True
                self.waiting.remove(node)
                if node.stage == "data":
                    break  # what it rules out is refused before anything that leads there begins

    def _refuse(self) -> bool:
        """End the steps that lack items of the data, and those that lead to nothing else; tell whether there were any.

        So nothing is trained for a method that cannot follow.
        """
        refused = False
        for node in reversed(list(self.waiting)):  # children were added after their parents
            failure = self._lacking(node)
            if failure is None and node.children and all(child.state == "failed" for child in node.children):
                failure = node.children[0].failure
            if failure is not None:
                node.state, node.failure, refused = "failed", failure, True
                self.waiting.remove(node)
                self._tell("failed", node, text=failure.reason)
        return refused

    def _lacking(self, node: Node) -> Failure | None:
        if node.stage != "compress" or node.data is None or node.data.state != "done":
            return None
        try:
            why = self.resolver.lacking(node)
        except HarnessError:
            return None  # it is met again where the step is resolved
        return None if why is None else Failure("not-applicable", "compress", self._blame(node), why)

    def _inherit(self, node: Node) -> None:
        failed = next(need for need in node.needs if need.state == "failed")
        node.state, node.failure = "failed", failed.failure
        self._tell("failed", node, text=f"{failed.label} failed")

    def _resolve(self, node: Node) -> None:
        try:
            self.resolver.resolve(node)
            entry = self.resolver.cache.get(node.key)
            if entry is not None:
                self.resolver.accept(node, entry)
        except HarnessError as error:
            self._fail(node, _raised(error), error.message, self._blame(node))
            return
        except OSError as error:  # what it needs was damaged after it was made
            mended = healing.needed(self.resolver.cache, node)
            if mended:
                self.waiting += [*mended, node]
            else:
                self._fail(node, "failed", f"its input cannot be read: {error}", "harness")
            return
        if entry is not None:
            node.state = "done"
            self._tell("cached", node)
        elif node.key in self.twins:
            self.twins[node.key].append(node)  # another step with the same result is on its way
            node.state = "ready"
        else:
            self.twins[node.key] = []
            node.state = "ready"
            self._queue(node)

    def _queue(self, node: Node) -> None:
        heapq.heappush(self.ready, (-node.rank, next(self._count), node))

    def _ask(self) -> None:
        """Ask for as many slots as there are steps that could run."""
        wanted = min(len(self.ready), self.builders.free)
        for _slot in range(wanted - self.gate.asked):
            self.gate.ask()

    def _start_all(self) -> None:
        for holder in self.gate.arrived():
            if not self.ready or self.builders.free < 1:
                holder.__exit__(None, None, None)
                continue
            _rank, _index, node = heapq.heappop(self.ready)
            mended = healing.needed(self.resolver.cache, node)
            if mended or not all(need.state == "done" for need in node.needs):  # what it needs is made again
                holder.__exit__(None, None, None)
                self._wait(node, mended)
            elif any(run.apart(node, self._owners(node)) for run in self.running.values()):
                holder.__exit__(None, None, None)
                self.held.append(node)
            else:
                self._start(node, holder)

    def _start(self, node: Node, holder: AbstractContextManager[object]) -> None:
        owners = self._owners(node)
        if node.tries:
            for builder in self.builders.strangers(owners):
                self.builders.leave(builder)
        try:
            builder = self.builders.take(node.python, node.likes, owners)
        except OSError as error:
            holder.__exit__(None, None, None)
            reason = f"the builder cannot be started: {error}"
            self._settle(node, Failure("unavailable", failure_stage(node.stage), str(node.python or "harness"), reason))
            return
        if builder.reader not in self.selector.get_map():
            self.selector.register(builder, selectors.EVENT_READ, builder)
        now = time.monotonic()
        run = Running(node, builder, holder, now + self.timeout_s, now, owners, healing.remade(node))
        for other in self.running.values():
            run.meet(other)
            other.meet(run)
        self.running[id(builder)] = run
        node.state = "running"
        builder.ask(Request(task=self.resolver.task(node)))
        self._tell("started", node)

    # -- while it runs

    def _hear(self, builder: Builder) -> None:
        for reply in builder.replies():
            run = self.running.get(id(builder))
            if isinstance(reply, Gone):
                self._lost(builder, run, reply)
                return
            if run is None or reply.hello is not None:
                continue
            if reply.progress is not None:
                self._progress(run, reply.progress.fraction, reply.progress.text)
            elif reply.failure is not None:
                self._end(run, reply.failure)
            elif reply.built is not None:
                self._end(run, None)

    def _unhear(self, builder: Builder) -> None:
        with contextlib.suppress(KeyError):
            self.selector.unregister(builder)

    def _progress(self, run: Running, fraction: float, text: str) -> None:
        if fraction > run.fraction:
            run.fraction = fraction
            run.deadline = time.monotonic() + self.timeout_s
        self._tell("progress", run.node, text=line(text))

    def _time(self) -> None:
        now = time.monotonic()
        for run in list(self.running.values()):
            if now > run.deadline:
                reason = f"reported no progress for {self.timeout_s:g} s and was ended"
                self._lost(run.builder, run, Gone("timeout", reason))

    def _lost(self, builder: Builder, run: Running | None, gone: Gone) -> None:
        self._unhear(builder)
        self.builders.drop(builder)
        if run is not None:
            self._finish(run, self._exit_failure(run.node, gone))
        elif builder in self.builders.idle:
            self.builders.idle.remove(builder)

    def _exit_failure(self, node: Node, gone: Gone) -> Failure:
        if gone.status == "unavailable":
            return Failure(gone.status, failure_stage(node.stage), str(node.python or "harness"), gone.told)
        doing = tasks.doing(node.stage, node.use.name)
        where = Where(failure_stage(node.stage), self._blame(node), doing, self._known(node))
        found = died(gone.reason, gone.printed, "oom" if is_memory(gone.printed) else gone.status, where)
        return limited(found, self.resolver.memory_limit_bytes)

    def _known(self, node: Node) -> Sequence[KnownError]:
        return getattr(self.resolver.offer(node).spec, "known_errors", ())

    def _end(self, run: Running, failure: Failure | None) -> None:
        self.builders.give(run.builder)
        self._finish(run, failure)

    def _finish(self, run: Running, failure: Failure | None) -> None:
        del self.running[id(run.builder)]
        for node in self.held:
            self._queue(node)
        self.held.clear()
        run.holder.__exit__(None, None, None)
        run.node.executed = True
        self.clock.ran(run.node, time.monotonic() - run.started)
        if self._disturbed(run, failure) and healing.may_retry(run.node):
            log.warning("%s is tried again: another plugin ran beside it, or damaged its files", run.node.label)
            self._wait(run.node, healing.needed(self.resolver.cache, run.node))
        else:
            self._settle(run.node, failure)

    def _disturbed(self, run: Running, failure: Failure | None) -> bool:
        """Tell whether another plugin may be what made a step fail, or damaged what it gave."""
        if failure is None:
            return self.resolver.cache.get(run.node.key) is None
        if run.remade != healing.remade(run.node) or any(need.state != "done" for need in run.node.needs):
            return True
        strangers = run.beside or bool(self.builders.strangers(run.owners))
        return strangers and failure.status in {"failed", "crashed", "oom"}

    def _wait(self, node: Node, mended: Sequence[Node]) -> None:
        """Let a step, and those that give the same, wait for what they need."""
        same = (node, *self.twins.pop(node.key, ()))
        for twin in same:
            twin.state = "waiting"
        self.waiting += [*mended, *same]
        self._advance()

    # -- after it ran

    def _settle(self, node: Node, failure: Failure | None) -> None:
        for twin in (node, *self.twins.pop(node.key, ())):
            if failure is not None:
                twin.state, twin.failure = "failed", failure
                self._tell("failed", twin, text=failure.reason)
            else:
                self._accept(twin)
        self._advance()

    def _accept(self, node: Node) -> None:
        try:
            self.resolver.accept(node, self._published(node))
        except HarnessError as error:
            self._fail(node, _raised(error), error.message, "harness")
            return
        node.state = "done"
        self._tell("built", node)

    def _published(self, node: Node) -> Entry:
        entry = self.resolver.cache.get(node.key)
        if entry is None:
            folder = self.resolver.cache.folder(node.key)
            raise HarnessError(f"the builder said it wrote {folder}, but it is not there")
        return entry

    def _fail(self, node: Node, status: Status, reason: str, blame: str) -> None:
        node.state, node.failure = "failed", brief(Failure(status, failure_stage(node.stage), blame, reason))
        self._tell("failed", node, text=node.failure.reason)

    def _blame(self, node: Node) -> str:
        try:
            offer = self.resolver.offer(node)
        except HarnessError:
            return node.use.plugin
        return f"{offer.plugin} ({offer.distribution})"

    def _owners(self, node: Node) -> frozenset[str]:
        """Return the distributions whose code a step runs."""
        offers = (self.resolver.offer(node), self.resolver.registry.find("workload", node.workload.name))
        return frozenset(offer.distribution for offer in offers)

    def _tell(self, kind: Kind, node: Node, *, text: str = "") -> None:
        running = {id(run.node): (run.fraction, run.started) for run in self.running.values()}
        self.on_event(self.clock.event(kind, node, running, self.builders.workers, text))


def _raised(error: HarnessError) -> Status:
    if isinstance(error, Unsupported):
        return "not-applicable"
    return "unavailable" if isinstance(error, MissingDependency) else "failed"

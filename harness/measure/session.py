"""What a measuring process does with one session: open, warm, batches, outputs, placements."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import codec, params
from harness.errors import HarnessError
from harness.explain import KnownError
from harness.feeds import carried, with_roles
from harness.measure import chain, inputs, isolate
from harness.measure.loops import Loop
from harness.measure.member import Opened, Setup, WarmUp
from harness.plugins import load_registry
from harness.specs import (
    Session,
    SupportsBind,
    SupportsClock,
    SupportsDeviceMemory,
    SupportsEffective,
    SupportsPlacements,
    TargetSpec,
)
from harness.types import Artifact, TensorSpec


class Bench:
    """One target's session and what is done with it; each public method answers one kind of message."""

    def __init__(self) -> None:
        self.setup: Setup
        self.spec: TargetSpec[Any]
        self.params: Any
        self.session: Session | None = None
        self.loop: Loop | None = None

    def known(self) -> Sequence[KnownError]:
        """Return the causes that the target knows of what its runtime raises."""
        return self.spec.known_errors if hasattr(self, "spec") else ()

    def configure(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Load the one plugin, and tell when the session could be opened.

        The time is this process's own: the parent may read the answer much later, and the clock is the system's.
        """
        self.setup = codec.from_data(Setup, message["setup"], where="setup")
        member = self.setup.member
        self.spec = load_registry(only={member.plugin}).find("target", member.target.name).spec
        self.params = params.build(self.spec.params, member.params, owner=f"target {self.spec.name!r}")
        return {"ready_ns": time.perf_counter_ns()}

    def open(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Pin, limit, load the artifact and run it once."""
        isolate.pin(self.setup.cpus)
        isolate.limit_memory(self.setup.memory_limit_bytes)
        session, load_ns = self.load(message.get("purpose", self.setup.purpose))
        batch = self.batch_size(session)
        pool = inputs.rotation(
            self.setup.member.evaluation,
            self.specs(session),
            batch=batch,
            distinct=self.setup.distinct_inputs,
            seed=self.setup.seed,
        )
        start = time.perf_counter_ns()
        session.run(pool[0])
        first_ns = time.perf_counter_ns() - start
        clocked = session.clocked_ns if isinstance(session, SupportsClock) else None
        self.loop = Loop(carried(session.run, self.specs(session)), pool, clocked)
        opened = Opened(load_ns, first_ns, isolate.affinity(), effective(session), own_clock=clocked is not None)
        return {"opened": codec.to_data(opened)}

    def load(self, purpose: str) -> tuple[Session, int]:
        """Open the session for a purpose; the runtime is imported in here."""
        self.shut()
        member = self.setup.member
        start = time.perf_counter_ns()
        self.session = chain.opened(self.spec, member.artifact, self.params, member.options, purpose)
        return self.session, time.perf_counter_ns() - start

    def specs(self, session: Session) -> dict[str, TensorSpec]:
        """Return a session's inputs with the roles that the model declares."""
        return with_roles(session.inputs, self.setup.member.inputs)

    def batch_size(self, session: Session) -> int:
        """Return the cell's batch; a session fixed to another one is an error, not another measurement."""
        wanted = self.setup.member.options.batch
        size = inputs.batch_of(self.specs(session), wanted)
        if size != wanted:
            raise HarnessError(f"the session takes batches of {size}, the cell asks for {wanted}")
        return size

    def opened(self) -> tuple[Session, Loop]:
        """Return what ``open`` made."""
        if self.session is None or self.loop is None:
            raise HarnessError("no session is open")
        return self.session, self.loop

    def warm(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Warm to a steady state."""
        warmed = self.opened()[1].warm(codec.from_data(WarmUp, message["budget"]))
        return {"warmed": codec.to_data(warmed)}

    def batch(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run one timed batch."""
        return {"batch": codec.to_data(self.opened()[1].batch(message["round"], message["position"]))}

    def compute(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run one timed batch on an input that was bound before; answers with none where the session cannot bind."""
        session, loop = self.opened()
        if not isinstance(session, SupportsBind):
            return {"batch": None}
        call = session.bind(loop.pool[0])
        bound = Loop(lambda _input: call(), loop.pool[:1])
        bound.inner, bound.typical_ns, bound.budget = loop.inner, loop.typical_ns, loop.budget
        bound.run(None)
        return {"batch": codec.to_data(bound.batch(message["round"], message["position"]))}

    def parts(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run one timed batch of each part of a split network alone, on what the parts before give it."""
        session, loop = self.opened()
        if not isinstance(session, chain.Chain):
            return {"batches": []}
        found = []
        for place, (run, pool) in enumerate(session.alone(loop.pool)):
            own = Loop(run, pool)
            own.settle(loop)
            found.append(codec.to_data(own.batch(message["round"], place)))
        return {"batches": found}

    def loadgen(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Let LoadGen drive the session for one run."""
        from harness.measure.loadgen import drive  # not part of a latency launch

        _session, loop = self.opened()
        return {"result": drive(loop.run, loop.pool, self.setup.member.options.batch, message["ask"])}

    def floor(self, _message: Mapping[str, Any]) -> dict[str, Any]:
        """Import the runtime and run the target's one-operator probe model: what every model of it pays."""
        found = self.spec.probe(self.params)
        return {"available": found.available, "reason": found.reason}

    def infer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run some inferences, untimed: the memory launch reads their peak."""
        session, loop = self.opened()
        start = time.perf_counter_ns()
        for item in loop.feed(message["count"]):
            loop.run(item)
        elapsed = time.perf_counter_ns() - start
        device = session.device_memory_bytes() if isinstance(session, SupportsDeviceMemory) else None
        return {"device_bytes": device, "ns": elapsed}

    def drive(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run inferences back to back for some seconds, none timed by itself: the parent reads their energy."""
        _session, loop = self.opened()
        count, deadline = 0, time.perf_counter_ns() + round(message["seconds"] * 1e9)
        feed = loop.pool
        while time.perf_counter_ns() < deadline:
            for item in feed:
                loop.run(item)
                count += 1
                if time.perf_counter_ns() >= deadline:
                    break
        return {"inferences": count}

    def evaluate(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Run the items through a session of purpose "accuracy" and write its outputs."""
        from harness.measure.outputs import write_outputs  # not part of a latency launch

        session, _ns = self.load("accuracy")
        items, folder = self.setup.member.evaluation, Path(message["folder"])
        files, batch = write_outputs(
            session.run, self.specs(session), self.setup.member.axes, items, folder,
            batch=message["batch"], items=message["items"],
        )  # fmt: skip
        paths = {name: str(path) for name, path in files.items()}
        return {"outputs": paths, "batch": batch, "effective": effective(session)}

    def placement(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Open for "placement", run a few items and ask what ran where."""
        self.open({"purpose": "placement"})
        session, loop = self.opened()
        answer: dict[str, Any] = {"placements": [], "reason": ""}
        if isinstance(session, SupportsPlacements):
            for item in loop.feed(message["count"]):
                loop.run(item)
            answer["placements"] = [codec.to_data(placement) for placement in session.placements()]
        else:
            answer["reason"] = f"target {self.spec.name!r} does not report placements"
        return {**answer, "effective": effective(session)}

    def layers(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Open this cell and its anchor, and compare what their operators give."""
        from harness.measure.layers import compared  # not part of a latency launch

        member = self.setup.member
        session, _ns = self.load("accuracy")
        artifact = codec.from_data(Artifact, message["anchor"], where="anchor")
        anchor = chain.opened(self.spec, artifact, self.params, member.options, "accuracy")
        try:
            found = compared(
                session,
                anchor,
                member.evaluation,
                target=self.spec.name,
                batch=member.options.batch,
                items=message["items"],
                declared=member.inputs,
            )
        finally:
            anchor.close()
        return {"layers": codec.to_data(found)}

    def objects(self, _message: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which shared objects are loaded: asked after an inference, when a runtime has its kernels."""
        from harness.measure.objects import loaded  # not part of a latency launch

        return {"loaded": codec.to_data(loaded())}

    def shut(self) -> None:
        """Close the session, if one is open."""
        if self.session is not None:
            self.session.close()
        self.session = self.loop = None

    def close(self, _message: Mapping[str, Any]) -> dict[str, Any]:
        """Close the session; the worker ends after the answer."""
        self.shut()
        return {}


def effective(session: Session) -> dict[str, str]:
    """Return the options that the runtime says are in force."""
    return {str(k): str(v) for k, v in session.effective().items()} if isinstance(session, SupportsEffective) else {}

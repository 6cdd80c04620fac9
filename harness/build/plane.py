"""Build every cell of a plan: what is cached is taken, what can be shared is built once."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from harness.build.graph import Graph, Node
from harness.build.pool import Builders
from harness.build.probe import probe_targets, sources_elsewhere
from harness.build.reference import Reference
from harness.build.resolve import Resolver
from harness.build.schedule import Scheduler
from harness.errors import HarnessError
from harness.types import Artifact, Failure, Model, SplitName, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from harness.build.cache import Cache
    from harness.build.data import DataInfo
    from harness.build.events import BuildEvent
    from harness.build.gate import Slot
    from harness.build.keys import Source
    from harness.plan import Plan, PlannedCell, TargetState
    from harness.plugins import Registry

THREADS = 1  # of each builder: the cores are used by several of them, and results do not depend on the host


@dataclass(frozen=True)
class Evaluation:
    """The split on disk that is measured on: the test split, or the selection split of a search.

    Attributes:
        folder: Holds an .npy file for each input (see ``harness.build.data.shard_name``) and ``labels.npy``.
        sha256: Of the content of these files.
    """

    folder: Path
    items: int
    labelled: bool
    sha256: str
    inputs: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Built:
    """A cell that can be measured.

    Attributes:
        model: What the target lowered, with its lineage.
        seconds: Stage -> what its steps took when they were built, also where they came from the cache.
        cached: Whether no step of this cell was run.
        keys: Stage -> cache keys of its steps.
        reference: What the framework itself answers to the items of ``evaluation``, or why that is not known.
    """

    artifact: Artifact
    model: Model
    evaluation: Evaluation
    seconds: Mapping[str, float]
    cached: bool
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reference: Reference = field(default_factory=lambda: Reference(reason="it was not asked for"))


def build_plan(
    plan: Plan,
    cache: Cache,
    *,
    registry: Registry,
    workers: int | None = None,
    on_event: Callable[[BuildEvent], None] = lambda _event: None,
    slot: Slot = contextlib.nullcontext,
    states: Mapping[str, TargetState] | None = None,
    timeout_s: float | None = None,
    threads: int = THREADS,
    split: SplitName = "test",
) -> Mapping[str, Built | Failure]:
    """Build all cells of a plan that can be.

    Args:
        cache: Gives what is built already, and takes the rest.
        registry: What plugins offer.
        plan: From ``harness.plan.make_plan``.
        workers: Builder processes at a time; ``None`` for one per core.
        on_event: Hears of every step.
        slot: Gives a context manager that is held while a step runs.
        states: What probing said, by the target's text; ``None`` probes again.
        timeout_s: A step that reports no progress for so long is killed; ``None`` for the request's.
        threads: CPU threads of each builder; part of the keys.
        split: The items that the cells are measured on.

    Returns:
        cell_id -> what can be measured, or what took the cell out. A failed step fails the cells that need it.

    Raises:
        Interrupted: The user stopped it; finished steps are kept.
    """
    cache.sweep()
    found = states_of(plan, timeout_s) if states is None else states
    graph = Graph(registry, found, plan.request.python)
    ends = {planned.cell_id: _add(graph, planned) for planned in plan.cells}
    references = {
        planned.cell_id: _add_reference(graph, planned)
        for planned in plan.cells
        if split == "test" and isinstance(ends[planned.cell_id], Node) and judged(registry, planned)
    }
    graph.rank()
    run_graph(
        graph, cache, registry=registry, workers=workers, on_event=on_event, slot=slot,
        timeout_s=timeout_s or plan.request.timeout_s, threads=threads,
        memory_limit_bytes=plan.request.memory_limit_bytes,
    )  # fmt: skip
    return {
        cell_id: end if isinstance(end, Failure) else with_reference(result(end, split), references.get(cell_id))
        for cell_id, end in ends.items()
    }


def run_graph(
    graph: Graph,
    cache: Cache,
    *,
    registry: Registry,
    workers: int | None,
    on_event: Callable[[BuildEvent], None],
    slot: Slot,
    timeout_s: float,
    threads: int,
    memory_limit_bytes: int | None = None,
) -> None:
    """Bring every node of a graph to its end."""
    resolver = resolver_of(graph, cache, registry, threads)
    resolver.memory_limit_bytes = memory_limit_bytes
    builders = Builders(workers or os.cpu_count() or 1, threads, cache.logs)
    Scheduler(resolver, builders, slot, timeout_s, on_event).run(list(graph.nodes.values()))


def resolver_of(graph: Graph, cache: Cache, registry: Registry, threads: int) -> Resolver:
    """Return what gives the nodes of a graph their keys."""
    return Resolver(cache, registry, threads, _sources(graph, registry))


def states_of(plan: Plan, timeout_s: float | None) -> Mapping[str, TargetState]:
    """Probe the targets of a plan."""
    targets = {planned.labels["target"]: planned.target for planned in plan.cells if planned.impossible is None}
    return probe_targets(targets, plan.request.python, timeout_s=timeout_s or plan.request.timeout_s)


def _add(graph: Graph, planned: PlannedCell) -> Node | Failure:
    if planned.impossible is not None:
        return planned.impossible
    try:
        return graph.add(planned)
    except HarnessError as error:
        return Failure("failed", "plan", planned.target.plugin, error.message)


def judged(registry: Registry, planned: PlannedCell) -> bool:
    """Tell whether a cell's target runs models, so that its answers can be right or wrong."""
    return bool(registry.find("target", planned.target.name).spec.ranked)


def _add_reference(graph: Graph, planned: PlannedCell) -> Node | Reference:
    try:
        node = graph.reference(planned)
    except HarnessError as error:
        return Reference(reason=error.message)
    return node or Reference(reason=f"no plugin defines what the model of {planned.labels['workload']} answers")


def with_reference(built: Built | Failure, found: Node | Reference | None) -> Built | Failure:
    """Return a cell with its reference outputs, or with why there are none: their failure costs no cell."""
    if isinstance(built, Failure) or found is None:
        return built
    if isinstance(found, Reference):
        return replace(built, reference=found)
    if not isinstance(found.value, Reference):
        return replace(built, reference=Reference(reason=found.failure.reason if found.failure else "it did not end"))
    keys = {**built.keys, found.stage: (found.key,)}
    seconds = {**built.seconds, found.stage: found.seconds}
    return replace(built, reference=found.value, keys=keys, seconds=seconds)


def _sources(graph: Graph, registry: Registry) -> Mapping[tuple[str, str], Source | HarnessError]:
    wanted: dict[tuple[str, str], tuple[str, ...]] = {}
    for node in graph.nodes.values():
        if node.python is not None:
            offer = registry.find("target", node.use.name)
            before = wanted.get((node.python, offer.plugin), ())
            wanted[node.python, offer.plugin] = (*before, *offer.spec.packages)
    return sources_elsewhere(wanted) if wanted else {}


def evaluation_of(folder: Path, info: DataInfo, name: SplitName = "test") -> Evaluation:
    """Return a split of a data entry; one that the workload does not have has no items."""
    split = info.splits[name]
    return Evaluation(folder / name, split.items, split.labelled, info.sha256(name), info.inputs)


def result(end: Node, split: SplitName = "test") -> Built | Failure:
    """Return what a cell's last step gave."""
    failure = next((node.failure for node in (end, *end.needs) if node.failure is not None), None)
    if failure is not None:
        return failure
    steps = list(end.chain())
    data = next(node for node in steps if node.stage == "data")
    if not isinstance(end.value, Artifact) or data.entry is None or end.parent is None:
        raise TypeError(f"{end.label} did not end")
    seconds: dict[str, float] = {}
    keys: dict[str, tuple[str, ...]] = {}
    for node in steps:
        seconds[node.stage] = seconds.get(node.stage, 0.0) + node.seconds
        keys[node.stage] = (*keys.get(node.stage, ()), node.key)
    return Built(
        artifact=end.value,
        model=end.parent.model,
        evaluation=evaluation_of(data.entry.folder, data.splits, split),
        seconds=seconds,
        cached=not any(node.executed for node in steps),
        keys=keys,
    )

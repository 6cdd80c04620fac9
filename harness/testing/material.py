"""Test models: trained and exported by the build plane, and what they give by their sample's own reckoning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.build.data import SPLITS
from harness.build.graph import Graph, Node
from harness.build.plane import THREADS, run_graph
from harness.build.tasks import Use
from harness.plan.checks import export_path
from harness.plan.resolve import choose
from harness.plan.values import PlannedCell, Resolved
from harness.specs import Examined
from harness.testing.observed import Material
from harness.testing.process import Process
from harness.types import Cell, Failure, Options, Step

if TYPE_CHECKING:
    from harness.build.cache import Cache
    from harness.plugins import Registry

_NO_TARGET = Resolved(Step("none"), "none", {}, "")
FITTED = ""  # stands for the format that the workload itself produces


@dataclass(frozen=True)
class Order:
    """One test model in some formats."""

    workload: str
    formats: tuple[str, ...]
    params: Mapping[str, Any]


def samples(registry: Registry, only: Iterable[str] | None = None) -> dict[str, str]:
    """Return the test models that are installed: layer kind -> workload.

    Args:
        registry: What is installed.
        only: Layer kinds to keep; ``None`` for all.
    """
    found = {
        offer.spec.sample.exercises: name for name, offer in registry.workloads.items() if offer.spec.sample is not None
    }
    return found if only is None else {kind: found[kind] for kind in only if kind in found}


def prepare(
    registry: Registry, orders: Iterable[Order], cache: Cache, scratch: Path, *, timeout_s: float = 300.0
) -> tuple[list[Material], dict[str, Failure]]:
    """Train, export and run test models; what is cached is taken.

    The caller holds the host's lock: taking it again could wait for a measurer who waits for the caller.

    Returns:
        The materials, and workload -> why it could not be had.
    """
    graph = Graph(registry, {})
    ends = {order.workload: _nodes(graph, registry, order) for order in orders}
    graph.rank()
    run_graph(
        graph,
        cache,
        registry=registry,
        workers=None,
        on_event=lambda _event: None,
        slot=contextlib.nullcontext,
        timeout_s=timeout_s,
        threads=THREADS,
    )
    found: list[Material] = []
    lost: dict[str, Failure] = {}
    for workload, nodes in ends.items():
        fit = nodes[FITTED]
        if isinstance(fit, str) or fit.failure is not None or fit.data is None or fit.data.entry is None:
            failed = None if isinstance(fit, str) else fit.failure
            lost[workload] = failed or Failure("failed", "fit", workload, fit if isinstance(fit, str) else _why(fit))
            continue
        found.append(_material(registry, workload, fit, nodes, scratch))
    return _referenced(registry, found, lost), lost


def _why(node: Node) -> str:
    return node.failure.reason if node.failure else "it was not built"


def _nodes(graph: Graph, registry: Registry, order: Order) -> dict[str, Node | str]:
    chosen = choose(registry, "workload", Step(order.workload, order.params))
    cell = PlannedCell(
        Cell(chosen.resolved.step, (), Step("none"), Options()),
        chosen.resolved,
        (),
        _NO_TARGET,
        {"workload": chosen.text, "method": "as trained", "target": "none"},
    )
    nodes: dict[str, Node | str] = {FITTED: graph.model(cell)}
    for wanted in order.formats:
        path = export_path(registry.exporters, chosen.ask("produces"), {wanted})
        nodes[wanted] = (
            f"no installed exporter leads from {chosen.ask('produces')} to {wanted}"
            if path is None
            else graph.model(replace(cell, exporters=path))
        )
    return nodes


def _material(registry: Registry, workload: str, fit: Node, nodes: Mapping[str, Node | str], scratch: Path) -> Material:
    spec = registry.workloads[workload].spec
    data = fit.data
    if data is None or data.entry is None:
        raise TypeError(f"{fit.label} has no data")
    done = {name: node for name, node in nodes.items() if isinstance(node, Node) and node.failure is None}
    missing = {name: node if isinstance(node, str) else _why(node) for name, node in nodes.items() if name not in done}
    return Material(
        sample=workload,
        exercises=spec.sample.exercises if spec.sample else workload,
        workload=fit.workload,
        data=data.entry.folder,
        info=data.splits,
        models={node.model.format: node.model for node in done.values()},
        missing=missing,
        reference=scratch / "reference" / workload,
        examined=Examined(0, 0),
        items=data.splits.splits["test"].items if "test" in SPLITS else 0,
    )


def _referenced(registry: Registry, materials: list[Material], lost: dict[str, Failure]) -> list[Material]:
    """Run each sample's trained model in a process of its own kind."""
    from harness import codec

    done: list[Material] = []
    with contextlib.ExitStack() as stack:
        processes: dict[str, Process] = {}
        for material in materials:
            if registry.workloads[material.sample].spec.sample is None:
                done.append(material)
                continue
            plugin = material.workload.plugin
            if plugin not in processes:
                processes[plugin] = stack.enter_context(Process(plugin))
            model = next(iter(material.models.values()))
            answer = processes[plugin].ask("reference", workload=material.workload, material=material, model=model)
            if isinstance(answer, Failure):
                lost[material.sample] = answer
                continue
            done.append(replace(material, examined=codec.from_data(Examined, answer["examined"])))
    return done


def use_of(registry: Registry, kind: str, name: str, given: Mapping[str, Any] | None = None) -> Use:
    """Return an offer with all its parameters, as the kit's process takes it."""
    resolved = choose(registry, kind, Step(name, dict(given or {}))).resolved
    return Use(resolved.plugin, resolved.name, dict(resolved.params))

"""Request and specs to the rows of a run. Pure: what the host can do comes in as states."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.plan import predict, resolve
from harness.plan.checks import route
from harness.plan.values import ANCHOR, Plan, PlannedCell, Request, TargetState
from harness.profiles import profile_named
from harness.types import Cell, Options, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harness.plan.chosen import Chosen
    from harness.plan.resolve import Pipeline
    from harness.plugins import Registry


@dataclass(frozen=True)
class _Row:
    workload: Chosen
    pipeline: Pipeline
    target: Chosen
    cell: PlannedCell

    @property
    def place(self) -> tuple[str, str, Options]:
        """Where an anchor stands for others: workload, target, options."""
        return self.workload.text, self.target.text, self.cell.cell.options


def make_plan(
    request: Request,
    registry: Registry,
    states: Mapping[str, TargetState],
    cores: int,
    asides: predict.Asides | None = None,
) -> Plan:
    """Make a row of every combination that is asked for, each with its anchor or the reason why it cannot be.

    Args:
        request: What is asked for.
        registry: What is installed.
        states: By target text (see ``resolve_targets``): what probing gave.
        cores: Cores that this process may use: what threads "all" stands for.
        asides: What is asked for beside latency and accuracy, for the prediction; ``None`` for nothing.

    Raises:
        PlanError: A name, parameter, order or count that is wrong whatever the host can do.
        PluginError: Something asked for belongs to a broken plugin.
    """
    registry.settled("method", lambda spec: spec.name == ANCHOR)
    for kind in ("exporter", "oracle", "plugin"):  # these serve without being named
        registry.settled(kind)
    rows = [
        _row(workload, pipeline, target, options, states, registry, added)
        for workload in resolve.workloads(request, registry)
        for target in resolve.targets(request, registry)
        for options in resolve.options_of(workload, request, cores)
        for pipeline, added in _pipelines(request, registry, target)
    ]
    return Plan(request, tuple(_predict(_with_controls(_with_anchors(rows)), request, asides or predict.Asides())))


def _pipelines(request: Request, registry: Registry, target: Chosen) -> Iterable[tuple[Pipeline, bool]]:
    """Yield a target's pipelines, the anchor first, each with whether it was added."""
    asked = resolve.pipelines(request, registry)
    if ANCHOR in registry.methods:
        anchor = resolve.pipeline(registry, [Step(ANCHOR)])
        yield anchor, all(pipeline.text != ANCHOR for pipeline in asked)
    if target.spec.ranked:
        yield from _staged([pipeline for pipeline in asked if pipeline.text != ANCHOR], stages=request.stages)


def _staged(asked: Sequence[Pipeline], *, stages: bool) -> Iterable[tuple[Pipeline, bool]]:
    """Yield each pipeline, with stages after its prefixes, once, and whether it was added."""
    named = {pipeline.text for pipeline in asked}
    found: dict[str, Pipeline] = {}
    for pipeline in asked:
        for stage in pipeline.prefixes() if stages else (pipeline,):
            found.setdefault(stage.text, stage)
    yield from ((pipeline, text not in named) for text, pipeline in found.items())


def _row(
    workload: Chosen, pipeline: Pipeline, target: Chosen, options: Options,
    states: Mapping[str, TargetState], registry: Registry, added: bool,
) -> _Row:  # fmt: skip
    steps = tuple(chosen.resolved for chosen in pipeline.steps)
    exporters, impossible = route(workload, pipeline.steps, target, states.get(target.text), registry.exporters)
    cell = Cell(workload.resolved.step, tuple(step.step for step in steps), target.resolved.step, options)
    labels = {"workload": workload.text, "method": pipeline.text, "target": target.text}
    planned = PlannedCell(
        cell, workload.resolved, steps, target.resolved, labels, exporters,
        is_anchor=pipeline.text == ANCHOR, impossible=impossible, added=added, runs_on=target.ask("runs_on") or "here",
    )  # fmt: skip
    return _Row(workload, pipeline, target, planned)


def _with_anchors(rows: Sequence[_Row]) -> list[_Row]:
    anchors = {row.place: row.cell for row in rows if row.cell.is_anchor}
    return [dataclasses.replace(row, cell=_anchored(row.cell, anchors.get(row.place))) for row in rows]


def _anchored(cell: PlannedCell, anchor: PlannedCell | None) -> PlannedCell:
    if anchor is None:
        return dataclasses.replace(cell, anchor_reason=f"the method {ANCHOR!r} is not installed")
    if anchor.impossible is not None:
        return dataclasses.replace(
            cell, anchor_reason=f"{ANCHOR} is {anchor.impossible.status}: {anchor.impossible.reason}"
        )
    return dataclasses.replace(cell, anchor=anchor.cell_id)


def _with_controls(rows: Sequence[_Row]) -> list[_Row]:
    """Name for each cell the one that does the same by chance, where it is in the plan."""
    known = {row.cell.cell_id for row in rows}

    def control(row: _Row) -> str:
        steps = tuple(resolve.by_chance(chosen) for chosen in row.pipeline.steps)
        found = dataclasses.replace(row.cell.cell, pipeline=steps).cell_id
        return found if found in known and found != row.cell.cell_id else ""

    return [dataclasses.replace(row, cell=dataclasses.replace(row.cell, control=control(row))) for row in rows]


def _predict(rows: Sequence[_Row], request: Request, asides: predict.Asides) -> list[PlannedCell]:
    profile = profile_named(request.profile)
    possible = [row for row in rows if row.cell.impossible is None]
    variants = Counter(row.cell.anchor for row in possible if not row.cell.is_anchor)
    linked = Counter(
        (row.workload.text, row.cell.cell.options) for row in possible if row.cell.is_anchor and row.target.spec.ranked
    )
    builds = predict.Builds()

    def seconds(row: _Row) -> float:
        if row.cell.impossible is not None:
            return 0.0
        total = builds.cell_s(row.workload, row.pipeline.steps, row.cell.exporters, row.target) + predict.measure_s(
            profile
        )
        total += predict.asides_s(asides, row.workload, row.target, row.cell)
        if row.cell.is_anchor:
            link = row.target.spec.ranked and linked[row.workload.text, row.cell.cell.options] > 1
            total += predict.anchor_s(profile, variants[row.cell.cell_id], linked=link)
        return total

    return [dataclasses.replace(row.cell, predicted_s=seconds(row)) for row in rows]

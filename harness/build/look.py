"""What a model holds and what each target would do with it, asked of builders: nothing is built, nothing is kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.build.pool import Gone
from harness.build.probe import ask_each
from harness.build.tasks import Examine, Inspect, Reply, Request, Seen, Use
from harness.errors import BadModel
from harness.inspection import Finding
from harness.plan.checks import wanted
from harness.plan.resolve import choose

if TYPE_CHECKING:
    from harness.plan import Plan, PlannedCell, Resolved
    from harness.plugins import Registry
    from harness.types import Precision

SECONDS = 300.0  # for each question


@dataclass(frozen=True)
class Verdict:
    """What would become of one cell.

    Attributes:
        target, method: As the grammar writes them.
        stops: Why it cannot be; empty where it can.
        remarks: What stays behind.
        via: Exporters that the model goes through.
    """

    target: str
    method: str
    stops: str
    remarks: tuple[str, ...] = ()
    via: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """All that ``harness inspect`` tells."""

    seen: Seen
    verdicts: tuple[Verdict, ...]


def look_into(plan: Plan, registry: Registry, *, file: Path | None = None) -> Look:
    """Read the model of a plan's workload, and ask each target of the plan about it.

    Args:
        plan: Of one workload.
        registry: What plugins offer.
        file: What the workload's model comes from, if it is a file.

    Raises:
        BadModel: The model cannot be read or is refused.
    """
    registry.settled("inspector")
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    try:
        seen = _seen(_use(plan.cells[0].workload), registry, folder, file)
        return Look(seen, _verdicts(plan, registry, seen))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _use(resolved: Resolved) -> Use:
    return Use(resolved.plugin, resolved.name, dict(resolved.params))


def _seen(workload: Use, registry: Registry, folder: Path, file: Path | None) -> Seen:
    readers = {name: Use(offer.plugin, name) for name, offer in registry.inspectors.items()}
    asked = Inspect(workload, readers, str(folder), str(file) if file else "")
    answer = ask_each({0: Request(inspect=asked)}, {}, timeout_s=SECONDS)[0]
    if isinstance(answer, Reply) and answer.seen is not None:
        return answer.seen
    raise BadModel(_why(answer))


def _why(answer: Reply | Gone) -> str:
    if isinstance(answer, Gone):
        return f"the process that read the model ended: {answer.reason}"
    return answer.failure.reason if answer.failure else "no answer came"


def _verdicts(plan: Plan, registry: Registry, seen: Seen) -> tuple[Verdict, ...]:
    possible: dict[str, list[PlannedCell]] = {}
    for cell in plan.cells:
        if cell.impossible is None and registry.targets[cell.target.name].spec.examine is not None:
            possible.setdefault(cell.labels["target"], []).append(cell)
    asked = {target: _precisions(cells, registry) for target, cells in possible.items()}
    requests = {
        target: Request(examine=_question(cells[0], registry, seen, asked[target]))
        for target, cells in possible.items()
    }
    python = {target: plan.request.python.get(cells[0].target.name) for target, cells in possible.items()}
    answers = ask_each(requests, python, timeout_s=SECONDS)
    ranked = (cell for cell in plan.cells if registry.targets[cell.target.name].spec.ranked)
    return tuple(_verdict(cell, registry, asked, answers) for cell in ranked)


def _question(cell: PlannedCell, registry: Registry, seen: Seen, precisions: Sequence[Precision | None]) -> Examine:
    exporters = tuple(Use(registry.exporters[name].plugin, name) for name in cell.exporters)
    return Examine(_use(cell.target), _use(cell.workload), seen.model, exporters, tuple(precisions))


def _precision(cell: PlannedCell, registry: Registry) -> Precision | None:
    """Return what a cell's pipeline asks a target for; the plan lets one step ask."""
    found = (wanted(choose(registry, "method", step.step)) for step in cell.pipeline)
    return next((precision for precision in found if precision is not None), None)


def _precisions(cells: Sequence[PlannedCell], registry: Registry) -> list[Precision | None]:
    found: list[Precision | None] = [None]
    for cell in cells:
        precision = _precision(cell, registry)
        if precision not in found:
            found.append(precision)
    return found


def _verdict(
    cell: PlannedCell,
    registry: Registry,
    asked: Mapping[str, Sequence[Precision | None]],
    answers: Mapping[str, Reply | Gone],
) -> Verdict:
    target, method = cell.labels["target"], cell.labels["method"]
    if cell.impossible is not None:
        return Verdict(target, method, cell.impossible.reason, via=cell.exporters)
    if target not in answers:
        return Verdict(target, method, "", ("this target examines no model before it builds",), cell.exporters)
    answer = answers[target]
    if isinstance(answer, Gone):
        return Verdict(target, method, f"the process that loaded it ended: {answer.reason}", via=cell.exporters)
    if answer.findings is None:
        return Verdict(target, method, _why(answer), via=cell.exporters)
    own, place = answer.findings[0], asked[target].index(_precision(cell, registry))
    findings: tuple[Finding, ...] = tuple(dict.fromkeys((*own, *answer.findings[place])))
    stops = "; ".join(finding.text for finding in findings if finding.stops)
    remarks = tuple(finding.text for finding in findings if not finding.stops)
    return Verdict(target, method, stops, remarks, cell.exporters)

"""What can be, and who says why not: order inside a pipeline, data, formats, availability, precision."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import PlanError, Unsupported
from harness.plan.values import ANCHOR, TargetState
from harness.plugins import OWN
from harness.types import Failure, Precision, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from harness.plan.chosen import Chosen
    from harness.specs import ExporterSpec, Offer

T = TypeVar("T")


def _matches(chosen: Chosen, named: Collection[str]) -> bool:
    return chosen.name in named or chosen.spec.family in named


def _pairs(steps: Sequence[Chosen]) -> Iterator[tuple[Chosen, Chosen]]:
    return ((first, second) for index, first in enumerate(steps) for second in steps[index + 1 :])


def wanted(chosen: Chosen) -> Precision | None:
    """Return the precision that a method asks a target for, where it asks for one."""
    precision: Precision | None = chosen.ask("wants")
    return precision if precision is not None and precision.name != "float32" else None


def check_pipeline(steps: Sequence[Chosen]) -> None:
    """Check what is wrong with a chain of methods on every workload and target.

    Raises:
        PlanError: Its order is ruled out by a method, two methods exclude each other, two ask for a precision,
            or a step changes nothing.
    """
    if len(steps) > 1 and any(chosen.name == ANCHOR for chosen in steps):
        rest = "+".join(chosen.text for chosen in steps if chosen.name != ANCHOR)
        raise PlanError(f"{ANCHOR!r} changes nothing, so it stands alone", hint=f"write {rest or ANCHOR!r}")
    for first, second in _pairs(steps):
        _check_order(first, second)
        if _matches(second, first.spec.conflicts) or _matches(first, second.spec.conflicts):
            raise PlanError(f"methods {first.name!r} and {second.name!r} exclude each other in one pipeline")
    asking = [chosen for chosen in steps if wanted(chosen)]
    if len(asking) > 1:
        names = " and ".join(repr(chosen.name) for chosen in asking)
        raise PlanError(
            f"{names} each ask the target for a precision; a pipeline has one", hint="make two pipelines of it"
        )


def _check_order(first: Chosen, second: Chosen) -> None:
    says = (
        second.name
        if _matches(first, second.spec.before)
        else first.name
        if _matches(second, first.spec.after)
        else None
    )
    if says:
        raise PlanError(
            f"method {second.name!r} comes before {first.name!r}: so says {says!r}",
            hint=f"write {second.text}+{first.text}",
        )


def _no(status: Status, blame: Chosen, reason: str) -> Failure:
    return Failure(status, "plan", blame.resolved.plugin, reason)


def data_problem(workload: Chosen, steps: Sequence[Chosen]) -> Failure | None:
    """Say which method lacks something that the workload does not have, or return None."""
    spec = workload.spec
    for chosen in steps:
        needs = chosen.ask("needs")
        who = f"method {chosen.name!r} needs"
        if not needs.isdisjoint({"training", "selection"}) and not workload.ask("labelled"):
            what = "training" if "training" in needs else "selection"
            return _no("not-applicable", workload, f"{who} labelled {what} data; workload {workload.name!r} has none")
        if "training" in needs and spec.loss is None:
            return _no("not-applicable", workload, f"{who} a training loss; workload {workload.name!r} has none")
        if "torch-model" in needs and spec.model is None:
            return _no(
                "not-applicable",
                workload,
                f"{who} to build the torch model anew; workload {workload.name!r} has only its file",
            )
    return None


def last_format(workload: Chosen, steps: Sequence[Chosen]) -> str | Failure:
    """Follow the model's format through a pipeline, to its end or to the step that cannot take it."""
    at: str = workload.ask("produces")
    for chosen in steps:
        takes = chosen.spec.consumes
        if takes and at not in takes:
            listed = " or ".join(sorted(takes))
            return _no(
                "not-applicable", chosen, f"method {chosen.name!r} takes a {listed} model; here it is given {at}"
            )
        at = chosen.spec.produces or at
    return at


def built_in_first(offers: Mapping[str, Offer[T]]) -> list[tuple[str, Offer[T]]]:
    """Return the offers that serve without being named in the order in which they are taken."""
    return sorted(offers.items(), key=lambda item: (item[1].distribution != OWN, item[0]))


def export_path(
    exporters: Mapping[str, Offer[ExporterSpec]], start: str, accepts: Collection[str]
) -> tuple[str, ...] | None:
    """Return the shortest chain of exporter names from a format to one that is accepted (any, where empty), or None."""
    if not accepts or start in accepts:
        return ()
    queue: deque[tuple[str, tuple[str, ...]]] = deque([(start, ())])
    seen = {start}
    while queue:
        at, path = queue.popleft()
        for name, offer in built_in_first(exporters):
            if offer.spec.consumes != at or offer.spec.produces in seen:
                continue
            if offer.spec.produces in accepts:
                return (*path, name)
            seen.add(offer.spec.produces)
            queue.append((offer.spec.produces, (*path, name)))
    return None


def availability_problem(target: Chosen, state: TargetState | None) -> Failure | None:
    """Say why a target does not run here, or return None."""
    if state is None:
        return _no("unavailable", target, f"target {target.name!r} was not probed")
    found = state.availability
    if found.available:
        return None
    return _no(
        "unavailable",
        target,
        "; ".join(text for text in (found.reason or "its probe gave no reason", found.hint) if text),
    )


def precision_problem(target: Chosen, state: TargetState, steps: Sequence[Chosen]) -> Failure | None:
    """Say why a target cannot realise the precision that a pipeline asks for, or return None."""
    can = state.capabilities
    asked = next((precision for precision in map(wanted, steps) if precision), None)
    if can is None or asked is None or asked.name in can.precisions:
        return None
    why = can.gaps.get(asked.name) or f"it lists {', '.join(sorted(can.precisions)) or 'no precision'}"
    return _no("not-applicable", target, f"target {target.name!r} has no {asked.name} here: {why}")


def route(
    workload: Chosen,
    steps: Sequence[Chosen],
    target: Chosen,
    state: TargetState | None,
    exporters: Mapping[str, Offer[ExporterSpec]],
) -> tuple[tuple[str, ...], Failure | None]:
    """Return the exporters that a cell's model goes through, or why the cell cannot be."""
    try:
        return _route(workload, steps, target, state, exporters)
    except Unsupported as error:  # from a spec's own function of its parameters; a bad file stays an error
        return (), Failure("not-applicable", "plan", workload.resolved.plugin, error.message)


def _route(
    workload: Chosen, steps: Sequence[Chosen], target: Chosen, state: TargetState | None, exporters: Mapping[str, Any]
) -> tuple[tuple[str, ...], Failure | None]:
    missing = data_problem(workload, steps)
    if missing:
        return (), missing
    at = last_format(workload, steps)
    if isinstance(at, Failure):
        return (), at
    path = export_path(exporters, at, target.spec.accepts)
    if path is None:
        takes = " or ".join(sorted(target.spec.accepts))
        return (), _no(
            "not-applicable",
            target,
            f"target {target.name!r} takes {takes}; no installed exporter leads there from {at}",
        )
    gone = availability_problem(target, state)
    if gone or state is None:
        return path, gone
    return path, precision_problem(target, state, steps)

"""Data that the user brought: read at once, so that what is wrong with them is said before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from harness.build.data import SplitInfo
from harness.errors import BadModel, HarnessError, Unsupported
from harness.explain import first_line
from harness.faults import called
from harness.feeds import items_in
from harness.params import build
from harness.plan.splits import lacking
from harness.types import Failure, SplitName

if TYPE_CHECKING:
    from harness.plan import Plan, PlannedCell
    from harness.plugins import Registry
    from harness.specs import WorkloadSpec

Sizes = Mapping[str, SplitInfo]


def read_own_data(plan: Plan, registry: Registry, note: Callable[[str], None]) -> Plan:
    """Read the data that the user brought, and take out the cells whose methods need items that they do not hold.

    Args:
        plan: Whose workloads of modality "file" are read.
        registry: What plugins offer.
        note: Hears of the sizes of the splits.

    Returns:
        The plan, in which such cells are impossible.

    Raises:
        BadModel: The files do not fit each other, or the user's own function fails; one sentence says how.
    """
    known: dict[str, Sizes] = {}
    for label, workload in {planned.labels["workload"]: planned.workload for planned in plan.cells}.items():
        spec = registry.workloads[workload.name].spec
        if spec.modality == "file":
            given = build(spec.params, workload.params, owner=f"workload {workload.name!r}")
            known[label] = _sizes(spec, given)
            told = ", ".join(f"{info.items} {name}" for name, info in known[label].items() if not info.absent)
            batch = next(planned.cell.options.batch for planned in plan.cells if planned.labels["workload"] == label)
            forced = batch not in plan.request.batches
            fixed = f", {batch} in each call, as the model is fixed to" if forced else ""
            note(f"{label}: {told} items{fixed}")
    cells = tuple(_possible(planned, known.get(planned.labels["workload"], {}), registry) for planned in plan.cells)
    return dataclasses.replace(plan, cells=cells)


def _sizes(spec: WorkloadSpec[Any], params: object) -> dict[str, SplitInfo]:
    found: dict[str, SplitInfo] = {}
    for name in get_args(SplitName):
        try:
            with called():
                items = spec.split(params, name)
        except Unsupported as error:
            found[name] = SplitInfo(0, False, {}, error.message)
            continue
        except HarnessError:
            raise
        except Exception as error:
            raise BadModel(f"workload {spec.name}: {type(error).__name__}: {first_line(str(error))}") from error
        count = next(iter(items_in(spec.inputs(params), items.inputs).values()))
        found[name] = SplitInfo(count, items.labels is not None, {})
    return found


def _possible(planned: PlannedCell, sizes: Sizes, registry: Registry) -> PlannedCell:
    if planned.impossible is not None:
        return planned
    for step in planned.pipeline:
        why = lacking(registry.find("method", step.name).spec, step.params, planned.workload.name, sizes)
        if why is not None:
            failure = Failure("not-applicable", "plan", planned.workload.plugin, why)
            return dataclasses.replace(planned, impossible=failure, predicted_s=0.0)
    return planned

"""How ``--dry-run`` shows a plan: the rows, the minutes, and the request as bench.toml."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from harness.cli.answer import echo
from harness.cli.common import print_json, print_table

if TYPE_CHECKING:
    from harness.plan import Plan, PlannedCell


def _row(planned: PlannedCell) -> tuple[str, ...]:
    options, labels = planned.cell.options, planned.labels
    if planned.impossible is not None:
        verdict, seconds = f"{planned.impossible.status}: {planned.impossible.reason}", ""
    else:
        notes = [f"via {' > '.join(planned.exporters)}"] if planned.exporters else []
        why = "the anchor, added to compare with" if planned.is_anchor else "a stage of a pipeline, added by --stages"
        notes += [why] if planned.added else []
        notes += [f"no anchor: {planned.anchor_reason}"] if planned.anchor_reason else []
        verdict, seconds = "; ".join(notes), f"{planned.predicted_s:.0f}"
    where = f"{options.threads} / {options.batch}"
    return labels["workload"], labels["method"], labels["target"], where, seconds, verdict


def plan_data(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data."""
    cells = [{"cell_id": planned.cell_id, **_fields(planned)} for planned in plan.cells]
    return {"plan_sha256": plan.plan_sha256, "predicted_s": plan.predicted_s, "request": plan.request, "cells": cells}


def _fields(planned: PlannedCell) -> dict[str, Any]:
    return {field.name: getattr(planned, field.name) for field in dataclasses.fields(planned)}


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """Print a plan to stdout."""
    from harness.config import dump_config

    if as_json:
        print_json(plan_data(plan))
        return
    columns = ("workload", "method", "target", "threads / batch", "seconds", "how, or why not")
    print_table(columns, map(_row, plan.cells))
    possible = sum(planned.impossible is None for planned in plan.cells)
    minutes = plan.predicted_s / 60
    echo(f"{possible} cells to measure, {len(plan.cells) - possible} that cannot be here")
    echo(f"predicted: {minutes:.1f} minutes with nothing cached, on a quiet machine\n")
    echo("as bench.toml:\n")
    echo(dump_config(plan.request))

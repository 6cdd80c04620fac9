"""Request x specs to the cells of a run, and for each impossible cell the reason. Pure."""

from __future__ import annotations

from harness.plan.make import make_plan
from harness.plan.predict import Asides, Load
from harness.plan.resolve import default_pipelines, resolve_targets
from harness.plan.values import ANCHOR, Plan, PlannedCell, Request, Resolved, TargetState

__all__ = [
    "ANCHOR",
    "Asides",
    "Load",
    "Plan",
    "PlannedCell",
    "Request",
    "Resolved",
    "TargetState",
    "default_pipelines",
    "make_plan",
    "resolve_targets",
]

"""Run the cell of a bundle again on this host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.bundle.judge import judge
from harness.bundle.values import title
from harness.errors import PlanError, RecordError
from harness.store import load_run

if TYPE_CHECKING:
    from harness.bench import Ui
    from harness.bundle.read import Opened
    from harness.bundle.values import Reproduction
    from harness.plan import Request
    from harness.plugins import Registry
    from harness.store import Run


def reproduce(
    opened: Opened,
    *,
    registry: Registry,
    out: Path,
    ui: Ui,
    python: Mapping[str, str] | None = None,
    rebuild: bool = False,
) -> Reproduction:
    """Measure a bundle's cell and its anchor here, and judge them.

    Args:
        opened: The bundle, verified.
        registry: What plugins offer.
        out: Root of the results tree that gets the run.
        ui: Progress and talk.
        python: Target name -> interpreter in which it lowers and runs here.
        rebuild: Build the artifacts also where the bundle holds them.

    Raises:
        PlanError: What is installed here cannot plan the cell.
    """
    from harness.bench import run

    asked = opened.info.request  # older bundles ask for a meter, whose log lies on the machine that they come from
    request = dataclasses.replace(asked, python=dict(python or {}), energy=asked.energy and not asked.meter, meter="")
    _planned(opened, request, registry)
    pack = None if rebuild else opened.pack
    result = run(request, registry=registry, out=out, pack=pack, fresh=True, ui=ui)
    return judge_run(opened, load_run(result.folder), registry)


def _planned(opened: Opened, request: Request, registry: Registry) -> None:
    """Refuse before anything is measured where the names mean another cell here."""
    from harness.plan import make_plan

    planned = {cell.cell_id for cell in make_plan(request, registry, {}, 1).cells}
    if opened.info.cell_id not in planned:
        raise PlanError(
            f"{title(opened.info.labels)} is another cell here than {opened.info.cell_id}",
            hint=f"its plugins have other parameters or defaults here; it was made by harness {opened.info.harness}",
        )


def judge_run(opened: Opened, run: Run, registry: Registry) -> Reproduction:
    """Judge a run that was made before.

    Raises:
        PlanError: It is the run that the bundle was taken from.
        RecordError: A file of the run is damaged.
    """
    about, packed = run.info, opened.run.info
    if (
        about is not None
        and packed is not None
        and (about.run_id, about.started_utc)
        == (
            packed.run_id,
            packed.started_utc,
        )
    ):
        raise PlanError(f"{run.path} is the run that the bundle was taken from", hint="measure again: leave --run out")
    for problem in run.problems:
        raise RecordError(f"{run.path / problem.file}: {problem.what}", hint=f"see all with: harness verify {run.path}")
    offer = registry.workloads.get(opened.record.cell.workload.name)
    return judge(opened, run, aggregate=offer.spec.aggregate if offer is not None else None)
